"""One memory per inbox host: its trouble, the signature scheme it takes, when we last heard of each other.

Rule: a host that is held back (our breaker after failures in a row, their Retry-After) gets nothing; when its time is
over, or when it speaks, one delivery goes to see whether it is back (`begin_probe`: one, however many workers there
are), and only when that has arrived may everything go that waited for it. What it asked us itself to keep back stays
back. What a row comes to is decided in `domain.hosts`; what becomes of hosts that stay away, in `outages`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Insert, and_, bindparam, case, delete, exists, func, or_, select, update

from threadbridge.domain import hosts as rules
from threadbridge.domain.hosts import Memory
from threadbridge.storage import decisions, jobs, schema
from threadbridge.storage.prepared import InsertInto, Prepared
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

_d, _h = schema.deliveries, schema.hosts

WAKE = "wake"
"""The kind of job that lets everything go that waited for a host; its key is made of the host."""
TEND = "tend_host"
"""The kind of job that looks after a host that does not answer; its key is made of the host."""
TEND_FIRST = timedelta(hours=6)
KEPT = 50_000
"""Rows of hosts to which nothing ties us. Above that the ones longest without a sign of life are forgotten."""
_FORGOTTEN_AT_ONCE = 1000
_TROUBLES_SHOWN = 5
_SCHEME_FOR = timedelta(days=30)
LATER = (408, 425, 429)
"""Statuses below 500 that say nothing of the delivery, only of the host (`delivery.retry` is the table of them)."""
_KNOWN_FOR = timedelta(days=90)


def _well(insert: InsertInto) -> Insert:
    given = insert(_h)
    return given.on_conflict_do_update(
        index_elements=["host"], set_={"last_delivered_at": given.excluded.last_delivered_at}
    )


_WELL = Prepared(_well, ["host", "failures", "last_delivered_at"])


def reached(tx: Tx, host: str, *, took: bool = True, asked_until: datetime | None = None) -> None:
    """A host has taken (`took`), or refused, a delivery: it is there. Its trouble is over."""
    before = tx.execute(select(_h.c.held_until, _h.c.parked_at, _h.c.failing_since).where(_h.c.host == host)).first()
    if before is not None and before.held_until is not None:
        _wake(tx, host)
    if before is not None and before.parked_at is not None:
        since = before.failing_since or before.parked_at
        decisions.write(
            tx, "host", f"takes deliveries again, after trouble since {since:%Y-%m-%d}",
            subject=host, host=host,
        )  # fmt: skip
    fresh = {
        "failures": 0,
        "failing_since": None,
        "held_until": None,
        "parked_at": None,
        "last_trouble": None,
        **({"last_delivered_at": tx.now} if took else {}),
        **({"asked_until": asked_until} if asked_until else {}),
    }
    tx.execute(tx.insert(_h).values(host=host, **fresh).on_conflict_do_update(index_elements=["host"], set_=fresh))


def reached_all(tx: Tx, some: Collection[str], took: Collection[str]) -> None:
    """`reached` for the hosts of a whole batch, those among them that have taken something. Nearly all were well
    before, and are written down once a minute."""
    names = sorted(some)  # several workers write them in the same order, so that none waits for the other in a circle
    columns = (
        _h.c.host,
        _h.c.failures,
        _h.c.failing_since,
        _h.c.held_until,
        _h.c.last_trouble,
        _h.c.last_delivered_at,
    )
    held = {row.host: row for row in tx.execute(select(*columns).where(_h.c.host.in_(names)))} if names else {}
    stale = tx.now - timedelta(minutes=1)
    fresh = []
    for host in names:
        row = held.get(host)
        if row is not None and (row.failures or row.failing_since or row.held_until or row.last_trouble):
            reached(tx, host, took=host in took)
        elif host not in took:
            if row is None:
                known(tx, host)
        elif row is None or row.last_delivered_at is None or not stale < row.last_delivered_at <= tx.now:
            fresh.append({"host": host, "failures": 0, "last_delivered_at": tx.now})
    _WELL.many(tx, fresh)


def in_trouble(
    tx: Tx, host: str, words: str, *, held_until: datetime | None = None, asked_until: datetime | None = None
) -> None:
    """A host could not be reached or asked to be left alone: one failure more in a row, with its reason."""
    before = memory_row(tx, host)
    if before is None or before.failing_since is None:
        # Whatever becomes of it: what waits too long ends, and its followers do not wait for ever.
        jobs.add(tx, TEND, jobs.key_of(host), {"host": host}, due_at=tx.now + TEND_FIRST)
    elif rules.is_to_be_parked(memory_of(before), tx.now):
        jobs.add(tx, TEND, jobs.key_of(host), {"host": host})
    elif before.parked_at is not None:
        held_until = max(held_until or tx.now, rules.next_look(memory_of(before), tx.now))
    # One answer does not shorten what another one has set: several may have been under way.
    holds = {
        column.name: case((column > until, column), else_=bindparam(None, until, column.type))
        for column, until in ((_h.c.held_until, held_until), (_h.c.asked_until, asked_until))
        if until is not None
    }
    tx.execute(
        tx.insert(_h)
        .values(
            host=host, failures=1, failing_since=tx.now, held_until=held_until, asked_until=asked_until,
            last_trouble=words[:500], last_failed_at=tx.now, troubles=_troubles(None, tx.now, words),
        )
        .on_conflict_do_update(
            index_elements=["host"],
            set_={
                "failures": _h.c.failures + 1,
                "failing_since": func.coalesce(_h.c.failing_since, bindparam(None, tx.now, _h.c.failing_since.type)),
                "last_trouble": words[:500],
                "last_failed_at": tx.now,
                "troubles": _troubles(before, tx.now, words),
                **holds,
            },
        )
    )  # fmt: skip


def asked_for_peace(tx: Tx, host: str, words: str, until: datetime, *, down: bool) -> None:
    """A host asked to be left alone until a time. That is no failure: its breaker stays as it is. `down`: it is not
    well (503), and may stay so for as long as any other that takes nothing."""
    before = memory_row(tx, host)
    trouble: dict[str, Any] = {"asked_until": until, "last_trouble": words[:500]}
    if down:
        trouble |= {"failing_since": tx.now, "last_failed_at": tx.now}
    jobs.add(tx, TEND, jobs.key_of(host), {"host": host}, due_at=tx.now + TEND_FIRST)
    news = {
        **trouble,
        "asked_until": case((_h.c.asked_until > until, _h.c.asked_until), else_=bindparam(None, until, _MOMENT)),
        "troubles": _troubles(before, tx.now, words),
    }
    if down:
        news["failing_since"] = func.coalesce(_h.c.failing_since, bindparam(None, tx.now, _MOMENT))
    given = tx.insert(_h).values(host=host, troubles=_troubles(None, tx.now, words), **trouble)
    tx.execute(given.on_conflict_do_update(index_elements=["host"], set_=news))


_MOMENT = _h.c.asked_until.type


def memory_row(tx: Tx, host: str) -> Any:
    """All that is written down of a host, as it stands there; None when there is nothing."""
    return tx.execute(select(_h).where(_h.c.host == host)).first()


MEMORY = (
    _h.c.failures, _h.c.failing_since, _h.c.held_until, _h.c.asked_until, _h.c.parked_at, _h.c.quota,
    _h.c.quota_until,
)  # fmt: skip
"""The columns that `memory_of` needs."""


def memory_of(row: Any) -> Memory:
    """What of a row bears on whether its host gets anything; all is well where there is none (an outer join)."""
    told = (row.failing_since, row.held_until, row.asked_until, row.parked_at, row.quota, row.quota_until)
    return Memory(row.failures or 0, *told)


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error of a host: the last time, how often in a row, its words."""

    at: datetime
    times: int
    words: str


