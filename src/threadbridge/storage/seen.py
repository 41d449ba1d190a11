"""What has been heard already, and what was heard and had no effect.

Rule: an activity id has its effect once per actor; the unique key decides, so that two workers cannot both be first.
(Per actor: the people of one server would otherwise be at the mercy of whoever uses up ids that others will say.)
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from sqlalchemy import bindparam, delete, select, update

from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

FORGOTTEN_AT_ONCE = 1000

_HEARING = Prepared(
    lambda insert: insert(schema.seen_activities).on_conflict_do_nothing().returning(schema.seen_activities.c.key),
    ["key", "uri", "peer_uri", "outcome", "at"],
)
_HEARD_OF = Prepared(
    lambda _: select(schema.seen_activities.c.key).where(schema.seen_activities.c.key == bindparam("held"))
)
_DROP = Prepared(
    lambda insert: insert(schema.dropped).on_conflict_do_update(
        index_elements=["kind", "reason"],
        set_={
            "times": schema.dropped.c.times + insert(schema.dropped).excluded.times,
            "last_at": insert(schema.dropped).excluded.last_at,
        },
    ),
    ["kind", "reason", "times", "last_at"],
)


def first_hearing(tx: Tx, activity_uri: str, peer_uri: str, outcome: str) -> bool:
    """Write down that an actor said an activity; False if it has been heard before. The unique key decides, so that
    two workers cannot both be first."""
    key = _key(activity_uri, peer_uri)
    return _HEARING.first(tx, key=key, uri=activity_uri, peer_uri=peer_uri, outcome=outcome, at=tx.now) is not None


def _key(activity_uri: str, peer_uri: str) -> str:
    """Neither holds a line break: both are ids."""
    return sha256(f"{activity_uri}\n{peer_uri}".encode()).hexdigest()


def heard_of(tx: Tx, uri: str, peer_uri: str) -> bool:
    """Whether this actor had an id written down as heard (its object deleted before it came)."""
    return _HEARD_OF.first(tx, held=_key(uri, peer_uri)) is not None


def forget(tx: Tx, before: datetime, *, limit: int = FORGOTTEN_AT_ONCE) -> int:
    """Forget some ids heard before a time, and return how many: a replayed request of that age is refused by its
    date. Nobody who writes waits for a day's worth of them to go."""
    s = schema.seen_activities
    some = select(s.c.key).where(s.c.at < before).limit(limit)
    return tx.execute(delete(s).where(s.c.key.in_(some))).rowcount


def set_outcome(tx: Tx, activity_uri: str, peer_uri: str, outcome: str) -> None:
    """What became of an activity that was heard."""
    s = schema.seen_activities
    tx.execute(update(s).where(s.c.key == _key(activity_uri, peer_uri)).values(outcome=outcome))


def count_dropped(tx: Tx, kind: str, reason: str, times: int = 1) -> None:
    """Count an activity that had no effect (or so many of them), with the reason."""
    _DROP.run(tx, kind=kind[:64], reason=reason[:64], times=times, last_at=tx.now)


def dropped(tx: Tx) -> list[tuple[str, str, int]]:
    """(kind, reason, count) of everything that was accepted and had no effect."""
    d = schema.dropped
    rows = tx.execute(select(d.c.kind, d.c.reason, d.c.times).order_by(d.c.kind, d.c.reason))
    return [(row.kind, row.reason, row.times) for row in rows]
