"""Turns: which of the waiting deliveries go next, and who holds them.

Rule: what cannot go now (its host is held back, an earlier activity about the same object has not arrived) is put off
rather than looked at again and again, so that a turn costs the same whatever waits. What became pointless meanwhile
(`superseding`) ends here at the latest. Whoever takes a delivery holds a lease with a fencing number, as for jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, literal_column, or_, select, true, update

from threadbridge.domain import hosts as host_rules
from threadbridge.storage import hosts, schema, superseding
from threadbridge.storage.hosts import Taken
from threadbridge.storage.ledger import LANE_ANSWER, LANE_BULK, LANE_CHANGE, LANE_POST
from threadbridge.storage.store import Tx

_a, _d, _h = schema.activities, schema.deliveries, schema.hosts

HOST_LIMIT = 8
"""Deliveries under way at one host at a time; only one while it has trouble, to see whether that is over."""
LANES = (LANE_ANSWER, LANE_POST, LANE_CHANGE, LANE_BULK)
_WEIGHTS = {LANE_ANSWER: 8, LANE_POST: 4, LANE_CHANGE: 2, LANE_BULK: 1}
"""What is more urgent goes first, but for the share of a turn that each lane has in any case: nothing starves."""
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
    lane: int = LANE_POST
    post_id: int | None = None


Place = Mapping[int, int]
"""Where the turns between accounts go on: {lane: the account that had the last one}."""


def _unleased(tx: Tx) -> ColumnElement[bool]:
    return or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now)


def anything_due(tx: Tx, lanes: Sequence[int] = LANES) -> bool:
    """Whether a delivery might be taken now; read-only, so that an idle worker writes nothing."""
    return bool(_lanes_due(tx, lanes))


def next_due(tx: Tx) -> datetime | None:
    """When the next delivery is due of those that are not due yet."""
    firsts = (
        select(func.min(_d.c.due_at)).where(schema.waiting, _d.c.lane == lane, _d.c.due_at > tx.now).scalar_subquery()
        for lane in LANES
    )
    return min((due_at for due_at in tx.execute(select(*firsts)).one() if due_at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a lane: how much, how much of it is due, and since how many seconds the oldest of that is. The
    figures stop at `COUNTED_MAX`. What is held back (its host rests, something must arrive before) is not due."""

    waiting: int
    due: int
    oldest_due_seconds: float


COUNTED_MAX = 100_000


def backlog(tx: Tx) -> dict[int, Backlog]:
    """{lane: what waits in it}, for every lane: the figure by which one sees whether deliveries keep up. Reads an
    index alone, and no more than `COUNTED_MAX` entries of it per lane and figure, so it may be asked every few
    seconds whatever waits."""
    found = {}
    for lane in LANES:
        all_ = select(_d.c.due_at).where(schema.waiting, _d.c.lane == lane)
        due = all_.where(_d.c.due_at <= tx.now)
        counts = [
            select(func.count()).select_from(rows.limit(COUNTED_MAX).subquery()).scalar_subquery()
            for rows in (all_, due)
        ]
        oldest = select(func.min(_d.c.due_at)).where(schema.waiting, _d.c.lane == lane).scalar_subquery()
        row: Any = tx.execute(select(*counts, oldest)).one()
        age = (tx.now - row[2]).total_seconds() if row[2] is not None else 0.0
        found[lane] = Backlog(row[0], row[1], max(0.0, age))
    return found


def _lanes_due(tx: Tx, lanes: Sequence[int] = LANES) -> list[int]:
    # The first of each lane, which is the first of an index: asked for any row that waits and is due, PostgreSQL 18
    # went through the index of all posts there ever were, since its "skip scan" looked cheap.
    firsts = (
        select(func.min(_d.c.due_at))
        .where(schema.waiting, _d.c.lane == lane, _d.c.due_at <= tx.now, _unleased(tx))
        .scalar_subquery()
        for lane in lanes
    )
    found = tx.execute(select(*firsts)).one()
    return [lane for lane, due_at in zip(lanes, found, strict=True) if due_at is not None]


def _turns(tx: Tx, lane: int, after: int) -> list[int]:
    """The next accounts, by number, for which something is due in a lane."""
    # A loose index scan: a few probes of the index per account, however many rows wait for each.
    of_lane = (schema.waiting, _d.c.lane == lane)
    start = select(func.min(_d.c.account_id).label("id")).where(*of_lane, _d.c.account_id > after)
    walk = start.cte("walk", recursive=True)
    following = select(func.min(_d.c.account_id)).where(*of_lane, _d.c.account_id > walk.c.id).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.id.is_not(None)))
    # The first one, not EXISTS: PostgreSQL would make that a hash of everything that is due.
    first = (
        select(func.min(_d.c.due_at))
        .where(*of_lane, _d.c.account_id == walk.c.id, _d.c.due_at <= tx.now, _unleased(tx))
        .scalar_subquery()
    )
    rows = tx.execute(select(walk.c.id).where(walk.c.id.is_not(None), first.is_not(None)).limit(_ACCOUNTS_AT_ONCE))
    return [row.id for row in rows]