def troubles(row: Any) -> list[Trouble]:
    """The last few different errors of a host, latest first."""
    found = json.loads(row.troubles) if row.troubles else []
    return [Trouble(datetime.fromtimestamp(at, UTC), times, words) for at, times, words in found]


def _troubles(before: Any, now: datetime, words: str) -> str:
    told = json.loads(before.troubles) if before is not None and before.troubles else []
    latest = [int(now.timestamp()), 1, words[:200]]
    if told and told[0][2] == latest[2]:
        latest[1] = told.pop(0)[1] + 1
    return json.dumps([latest, *told][:_TROUBLES_SHOWN])


# ── its pace ─────────────────────────────────────────────────────────────────────────────────────────────────────


def pace(tx: Tx, host: str, left: int, until: datetime) -> None:
    """A host said how many requests it still takes until a time. Within one span of time it only goes down: answers
    arrive in another order than they were given in."""
    row = tx.execute(select(_h.c.quota, _h.c.quota_until).where(_h.c.host == host)).first()
    same_span = row is not None and row.quota_until is not None and row.quota_until > max(tx.now, until - _SPAN)
    if same_span and row is not None and row.quota is not None:
        left = min(left, row.quota)
    told = {"quota": max(left, 0), "quota_until": until}
    tx.execute(tx.insert(_h).values(host=host, **told).on_conflict_do_update(index_elements=["host"], set_=told))


