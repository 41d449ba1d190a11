"""Hosts that stay away: what waits for them too long ends, their followers are parked, and come back with them.

Rule: nobody is taken off for being out of reach. A follower is parked while the row of the host that their copies go
to says so, and by nothing else, so that they come back all at once when it does, and whatever else became of them
meanwhile (an Undo, a block) stays as it is. For a parked host nothing new is written down but what ends or changes
what it holds. All is said in `domain.hosts`; what is asked over the network is in `delivery.tending`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, and_, exists, func, insert, literal, or_, select, update

from threadbridge.domain import hosts as rules
from threadbridge.storage import decisions, hosts, jobs, schema
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

_a, _d, _f, _h, _p = schema.activities, schema.deliveries, schema.followers, schema.hosts, schema.peers
CHUNK = 500


def not_written_for(tx: Tx, some: Collection[str], kind: str, *, about_a_post: bool) -> set[str]:
    """Which of these hosts are parked, so that an activity of this kind is not written down for them."""
    if kind == "Delete" and not about_a_post:
        return set()
    parked = tx.execute(select(_h).where(_h.c.host.in_(sorted(some)), _h.c.parked_at.is_not(None)))
    return {
        row.host
        for row in parked
        if not rules.is_written_for(hosts.memory_of(row), kind, about_a_post=about_a_post, now=tx.now)
    }


def expire(tx: Tx, host: str, *, limit: int = CHUNK) -> bool:
    """End some of what has waited for a host longer than it is held; False when nothing is left to end. Only so many
    at a time are tried there, so that most would otherwise wait for their last attempt for months."""
    lasting = or_(_a.c.kind.in_(rules.LASTING), and_(_a.c.kind == "Update", _a.c.post_id.is_(None)))
    ended = 0
    for which, held_for in ((~lasting, rules.HELD_FOR), (lasting, rules.HELD_LONGER)):
        words = f"; given up after {held_for.days} days"
        trouble = func.coalesce(_d.c.reason, "their server does not answer")
        old = (
            select(_d.c.id)
            .join(_a, _a.c.id == _d.c.activity_id)
            .where(schema.waiting, _d.c.host == host, _d.c.created_at <= tx.now - held_for, which, _unleased(tx))
            .limit(limit)
            .with_for_update(skip_locked=True, of=_d)
        )
        done = update(_d).where(_d.c.id.in_(old), schema.waiting)
        ended += tx.execute(done.values(state="given_up", ended_at=tx.now, reason=trouble + words)).rowcount
    return ended > 0


def _unleased(tx: Tx) -> ColumnElement[bool]:
    return or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now)


def park(tx: Tx, host: str) -> None:
    """Write nothing new for a host from now on; its followers, and the operator, find out why."""
    row = hosts.memory_row(tx, host)
    if row is None or row.parked_at is not None:
        return
    until = rules.next_look(hosts.memory_of(row), tx.now)
    tx.execute(update(_h).where(_h.c.host == host).values(parked_at=tx.now, held_until=until))
    days = (tx.now - (row.failing_since or tx.now)).days
    waiting = followers_behind(tx, host)
    words = f"has not answered for {days} days: nothing new is sent, {waiting} followers wait"
    log.warning("a host is parked", host=host, days=days, followers=waiting, trouble=row.last_trouble)
    decisions.write_once(tx, "host", words, subject=host, host=host)
    c = schema.decisions
    since = row.failing_since or tx.now
    known = select(c.c.id).where(c.c.kind == "host", c.c.subject == host, c.c.account_id.is_not(None), c.c.at > since)
    if tx.execute(known.limit(1)).first() is not None:
        # It had answered a probe meanwhile, and taken nothing: its followers' owners know.
        return
    # Each owner is told of their own, all in one statement: a large server has followers of everybody.
    told = f"followers of {host} wait: it has not answered for {days} days"[:200]
    theirs = (
        select(_f.c.account_id, literal("host"), literal(told), literal(host), literal(host),
               literal(tx.now, schema.decisions.c.at.type))
        .where(_f.c.inbox_host == host, _f.c.ended_at.is_(None)).group_by(_f.c.account_id)
    )  # fmt: skip
    columns = ["account_id", "kind", "reason", "subject", "host", "at"]
    tx.execute(insert(schema.decisions).from_select(columns, theirs))


def answered(tx: Tx, host: str) -> None:
    """A host that was held back answered a probe: what waits for it may go, at first one at a time. Only what it
    takes ends its trouble, so that one which answers and takes nothing is parked again at its next failure."""
    row = hosts.memory_row(tx, host)
    if row is None:
        return
    news = {"probed_at": tx.now, "parked_at": None}
    if row.held_until is not None:
        news["held_until"] = tx.now
    tx.execute(update(_h).where(_h.c.host == host).values(**news))
    if row.parked_at is not None:
        log.info("a parked host answers again", host=host)
        decisions.write(tx, "host", "answers again: its followers get posts again", subject=host, host=host)
    jobs.add(tx, hosts.WAKE, jobs.key_of(host), {"host": host})


def still_away(tx: Tx, host: str, words: str) -> None:
    """A probe found a host as it was."""
    hosts.in_trouble(tx, host, words)
    row = hosts.memory_row(tx, host)
    news = {"probed_at": tx.now}
    if row.parked_at is not None:
        news["held_until"] = rules.next_look(hosts.memory_of(row), tx.now)
    tx.execute(update(_h).where(_h.c.host == host).values(**news))


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def followers_behind(tx: Tx, host: str) -> int:
    """How many follows (of any account) have their copies sent to a host."""
    present = select(func.count()).select_from(_f).where(_f.c.inbox_host == host, _f.c.ended_at.is_(None))
    return int(tx.execute(present).scalar_one())


@dataclass(frozen=True, slots=True)
class Waiting:
    """Followers of an account that wait for their server: how many there, since when, why."""

    host: str
    followers: int
    since: datetime
    words: str


def waiting_followers(tx: Tx, account_id: int) -> list[Waiting]:
    """The followers of an account that are parked, by the host that their copies go to, most first."""
    parked = (
        select(_h.c.host, _h.c.parked_at, _h.c.last_trouble, func.count().label("n"))
        .join(_f, and_(_f.c.inbox_host == _h.c.host, _f.c.ended_at.is_(None), _f.c.account_id == account_id))
        .where(_h.c.parked_at.is_not(None))
        .group_by(_h.c.host, _h.c.parked_at, _h.c.last_trouble)
        .order_by(func.count().desc(), _h.c.host)
    )
    return [Waiting(r.host, r.n, r.parked_at, r.last_trouble or "") for r in tx.execute(parked)]


# ── software ─────────────────────────────────────────────────────────────────────────────────────────────────────

SOFTWARE = "ask_software"
"""The kind of job that asks hosts what they run."""
ASKED_EVERY = timedelta(days=7)


def unasked(tx: Tx, limit: int) -> list[str]:
    """Hosts that got something within a week, or where followers live, and were not asked within that time."""
    due = or_(_h.c.software_asked_at.is_(None), _h.c.software_asked_at <= tx.now - ASKED_EVERY)
    lives = exists().where(_p.c.host == _h.c.host, _f.c.peer_uri == _p.c.uri, _f.c.ended_at.is_(None)).correlate(_h)
    dealt_with = or_(_h.c.last_delivered_at > tx.now - ASKED_EVERY, and_(_h.c.last_delivered_at.is_(None), lives))
    well = and_(_h.c.held_until.is_(None), _h.c.parked_at.is_(None))
    rows = tx.execute(select(_h.c.host).where(due, dealt_with, well).order_by(_h.c.host).limit(limit))
    return [row.host for row in rows]


def runs(tx: Tx, host: str, software: tuple[str, str] | None) -> None:
    """A host was asked what it runs: (name, version); None when it did not say, and what was known stays."""
    said = {"software": software[0], "software_version": software[1]} if software is not None else {}
    tx.execute(update(_h).where(_h.c.host == host).values(software_asked_at=tx.now, **said))


def software_of(tx: Tx, host: str) -> str | None:
    """What a host runs, where it has said so."""
    return tx.execute(select(_h.c.software).where(_h.c.host == host)).scalar_one_or_none()


def an_inbox(tx: Tx, host: str) -> str | None:
    """Some inbox at a host, of a follower or of something that waits: it says how the host is spoken to."""
    for inbox in (
        select(_f.c.inbox).where(_f.c.inbox_host == host, _f.c.ended_at.is_(None)).limit(1),
        select(_d.c.inbox).where(schema.waiting, _d.c.host == host).limit(1),
    ):
        if (found := tx.execute(inbox).scalar_one_or_none()) is not None:
            return str(found)
    return None
