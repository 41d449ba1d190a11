"""What has been heard already, and what was heard and had no effect.

Rule: an activity id has its effect once; the unique key decides, so that two workers cannot both be first.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_CHUNK = 500


def first_hearing(tx: Tx, activity_uri: str, peer_uri: str, outcome: str) -> bool:
    """Write down that an activity arrived; False if it has been heard before. The unique key decides, so that two
    workers cannot both be first."""
    hearing = _hearing(tx.connection.dialect.name)
    row = {"uri": activity_uri, "peer_uri": peer_uri, "outcome": outcome, "at": tx.now}
    return tx.execute(hearing, row).first() is not None


@cache
def _hearing(dialect: str) -> ReturningInsert[Any]:
    seen = schema.seen_activities
    insert_ = postgresql.insert(seen) if dialect == "postgresql" else sqlite.insert(seen)
    return insert_.on_conflict_do_nothing().returning(seen.c.uri)


def heard_of(tx: Tx, uri: str, peer_uri: str) -> bool:
    """Whether this actor had an id written down as heard (its object deleted before it came)."""
    s = schema.seen_activities
    return tx.execute(select(s.c.uri).where(s.c.uri == uri, s.c.peer_uri == peer_uri)).first() is not None


def forget(tx: Tx, before: datetime) -> int:
    """Forget ids heard before a time: a replayed request of that age is refused by its date."""
    s = schema.seen_activities
    return tx.execute(delete(s).where(s.c.at < before)).rowcount


def set_outcome(tx: Tx, activity_uri: str, outcome: str) -> None:
    s = schema.seen_activities
    tx.execute(update(s).where(s.c.uri == activity_uri).values(outcome=outcome))


def count_dropped(tx: Tx, kind: str, reason: str) -> None:
    """Count an activity that had no effect, with the reason."""
    d = schema.dropped
    tx.execute(
        tx.insert(d)
        .values(kind=kind[:64], reason=reason[:64], times=1, last_at=tx.now)
        .on_conflict_do_update(index_elements=["kind", "reason"], set_={"times": d.c.times + 1, "last_at": tx.now})
    )


def dropped(tx: Tx) -> list[tuple[str, str, int]]:
    """(kind, reason, count) of everything that was accepted and had no effect."""
    d = schema.dropped
    rows = tx.execute(select(d.c.kind, d.c.reason, d.c.times).order_by(d.c.kind, d.c.reason))
    return [(row.kind, row.reason, row.times) for row in rows]
