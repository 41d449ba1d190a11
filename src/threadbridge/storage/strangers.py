"""Actors of whom nothing is kept here: their rows go again.

Rule: only what nothing refers to is forgotten, and which tables refer to people is read from the schema itself, so
that a new one is heeded without being named here. Who is met again is fetched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, exists, select

from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

CHUNK = 300
_p, _k = schema.peers, schema.peer_keys
_MET = Prepared(lambda _: select(_p.c.uri).where(_p.c.uri == bindparam("named")))
_referring = [
    key.parent
    for table in schema.metadata.sorted_tables
    for key in table.foreign_keys
    if key.column.table is _p and table is not _k
]


def met(tx: Tx, uri: str) -> bool:
    """Whether there is a row of an actor, also of one that is gone: others may refer to it."""
    return _MET.first(tx, named=uri) is not None


def old(tx: Tx, before: datetime, *, after: str = "") -> list[str]:
    """The next ids, in order, of actors who were fetched last before a time."""
    found = select(_p.c.uri).where(_p.c.uri > after, _p.c.fetched_at < before).order_by(_p.c.uri).limit(CHUNK)
    return list(tx.execute(found).scalars())


def forget(tx: Tx, uris: Sequence[str]) -> int:
    """Forget those of some actors of whom nothing here is; returns how many."""
    # Locked first, looked at afterwards: what is theirs may be coming in just now.
    tx.execute(select(_p.c.uri).where(_p.c.uri.in_(uris)).order_by(_p.c.uri).with_for_update())
    going = list(tx.execute(select(_p.c.uri).where(_p.c.uri.in_(uris), *_unneeded())).scalars())
    if going:
        tx.execute(delete(_k).where(_k.c.peer_uri.in_(going)))
        tx.execute(delete(_p).where(_p.c.uri.in_(going)))
    return len(going)


def _unneeded() -> list[ColumnElement[bool]]:
    f, r = schema.followers, schema.relays
    others = [f.c.carried_to, r.c.actor_uri]
    return [~exists().where(column == _p.c.uri) for column in [*_referring, *others]]
