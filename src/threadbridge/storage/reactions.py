"""Likes and boosts of our posts: one per person and kind.

Rule: an end is a mark on the row, never its removal; the figure on the post is kept in the transaction that changes
the rows it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row, Select, Update, bindparam, insert, select, update

from threadbridge.domain.people import Reaction, ReactionKind
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

_CHUNK = 500


_COUNTS = {"like": schema.posts.c.likes_count, "announce": schema.posts.c.shares_count}


# Built once, like `_hearing` below: these run for every reaction, and building them costs more than running them.
_REACTED = select(schema.reactions.c.id, schema.reactions.c.undone_at).where(
    schema.reactions.c.post_id == bindparam("post"),
    schema.reactions.c.kind == bindparam("what"),
    schema.reactions.c.peer_uri == bindparam("peer"),
)
_NEW_REACTION = insert(schema.reactions)
_COUNT_REACTION: dict[str, Update] = {
    kind: update(schema.posts)
    .where(schema.posts.c.id == bindparam("post"))
    .values({column: column + bindparam("by", type_=column.type)})
    for kind, column in _COUNTS.items()
}


def react(tx: Tx, account_id: int, post_id: int, peer_uri: str, kind: ReactionKind, activity_uri: str) -> bool:
    """Count a like or boost, once per person; False if it is counted already."""
    r = schema.reactions
    before = tx.execute(_REACTED, {"post": post_id, "what": kind, "peer": peer_uri}).first()
    if before is not None and before.undone_at is None:
        return False
    if before is None:
        row = {"account_id": account_id, "post_id": post_id, "peer_uri": peer_uri, "kind": kind}
        tx.execute(_NEW_REACTION, {**row, "activity_uri": activity_uri, "at": tx.now})
    else:
        tx.execute(update(r).where(r.c.id == before.id).values(activity_uri=activity_uri, at=tx.now, undone_at=None))
    _count_reaction(tx, account_id, post_id, kind, +1)
    return True


def undo(tx: Tx, post_id: int, kind: ReactionKind, peer_uri: str) -> bool:
    """Take back a like or boost; False if there is none."""
    r = schema.reactions
    account_id = tx.execute(
        update(r)
        .where(r.c.post_id == post_id, r.c.kind == kind, r.c.peer_uri == peer_uri, r.c.undone_at.is_(None))
        .values(undone_at=tx.now)
        .returning(r.c.account_id)
    ).scalar_one_or_none()
    if account_id is None:
        return False
    _count_reaction(tx, account_id, post_id, kind, -1)
    return True


def by_activity(tx: Tx, activity_uri: str, peer_uri: str) -> tuple[int, ReactionKind] | None:
    """(post id, kind) of the like or boost that this activity made."""
    r = schema.reactions
    row = tx.execute(
        select(r.c.post_id, r.c.kind).where(r.c.activity_uri == activity_uri, r.c.peer_uri == peer_uri)
    ).first()
    return (row.post_id, row.kind) if row else None


def _count_reaction(tx: Tx, account_id: int, post_id: int, kind: ReactionKind, by: int) -> None:
    tx.execute(_COUNT_REACTION[kind], {"post": post_id, "by": by})
    touch(tx, account_id, figures_only=True)


def _reactions() -> Select[Any]:
    r, p = schema.reactions, schema.peers
    return select(r, p.c.handle, p.c.name, p.c.url).join(p, p.c.uri == r.c.peer_uri).where(r.c.undone_at.is_(None))


def _reaction(row: Row[Any]) -> Reaction:
    return Reaction(
        kind=row.kind,
        post_id=row.post_id,
        peer_uri=row.peer_uri,
        handle=row.handle,
        name=row.name,
        url=row.url,
        activity_uri=row.activity_uri,
        at=row.at,
    )


def page(
    tx: Tx, account_id: int, *, limit: int, before_id: int | None = None, kind: ReactionKind | None = None
) -> list[tuple[int, Reaction]]:
    """Likes and boosts of all of an account's posts, latest first, with the row number to go on from."""
    r = schema.reactions
    query = _reactions().where(r.c.account_id == account_id)
    if before_id is not None:
        query = query.where(r.c.id < before_id)
    if kind is not None:
        query = query.where(r.c.kind == kind)
    return [(row.id, _reaction(row)) for row in tx.execute(query.order_by(r.c.id.desc()).limit(limit))]


def everyone(tx: Tx, account_id: int) -> Iterator[Reaction]:
    """Every counted like and boost, oldest first, in constant memory (exports)."""
    r = schema.reactions
    last = 0
    while True:
        rows = tx.execute(
            _reactions().where(r.c.account_id == account_id, r.c.id > last).order_by(r.c.id).limit(_CHUNK)
        ).all()
        for row in rows:
            yield _reaction(row)
        if len(rows) < _CHUNK:
            return
        last = rows[-1].id
