"""Turns: which of the waiting deliveries go next, and who holds them.

Rule: what cannot go now (its host is held back, an earlier activity about the same object has not arrived) is put off
rather than looked at again and again, so that a turn costs the same whatever waits. Whoever takes a delivery holds a
lease with a fencing number, as for jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, literal_column, or_, select, true, update

from threadbridge.storage import hosts, schema
from threadbridge.storage.hosts import Taken
from threadbridge.storage.ledger import LANE_ANSWER, LANE_BULK, LANE_CHANGE, LANE_POST
from threadbridge.storage.store import Tx

_a, _d, _h = schema.activities, schema.deliveries, schema.hosts

HOST_LIMIT = 8
"""Deliveries under way at one host at a time; only one while it has trouble, to see whether that is over."""
_ACCOUNTS_AT_ONCE = 64
_LOOKS = 4
_PUT_BACK = 5000
_SOON = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery taken for sending; `lease` must be given back to settle it."""

    id: int
    lease: int
    activity_id: int
    account_id: int
    inbox: str
    host: str
    attempts: int
    created_at: datetime
    kind: str
    taken: Taken | None
    """The kind of signature that the host is known to accept."""
    status: int | None = None
    """What the attempt before was answered."""


def _unleased(tx: Tx) -> ColumnElement[bool]:
    return or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now)


def anything_due(tx: Tx) -> bool:
    """Whether a delivery might be taken now; read-only, so that an idle worker writes nothing."""
    found = select(_d.c.id).where(schema.waiting, _d.c.due_at <= tx.now, _unleased(tx)).limit(1)
    return tx.execute(found).first() is not None


def _turns(tx: Tx, after: int) -> list[tuple[int, list[int]]]:
    """(account, lanes) of the next accounts, by number, for which something is due."""
    # A loose index scan: a few probes of the index per account, however many rows wait for each.
    start = select(func.min(_d.c.account_id).label("id")).where(schema.waiting, _d.c.account_id > after)
    walk = start.cte("walk", recursive=True)
    following = select(func.min(_d.c.account_id)).where(schema.waiting, _d.c.account_id > walk.c.id).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.id.is_not(None)))
    lanes = [LANE_ANSWER, LANE_POST, LANE_CHANGE, LANE_BULK]
    # The first of each lane, not EXISTS: PostgreSQL would make that a hash of everything that is due.
    first = {
        lane: select(func.min(_d.c.due_at))
        .where(schema.waiting, _d.c.account_id == walk.c.id, _d.c.lane == lane, _d.c.due_at <= tx.now, _unleased(tx))
        .scalar_subquery()
        for lane in lanes
    }
    rows = tx.execute(
        select(walk.c.id, *first.values())
        .where(walk.c.id.is_not(None), or_(*(due_at.is_not(None) for due_at in first.values())))
        .limit(_ACCOUNTS_AT_ONCE)
    )
    return [(row.id, [lane for lane in lanes if row[1 + lane] is not None]) for row in rows]


