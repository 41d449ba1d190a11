"""What would be sent: everything that waits to leave, told in a few lines, and how an operator takes it back.

Rule: nothing here sends anything. What is taken back ends in the ledger with the operator's reason, as every drop
does; nothing vanishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from threadbridge.storage import decisions, schema
from threadbridge.storage.store import Tx

_a, _d, _j = schema.activities, schema.deliveries, schema.jobs

SHOWN_HOSTS = 3
TAKEN_BACK = "taken back by the operator before it left"


@dataclass(frozen=True, slots=True)
class Queued:
    """Deliveries of one account and kind that wait. `tried` of them went out before; `hosts` names the few with most,
    of `servers` in all; `about_since` is the time of the oldest activity among them."""

    account_id: int
    handle: str
    kind: str
    deliveries: int
    tried: int
    servers: int
    hosts: tuple[str, ...]
    about_since: datetime
    waiting_since: datetime


@dataclass(frozen=True, slots=True)
class ToAddress:
    """Activities of one account and kind whose recipients are not written down yet."""

    account_id: int
    handle: str
    kind: str
    activities: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class OwnWork:
    """Jobs of a kind that would ask or tell other servers something."""

    kind: str
    jobs: int
    due: int
    oldest: datetime


def deliveries(tx: Tx, account_id: int | None = None) -> list[Queued]:
    """What waits, most first."""
    whose = () if account_id is None else (_d.c.account_id == account_id,)
    rows = tx.execute(
        select(
            _d.c.account_id, _a.c.kind, _d.c.host, func.count().label("n"),
            func.count().filter(_d.c.attempts > 0).label("tried"),
            func.min(_a.c.created_at).label("said"), func.min(_d.c.created_at).label("since"),
        )
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(schema.waiting, *whose)
        .group_by(_d.c.account_id, _a.c.kind, _d.c.host)
        .order_by(func.count().desc(), _d.c.host)
    )  # fmt: skip
    found: dict[tuple[int, str], list[tuple[str, int, int, datetime, datetime]]] = {}
    for row in rows:
        found.setdefault((row.account_id, row.kind), []).append((row.host, row.n, row.tried, row.said, row.since))
    names = _handles(tx, {number for number, _ in found})
    told = [
        Queued(
            account_id=number,
            handle=names[number],
            kind=kind,
            deliveries=sum(part[1] for part in parts),
            tried=sum(part[2] for part in parts),
            servers=len(parts),
            hosts=tuple(part[0] for part in parts[:SHOWN_HOSTS]),
            about_since=min(part[3] for part in parts),
            waiting_since=min(part[4] for part in parts),
        )
        for (number, kind), parts in found.items()
    ]
    return sorted(told, key=lambda one: (-one.deliveries, one.handle, one.kind))


def to_address(tx: Tx, account_id: int | None = None) -> list[ToAddress]:
    """What is said, and whose recipients are still to be found."""
    whose = () if account_id is None else (_a.c.account_id == account_id,)
    rows = tx.execute(
        select(_a.c.account_id, _a.c.kind, func.count().label("n"), func.min(_a.c.created_at).label("oldest"))
        .where(_a.c.fanned_out_at.is_(None), *whose)
        .group_by(_a.c.account_id, _a.c.kind)
        .order_by(func.count().desc(), _a.c.account_id, _a.c.kind)
    ).all()
    names = _handles(tx, {row.account_id for row in rows})
    return [ToAddress(row.account_id, names[row.account_id], row.kind, row.n, row.oldest) for row in rows]


def own_work(tx: Tx, kinds: Sequence[str]) -> list[OwnWork]:
    """Jobs of these kinds that are still to be done."""
    rows = tx.execute(
        select(
            _j.c.kind, func.count().label("n"), func.count().filter(_j.c.due_at <= tx.now).label("due"),
            func.min(_j.c.created_at).label("oldest"),
        )
        .where(_j.c.kind.in_(kinds), _j.c.failed_at.is_(None))
        .group_by(_j.c.kind)
        .order_by(func.count().desc(), _j.c.kind)
    )  # fmt: skip
    return [OwnWork(row.kind, row.n, row.due, row.oldest) for row in rows]


def take_back(
    tx: Tx, *, account_id: int | None, kind: str | None, said_before: datetime | None, limit: int = 1000
) -> int:
    """End up to `limit` waiting deliveries that nobody has under way, with the reason; returns how many. The owners
    whom it concerns see that it happened."""
    about = _about(account_id, kind, said_before)
    free = and_(schema.waiting, or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now))
    some = (
        select(_d.c.id)
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(free, *about)
        .order_by(_d.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=_d)
    )
    ended = tx.execute(
        update(_d)
        .where(_d.c.id.in_(some))
        # The lease moves on, so that whoever held it before has nothing to say about the row any more.
        .values(state="given_up", ended_at=tx.now, reason=TAKEN_BACK, leased_until=None, lease=_d.c.lease + 1)
        .returning(_d.c.account_id)
    ).all()
    for number in sorted({row.account_id for row in ended}):
        decisions.write_once(tx, "queue", TAKEN_BACK, subject=str(number), host="", account_id=number)
    return len(ended)


def count(
    tx: Tx, *, account_id: int | None = None, kind: str | None = None, said_before: datetime | None = None
) -> int:
    """How many deliveries wait, whatever for, or of those that `take_back` would end."""
    about = _about(account_id, kind, said_before)
    counted = select(func.count()).select_from(_d.join(_a, _a.c.id == _d.c.activity_id) if about else _d)
    return int(tx.execute(counted.where(schema.waiting, *about)).scalar_one())


def _about(account_id: int | None, kind: str | None, said_before: datetime | None) -> list[ColumnElement[bool]]:
    return [
        *(() if kind is None else (_a.c.kind == kind,)),
        *(() if said_before is None else (_a.c.created_at < said_before,)),
        *(() if account_id is None else (_d.c.account_id == account_id,)),
    ]


def _handles(tx: Tx, numbers: set[int]) -> Mapping[int, str]:
    accounts = schema.accounts
    rows = tx.execute(select(accounts.c.id, accounts.c.handle).where(accounts.c.id.in_(numbers)))
    return {row.id: row.handle for row in rows}
