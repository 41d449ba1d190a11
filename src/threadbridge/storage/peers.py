"""People on other servers: the actors we have met, as their own servers describe them.

Rule: an end is a mark on the row, never its removal.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete, func, select, update

from threadbridge.domain.people import Peer, PeerKey
from threadbridge.storage import followers, mentions, quotes, reactions, replies, requests, schema, votes
from threadbridge.storage.prepared import Prepared
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
        "moved_to": peer.moved_to,
        "fetched_at": tx.now,
        "original": peer.original,
    }
    renewed = {key: value for key, value in values.items() if key != "uri"}
    tx.execute(
        tx.insert(schema.peers)
        .values(**values)
        .on_conflict_do_update(index_elements=["uri"], set_={**renewed, "gone_at": None})
    )
    _keep_keys(tx, peer)


def _keep_keys(tx: Tx, peer: Peer) -> None:
    """The keys that an actor's document lists are its keys, and those that it listed before are not any more. A key
    passes from one actor of a server to another when an account is made anew there: it cannot be both's."""
    k = schema.peer_keys
    held = peer.keys or (PeerKey(peer.key_id, peer.key_pem),)
    tx.execute(delete(k).where(k.c.peer_uri == peer.uri, k.c.key_id.not_in([key.id for key in held])))
    for key in held:
        values = {
            "peer_uri": peer.uri,
            "kind": key.kind,
            "public_pem": key.pem,
            "asserts": key.asserts,
            "fetched_at": tx.now,
        }
        tx.execute(
            tx.insert(k).values(key_id=key.id, **values).on_conflict_do_update(index_elements=["key_id"], set_=values)
        )


_k, _p = schema.peer_keys, schema.peers
_PEER = Prepared(lambda _: select(_p).where(_p.c.uri == bindparam("named"), _p.c.gone_at.is_(None)))
_KNOWN = Prepared(lambda _: select(_p.c.uri).where(_p.c.uri == bindparam("named"), _p.c.gone_at.is_(None)))
_OWNER = Prepared(lambda _: select(_k.c.peer_uri).where(_k.c.key_id == bindparam("key")))
_KEYS = Prepared(
    lambda _: (
        select(_k.c.key_id, _k.c.public_pem, _k.c.asserts)
        .where(_k.c.peer_uri == bindparam("owner"))
        .order_by(_k.c.asserts, _k.c.key_id)
    )
)


def by_uri(tx: Tx, uri: str) -> Peer | None:
    """The actor with this id, if we have met; with the first of its keys that is for requests."""
    return _found_peer(tx, uri)


def by_key(tx: Tx, key_id: str) -> Peer | None:
    """The actor whose key has this id, if we have met; with that key."""
    owner = _OWNER.first(tx, key=key_id)
    return _found_peer(tx, owner.peer_uri, key_id) if owner is not None else None


def _found_peer(tx: Tx, uri: str, key_id: str | None = None) -> Peer | None:
    row = _PEER.first(tx, named=uri)
    if row is None:
        return None
    keys = tuple(PeerKey(held.key_id, held.public_pem, held.asserts) for held in _KEYS.all(tx, owner=uri))
    # Without any when the only one has passed to another actor: met anew, it is fetched again.
    used = next((key for key in keys if key_id in (None, key.id)), PeerKey("", ""))
    return Peer(
        uri=row.uri,
        inbox=row.inbox,
        shared_inbox=row.shared_inbox,
        handle=row.handle,
        name=row.name,
        url=row.url,
        key_id=used.id,
        key_pem=used.pem,
        keys=keys,
        kind=row.kind,
        moved_to=row.moved_to,
        original=row.original,
    )


def known(tx: Tx, uri: str) -> bool:
    """Whether an actor that is not gone is on record: a Delete of anybody else needs no signature check."""
    return _KNOWN.first(tx, named=uri) is not None


_HANDLE = Prepared(lambda _: select(_p.c.handle).where(_p.c.uri == bindparam("named"), _p.c.gone_at.is_(None)))


def handle_of(tx: Tx, uri: str) -> str:
    """The address (`user@host`) of an actor as its server said last; empty if we have not met."""
    row = _HANDLE.first(tx, named=uri)
    return str(row.handle) if row is not None else ""


def uri_of_handle(tx: Tx, handle: str) -> str | None:
    """The id of the actor with this address (`user@host`), if we have met; of several the one heard of last."""
    p = schema.peers
    found = select(p.c.uri).where(func.lower(p.c.handle) == handle.lower(), p.c.gone_at.is_(None))
    return tx.execute(found.order_by(p.c.fetched_at.desc()).limit(1)).scalar_one_or_none()


def moved_at(tx: Tx, uri: str) -> datetime | None:
    """When a Move of an actor was confirmed last."""
    p = schema.peers
    return tx.execute(select(p.c.moved_at).where(p.c.uri == uri)).scalar_one_or_none()


def mark_moved(tx: Tx, uri: str, target: str) -> None:
    """A Move was confirmed."""
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == uri).values(moved_to=target, moved_at=tx.now))


def missing(tx: Tx, uri: str) -> datetime:
    """An actor's document was not found; returns since when that is so."""
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == uri, p.c.missing_since.is_(None)).values(missing_since=tx.now))
    since = tx.execute(select(p.c.missing_since).where(p.c.uri == uri)).scalar_one_or_none()
    return since if since is not None else tx.now


def found_again(tx: Tx, uri: str) -> None:
    """An actor's document is there (again)."""
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == uri, p.c.missing_since.is_not(None)).values(missing_since=None))


def bury(tx: Tx, uri: str, *, limit: int = _CHUNK) -> bool:
    """An actor was deleted over there: all it did here ends with it. True if more is left than `limit` of each kind,
    for `bury_more`."""
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == uri).values(gone_at=tx.now, name="", handle=""))
    requests.withdraw_all(tx, uri)
    return bury_more(tx, uri, before=tx.now, limit=limit)


def bury_more(tx: Tx, uri: str, *, before: datetime, limit: int = _CHUNK) -> bool:
    """End the next `limit` of each kind; follows only if made before a time, since the same id may have come back.
    True if more is left."""
    ended = (
        followers.end_some_of(tx, uri, cause="deleted", before=before, limit=limit),
        reactions.undo_some_of(tx, uri, limit=limit),
        replies.remove_some_of(tx, uri, limit=limit),
        mentions.remove_some_of(tx, uri, limit=limit),
    )
    if any(count >= limit for count in ended):
        return True
    quotes.end_of_peer(tx, uri)
    votes.end_of_peer(tx, uri)
    return False


def conversers(tx: Tx, post_id: int, *, after: str = "", limit: int = _CHUNK) -> list[str]:
    """The next inboxes, in order, of those who liked, boosted, answered or quoted a post, or voted in it: they hold
    copies and hear of its edit and deletion."""
    r, a, p = schema.reactions, schema.replies, schema.peers
    inbox = func.coalesce(p.c.shared_inbox, p.c.inbox)
    found = select(inbox).join(r, r.c.peer_uri == p.c.uri).where(r.c.post_id == post_id, p.c.gone_at.is_(None))
    answered = select(inbox).join(a, a.c.peer_uri == p.c.uri).where(a.c.post_id == post_id, p.c.gone_at.is_(None))
    others = [
        select(inbox).join(t, t.c.peer_uri == p.c.uri).where(t.c.post_id == post_id, p.c.gone_at.is_(None))
        for t in (schema.quotes, schema.votes)
    ]
    everybody = found.union(answered, *others).subquery()
    place = everybody.c[0]
    return list(tx.execute(select(place).where(place > after).order_by(place).limit(limit)).scalars())
