"""What became of one post, server by server: for its owner's page, for scripts, and to try again.

Rule: pages go by the server's name, never by offset, so that ten thousand servers are read fifty at a time. Details
and roll-ups are read as one list. What is tried again is never what a later word has overtaken: a post that is
deleted by now does not come back by a button.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, union, update

from threadbridge.domain import hosts as rules
from threadbridge.storage import blocks, hosts, rollups, schema
from threadbridge.storage.store import Tx

_d, _a, _i, _h, _f, _m = (
    schema.deliveries,
    schema.activities,
    schema.inboxes,
    schema.post_holders,
    schema.followers,
    schema.hosts,
)

SHOWN: dict[str, tuple[str, ...]] = {
    "everything": (),
    "waiting": ("waiting",),
    "problems": ("refused", "gone", "given_up", "parked"),
    "delivered": ("delivered",),
}
"""What a list can show, by the states of deliveries; nothing named is everything. Among the problems is also what
waits after an answer that was none, or for a server that is left alone."""
REST = timedelta(minutes=1)
"""What ended a moment ago is not tried again yet, however often the button is pressed."""
TOGETHER = 500
_RETRIED = ("refused", "gone", "given_up")
_ENDINGS = ("Delete", "Undo")


@dataclass(frozen=True, slots=True)
class Line:
    """Deliveries of one activity to the inboxes of one server that stand alike. `at` is when the last of them ended;
    `next_at` when the first of them is tried (again). Of what went into the roll-ups only kind '', state and count
    are left."""

    kind: str
    state: str
    count: int
    attempts: int = 0
    status: int | None = None
    reason: str | None = None
    at: datetime | None = None
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """What became of a post on one server. `people` are followers who are reached there now; `rests_until` is set
    while something waits and the whole server is left alone; `asked` tells that this is its own wish."""

    host: str
    people: int
    lines: tuple[Line, ...]
    rests_until: datetime | None = None
    asked: bool = False


def servers(
    tx: Tx, account_id: int, post_id: int, *, show: str = "everything", after: str = "", limit: int
) -> list[Server]:
    """Servers that anything about a post was addressed to, by name, behind one."""
    states = SHOWN[show]
    detailed: Select[Any] = select(_d.c.host).where(_d.c.post_id == post_id, _d.c.host > after)
    rolled_up = (
        select(_i.c.host)
        .join(_h, _h.c.inbox_id == _i.c.id)
        .where(_h.c.post_id == post_id, _i.c.host > after)
    )  # fmt: skip
    if states:
        those = _d.c.state.in_(states)
        detailed = detailed.where(or_(those, _has_a_problem(tx)) if show == "problems" else those)
        rolled_up = rolled_up.where(_h.c.outcome.in_([rollups.outcome_of(state) for state in states]))
    # In the database's own order, which need not be Python's.
    names = union(detailed.distinct(), rolled_up.distinct()).subquery()
    page = list(tx.execute(select(names.c.host).order_by(names.c.host).limit(limit)).scalars())
    lines = _lines(tx, post_id, page)
    people = _people(tx, account_id, page)
    waited_for = {host for host in page if any(line.state == "waiting" for line in lines.get(host, ()))}
    found = []
    for host in page:
        standing = hosts.standing(tx, host) if host in waited_for else rules.Standing("closed")
        theirs = tuple(lines.get(host, ()))
        found.append(Server(host, people.get(host, 0), theirs, standing.until, asked=standing.state == "asked"))
    return found


def _has_a_problem(tx: Tx) -> ColumnElement[bool]:
    """It waits, and there is something to say about why."""
    left_alone = select(_m.c.host).where(_m.c.host == _d.c.host, _rests(tx)).exists()
    return and_(schema.waiting, or_(_d.c.reason.is_not(None), left_alone))


def _rests(tx: Tx) -> ColumnElement[bool]:
    # `domain.hosts.standing`, for many at once.
    spent = and_(_m.c.quota <= 0, _m.c.quota_until > tx.now)
    return or_(_m.c.held_until > tx.now, _m.c.asked_until > tx.now, spent)


def _lines(tx: Tx, post_id: int, page: Collection[str]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    detailed = tx.execute(
        select(
            _d.c.host, _d.c.activity_id, _a.c.kind, _d.c.state, _d.c.status, _d.c.reason, func.count().label("n"),
            func.max(_d.c.attempts).label("attempts"), func.max(_d.c.ended_at).label("at"),
            func.min(_d.c.due_at).label("due_at"),
        )
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(_d.c.post_id == post_id, _d.c.host.in_(page))
        .group_by(_d.c.host, _d.c.activity_id, _a.c.kind, _d.c.state, _d.c.status, _d.c.reason)
        .order_by(_d.c.host, _d.c.activity_id, _d.c.state)
    )  # fmt: skip
    for row in detailed:
        waits = row.state == "waiting"
        line = Line(
            row.kind, row.state, row.n, row.attempts, row.status, row.reason,
            at=None if waits else row.at, next_at=row.due_at if waits else None,
        )  # fmt: skip
        found.setdefault(row.host, []).append(line)
    rolled_up = tx.execute(
        select(_i.c.host, _h.c.outcome, func.count().label("n"))
        .join(_h, _h.c.inbox_id == _i.c.id)
        .where(_h.c.post_id == post_id, _i.c.host.in_(page))
        .group_by(_i.c.host, _h.c.outcome)
        .order_by(_i.c.host, _h.c.outcome)
    )
    for row in rolled_up:
        found.setdefault(row.host, []).append(Line("", rollups.OUTCOMES[row.outcome], row.n))
    return found


def _people(tx: Tx, account_id: int, page: Collection[str]) -> dict[str, int]:
    rows = tx.execute(
        select(_f.c.inbox_host, func.count().label("n"))
        .where(_f.c.inbox_host.in_(page), _f.c.account_id == account_id, _f.c.ended_at.is_(None))
        .group_by(_f.c.inbox_host)
    )
    return {row.inbox_host: row.n for row in rows}


# ── trying again ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Prospect:
    """What trying again would do now: at how many servers, how many more are left alone until a time or have asked
    for that, and when the first of them may be asked again."""

    servers: int
    left_alone: int = 0
    until: datetime | None = None


def prospect(tx: Tx, account_id: int, post_id: int, host: str | None) -> Prospect:
    """What `try_again` would meet with about a post, or at one server."""
    wanted = (
        select(_d.c.host)
        .where(
            _d.c.post_id == post_id, _d.c.account_id == account_id, _waits_or_failed(tx),
            *([_d.c.host == host] if host is not None else []),
        )
        .distinct()
        .subquery()
    )  # fmt: skip
    joined = wanted.outerjoin(_m, _m.c.host == wanted.c.host)
    found = tx.execute(select(wanted.c.host, *hosts.MEMORY).select_from(joined)).all()
    ends = [rules.standing(hosts.memory_of(row), tx.now).until for row in found]
    resting = [until for until in ends if until is not None]
    return Prospect(len(found) - len(resting), len(resting), min(resting, default=None))


def try_again(
    tx: Tx, account_id: int, post_id: int, *, host: str | None, after: int, limit: int = TOGETHER
) -> tuple[int, int | None]:
    """Let what ended badly, or waits for a later time, be due now: all of it about a post, or what goes to one
    server, behind a row's number. Returns how many, and the number to go on behind (None: that was all). A server
    that is left alone, or has asked for peace, is so all the same, and a suspended one gets nothing. The tries so far
    stay counted; the schedule and the patience begin anew (`created_at`)."""
    p = schema.posts
    deleted = tx.execute(
        select(p.c.deleted_at).where(p.c.id == post_id, p.c.account_id == account_id)
    ).scalar_one_or_none()
    later, said = _d.alias("later"), _a.alias("said")
    overtaken = (
        select(later.c.id)
        .where(
            later.c.activity_id.in_(select(said.c.id).where(said.c.post_id == post_id, said.c.id > _d.c.activity_id)),
            later.c.inbox == _d.c.inbox,
            later.c.state == "delivered",
        )
        .exists()
    )
    found = tx.execute(
        select(_d.c.id, _d.c.host)
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(
            _d.c.post_id == post_id, _d.c.account_id == account_id, _d.c.id > after,
            _waits_or_failed(tx), ~overtaken, _a.c.replaced_by.is_(None),
            *([_d.c.host == host] if host is not None else []),
            *([_a.c.kind.in_(_ENDINGS)] if deleted is not None else []),
        )
        .order_by(_d.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=_d)
    ).all()  # fmt: skip
    shut = blocks.suspended_hosts(tx, {row.host for row in found}, account_id)
    again = [row.id for row in found if row.host not in shut]
    tx.execute(
        update(_d)
        .where(_d.c.id.in_(again))
        .values(state="waiting", due_at=tx.now, created_at=tx.now, ended_at=None, leased_until=None)
    )
    if again:
        tx.wake()
    return len(again), found[-1].id if len(found) == limit else None


def _waits_or_failed(tx: Tx) -> ColumnElement[bool]:
    unleased = or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now)
    return or_(
        and_(_d.c.state == "waiting", _d.c.due_at > tx.now, unleased),
        and_(_d.c.state.in_(_RETRIED), _d.c.ended_at < tx.now - REST),
    )