_SPAN = timedelta(seconds=2)


def spend(tx: Tx, host: str, requests: int) -> None:
    """So many requests go to a host that counts them."""
    left = case((_h.c.quota > requests, _h.c.quota - requests), else_=0)
    # Whoever holds the row at this moment writes down what the host has just said itself.
    counting = select(_h.c.host).where(_h.c.host == host, _h.c.quota.is_not(None)).with_for_update(skip_locked=True)
    tx.execute(update(_h).where(_h.c.host.in_(counting)).values(quota=left))


# ── whether it is back ───────────────────────────────────────────────────────────────────────────────────────────


def begin_probe(tx: Tx, host: str) -> bool:
    """Whether a delivery may go to a host whose time is over, to see whether it is back: one at a time, whoever
    asks."""
    # Whose row somebody else holds is being looked at, or settled; waiting for it could end in a circle.
    free = select(_h.c.host).where(_h.c.host == host, _h.c.held_until <= tx.now).with_for_update(skip_locked=True)
    mine = update(_h).where(_h.c.host.in_(free))
    return bool(tx.execute(mine.values(held_until=tx.now + rules.PROBE_FOR, probed_at=tx.now)).rowcount)


def failures(tx: Tx, of: Iterable[str]) -> dict[str, int]:
    """Failures in a row per host."""
    rows = tx.execute(select(_h.c.host, _h.c.failures).where(_h.c.host.in_(list(of)), _h.c.failures > 0))
    return {row.host: row.failures for row in rows}


def heard_from(tx: Tx, host: str, *, only_known: bool = False) -> None:
    """A verified request came from a host: it is awake. If we could not reach it, we look at once whether we can.
    `only_known`: one that we have never dealt with is not written down for it."""
    seen = memory_row(tx, host)
    if seen is None:
        if only_known:
            return
        make_room(tx)
    heard_at = seen.last_heard_at if seen is not None else None
    news: dict[str, datetime | None] = {"last_heard_at": tx.now}
    if seen is not None and rules.is_roused(memory_of(seen), seen.roused_at, tx.now):
        # Now and then only: there are servers that speak all the time and can never be reached.
        news["roused_at"] = tx.now
        if seen.parked_at is not None:
            jobs.add(tx, TEND, jobs.key_of(host), {"host": host})
        else:
            news["held_until"] = tx.now
            _wake(tx, host)
    elif heard_at is not None and heard_at > tx.now - timedelta(minutes=1):
        # At most one write a minute for a busy host.
        return
    tx.execute(tx.insert(_h).values(host=host, **news).on_conflict_do_update(index_elements=["host"], set_=news))


