"""People on other servers: the actors we have met, as their own servers describe them.

Rule: an end is a mark on the row, never its removal.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update

from threadbridge.domain.people import Peer
from threadbridge.storage import followers, reactions, replies, schema
from threadbridge.storage.store import Tx

_CHUNK = 500


def save(tx: Tx, peer: Peer, host: str) -> None:
    """Remember, or renew, what an actor's own server says of it."""
    values = {
        "uri": peer.uri,
        "host": host,
        "kind": peer.kind,
        "handle": peer.handle,
        "name": peer.name,
        "url": peer.url,
        "inbox": peer.inbox,
        "shared_inbox": peer.shared_inbox,
        "key_id": peer.key_id,
        "key_pem": peer.key_pem,
        "moved_to": peer.moved_to,
        "fetched_at": tx.now,
    }
    renewed = {key: value for key, value in values.items() if key != "uri"}
    p = schema.peers
    # A key passes from one actor of a server to another when an account is made anew there. It cannot be both's.
    tx.execute(
        update(p)
        .where(p.c.key_id == peer.key_id, p.c.uri != peer.uri)
        .values(key_id=func.substr(p.c.uri, 1, 2000) + " had one")
    )
    tx.execute(
        tx.insert(schema.peers)
        .values(**values)
        .on_conflict_do_update(index_elements=["uri"], set_={**renewed, "gone_at": None})
    )


def by_uri(tx: Tx, uri: str) -> Peer | None:
    """The actor with this id, if we have met."""
    return _found_peer(tx, schema.peers.c.uri == uri)


def by_key(tx: Tx, key_id: str) -> Peer | None:
    """The actor whose key has this id, if we have met."""
    return _found_peer(tx, schema.peers.c.key_id == key_id)


def _found_peer(tx: Tx, condition: Any) -> Peer | None:
    row = tx.execute(select(schema.peers).where(condition, schema.peers.c.gone_at.is_(None))).first()
    if row is None:
        return None
    return Peer(
        uri=row.uri,
        inbox=row.inbox,
        shared_inbox=row.shared_inbox,
        handle=row.handle,
        name=row.name,
        url=row.url,
        key_id=row.key_id,
        key_pem=row.key_pem,
        kind=row.kind,
        moved_to=row.moved_to,
    )


def known(tx: Tx, uri: str) -> bool:
    """Whether an actor that is not gone is on record: a Delete of anybody else needs no signature check."""
    p = schema.peers
    return tx.execute(select(p.c.uri).where(p.c.uri == uri, p.c.gone_at.is_(None))).first() is not None


def bury(tx: Tx, uri: str) -> None:
    """An actor was deleted over there: all it did here ends with it."""
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == uri).values(gone_at=tx.now, name="", handle=""))
    f, r, a = schema.followers, schema.reactions, schema.replies
    for row in tx.execute(select(f.c.account_id).where(f.c.peer_uri == uri, f.c.ended_at.is_(None))).all():
        followers.end(tx, row.account_id, uri, cause="deleted")
    rows = tx.execute(select(r.c.post_id, r.c.kind).where(r.c.peer_uri == uri, r.c.undone_at.is_(None))).all()
    for row in rows:
        reactions.undo(tx, row.post_id, row.kind, uri)
    for row in tx.execute(select(a.c.uri).where(a.c.peer_uri == uri, a.c.deleted_at.is_(None))).all():
        replies.remove(tx, row.uri, uri)


def conversers(tx: Tx, post_id: int) -> list[str]:
    """Inboxes of those who liked, boosted or answered a post: they hold copies and hear of its edit and deletion."""
    r, a, p = schema.reactions, schema.replies, schema.peers
    inbox = func.coalesce(p.c.shared_inbox, p.c.inbox)
    found = select(inbox).join(r, r.c.peer_uri == p.c.uri).where(r.c.post_id == post_id, p.c.gone_at.is_(None))
    answered = select(inbox).join(a, a.c.peer_uri == p.c.uri).where(a.c.post_id == post_id, p.c.gone_at.is_(None))
    return [row[0] for row in tx.execute(found.union(answered))]
