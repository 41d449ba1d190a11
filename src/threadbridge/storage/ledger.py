"""The ledger: activities as said, one delivery per activity and inbox, and one memory per host.

Rule: a delivery is written once, in order of its object, and only ever moves from 'waiting' to one of its ends, with
a reason in words; nothing is removed. Whoever sends holds a lease with a fencing number, as for jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Integer, and_, bindparam, func, literal, or_, select, update

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_a, _d, _h = schema.activities, schema.deliveries, schema.hosts

# Lanes, most urgent first: somebody waits for an answer; a new post; a change of an old one; everything in bulk.
LANE_ANSWER, LANE_POST, LANE_CHANGE, LANE_BULK = range(4)

HOST_LIMIT = 4
"""Deliveries under way at one host at a time."""
_ACCOUNTS_AT_ONCE = 64


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
    scheme: str | None


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
    scheme: str | None = None
    """The signature scheme that was accepted, when it is not the one remembered."""


def add_activity(
    tx: Tx, *, account_id: int, uri: str, kind: str, order_key: str, body: bytes, post_id: int | None = None
) -> int | None:
    """Keep an activity; None if this id has been said already."""
    return tx.execute(
        tx.insert(_a)
        .values(
            account_id=account_id,
            uri=uri,
            kind=kind,
            order_key=order_key,
            post_id=post_id,
            body=body,
            created_at=tx.now,
        )
        .on_conflict_do_nothing()
        .returning(_a.c.id)
    ).scalar_one_or_none()


def activity(tx: Tx, activity_id: int) -> Activity | None:
    row = tx.execute(select(_a).where(_a.c.id == activity_id)).first()
    if row is None:
        return None
    return Activity(row.id, row.account_id, row.uri, row.kind, row.order_key, row.post_id, row.body, row.created_at)


def bodies(tx: Tx, activity_ids: Sequence[int]) -> dict[int, bytes]:
    """{activity id: its exact bytes}."""
    rows = tx.execute(select(_a.c.id, _a.c.body).where(_a.c.id.in_(activity_ids)))
    return {row.id: row.body for row in rows}


def mark_fanned_out(tx: Tx, activity_id: int) -> None:
    tx.execute(update(_a).where(_a.c.id == activity_id).values(fanned_out_at=tx.now))


def add_deliveries(
    tx: Tx, said: Activity, inboxes: Iterable[tuple[str, str]], *, lane: int, due_at: datetime | None = None
) -> int:
    """One waiting row per (inbox, host); an inbox that has one for this activity gets no second. Returns how many
    are new."""
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
        for inbox, host in inboxes
    ]
    added = 0
    for start in range(0, len(rows), 500):
        added += len(
            tx.execute(
                tx.insert(_d).values(rows[start : start + 500]).on_conflict_do_nothing().returning(_d.c.id)
            ).all()
        )
    return added


def recipients_of_post(tx: Tx, post_id: int, *, after: str = "", limit: int = 500) -> list[tuple[str, str]]:
    """(inbox, host) of everybody to whom something about a post was ever addressed, ordered by inbox."""
    rows = tx.execute(
        select(_d.c.inbox, func.min(_d.c.host).label("host"))
        .where(_d.c.post_id == post_id, _d.c.inbox > after)
        .group_by(_d.c.inbox)
        .order_by(_d.c.inbox)
        .limit(limit)
    )
    return [(row.inbox, row.host) for row in rows]


# ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def anything_due(tx: Tx) -> bool:
    """Whether a delivery could be taken now; read-only, so that an idle worker writes nothing."""
    return (
        tx.execute(
            select(_d.c.id)
            .where(
                _d.c.state == "waiting",
                _d.c.due_at <= tx.now,
                or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now),
            )
            .limit(1)
        ).first()
        is not None
    )


def _accounts_with_work(tx: Tx, after: int) -> list[int]:
    # A loose index scan: one probe of the partial index per account, however many rows wait for each.
    waiting = _d.c.state == "waiting"
    start = select(func.min(_d.c.account_id).label("id")).where(waiting, _d.c.account_id > after)
    walk = start.cte("walk", recursive=True)
    following = select(func.min(_d.c.account_id)).where(waiting, _d.c.account_id > walk.c.id).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.id.is_not(None)))
    rows = tx.execute(select(walk.c.id).where(walk.c.id.is_not(None)).limit(_ACCOUNTS_AT_ONCE))
    return [row.id for row in rows]


def take(
    tx: Tx, *, busy: Mapping[str, int], limit: int, lease_seconds: float, after_account: int = 0
) -> tuple[list[Claimed], int]:
    """Claim up to `limit` due deliveries; returns them and the account to go on after (turns between accounts).

    Each account gets an equal share of the turn, so that one with a million followers delays nobody else. `busy`
    counts what this worker has under way per host. Rows of a host that is held, or at its limit, are put back
    behind the others instead of standing in the way.
    """
    accounts = _accounts_with_work(tx, after_account) or (_accounts_with_work(tx, 0) if after_account else [])
    if not accounts:
        return [], 0
    share = max(1, limit // len(accounts))
    under_way = dict(busy)
    taken: list[int] = []
    put_back: dict[datetime, list[int]] = {}
    for account_id in accounts:
        mine = 0
        for row in _candidates(tx, account_id, share * 3):
            if row.held_until is not None and row.held_until > tx.now:
                put_back.setdefault(row.held_until, []).append(row.id)
            elif under_way.get(row.host, 0) >= HOST_LIMIT:
                put_back.setdefault(tx.now + timedelta(milliseconds=200), []).append(row.id)
            elif mine < share and len(taken) < limit:
                under_way[row.host] = under_way.get(row.host, 0) + 1
                taken.append(row.id)
                mine += 1
    for due_at, ids in put_back.items():
        tx.execute(update(_d).where(_d.c.id.in_(ids)).values(due_at=due_at))
    last = accounts[-1] if len(accounts) == _ACCOUNTS_AT_ONCE else 0
    if not taken:
        return [], last
    leased = tx.execute(
        update(_d)
        .where(_d.c.id.in_(taken))
        .values(leased_until=tx.now + timedelta(seconds=lease_seconds), lease=_d.c.lease + 1)
        .returning(
            _d.c.id, _d.c.lease, _d.c.activity_id, _d.c.account_id, _d.c.inbox, _d.c.host, _d.c.attempts,
            _d.c.created_at,
        )
    ).all()  # fmt: skip
    kinds = _kinds(tx, {row.activity_id for row in leased})
    schemes = _schemes(tx, {row.host for row in leased})
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
            scheme=schemes.get(row.host),
        )
        for row in leased
    ]
    # Whoever claims first sends first: a batch keeps the order in which its rows were written.
    return sorted(claimed, key=lambda row: row.id), last


def _candidates(tx: Tx, account_id: int, limit: int) -> Sequence[Any]:
    earlier = _d.alias("earlier")
    return tx.execute(
        select(_d.c.id, _d.c.host, _h.c.held_until)
        .select_from(_d.outerjoin(_h, _h.c.host == _d.c.host))
        .where(
            _d.c.state == "waiting",
            _d.c.account_id == account_id,
            _d.c.due_at <= tx.now,
            or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now),
            # In order per object: a Delete waits until the Create before it has ended at that inbox.
            ~select(literal(1))
            .select_from(earlier)
            .where(
                earlier.c.order_key == _d.c.order_key,
                earlier.c.inbox == _d.c.inbox,
                earlier.c.id < _d.c.id,
                earlier.c.state == "waiting",
            )
            .exists(),
        )
        .order_by(_d.c.lane, _d.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=_d)
    ).all()


def _kinds(tx: Tx, ids: set[int]) -> dict[int, str]:
    return {row.id: row.kind for row in tx.execute(select(_a.c.id, _a.c.kind).where(_a.c.id.in_(ids)))}


def _schemes(tx: Tx, hosts: set[str]) -> dict[str, str]:
    remembered = tx.now - timedelta(days=30)
    rows = tx.execute(
        select(_h.c.host, _h.c.scheme).where(
            _h.c.host.in_(hosts), _h.c.scheme.is_not(None), _h.c.scheme_at > remembered
        )
    )
    return {row.host: row.scheme for row in rows}


def extend(tx: Tx, held: Sequence[tuple[int, int]], lease_seconds: float) -> None:
    """Keep the leases of (delivery id, lease) pairs still under way."""
    if held:
        tx.execute(
            update(_d)
            .where(_d.c.id == bindparam("row"), _d.c.lease == bindparam("held"))
            .values(leased_until=tx.now + timedelta(seconds=lease_seconds)),
            [{"row": row, "held": lease} for row, lease in held],
        )


# ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────────


def settle(tx: Tx, outcomes: Sequence[Settled]) -> None:
    """Write down a batch of outcomes and what they say of their hosts."""
    if not outcomes:
        return
    tx.execute(
        update(_d)
        .where(_d.c.id == bindparam("row"), _d.c.lease == bindparam("held"), _d.c.state == "waiting")
        .values(
            state=bindparam("to"),
            due_at=func.coalesce(bindparam("again", type_=_d.c.due_at.type), _d.c.due_at),
            ended_at=bindparam("ended", type_=_d.c.ended_at.type),
            status=bindparam("answer", type_=Integer),
            reason=bindparam("why"),
            attempts=_d.c.attempts + 1,
            leased_until=None,
        ),
        [
            {
                "row": outcome.id,
                "held": outcome.lease,
                "to": outcome.state,
                "again": outcome.due_at,
                "ended": None if outcome.state == "waiting" else tx.now,
                "answer": outcome.status,
                "why": outcome.reason,
            }
            for outcome in outcomes
        ],
    )
    latest = {outcome.host: outcome for outcome in outcomes}
    reached = {outcome.host for outcome in outcomes if outcome.host_trouble is None}
    for host, outcome in latest.items():
        if host in reached:
            _host_reached(tx, host)
        else:
            _host_trouble(tx, host, outcome.host_trouble or "", outcome.held_until)
    for host, scheme in {o.host: o.scheme for o in outcomes if o.scheme}.items():
        tx.execute(update(_h).where(_h.c.host == host).values(scheme=scheme, scheme_at=tx.now))


def _host_reached(tx: Tx, host: str) -> None:
    fresh = {
        "failures": 0, "failing_since": None, "held_until": None, "last_delivered_at": tx.now, "last_trouble": None,
    }  # fmt: skip
    tx.execute(tx.insert(_h).values(host=host, **fresh).on_conflict_do_update(index_elements=["host"], set_=fresh))


def _host_trouble(tx: Tx, host: str, words: str, held_until: datetime | None) -> None:
    tx.execute(
        tx.insert(_h)
        .values(host=host, failures=1, failing_since=tx.now, held_until=held_until, last_trouble=words[:500])
        .on_conflict_do_update(
            index_elements=["host"],
            set_={
                "failures": _h.c.failures + 1,
                "failing_since": func.coalesce(_h.c.failing_since, bindparam(None, tx.now, _h.c.failing_since.type)),
                "held_until": held_until,
                "last_trouble": words[:500],
            },
        )
    )


def failures(tx: Tx, hosts: Iterable[str]) -> dict[str, int]:
    """Failures in a row per host."""
    rows = tx.execute(select(_h.c.host, _h.c.failures).where(_h.c.host.in_(list(hosts)), _h.c.failures > 0))
    return {row.host: row.failures for row in rows}


def heard_from(tx: Tx, host: str) -> None:
    """A verified request came from a host: it is awake, so what was held for it may go now."""
    tx.execute(
        tx.insert(_h)
        .values(host=host, last_heard_at=tx.now)
        .on_conflict_do_update(
            index_elements=["host"],
            set_={"last_heard_at": tx.now, "held_until": None},
            # At most one write a minute for a busy host, except to wake it.
            where=or_(
                _h.c.last_heard_at.is_(None),
                _h.c.last_heard_at < tx.now - timedelta(minutes=1),
                _h.c.held_until.is_not(None),
            ),
        )
    )


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
    rows = tx.execute(
        select(_d.c.post_id, _a.c.kind, _d.c.state, _d.c.reason, func.count().label("n"))
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(_d.c.post_id.in_(list(post_ids)))
        .group_by(_d.c.post_id, _a.c.kind, _d.c.state, _d.c.reason)
        .order_by(_d.c.state != "delivered", func.count().desc())
    )
    held: dict[int, list[Receipt]] = {}
    for row in rows:
        held.setdefault(row.post_id, []).append(Receipt(row.kind, row.state, row.reason, row.n))
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
    counted = tx.execute(
        select(_d.c.activity_id, _d.c.state, func.count().label("n"))
        .where(_d.c.activity_id.in_(list(states)))
        .group_by(_d.c.activity_id, _d.c.state)
    )
    for row in counted:
        states[row.activity_id][row.state] = row.n
    return [
        (
            Activity(r.id, r.account_id, r.uri, r.kind, r.order_key, r.post_id, r.body, r.created_at),
            states[r.id],
        )
        for r in rows
    ]


def problems(tx: Tx, account_id: int, *, limit: int = 50) -> list[tuple[str, str, str | None, datetime]]:
    """(host, state, reason, when due or ended) of deliveries that did not arrive (yet), latest first."""
    rows = tx.execute(
        select(_d.c.host, _d.c.state, _d.c.reason, func.coalesce(_d.c.ended_at, _d.c.due_at).label("at"))
        .where(
            _d.c.account_id == account_id,
            or_(_d.c.state.in_(["refused", "gone", "given_up"]), and_(_d.c.state == "waiting", _d.c.attempts > 0)),
        )
        .order_by(_d.c.id.desc())
        .limit(limit)
    )
    return [(row.host, row.state, row.reason, row.at) for row in rows]


def totals(tx: Tx) -> dict[str, int]:
    """{state: deliveries} over everything."""
    rows = tx.execute(select(_d.c.state, func.count().label("n")).group_by(_d.c.state))
    return {row.state: row.n for row in rows}


def inbox_followers(tx: Tx, inbox: str, limit: int = 100) -> list[tuple[int, str]]:
    """(account id, actor id) of present followers whose copies go to an inbox."""
    f = schema.followers
    rows = tx.execute(
        select(f.c.account_id, f.c.peer_uri).where(f.c.inbox == inbox, f.c.ended_at.is_(None)).limit(limit)
    )
    return [(row.account_id, row.peer_uri) for row in rows]