def known(tx: Tx, host: str) -> None:
    """Write a host down of which nothing is known yet."""
    tx.execute(tx.insert(_h).values(host=host).on_conflict_do_nothing())


def forget_some(tx: Tx, *, limit: int = 500) -> bool:
    """Forget some hosts with which there was nothing for ninety days: no word, no delivery, no trouble; nothing waits
    for them and nobody there follows. False when there is none. (Anybody can have a name written down here.)"""
    silent = [_before(moment, tx.now - _KNOWN_FOR) for moment in _SIGNS]
    some = select(_h.c.host).where(*silent, *_left_alone(tx), *_untied()).limit(limit)
    return bool(tx.execute(delete(_h).where(_h.c.host.in_(some))).rowcount)


def make_room(tx: Tx) -> None:
    """Before a stranger has one more host written down: with very many, those go to which nothing ties us and that
    have been silent the longest. So invented names cost room, but only so much."""
    if tx.execute(select(func.count()).select_from(_h)).scalar_one() < KEPT:
        return
    latest = func.coalesce(_h.c.last_delivered_at, _h.c.last_heard_at, _h.c.get_at, _h.c.failing_since)
    # Not those that were written down by this very flood's first delivery and are waited for.
    some = select(_h.c.host).where(*_left_alone(tx), *_untied()).order_by(latest.asc().nulls_first())
    gone = tx.execute(delete(_h).where(_h.c.host.in_(some.limit(_FORGOTTEN_AT_ONCE)))).rowcount
    log.info("hosts were forgotten, there were too many", forgotten=gone, kept=KEPT)


_SIGNS = (_h.c.last_heard_at, _h.c.last_delivered_at, _h.c.last_failed_at, _h.c.failing_since, _h.c.scheme_at,
          _h.c.get_at)  # fmt: skip


def _before(moment: ColumnElement[datetime | None], limit: datetime) -> ColumnElement[bool]:
    return or_(moment.is_(None), moment < bindparam(None, limit, moment.type))


def _left_alone(tx: Tx) -> list[ColumnElement[bool]]:
    """Neither held back nor asking for peace: what must be remembered until then."""
    return [_before(until, tx.now) for until in (_h.c.held_until, _h.c.asked_until)]


def _untied() -> list[ColumnElement[bool]]:
    """Nobody there follows, and nothing waits for it."""
    f, p = schema.followers, schema.peers
    lives = exists().where(p.c.host == _h.c.host, f.c.peer_uri == p.c.uri, f.c.ended_at.is_(None)).correlate(_h)
    follows = exists().where(f.c.inbox_host == _h.c.host, f.c.ended_at.is_(None)).correlate(_h)
    waits = exists().where(schema.waiting, _d.c.host == _h.c.host).correlate(_h)
    return [~lives, ~follows, ~waits]


def _wake(tx: Tx, host: str) -> None:
    # A job, since a great deal may wait for a large server that was away for a night.
    jobs.add(tx, WAKE, jobs.key_of(host), {"host": host})


_refused_once = and_(
    func.coalesce(_d.c.status, 0) >= 300, func.coalesce(_d.c.status, 0) < 500, _d.c.status.not_in(LATER)
)  # fmt: skip


