"""What the operator and everybody may see of how things go: the backlog, what was done lately, the hosts.

Rule: whoever does something counts it in the transaction that does it, in rows of its own process; whoever looks
reads a few rows, however much there is. Nobody's name is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import and_, case, delete, func, or_, select

from threadbridge.storage import connections, hosts, schema, turns
from threadbridge.storage.store import Tx
from threadbridge.storage.turns import Backlog

_d, _f, _h, _j = schema.deliveries, schema.figures, schema.hosts, schema.jobs

DELIVER, READ = "deliver", "read"
KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand at one moment."""

    at: datetime
    lanes: dict[int, Backlog]
    jobs: dict[tuple[str, str], int]
    """By (kind, 'waiting' or 'failed')."""
    hosts: dict[str, int]
    """By state (`domain.hosts.State`)."""
    last_hour: dict[str, int]
    """Deliveries by how they ended."""
    last_read: datetime | None
    """When an account was last read successfully."""
    connected: int
    in_trouble: int
    waited_for: dict[str, int] = field(default_factory=dict)
    """Hosts for which something waits that is not due, by why: 'asked' us to wait, have 'trouble', 'refuses', or
    'order' (something goes before it). Of the first `LOOKED_AT` such deliveries."""


LOOKED_AT = 20_000


def count(tx: Tx, process: str, subject: str, outcomes: Iterable[tuple[str, int]]) -> None:
    """Count what was done in this transaction. `process` is a name that no other process has."""
    minute = tx.now.replace(second=0, microsecond=0)
    rows = [
        {"minute": minute, "process": process, "subject": subject, "outcome": outcome, "count": n, "last_at": tx.now}
        for outcome, n in outcomes
        if n
    ]
    if rows:
        adding = tx.insert(_f).values(rows)
        tx.execute(
            adding.on_conflict_do_update(
                index_elements=["minute", "process", "subject", "outcome"],
                set_={"count": _f.c.count + adding.excluded.count, "last_at": adding.excluded.last_at},
            )
        )


def forget(tx: Tx) -> None:
    """Let go of what is older than a day."""
    tx.execute(delete(_f).where(_f.c.minute < tx.now - KEPT))


def standing(tx: Tx) -> Standing:
    """How things stand."""
    return Standing(
        at=tx.now,
        lanes=turns.backlog(tx),
        jobs=_jobs(tx),
        hosts=_hosts(tx),
        last_hour=last_hour(tx),
        last_read=last(tx, READ, "ok"),
        connected=connections.count(tx),
        in_trouble=connections.count_in_trouble(tx),
        waited_for=_waited_for(tx),
    )


def last_hour(tx: Tx) -> dict[str, int]:
    """{how they ended: deliveries} within the last sixty minutes."""
    since = tx.now - timedelta(hours=1)
    rows = tx.execute(
        select(_f.c.outcome, func.sum(_f.c.count).label("n"))
        .where(_f.c.minute >= since, _f.c.subject == DELIVER)
        .group_by(_f.c.outcome)
    )
    return {row.outcome: int(row.n) for row in rows}


def last(tx: Tx, subject: str, outcome: str) -> datetime | None:
    """When this was last done, within a day."""
    found: datetime | None = tx.execute(
        select(func.max(_f.c.last_at)).where(_f.c.subject == subject, _f.c.outcome == outcome)
    ).scalar_one()
    return found


def _jobs(tx: Tx) -> dict[tuple[str, str], int]:
    state = case((_j.c.failed_at.is_(None), "waiting"), else_="failed").label("state")
    rows = tx.execute(select(_j.c.kind, state, func.count().label("n")).group_by(_j.c.kind, state))
    return {(row.kind, row.state): row.n for row in rows}


def _hosts(tx: Tx) -> dict[str, int]:
    # `domain.hosts.standing`, for all of them at once.
    state = case(
        (_h.c.parked_at.is_not(None), "parked"),
        (_h.c.held_until > tx.now, "open"),
        (or_(_h.c.asked_until > tx.now, and_(_h.c.quota <= 0, _h.c.quota_until > tx.now)), "asked"),
        (_h.c.held_until.is_not(None), "probing"),
        else_="closed",
    ).label("state")
    rows = tx.execute(select(state, func.count().label("n")).group_by(state))
    return {row.state: row.n for row in rows}


def _waited_for(tx: Tx) -> dict[str, int]:
    held = (
        select(_d.c.host, _d.c.status)
        .where(schema.waiting, _d.c.lane.in_(turns.LANES), _d.c.due_at > tx.now)
        .limit(LOOKED_AT)
        .subquery()
    )
    no = and_(held.c.status >= 300, held.c.status < 500, held.c.status.not_in(hosts.LATER))
    by_host = select(held.c.host, func.max(case((no, 1), else_=0)).label("no")).group_by(held.c.host).subquery()
    spent = and_(_h.c.quota <= 0, _h.c.quota_until > tx.now)
    ails = or_(_h.c.parked_at.is_not(None), _h.c.held_until.is_not(None), _h.c.failing_since.is_not(None))
    why = case(
        (or_(_h.c.asked_until > tx.now, spent), "asked"), (ails, "trouble"), (by_host.c.no == 1, "refuses"),
        else_="order",
    ).label("why")  # fmt: skip
    joined = by_host.outerjoin(_h, _h.c.host == by_host.c.host)
    rows = tx.execute(select(why, func.count().label("n")).select_from(joined).group_by(why))
    return {row.why: row.n for row in rows}
