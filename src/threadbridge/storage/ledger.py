"""The ledger: activities as said, and one delivery per activity and inbox.

Rule: a delivery is written once, in order of its object, and only ever moves from 'waiting' to one of its ends, with
a reason in words; long after its end it goes into the roll-ups (`rollups`), which are read here too. None is written
to a server that the operator, or the owner of the account, has suspended: it is asked here, under everybody who says
something, about the inbox's server (whoever is suspended gets nothing through somebody else's address either). Who
may send it when is decided in `turns`, what is known of its host in `hosts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, and_, bindparam, func, select, update

from threadbridge.storage import blocks, hosts, outages, schema, superseding
from threadbridge.storage.hosts import Taken
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_a, _d, _t = schema.activities, schema.deliveries, schema.delivery_totals

# Lanes, most urgent first: somebody waits for an answer; a new post; a change of an old one; everything in bulk.
LANE_ANSWER, LANE_POST, LANE_CHANGE, LANE_BULK = range(4)
TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Activity:
    """An activity as said: the exact bytes, and the object whose activities must arrive in order."""

    id: int
    account_id: int
    uri: str
    kind: str
    order_key: str
    post_id: int | None
    body: bytes
    created_at: datetime
    trail: str | None = None
    """The id in the log of what made us say it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one attempt. `state` 'waiting' means again at `due_at`."""

    id: int
    lease: int
    host: str
    state: str
    due_at: datetime | None
    status: int | None
    reason: str | None
    host_trouble: str | None = None
    """Set when the host as a whole is to blame (network, 5xx, 429), with the words."""
    held_until: datetime | None = None
    """Our breaker: nothing is sent there before, unless the host speaks first."""
    asked_until: datetime | None = None
    """Their Retry-After: nothing is sent there before."""
    taken: Taken | None = None
    """The kind of signature that was accepted, when it is not the one remembered."""
    sent: bool = True
    """False when nothing went out, which says nothing of the host."""
    quota: tuple[int, datetime] | None = None
    """How many requests the host says that it still takes, and until when."""


_SAY = Prepared(
    lambda insert: insert(_a).on_conflict_do_nothing().returning(_a.c.id),
    ["account_id", "uri", "kind", "order_key", "post_id", "body", "created_at", "fanned_out_at", "trail"],
)
_ADDRESS = Prepared(
    lambda insert: insert(_d).on_conflict_do_nothing(),
    [
        "activity_id", "account_id", "post_id", "inbox", "host", "order_key", "lane", "state", "due_at", "created_at",
    ],
)  # fmt: skip

_SETTLE = Prepared(
    lambda _: (
        update(_d)
        .where(_d.c.id == bindparam("row"), _d.c.lease == bindparam("held"), schema.waiting)
        .values(
            state=bindparam("to"),
            due_at=func.coalesce(bindparam("again", type_=_d.c.due_at.type), _d.c.due_at),
            ended_at=bindparam("ended", type_=_d.c.ended_at.type),
            status=bindparam("answer", type_=Integer),
            reason=bindparam("why"),
            attempts=_d.c.attempts + 1,
            leased_until=None,
        )
    )
)


def add_activity(
    tx: Tx,
    *,
    account_id: int,
    uri: str,
    kind: str,
    order_key: str,
    body: bytes,
    post_id: int | None = None,
    addressed: bool = False,
) -> int | None:
    """Keep an activity; None if this id has been said already. `addressed` when its recipients are written down in
    the same transaction, so that nobody has to look for them."""
    said = _SAY.first(
        tx,
        account_id=account_id,
        uri=uri,
        kind=kind,
        order_key=order_key,
        post_id=post_id,
        body=body,
        created_at=tx.now,
        fanned_out_at=tx.now if addressed else None,
        trail=tx.trail,
    )
    return None if said is None else said.id


def address(tx: Tx, *, activity_id: int, account_id: int, order_key: str, inbox: str, host: str, lane: int) -> None:
    """`add_deliveries` for an activity about no post that goes to one inbox, at once; whoever says it has asked
    already (`delivery.outbox.answer`), since otherwise nothing would be said at all."""
    _ADDRESS.run(
        tx,
        activity_id=activity_id,
        account_id=account_id,
        post_id=None,
        inbox=inbox,
        host=host,
        order_key=order_key,
        lane=lane,
        state="waiting",
        due_at=tx.now,
        created_at=tx.now,
    )
    tx.wake()


def activity(tx: Tx, activity_id: int) -> Activity | None:
    row = tx.execute(select(_a).where(_a.c.id == activity_id)).first()
    if row is None:
        return None
    return _activity(row)


def number_of(tx: Tx, uri: str) -> int:
    """The number of an activity that has been said."""
    number: int = tx.execute(select(_a.c.id).where(_a.c.uri == uri)).scalar_one()
    return number


def by_uri(tx: Tx, uri: str) -> Activity | None:
    """The activity with this id, if it has been said."""
    number = tx.execute(select(_a.c.id).where(_a.c.uri == uri)).scalar_one_or_none()
    return activity(tx, number) if number is not None else None


def activities(tx: Tx, activity_ids: Sequence[int]) -> list[Activity]:
    """The activities with these numbers."""
    rows = tx.execute(select(_a).where(_a.c.id.in_(activity_ids)))
    return [_activity(row) for row in rows]


def _activity(row: Any) -> Activity:
    return Activity(
        row.id, row.account_id, row.uri, row.kind, row.order_key, row.post_id, row.body, row.created_at, row.trail
    )


def mark_fanned_out(tx: Tx, activity_id: int) -> None:
    tx.execute(update(_a).where(_a.c.id == activity_id).values(fanned_out_at=tx.now))


def add_deliveries(
    tx: Tx,
    said: Activity,
    inboxes: Iterable[tuple[str, str]],
    *,
    lane: int,
    due_at: datetime | None = None,
    suspended_too: bool = False,
) -> int:
    """One waiting row per (inbox, host); an inbox that has one for this activity gets no second, and a suspended
    server none, unless it is to hear this too. Returns how many are new."""
    wanted = list(inboxes)
    shut = set() if suspended_too else blocks.suspended_hosts(tx, {host for _, host in wanted}, said.account_id)
    about_a_post = said.post_id is not None
    silent = outages.not_written_for(tx, {host for _, host in wanted}, said.kind, about_a_post=about_a_post)
    if said.kind == "Delete":
        # Whoever may hold a copy and is not told stands in the certificate of the deletion, with the reason.
        _write_untold(tx, said, [one for one in wanted if one[1] in shut], lane, "this server is suspended here")
        quiet = [one for one in wanted if one[1] in silent - shut]
        _write_untold(tx, said, quiet, lane, "this server has not answered for more than 30 days")
    shut |= silent
    rows = [
        {
            "activity_id": said.id,
            "account_id": said.account_id,
            "post_id": said.post_id,
            "inbox": inbox,
            "host": host,
            "order_key": said.order_key,
            "lane": lane,
            "state": "waiting",
            "due_at": due_at or tx.now,
            "created_at": tx.now,
        }
        for inbox, host in wanted
        if host not in shut
    ]
    if rows:
        tx.wake(due_at)
    return _ADDRESS.many(tx, rows)


def _write_untold(tx: Tx, said: Activity, inboxes: Sequence[tuple[str, str]], lane: int, reason: str) -> None:
    for inbox, host in inboxes:
        ended = {
            "activity_id": said.id, "account_id": said.account_id, "post_id": said.post_id, "inbox": inbox,
            "host": host, "order_key": said.order_key, "lane": lane, "state": "given_up", "due_at": tx.now,
            "created_at": tx.now, "ended_at": tx.now, "reason": reason,
        }  # fmt: skip
        tx.execute(tx.insert(_d).values(**ended).on_conflict_do_nothing())


def recipients(tx: Tx, activity_id: int, *, after: str = "", limit: int = 500) -> list[tuple[str, str]]:
    """(inbox, host) of everybody to whom an activity was addressed, ordered by inbox."""
    rows = tx.execute(
        select(_d.c.inbox, _d.c.host)
        .where(_d.c.activity_id == activity_id, _d.c.inbox > after)
        .order_by(_d.c.inbox)
        .limit(limit)
    )
    return [(row.inbox, row.host) for row in rows]


def said_before(tx: Tx, said: Activity) -> list[int]:
    """Ids of the earlier activities about the same post, oldest first."""
    if said.post_id is None:
        return []
    rows = tx.execute(select(_a.c.id).where(_a.c.post_id == said.post_id, _a.c.id < said.id).order_by(_a.c.id))
    return [row.id for row in rows]


def unaddressed_before(tx: Tx, said: Activity) -> list[int]:
    """Ids of the earlier activities that this one must not overtake (about the same thread), and whose recipients
    are not all written down."""
    earlier = and_(_a.c.order_key == said.order_key, _a.c.id < said.id)
    return [row.id for row in tx.execute(select(_a.c.id).where(earlier, _a.c.fanned_out_at.is_(None)))]


# ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────────


def settle(tx: Tx, outcomes: Sequence[Settled]) -> None:
    """Write down a batch of outcomes and what they say of their hosts. What was settled under a lease that somebody
    else holds by now has no effect on its row."""
    if not outcomes:
        return
    # Most have simply arrived: one statement for them, since each one passes the interpreter's lock to and fro.
    alike: dict[tuple[int, int | None, str | None], list[int]] = {}
    for one in outcomes:
        if one.state == "delivered":
            alike.setdefault((one.lease, one.status, one.reason), []).append(one.id)
    for (lease, status, reason), rows in alike.items():
        tx.execute(
            update(_d)
            .where(_d.c.id.in_(sorted(rows)), _d.c.lease == lease, schema.waiting)
            .values(
                state="delivered",
                ended_at=tx.now,
                status=status,
                reason=reason,
                attempts=_d.c.attempts + 1,
                leased_until=None,
            )
        )
    _SETTLE.many(
        tx,
        [
            {
                "row": one.id,
                "held": one.lease,
                "to": one.state,
                "again": one.due_at,
                "ended": None if one.state == "waiting" else tx.now,
                "answer": one.status,
                "why": one.reason,
            }
            for one in outcomes
            if one.state != "delivered"
        ],
    )
    # What was replaced while it was under way is not tried again.
    superseding.end(tx, [one.id for one in outcomes if one.state == "waiting"])
    by_host: dict[str, list[Settled]] = {}
    for outcome in outcomes:
        if outcome.sent:
            by_host.setdefault(outcome.host, []).append(outcome)
    well = {
        host
        for host, theirs in by_host.items()
        if all(outcome.host_trouble is None and outcome.asked_until is None for outcome in theirs)
    }
    took = {one.host for one in outcomes if one.sent and one.state == "delivered"}
    hosts.reached_all(tx, well, took)
    for host, theirs in sorted(by_host.items()):
        if host in well:
            continue
        asked_until = max((outcome.asked_until for outcome in theirs if outcome.asked_until), default=None)
        if any(outcome.host_trouble is None for outcome in theirs):
            hosts.reached(tx, host, took=host in took, asked_until=asked_until)
        else:
            _troubled(tx, host, theirs, asked_until)
    # By name, as above: several workers write the same hosts, and none is to wait for another in a circle.
    for host, quota in sorted({o.host: o.quota for o in outcomes if o.quota}.items()):
        hosts.pace(tx, host, *quota)
    learnt = {o.host: o.taken for o in outcomes if o.taken}
    for host, taken in sorted(learnt.items(), key=lambda item: item[0]):
        hosts.remember_scheme(tx, host, taken)


def _troubled(tx: Tx, host: str, theirs: Sequence[Settled], asked_until: datetime | None) -> None:
    """All of these met with trouble. To be asked for peace is no failure; without a time, that of the schedule."""
    latest = theirs[-1]
    words = latest.host_trouble or ""
    peace = [one.asked_until or (one.due_at if one.status == TOO_MANY else None) for one in theirs]
    if all(peace):
        until = max(until for until in peace if until)
        hosts.asked_for_peace(tx, host, words, until, down=latest.status != TOO_MANY)
    else:
        hosts.in_trouble(tx, host, words, held_until=latest.held_until, asked_until=asked_until)


# ── reading the ledger ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Receipt:
    """Deliveries about one post that ended, or wait, in the same way."""

    kind: str
    state: str
    reason: str | None
    count: int


def receipts(tx: Tx, post_ids: Sequence[int]) -> dict[int, list[Receipt]]:
    """What became of posts: {post id: receipts}, delivered ones first."""
    held: dict[int, list[Receipt]] = {}
    # The great mass has arrived and needs no reason: counted in the index alone.
    arrived = (
        select(_d.c.post_id, _d.c.activity_id, func.count().label("n"))
        .where(_d.c.post_id.in_(list(post_ids)), _d.c.state == "delivered")
        .group_by(_d.c.post_id, _d.c.activity_id)
        .subquery()
    )
    for row in tx.execute(select(arrived, _a.c.kind).join(_a, _a.c.id == arrived.c.activity_id)):
        held.setdefault(row.post_id, []).append(Receipt(row.kind, "delivered", None, row.n))
    rows = tx.execute(
        select(_d.c.post_id, _a.c.kind, _d.c.state, _d.c.reason, func.count().label("n"))
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(_d.c.post_id.in_(list(post_ids)), _d.c.state != "delivered")
        .group_by(_d.c.post_id, _a.c.kind, _d.c.state, _d.c.reason)
        .order_by(func.count().desc())
    )
    for row in rows:
        held.setdefault(row.post_id, []).append(Receipt(row.kind, row.state, row.reason, row.n))
    rolled_up = tx.execute(
        select(_a.c.post_id, _a.c.kind, _t.c.state, _t.c.reason, _t.c.count.label("n"))
        .join(_a, _a.c.id == _t.c.activity_id)
        .where(_a.c.post_id.in_(list(post_ids)))
        .order_by(_t.c.count.desc())
    )
    for row in rolled_up:
        held.setdefault(row.post_id, []).append(Receipt(row.kind, row.state, row.reason or None, row.n))
    return held


def activities_page(
    tx: Tx, account_id: int, *, limit: int, before_id: int | None = None
) -> list[tuple[Activity, dict[str, int]]]:
    """Activities of an account, latest first, each with {state: deliveries}."""
    query = select(_a).where(_a.c.account_id == account_id)
    if before_id is not None:
        query = query.where(_a.c.id < before_id)
    rows = tx.execute(query.order_by(_a.c.id.desc()).limit(limit)).all()
    states: dict[int, dict[str, int]] = {row.id: {} for row in rows}
    about = {row.post_id for row in rows if row.post_id is not None}
    alone = [row.id for row in rows if row.post_id is None]
    # By post, because that index has all it takes; what is about no post went to one inbox.
    for these in (_d.c.post_id.in_(about), _d.c.activity_id.in_(alone)):
        counted = tx.execute(
            select(_d.c.activity_id, _d.c.state, func.count().label("n"))
            .where(these)
            .group_by(_d.c.activity_id, _d.c.state)
        )
        for row in counted:
            if row.activity_id in states:
                states[row.activity_id][row.state] = row.n
    rolled_up = select(_t.c.activity_id, _t.c.state, _t.c.count.label("n")).where(_t.c.activity_id.in_(states))
    for row in tx.execute(rolled_up):
        states[row.activity_id][row.state] = states[row.activity_id].get(row.state, 0) + row.n
    return [(_activity(row), states[row.id]) for row in rows]


def totals(tx: Tx) -> dict[str, int]:
    """{state: deliveries} over everything."""
    found: dict[str, int] = {}
    detailed = select(_d.c.state, func.count().label("n")).group_by(_d.c.state)
    rolled_up = select(_t.c.state, func.sum(_t.c.count).label("n")).group_by(_t.c.state)
    for query in (detailed, rolled_up):
        for row in tx.execute(query):
            found[row.state] = found.get(row.state, 0) + int(row.n)
    return found