def take(
    tx: Tx,
    *,
    busy: Mapping[str, int],
    limit: int,
    lease_seconds: float,
    after: Place | None = None,
    thorough: bool = True,
    room: Mapping[int, int] | None = None,
) -> tuple[list[Claimed], Place]:
    """Claim up to `limit` due deliveries; returns them and where to go on (turns between accounts).

    More urgent lanes go first, over all accounts, and each lane has its share of the turn (`_WEIGHTS`). Within a lane
    each account gets an equal share, so that one with a million followers delays nobody else. `busy` counts what this
    worker has under way per host; a host gets no more than HOST_LIMIT at a time. `room` says how many more may be
    under way of a lane and those less urgent. Without `thorough` only the head of each account's queue is looked at:
    what stands behind a great many deliveries to one busy host is found by the next thorough turn.
    """
    lanes = _lanes_due(tx)
    if not lanes:
        return [], {}
    claim = _Claim(tx, busy, looks=_LOOKS if thorough else 1)
    rooms, place, total = dict(room or {}), dict(after or {}), sum(_WEIGHTS[lane] for lane in lanes)
    for number, lane in enumerate(lanes):
        before = len(claim.taken)
        promised = sum(limit * _WEIGHTS[later] // total for later in lanes[number + 1 :])
        end = before + min(limit - promised - before, *(rooms.get(which, limit) for which in LANES[: lane + 1]))
        if end > before:
            begun = place.get(lane, 0)
            accounts = _turns(tx, lane, begun) or (_turns(tx, lane, 0) if begun else [])
            claim.of_lane(lane, accounts, end)
            place[lane] = accounts[-1] if len(accounts) == _ACCOUNTS_AT_ONCE else 0
        for which in LANES[: lane + 1]:
            rooms[which] = rooms.get(which, limit) - (len(claim.taken) - before)
    claim.put_off()
    return _leased(tx, claim.taken, lease_seconds), place


class _Claim:
    """What one turn picks, and what it finds that cannot go yet."""

    def __init__(self, tx: Tx, busy: Mapping[str, int], looks: int) -> None:
        self._tx = tx
        self._looks = looks
        self._under_way = dict(busy)
        trouble = hosts.failures(tx, busy)
        self._passed_over = {host for host, count in busy.items() if count >= _room(trouble.get(host))}
        """Hosts that get nothing more in this turn."""
        self._held: dict[str, datetime] = {}
        self._blocked: dict[datetime, list[int]] = {}
        self._seen: set[int] = set()
        self._spent: Counter[str] = Counter()
        """Requests to hosts that count them."""
        self._picked: Counter[tuple[int, int]] = Counter()
        self._pointless: list[int] = []
        self.taken: list[int] = []

    def of_lane(self, lane: int, accounts: Sequence[int], end: int) -> None:
        """Pick from the accounts' deliveries in a lane, while fewer than `end` are taken: an equal share for each,
        then once more for those who had as much, of what the others left."""
        hungry = list(accounts)
        for _ in range(2):
            if not hungry or len(self.taken) >= end:
                break
            share = max(1, (end - len(self.taken)) // len(hungry))
            hungry = [account_id for account_id in hungry if self._of_account(account_id, lane, end, share) >= share]

    def _of_account(self, account_id: int, lane: int, end: int, share: int) -> int:
        before = len(self.taken)
        end, known = min(end, before + share), self._picked[account_id, lane]
        # Again, past the hosts that turned out to stand in the way, and what turned out to be pointless.
        for _ in range(self._looks):
            passed_over = len(self._passed_over)
            hidden = self._passed_over if self._looks > 1 else frozenset()
            rows = _candidates(self._tx, account_id, lane, hidden, known + 2 * share + 16)
            for row in rows:
                if len(self.taken) < end:
                    self._look_at(row)
            ended = superseding.end(self._tx, self._pointless)
            self._pointless.clear()
            if len(self.taken) >= end or (len(self._passed_over) == passed_over and not ended):
                break
        picked = len(self.taken) - before
        self._picked[account_id, lane] += picked
        return picked

    def _look_at(self, row: Any) -> None:
        if row.id in self._seen or (row.host in self._passed_over and row.replaced_by is None):
            return
        self._seen.add(row.id)
        memory = hosts.memory_of(row)
        if row.replaced_by is not None:
            self._pointless.append(row.id)
        elif (rest_until := host_rules.standing(memory, self._tx.now).until) is not None:
            self._held[row.host] = rest_until
            self._passed_over.add(row.host)
        elif row.blocked_until is not None:
            self._blocked.setdefault(max(row.blocked_until, self._tx.now + _SOON), []).append(row.id)
        elif row.held_until is not None and not hosts.begin_probe(self._tx, row.host):
            # Another worker looks at this moment whether it is back.
            self._passed_over.add(row.host)
        else:
            self.taken.append(row.id)
            count = self._under_way[row.host] = self._under_way.get(row.host, 0) + 1
            left = host_rules.left_of_quota(memory, self._tx.now)
            if left is not None:
                self._spent[row.host] += 1
                left -= self._spent[row.host]
            if count >= _room(row.failures, left) or left == 0:
                self._passed_over.add(row.host)

    def put_off(self) -> None:
        """Write down when what could not go is looked at again, and what was spent of quotas."""
        for counting, requests in self._spent.items():
            hosts.spend(self._tx, counting, requests)
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


def _room(failures_in_a_row: int | None, left: int | None = None) -> int:
    return 1 if failures_in_a_row or (left is not None and left < host_rules.FEW_LEFT) else HOST_LIMIT


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
            _d.c.id, _d.c.host, *hosts.MEMORY,
            blocked_until.label("blocked_until"), _a.c.replaced_by,
        )
        .select_from(_d.join(_a, _a.c.id == _d.c.activity_id).outerjoin(_h, _h.c.host == _d.c.host))
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
            _d.c.created_at, _d.c.status, _d.c.lane, _d.c.post_id,
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
            lane=row.lane,
            post_id=row.post_id,
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
