"""Turns: which of the waiting deliveries go next, and who holds them.

A turn, lane by lane: the next accounts for which something is due (`_turns`), the first of what is due for each of
them in one look (`_firsts`), one of each after the other until the lane has its share (`_pick`), their leases.

Rule: what cannot go now (its host is held back, an earlier activity about the same object has not arrived) is put off
rather than looked at again and again, so that a turn costs the same whatever waits; and it is few statements, however
many accounts have something due. What became pointless meanwhile (`superseding`) ends here at the latest. Whoever
takes a delivery holds a lease with a fencing number, as for jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, bindparam, func, literal_column, or_, select, true, update

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
_ACCOUNTS_AT_ONCE = 32
_SPARE = 4
"""So many more of an account are looked at than its share, since some of them may not go."""
_LOOKS = 4
_PUT_BACK = 5000
_SOON = timedelta(milliseconds=200)
_WAITING: ColumnElement[str] = literal_column("'waiting'")
_NEEDED = ("id", "activity_id", "account_id", "inbox", "host", "order_key", "lane", "post_id", "due_at")


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


def _due(d: Any) -> list[ColumnElement[bool]]:
    """Rows of `d` that are due and that nobody holds, in a statement that is made once and given `now`."""
    now = bindparam("now", type_=_d.c.due_at.type)
    return [d.c.due_at <= now, or_(d.c.leased_until.is_(None), d.c.leased_until < now)]


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
    found = tx.execute(_first_due(tuple(lanes)), {"now": tx.now}).one()
    return [lane for lane, due_at in zip(lanes, found, strict=True) if due_at is not None]


@cache
def _first_due(lanes: tuple[int, ...]) -> Select[Any]:
    # The first of each lane, which is the first of an index: asked for any row that waits and is due, PostgreSQL 18
    # went through the index of all posts there ever were, since its "skip scan" looked cheap.
    firsts = (select(func.min(_d.c.due_at)).where(schema.waiting, _d.c.lane == lane, *_due(_d)) for lane in lanes)
    return select(*(first.scalar_subquery() for first in firsts))


def _turns(tx: Tx, lane: int, after: int, limit: int) -> list[int]:
    """The next accounts, by number, for which something is due in a lane; behind the last one the first follows."""
    found = [row.id for row in tx.execute(_NEXT, {"lane": lane, "after": after, "now": tx.now, "limit": limit})]
    if after and len(found) < limit:
        found += [account_id for account_id in _turns(tx, lane, 0, limit - len(found)) if account_id <= after]
    return found


def _next() -> Select[Any]:
    # A loose index scan: a few probes of the index per account, however many rows wait for each.
    of_lane = (schema.waiting, _d.c.lane == bindparam("lane"))
    start = select(func.min(_d.c.account_id).label("id")).where(*of_lane, _d.c.account_id > bindparam("after"))
    walk = start.cte("walk", recursive=True)
    following = select(func.min(_d.c.account_id)).where(*of_lane, _d.c.account_id > walk.c.id).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.id.is_not(None)))
    # The first one, not EXISTS: PostgreSQL would make that a hash of everything that is due.
    first = select(func.min(_d.c.due_at)).where(*of_lane, _d.c.account_id == walk.c.id, *_due(_d)).scalar_subquery()
    return (
        select(walk.c.id).where(walk.c.id.is_not(None), first.is_not(None)).limit(bindparam("limit", type_=Integer))
    )


_NEXT = _next()
_LEASE = (
    update(_d)
    .where(_d.c.id.in_(bindparam("rows", expanding=True)))
    .values(leased_until=bindparam("until"), lease=_d.c.lease + 1)
    .returning(_d.c.id, _d.c.lease, _d.c.attempts, _d.c.created_at, _d.c.status)
)
_PUT_OFF = update(_d).where(_d.c.id == bindparam("row")).values(due_at=bindparam("again"))


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
    turn = _Turn(tx, busy, lease_seconds, thorough=thorough)
    rooms, place, total = dict(room or {}), dict(after or {}), sum(_WEIGHTS[lane] for lane in lanes)
    for number, lane in enumerate(lanes):
        before = len(turn.claimed)
        promised = sum(limit * _WEIGHTS[later] // total for later in lanes[number + 1 :])
        free = min(limit - promised - before, *(rooms.get(which, limit) for which in LANES[: lane + 1]))
        if free > 0:
            at_once = min(free, _ACCOUNTS_AT_ONCE)
            accounts = _turns(tx, lane, place.get(lane, 0), at_once)
            turn.of_lane(lane, accounts, free)
            place[lane] = accounts[-1] if len(accounts) == at_once else 0
        for which in LANES[: lane + 1]:
            rooms[which] = rooms.get(which, limit) - (len(turn.claimed) - before)
    turn.put_off_held()
    taken = hosts.schemes(tx, {row.host for row in turn.claimed})
    # Whoever claims first sends first: a batch keeps the order in which its rows were written.
    return [replace(row, taken=taken.get(row.host)) for row in sorted(turn.claimed, key=lambda row: row.id)], place


class _Turn:
    """One turn: look at the first of each queue, pick what may go, write down what became of all that was seen."""

    def __init__(self, tx: Tx, busy: Mapping[str, int], lease_seconds: float, *, thorough: bool) -> None:
        self._tx = tx
        self._until = tx.now + timedelta(seconds=lease_seconds)
        self._thorough = thorough
        self._under_way = dict(busy)
        trouble = hosts.failures(tx, busy) if busy else {}
        self._passed_over = {host for host, count in busy.items() if count >= _room(trouble.get(host))}
        """Hosts that get nothing more in this turn."""
        self._held: dict[str, datetime] = {}
        self._spent: Counter[str] = Counter()
        """Requests to hosts that count them."""
        self._blocked: dict[int, datetime] = {}
        self._pointless: list[int] = []
        self.claimed: list[Claimed] = []

    def of_lane(self, lane: int, hungry: Sequence[int], free: int) -> None:
        """Claim up to `free` of what is due for these accounts in a lane. What was seen is leased, ended, put off, or
        of a host that gets nothing more: the next look sees what stands behind it."""
        for _ in range(_LOOKS if self._thorough else 1):
            if not hungry or free <= 0:
                break
            each = free // len(hungry) + _SPARE
            queues = self._look(lane, hungry, each)
            picked = self._pick(list(queues.values()), free)
            self._write_down(picked)
            free -= len(picked)
            hungry = [account_id for account_id in hungry if len(queues[account_id]) == each]

    def _look(self, lane: int, accounts: Sequence[int], each: int) -> dict[int, list[Any]]:
        """{account: the first of what is due for it in a lane, `each` at most}. On PostgreSQL they are locked, and
        none of them is locked by another worker."""
        hidden = ["", *sorted(self._passed_over)] if self._thorough else [""]
        given = {"accounts": accounts, "lane": lane, "now": self._tx.now, "hidden": hidden, "each": each}
        queues: dict[int, list[Any]] = {account_id: [] for account_id in accounts}
        for row in self._tx.execute(_firsts(self._tx.connection.dialect.name), given):
            queues[row.account_id].append(row)
        return queues

    def _pick(self, queues: Sequence[Sequence[Any]], free: int) -> list[Any]:
        """One of each queue after the other, again and again: equal shares, and what some leave is for the others."""
        picked: list[Any] = []
        hungry = [iter(queue) for queue in queues]
        while hungry:
            for queue in list(hungry):
                if len(picked) >= free:
                    return picked
                row = next((row for row in queue if self._may_go(row)), None)
                if row is not None:
                    picked.append(row)
                else:
                    hungry.remove(queue)
        return picked

    def _may_go(self, row: Any) -> bool:
        if row.replaced_by is not None:
            self._pointless.append(row.id)
            return False
        if row.host in self._passed_over:
            return False
        memory = hosts.memory_of(row)
        if (rest_until := host_rules.standing(memory, self._tx.now).until) is not None:
            self._held[row.host] = rest_until
            self._passed_over.add(row.host)
            return False
        blocked_until = max((at for at in (row.blocked_until, row.unanswered_until) if at), default=None)
        if blocked_until is not None:
            self._blocked[row.id] = max(blocked_until, self._tx.now + _SOON)
            return False
        if row.held_until is not None and not hosts.begin_probe(self._tx, row.host):
            # Another worker looks at this moment whether it is back.
            self._passed_over.add(row.host)
            return False
        count = self._under_way[row.host] = self._under_way.get(row.host, 0) + 1
        left = host_rules.left_of_quota(memory, self._tx.now)
        if left is not None:
            self._spent[row.host] += 1
            left -= self._spent[row.host]
        if count >= _room(row.failures, left) or left == 0:
            self._passed_over.add(row.host)
        return True

    def _write_down(self, picked: Sequence[Any]) -> None:
        superseding.end(self._tx, self._pointless)
        if self._blocked:
            self._tx.execute(_PUT_OFF, [{"row": row, "again": at} for row, at in self._blocked.items()])
        self._pointless.clear()
        self._blocked.clear()
        if not picked:
            return
        leased = self._tx.execute(_LEASE, {"rows": [row.id for row in picked], "until": self._until})
        seen = {row.id: row for row in picked}
        for lease in leased:
            row = seen[lease.id]
            claimed = Claimed(
                id=row.id, lease=lease.lease, activity_id=row.activity_id, account_id=row.account_id, inbox=row.inbox,
                host=row.host, attempts=lease.attempts, created_at=lease.created_at, kind=row.kind, taken=None,
                status=lease.status, lane=row.lane, post_id=row.post_id,
            )  # fmt: skip
            self.claimed.append(claimed)

    def put_off_held(self) -> None:
        """Write down when what is held back is looked at again, and what was spent of quotas."""
        for counting, requests in self._spent.items():
            hosts.spend(self._tx, counting, requests)
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


@cache
def _firsts(dialect: str) -> Select[Any]:
    account, head, earlier = schema.accounts, _d.alias("head"), _d.alias("earlier")
    firsts = (
        select(*(head.c[name] for name in _NEEDED))
        .where(
            head.c.state == _WAITING,
            head.c.account_id == account.c.id,
            head.c.lane == bindparam("lane"),
            *_due(head),
            head.c.host.not_in(bindparam("hidden", expanding=True)),
        )
        .order_by(head.c.due_at)
        .limit(bindparam("each", type_=Integer))
    )
    # Once per account, by a probe of the index each; SQLite knows no LATERAL, and no locks on rows.
    if dialect == "postgresql":
        due: Any = firsts.with_for_update(skip_locked=True).lateral("due")
        joined = account.join(due, true())
    else:
        due = _d.alias("due")
        joined = account.join(due, due.c.id.in_(firsts.with_only_columns(head.c.id)))
    # In order per object: a Delete waits until the Create before it has ended at that inbox.
    blocked_until = (
        select(func.max(earlier.c.due_at))
        .where(
            earlier.c.order_key == due.c.order_key,
            earlier.c.inbox == due.c.inbox,
            earlier.c.id < due.c.id,
            earlier.c.state == _WAITING,
        )
        .scalar_subquery()
    )
    # Nor does a post overtake the Accept of who is to read it: Mastodon drops what comes from somebody whom nobody
    # there follows yet. Once it was tried it holds up nothing.
    answer, accept = _d.alias("answer"), _a.alias("accept")
    unanswered_until = (
        select(func.max(answer.c.due_at))
        .join(accept, accept.c.id == answer.c.activity_id)
        .where(
            answer.c.state == _WAITING,
            answer.c.lane == LANE_ANSWER,
            answer.c.account_id == due.c.account_id,
            answer.c.host == due.c.host,
            answer.c.id < due.c.id,
            answer.c.attempts == 0,
            accept.c.kind == "Accept",
            due.c.lane != LANE_ANSWER,
        )
        .correlate(due)
        .scalar_subquery()
    )
    return (
        select(
            due.c.id, due.c.activity_id, due.c.account_id, due.c.inbox, due.c.host, due.c.lane, due.c.post_id,
            *hosts.MEMORY, blocked_until.label("blocked_until"),
            unanswered_until.label("unanswered_until"), _a.c.kind, _a.c.replaced_by,
        )
        .select_from(joined.join(_a, _a.c.id == due.c.activity_id).outerjoin(_h, _h.c.host == due.c.host))
        .where(account.c.id.in_(bindparam("accounts", expanding=True)))
        .order_by(due.c.due_at)
    )  # fmt: skip


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
