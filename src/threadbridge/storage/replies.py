"""Answers from the Fediverse to our posts.

Rule: a deleted answer loses its texts and keeps its id; the figure on the post is kept in the transaction that
changes the rows it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, Row, Select, bindparam, func, not_, or_, select, update

from threadbridge.domain.people import Reply
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_CHUNK = 500

_HELD = Prepared(lambda _: select(schema.replies.c.id).where(schema.replies.c.uri == bindparam("held")))
_NEW_REPLY = Prepared(
    lambda insert: insert(schema.replies),
    [
        "account_id", "post_id", "uri", "peer_uri", "url", "html", "published", "updated", "public", "original",
        "received_at", "copy_of",
    ],
)  # fmt: skip
_COUNT_REPLY = Prepared(
    lambda _: (
        update(schema.posts)
        .where(schema.posts.c.id == bindparam("post"))
        .values(replies_count=schema.posts.c.replies_count + bindparam("by", type_=Integer()))
    )
)


def add(tx: Tx, account_id: int, reply: Reply, original: str, *, copy_of: str | None = None) -> bool:
    """Keep an answer, with the address of what a bridge says that it is a copy of; False if its id is known (also as
    deleted: a deleted id is never used again)."""
    if _HELD.first(tx, held=reply.uri) is not None:
        return False
    _NEW_REPLY.run(
        tx,
        account_id=account_id,
        post_id=reply.post_id,
        uri=reply.uri,
        peer_uri=reply.peer_uri,
        url=reply.url,
        html=reply.html,
        published=reply.published,
        updated=reply.updated,
        public=reply.public,
        original=original,
        received_at=tx.now,
        copy_of=copy_of,
    )
    _count_reply(tx, account_id, reply.post_id, +1)
    return True


def told_as(tx: Tx, post_id: int, copy_of: str, *, limit: int = 50) -> list[tuple[str, bool]]:
    """Answers to a post that are, or say that they are, what `copy_of` is the address of: (id, whether it is the
    original, by its id or its page; else it says that it is a copy of it)."""
    a = schema.replies
    same = or_(a.c.copy_of == copy_of, a.c.uri == copy_of, a.c.url == copy_of)
    found = select(a.c.uri, a.c.url).where(a.c.post_id == post_id, a.c.deleted_at.is_(None), same)
    return [(row.uri, copy_of in (row.uri, row.url)) for row in tx.execute(found.order_by(a.c.id).limit(limit))]


def unlooked(tx: Tx, post_id: int, own_base: str, *, limit: int) -> list[str]:
    """Public answers to a post, from other servers, to which nobody has looked for answers yet."""
    a = schema.replies
    rows = tx.execute(
        select(a.c.uri)
        .where(
            a.c.post_id == post_id,
            a.c.public,
            a.c.deleted_at.is_(None),
            a.c.hidden.is_(None),
            a.c.looked_at.is_(None),
            not_(a.c.uri.startswith(own_base + "/", autoescape=True)),
        )
        .order_by(a.c.id)
        .limit(limit)
    )
    return [row.uri for row in rows]


def has_from(tx: Tx, post_id: int, host: str) -> bool:
    """Whether an answer to a post, that is held and shown, is by somebody of this host."""
    a, p = schema.replies, schema.peers
    found = select(a.c.id).join(p, p.c.uri == a.c.peer_uri)
    where = (a.c.post_id == post_id, p.c.host == host, a.c.deleted_at.is_(None), a.c.hidden.is_(None))
    return tx.execute(found.where(*where).limit(1)).first() is not None


def looked(tx: Tx, uri: str) -> None:
    """The answers to an answer were looked for."""
    a = schema.replies
    tx.execute(update(a).where(a.c.uri == uri).values(looked_at=tx.now))


def remove_some_of(tx: Tx, peer_uri: str, *, limit: int) -> int:
    """Delete up to `limit` answers by somebody who is gone; returns how many."""
    a = schema.replies
    rows = tx.execute(select(a.c.uri).where(a.c.peer_uri == peer_uri, a.c.deleted_at.is_(None)).limit(limit)).all()
    for row in rows:
        remove(tx, row.uri, peer_uri)
    return len(rows)


def edit(
    tx: Tx, uri: str, peer_uri: str, *, html: str, updated: datetime | None, public: bool, original: str
) -> bool:
    """Replace the text of an answer by its own author; False if there is none, or a newer form is held. What does not
    say when it was edited is an edit only if it says something else: anybody can have it read again."""
    a = schema.replies
    row = tx.execute(
        select(a.c.id, a.c.account_id, a.c.updated, a.c.html, a.c.public).where(
            a.c.uri == uri, a.c.peer_uri == peer_uri, a.c.deleted_at.is_(None)
        )
    ).first()
    if row is None or (updated is None and (row.html, row.public) == (html, public)):
        return False
    at = updated or tx.now
    if row.updated is not None and row.updated >= at:
        return False
    tx.execute(update(a).where(a.c.id == row.id).values(html=html, updated=at, public=public, original=original))
    touch(tx, row.account_id, figures_only=True)
    return True


def remove(tx: Tx, uri: str, peer_uri: str) -> bool:
    """Delete an answer by its own author; its texts go, its id stays taken."""
    a = schema.replies
    row = tx.execute(
        update(a)
        .where(a.c.uri == uri, a.c.peer_uri == peer_uri, a.c.deleted_at.is_(None))
        .values(deleted_at=tx.now, html="", original="")
        .returning(a.c.account_id, a.c.post_id, a.c.hidden)
    ).first()
    if row is None:
        return False
    if row.hidden is None:
        _count_reply(tx, row.account_id, row.post_id, -1)
    return True


def known(tx: Tx, uri: str) -> bool:
    """Whether an object id is one of the answers held here, deleted or not."""
    return _HELD.first(tx, held=uri) is not None


_PLACE = Prepared(
    lambda _: select(schema.replies.c.account_id, schema.replies.c.post_id, schema.replies.c.hidden).where(
        schema.replies.c.uri == bindparam("uri"), schema.replies.c.deleted_at.is_(None)
    )
)


def target(tx: Tx, uri: str) -> tuple[int, int] | None:
    """(account id, post id) under which an answer stands, so that an answer to it finds its place too."""
    row = _PLACE.first(tx, uri=uri)
    # What hangs below somebody who is suspended here would stand alone.
    return (row.account_id, row.post_id) if row and row.hidden != "suspended" else None


def _count_reply(tx: Tx, account_id: int, post_id: int, by: int) -> None:
    _COUNT_REPLY.run(tx, post=post_id, by=by)
    touch(tx, account_id, figures_only=True)


def _replies() -> Select[Any]:
    a, p = schema.replies, schema.peers
    return (
        select(a, p.c.handle, p.c.name, p.c.url.label("author_url"))
        .join(p, p.c.uri == a.c.peer_uri)
        .where(a.c.deleted_at.is_(None), a.c.hidden.is_(None))
    )


def _reply(row: Row[Any]) -> Reply:
    return Reply(
        uri=row.uri,
        post_id=row.post_id,
        peer_uri=row.peer_uri,
        handle=row.handle,
        name=row.name,
        author_url=row.author_url,
        url=row.url,
        html=row.html,
        published=row.published,
        updated=row.updated,
        public=row.public,
    )


def to_post(tx: Tx, post_id: int, *, limit: int = 100, public_only: bool = True) -> list[Reply]:
    """Answers to one post, oldest first."""
    a = schema.replies
    query = _replies().where(a.c.post_id == post_id)
    if public_only:
        query = query.where(a.c.public)
    return [_reply(row) for row in tx.execute(query.order_by(a.c.published, a.c.id).limit(limit))]


def uris(tx: Tx, post_ids: Sequence[int], limit: int = 50) -> dict[int, list[str]]:
    """{post id: ids of its public answers, oldest first}."""
    a = schema.replies
    place = func.row_number().over(partition_by=a.c.post_id, order_by=(a.c.published, a.c.id)).label("place")
    ranked = (
        select(a.c.post_id, a.c.uri, place)
        .where(a.c.post_id.in_(post_ids), a.c.public, a.c.deleted_at.is_(None), a.c.hidden.is_(None))
        .subquery()
    )
    held: dict[int, list[str]] = {}
    for row in tx.execute(select(ranked).where(ranked.c.place <= limit).order_by(ranked.c.post_id, ranked.c.place)):
        held.setdefault(row.post_id, []).append(row.uri)
    return held


def page(tx: Tx, account_id: int, *, limit: int, before_id: int | None = None) -> list[tuple[int, Reply]]:
    """Answers to all of an account's posts, latest first, with the row number to go on from."""
    a = schema.replies
    query = _replies().where(a.c.account_id == account_id)
    if before_id is not None:
        query = query.where(a.c.id < before_id)
    return [(row.id, _reply(row)) for row in tx.execute(query.order_by(a.c.id.desc()).limit(limit))]