def take(
    tx: Tx,
    *,
    busy: Mapping[str, int],
    limit: int,
    lease_seconds: float,
    after_account: int = 0,
    thorough: bool = True,
) -> tuple[list[Claimed], int]:
    """Claim up to `limit` due deliveries; returns them and the account to go on after (turns between accounts).

    Each account gets an equal share of the turn, so that one with a million followers delays nobody else. `busy`
    counts what this worker has under way per host; a host gets no more than HOST_LIMIT at a time. Without `thorough`
    only the head of each account's queue is looked at: what stands behind a great many deliveries to one busy host is
    found by the next thorough turn.
    """
    turns = _turns(tx, after_account) or (_turns(tx, 0) if after_account else [])
    if not turns:
        return [], 0
    claim = _Claim(tx, busy, limit, share=max(1, limit // len(turns)), looks=_LOOKS if thorough else 1)
    for account_id, lanes in turns:
        claim.of_account(account_id, lanes)
    claim.put_off()
    last = turns[-1][0] if len(turns) == _ACCOUNTS_AT_ONCE else 0
    return _leased(tx, claim.taken, lease_seconds), last


class _Claim:
    """What one turn picks, and what it finds that cannot go yet."""

    def __init__(self, tx: Tx, busy: Mapping[str, int], limit: int, share: int, looks: int) -> None:
        self._tx = tx
        self._limit = limit
        self._share = share
        self._looks = looks
        self._under_way = dict(busy)
        trouble = hosts.failures(tx, busy)
        self._passed_over = {host for host, count in busy.items() if count >= _room(trouble.get(host))}
        """Hosts that get nothing more in this turn."""
        self._held: dict[str, datetime] = {}
        self._blocked: dict[datetime, list[int]] = {}
        self._seen: set[int] = set()
        self.taken: list[int] = []

    def of_account(self, account_id: int, lanes: Sequence[int]) -> None:
        """Pick an account's share, most urgent lane first."""
        end = min(self._limit, len(self.taken) + self._share)
        for lane in lanes:
            # Again, past the hosts that turned out to stand in the way.
            for _ in range(self._looks):
                passed_over = len(self._passed_over)
                hidden = self._passed_over if self._looks > 1 else frozenset()
                rows = _candidates(self._tx, account_id, lane, hidden, 2 * self._share + 16)
                for row in rows:
                    if len(self.taken) < end:
                        self._look_at(row)
                if len(self.taken) >= end or len(self._passed_over) == passed_over:
                    break

    def _look_at(self, row: Any) -> None:
        rest_until = max((at for at in (row.held_until, row.asked_until) if at), default=None)
        if row.host in self._passed_over or row.id in self._seen:
            return
        self._seen.add(row.id)
        if rest_until is not None and rest_until > self._tx.now:
            self._held[row.host] = rest_until
            self._passed_over.add(row.host)
        elif row.blocked_until is not None:
            self._blocked.setdefault(max(row.blocked_until, self._tx.now + _SOON), []).append(row.id)
        else:
            self.taken.append(row.id)
            count = self._under_way[row.host] = self._under_way.get(row.host, 0) + 1
            if count >= _room(row.failures):
                self._passed_over.add(row.host)

    def put_off(self) -> None:
        """Write down when what could not go is looked at again."""
        for due_at, ids in self._blocked.items():
            self._tx.execute(update(_d).where(_d.c.id.in_(ids)).values(due_at=due_at))
        left = _PUT_BACK
        for host, until in self._held.items():
            rows = (
                select(_d.c.id)
                .where(schema.waiting, _d.c.host == host, _d.c.due_at <= self._tx.now, _unleased(self._tx))
                .limit(max(left, 1))
                .with_for_update(skip_locked=True)
            )
            left -= self._tx.execute(update(_d).where(_d.c.id.in_(rows)).values(due_at=until)).rowcount


def _room(failures_in_a_row: int | None) -> int:
    return 1 if failures_in_a_row else HOST_LIMIT


def _candidates(tx: Tx, account_id: int, lane: int, passed_over: Set[str], limit: int) -> Sequence[Any]:
    earlier = _d.alias("earlier")
    # In order per object: a Delete waits until the Create before it has ended at that inbox.
    blocked_until = (
        select(func.max(earlier.c.due_at))
        .where(
            earlier.c.order_key == _d.c.order_key,
            earlier.c.inbox == _d.c.inbox,
            earlier.c.id < _d.c.id,
            earlier.c.state == literal_column("'waiting'"),
        )
        .scalar_subquery()
    )
    query: Select[Any] = (
        select(
            _d.c.id, _d.c.host, _h.c.failures, _h.c.held_until, _h.c.asked_until,
            blocked_until.label("blocked_until"),
        )
        .select_from(_d.outerjoin(_h, _h.c.host == _d.c.host))
        .where(
            schema.waiting,
            _d.c.account_id == account_id,
            _d.c.lane == lane,
            _d.c.due_at <= tx.now,
            _d.c.host.not_in(sorted(passed_over)) if passed_over else true(),
            _unleased(tx),
        )
        .order_by(_d.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=_d)
    )  # fmt: skip
    return tx.execute(query).all()


def _leased(tx: Tx, ids: Sequence[int], lease_seconds: float) -> list[Claimed]:
    if not ids:
        return []
    leased = tx.execute(
        update(_d)
        .where(_d.c.id.in_(ids))
        .values(leased_until=tx.now + timedelta(seconds=lease_seconds), lease=_d.c.lease + 1)
        .returning(
            _d.c.id, _d.c.lease, _d.c.activity_id, _d.c.account_id, _d.c.inbox, _d.c.host, _d.c.attempts,
            _d.c.created_at, _d.c.status,
        )
    ).all()  # fmt: skip
    kinds = _kinds(tx, {row.activity_id for row in leased})
    schemes = hosts.schemes(tx, {row.host for row in leased})
    claimed = [
        Claimed(
            id=row.id,
            lease=row.lease,
            activity_id=row.activity_id,
            account_id=row.account_id,
            inbox=row.inbox,
            host=row.host,
            attempts=row.attempts,
            created_at=row.created_at,
            kind=kinds[row.activity_id],
            taken=schemes.get(row.host),
            status=row.status,
        )
        for row in leased
    ]
    # Whoever claims first sends first: a batch keeps the order in which its rows were written.
    return sorted(claimed, key=lambda row: row.id)


def _kinds(tx: Tx, ids: set[int]) -> dict[int, str]:
    return {row.id: row.kind for row in tx.execute(select(_a.c.id, _a.c.kind).where(_a.c.id.in_(ids)))}


def extend(tx: Tx, held: Sequence[tuple[int, int]], lease_seconds: float) -> None:
    """Keep the leases of (delivery id, lease) pairs still under way."""
    if held:
        tx.execute(
            update(_d)
            .where(_d.c.id == bindparam("row"), _d.c.lease == bindparam("held"))
            .values(leased_until=tx.now + timedelta(seconds=lease_seconds)),
            [{"row": row, "held": lease} for row, lease in held],
        )


def release(tx: Tx, held: Sequence[tuple[int, int]]) -> None:
    """Let go of (delivery id, lease) pairs that were not carried to their end, so that nobody waits for the leases to
    run out. They are as they were before they were taken."""
    if held:
        tx.execute(
            update(_d)
            .where(_d.c.id == bindparam("row"), _d.c.lease == bindparam("held"), schema.waiting)
            .values(leased_until=None),
            [{"row": row, "held": lease} for row, lease in held],
        )
