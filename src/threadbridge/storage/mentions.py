"""Posts that name our accounts and answer none of their posts.

Rule: a deleted mention loses its texts and keeps its id; one that a rule of ours hides is found by nobody (`parking`
gives it back). One that turns out to answer a post of ours leaves this room
for `replies`, in the transaction that puts it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, Row, bindparam, delete, select, update

from threadbridge.domain.people import Mention
from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_m, _p = schema.mentions, schema.peers
_lives = _m.c.deleted_at.is_(None)
_shown = _lives & _m.c.hidden.is_(None)


@dataclass(frozen=True, slots=True)
class Held:
    """A mention as it is held, with the object as it came."""

    account_id: int
    mention: Mention
    original: str


def add(tx: Tx, account_id: int, mention: Mention, original: str) -> bool:
    """Keep a mention; False if its id is known (also as deleted)."""
    added = tx.execute(
        tx.insert(_m)
        .values(
            account_id=account_id,
            uri=mention.uri,
            peer_uri=mention.peer_uri,
            url=mention.url,
            html=mention.html,
            in_reply_to=mention.in_reply_to,
            published=mention.published,
            updated=mention.updated,
            public=mention.public,
            original=original,
            received_at=tx.now,
        )
        .on_conflict_do_nothing()
    )
    return bool(added.rowcount)


def edit(
    tx: Tx, uri: str, peer_uri: str, *, html: str, updated: datetime | None, public: bool, original: str
) -> bool:
    """Replace the text by its own author; False if there is none, or a newer form is held, or it says the same and
    not when it was edited."""
    at = updated or tx.now
    newer = [_m.c.updated.is_(None) | (_m.c.updated < at)]
    if updated is None:
        newer.append((_m.c.html != html) | (_m.c.public != public))
    changed = tx.execute(
        update(_m)
        .where(_m.c.uri == uri, _m.c.peer_uri == peer_uri, _lives, *newer)
        .values(html=html, updated=at, public=public, original=original)
    )
    return bool(changed.rowcount)


def remove(tx: Tx, uri: str, peer_uri: str) -> bool:
    """Delete by its own author; the texts go, the id stays taken."""
    gone = tx.execute(
        update(_m)
        .where(_m.c.uri == uri, _m.c.peer_uri == peer_uri, _lives)
        .values(deleted_at=tx.now, html="", original="")
    )
    return bool(gone.rowcount)


def remove_some_of(tx: Tx, peer_uri: str, *, limit: int) -> int:
    """Delete up to `limit` mentions by somebody who is gone; returns how many."""
    some = select(_m.c.id).where(_m.c.peer_uri == peer_uri, _lives).limit(limit)
    return tx.execute(update(_m).where(_m.c.id.in_(some)).values(deleted_at=tx.now, html="", original="")).rowcount


def known(tx: Tx, uri: str) -> bool:
    """Whether a post is held as a mention."""
    return tx.execute(select(_m.c.id).where(_m.c.uri == uri, _lives).limit(1)).first() is not None


def held(tx: Tx, uri: str) -> Held | None:
    """A post that is held as a mention; of several accounts' the first."""
    row = tx.execute(_joined().where(_m.c.uri == uri, _shown).order_by(_m.c.id).limit(1)).first()
    return Held(row.account_id, _mention(row), row.original) if row else None


def answering(tx: Tx, uri: str, *, limit: int = 100) -> list[Held]:
    """Mentions that answer this post, oldest first, each once."""
    rows = _ANSWERING.all(tx, uri=uri, most=limit)
    found = {row.uri: Held(row.account_id, _mention(row), row.original) for row in rows}
    return list(found.values())


_ANSWERING = Prepared(
    lambda _: (
        _joined()
        .where(_m.c.in_reply_to == bindparam("uri"), _shown)
        .order_by(_m.c.id)
        .limit(bindparam("most", type_=Integer()))
    )
)
_DROP = Prepared(lambda _: delete(_m).where(_m.c.uri == bindparam("uri"), _m.c.account_id == bindparam("account")))


def drop(tx: Tx, uri: str, account_id: int) -> None:
    """It is held elsewhere now."""
    _DROP.run(tx, uri=uri, account=account_id)


def _joined() -> Any:
    return select(_m, _p.c.handle, _p.c.name, _p.c.url.label("author_url")).join(_p, _p.c.uri == _m.c.peer_uri)


def page(tx: Tx, account_id: int, *, limit: int, before_id: int | None = None) -> list[tuple[int, Mention]]:
    """An account's mentions, latest first, with the row number to go on from."""
    query = _joined().where(_m.c.account_id == account_id, _shown)
    if before_id is not None:
        query = query.where(_m.c.id < before_id)
    return [(row.id, _mention(row)) for row in tx.execute(query.order_by(_m.c.id.desc()).limit(limit))]


def _mention(row: Row[Any]) -> Mention:
    return Mention(
        uri=row.uri,
        peer_uri=row.peer_uri,
        handle=row.handle,
        name=row.name,
        author_url=row.author_url,
        url=row.url,
        html=row.html,
        in_reply_to=row.in_reply_to,
        published=row.published,
        updated=row.updated,
        public=row.public,
    )