def bring_forward(tx: Tx, host: str, limit: int = 500) -> bool:
    """Let the next `limit` deliveries that wait for a host be due now; False when none is left, or when it is to be
    left alone again. While it is not known to be back, one alone. What it has refused waits as long as it would have:
    a server that is starting may refuse everything, and would have used up all tries within seconds."""
    row = memory_row(tx, host)
    standing = rules.standing(memory_of(row), tx.now) if row is not None else rules.Standing("closed")
    if standing.until is not None:
        return False
    if standing.state != "closed":
        _bring_one_forward(tx, host)
        return False
    rows = (
        select(_d.c.id)
        .where(schema.waiting, _d.c.host == host, _d.c.due_at > tx.now + timedelta(seconds=1), ~_refused_once)
        .order_by(_d.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    moved = tx.execute(update(_d).where(_d.c.id.in_(rows)).values(due_at=tx.now))
    if moved.rowcount:
        tx.wake()
    return bool(moved.rowcount)


def _bring_one_forward(tx: Tx, host: str) -> None:
    first = select(_d.c.order_key, _d.c.inbox).where(schema.waiting, _d.c.host == host).order_by(_d.c.due_at).limit(1)
    found = tx.execute(first).first()
    if found is None:
        return
    # The one that nothing before it about the same object holds up.
    foremost = select(func.min(_d.c.id)).where(
        schema.waiting, _d.c.order_key == found.order_key, _d.c.inbox == found.inbox
    )
    tx.execute(update(_d).where(_d.c.id == foremost.scalar_subquery(), schema.waiting).values(due_at=tx.now))
    tx.wake()


def rests_until(tx: Tx, host: str) -> datetime | None:
    """Until when nothing is to be sent to a host; None when something may be."""
    return standing(tx, host).until


def standing(tx: Tx, host: str) -> rules.Standing:
    """The state of a host, and until when nothing goes there."""
    row = memory_row(tx, host)
    return rules.standing(memory_of(row), tx.now) if row is not None else rules.Standing("closed")


@dataclass(frozen=True, slots=True)
class Taken:
    """A kind of signature that a host accepted: the scheme, what its Accept-Signature had asked for (as a header),
    and the evidence: what was refused before and what was accepted then, in words."""

    scheme: str
    asked: str | None = None
    evidence: str | None = None


_SCHEMES = select(_h.c.host, _h.c.scheme, _h.c.scheme_asked, _h.c.scheme_evidence).where(
    _h.c.host.in_(bindparam("of", expanding=True)), _h.c.scheme.is_not(None), _h.c.scheme_at > bindparam("since")
)


def schemes(tx: Tx, of: set[str]) -> dict[str, Taken]:
    """{host: what it accepted}, where that was learnt not too long ago: afterwards the usual is tried anew."""
    rows = tx.execute(_SCHEMES, {"of": sorted(of), "since": tx.now - _SCHEME_FOR})
    return {row.host: Taken(row.scheme, row.scheme_asked, row.scheme_evidence) for row in rows}


def remember_scheme(tx: Tx, host: str, taken: Taken) -> None:
    """Keep what kind of signature a known host has accepted, for thirty days."""
    tx.execute(
        update(_h)
        .where(_h.c.host == host)
        .values(scheme=taken.scheme, scheme_at=tx.now, scheme_asked=taken.asked, scheme_evidence=taken.evidence)
    )
    decisions.write(tx, "signature", taken.evidence or taken.scheme, subject=host, host=host)


def taken_of_documents(tx: Tx, host: str) -> Taken | None:
    """What a host accepted when a document was asked for, where that was learnt not too long ago."""
    row = tx.execute(
        select(_h.c.get_manner, _h.c.get_asked, _h.c.get_evidence).where(
            _h.c.host == host, _h.c.get_manner.is_not(None), _h.c.get_at > tx.now - _SCHEME_FOR
        )
    ).first()
    return Taken(row.get_manner, row.get_asked, row.get_evidence) if row is not None else None


def remember_for_documents(tx: Tx, host: str, taken: Taken) -> None:
    """Keep what kind of signature a host has accepted when a document was asked for, for thirty days."""
    if memory_row(tx, host) is None:
        make_room(tx)
    learnt = {
        "get_manner": taken.scheme, "get_at": tx.now, "get_asked": taken.asked, "get_evidence": taken.evidence,
    }  # fmt: skip
    tx.execute(tx.insert(_h).values(host=host, **learnt).on_conflict_do_update(index_elements=["host"], set_=learnt))
    decisions.write(tx, "signature", f"documents: {taken.evidence or taken.scheme}", subject=host, host=host)
