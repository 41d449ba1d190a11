"""Likes and boosts of our posts: one per actor, kind and emoji; counted once per person.

Rule: an end is a mark on the row, never its removal; the figure on the post is kept in the transaction that changes
the rows it counts.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Row, Select, bindparam, select, update

from threadbridge.domain.people import Reaction, ReactionKind
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_CHUNK = 500


_COUNTS = {"like": schema.posts.c.likes_count, "announce": schema.posts.c.shares_count}


_REACTED = Prepared(
    lambda _: select(schema.reactions.c.id, schema.reactions.c.emoji, schema.reactions.c.undone_at).where(
        schema.reactions.c.post_id == bindparam("post"),
        schema.reactions.c.kind == bindparam("what"),
        schema.reactions.c.peer_uri == bindparam("peer"),
    )
)
_COUNTED = Prepared(
    lambda _: (
        select(schema.reactions.c.id)
        .where(
            schema.reactions.c.post_id == bindparam("post"),
            schema.reactions.c.kind == bindparam("what"),
            schema.reactions.c.person == bindparam("who"),
            schema.reactions.c.undone_at.is_(None),
        )
        .limit(1)
    )
)
_NEW_REACTION = Prepared(
    lambda insert: insert(schema.reactions),
    ["account_id", "post_id", "peer_uri", "kind", "activity_uri", "at", "emoji", "person"],
)


def _counting(column: Column[int]) -> Prepared:
    return Prepared(
        lambda _: (
            update(schema.posts)
            .where(schema.posts.c.id == bindparam("post"))
            .values({column: column + bindparam("by", type_=column.type)})
        )
    )


_COUNT_REACTION = {kind: _counting(column) for kind, column in _COUNTS.items()}


def react(
    tx: Tx,
    account_id: int,
    post_id: int,
    peer_uri: str,
    kind: ReactionKind,
    activity_uri: str,
    *,
    emoji: str = "",
    person: str | None = None,
) -> bool:
    """Keep a like or boost; False if it is held already. `person` is whom a bridge says that the actor stands for:
    somebody who likes through two bridges, or with several emoji, counts once."""
    r = schema.reactions
    own = _REACTED.all(tx, post=post_id, what=kind, peer=peer_uri)
    before = next((row for row in own if row.emoji == emoji), None)
    if before is not None and before.undone_at is None:
        return False
    who = person or peer_uri
    counted = any(row.undone_at is None for row in own) or _is_counted(tx, post_id, kind, who)
    if before is None:
        row = {"account_id": account_id, "post_id": post_id, "peer_uri": peer_uri, "kind": kind, "emoji": emoji}
        _NEW_REACTION.run(tx, **row, activity_uri=activity_uri, at=tx.now, person=who)
    else:
        tx.execute(
            update(r)
            .where(r.c.id == before.id)
            .values(activity_uri=activity_uri, at=tx.now, undone_at=None, parked=None, person=who)
        )
    if not counted:
        _count_reaction(tx, account_id, post_id, kind, +1)
    return True


def _is_counted(tx: Tx, post_id: int, kind: ReactionKind, person: str) -> bool:
    return _COUNTED.first(tx, post=post_id, what=kind, who=person) is not None


def undo(tx: Tx, post_id: int, kind: ReactionKind, peer_uri: str, *, emoji: str | None = None) -> bool:
    """Take back a like or boost, or (None) all of this kind by this actor; False if there is none."""
    r = schema.reactions
    which = [r.c.post_id == post_id, r.c.kind == kind, r.c.peer_uri == peer_uri, r.c.undone_at.is_(None)]
    if emoji is not None:
        which.append(r.c.emoji == emoji)
    undone = tx.execute(update(r).where(*which).values(undone_at=tx.now).returning(r.c.account_id, r.c.person)).all()
    # What a rule of ours has put aside does not come back after its maker took it back.
    aside = [*which[:3], *which[4:], r.c.parked.is_not(None)]
    if tx.execute(update(r).where(*aside).values(parked=None)).rowcount and not undone:
        return True
    for account_id, person in dict.fromkeys((row.account_id, row.person) for row in undone):
        if not _is_counted(tx, post_id, kind, person):
            _count_reaction(tx, account_id, post_id, kind, -1)
    return bool(undone)


def undo_some_of(tx: Tx, peer_uri: str, *, limit: int) -> int:
    """Take back up to `limit` reactions of somebody who is gone; returns how many posts were reacted to."""
    r = schema.reactions
    rows = tx.execute(
        select(r.c.post_id, r.c.kind).where(r.c.peer_uri == peer_uri, r.c.undone_at.is_(None)).limit(limit)
    ).all()
    for post_id, kind in dict.fromkeys((row.post_id, row.kind) for row in rows):
        undo(tx, post_id, kind, peer_uri)
    return len(rows)


def by_activity(tx: Tx, activity_uri: str, peer_uri: str) -> tuple[int, ReactionKind, str] | None:
    """(post id, kind, emoji) of the like or boost that this activity made."""
    r = schema.reactions
    row = tx.execute(
        select(r.c.post_id, r.c.kind, r.c.emoji).where(r.c.activity_uri == activity_uri, r.c.peer_uri == peer_uri)
    ).first()
    return (row.post_id, row.kind, row.emoji) if row else None


def _count_reaction(tx: Tx, account_id: int, post_id: int, kind: ReactionKind, by: int) -> None:
    _COUNT_REACTION[kind].run(tx, post=post_id, by=by)
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
        emoji=row.emoji,
    )


def said_after(tx: Tx, post_id: int, kind: ReactionKind, after_id: int, *, limit: int) -> list[tuple[int, str]]:
    """(row number, activity id) of those that count for a post, one for each person, in the order in which they
    came."""
    r, former = schema.reactions, schema.reactions.alias("former")
    same = (former.c.post_id == r.c.post_id, former.c.kind == r.c.kind, former.c.person == r.c.person)
    earlier = select(former.c.id).where(*same, former.c.undone_at.is_(None), former.c.id < r.c.id).exists()
    query = select(r.c.id, r.c.activity_uri).where(
        r.c.post_id == post_id, r.c.kind == kind, r.c.undone_at.is_(None), r.c.id > after_id, ~earlier
    )
    return [(row.id, row.activity_uri) for row in tx.execute(query.order_by(r.c.id).limit(limit))]


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
