"""One memory per inbox host: its trouble, the signature scheme it takes, when we last heard of each other.

Rule: a host that is held back (our breaker after failures in a row, their Retry-After) gets nothing; the first word
from it since its trouble began, or the first delivery that arrives, ends what our breaker holds, and then everything
that waited for it may go. What it asked us itself to keep back stays back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, case, delete, exists, func, or_, select, update

from threadbridge.storage import decisions, jobs, schema
from threadbridge.storage.store import Tx

_d, _h = schema.deliveries, schema.hosts

WAKE = "wake"
"""The kind of job that lets everything go that waited for a host; its key is made of the host."""
_SCHEME_FOR = timedelta(days=30)
_KNOWN_FOR = timedelta(days=90)


def reached(tx: Tx, host: str, *, asked_until: datetime | None = None) -> None:
    """A host has taken, or refused, a delivery: it is there. Its trouble is over."""
    if _was_held(tx, host):
        _wake(tx, host)
    fresh = {
        "failures": 0,
        "failing_since": None,
        "held_until": None,
        "last_delivered_at": tx.now,
        "last_trouble": None,
        **({"asked_until": asked_until} if asked_until else {}),
    }
    tx.execute(tx.insert(_h).values(host=host, **fresh).on_conflict_do_update(index_elements=["host"], set_=fresh))


def in_trouble(
    tx: Tx, host: str, words: str, *, held_until: datetime | None = None, asked_until: datetime | None = None
) -> None:
    """A host could not be reached or asked to be left alone: one failure more in a row, with its reason."""
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
            last_trouble=words[:500],
        )
        .on_conflict_do_update(
            index_elements=["host"],
            set_={
                "failures": _h.c.failures + 1,
                "failing_since": func.coalesce(_h.c.failing_since, bindparam(None, tx.now, _h.c.failing_since.type)),
                "last_trouble": words[:500],
                **holds,
            },
        )
    )  # fmt: skip


def failures(tx: Tx, of: Iterable[str]) -> dict[str, int]:
    """Failures in a row per host."""
    rows = tx.execute(select(_h.c.host, _h.c.failures).where(_h.c.host.in_(list(of)), _h.c.failures > 0))
    return {row.host: row.failures for row in rows}


def heard_from(tx: Tx, host: str, *, only_known: bool = False) -> None:
    """A verified request came from a host: it is awake. `only_known`: one that we have never dealt with is not
    written down for it."""
    seen = tx.execute(
        select(_h.c.last_heard_at, _h.c.held_until, _h.c.failing_since).where(_h.c.host == host)
    ).first()
    if seen is None and only_known:
        return
    heard_at = seen.last_heard_at if seen is not None else None
    news: dict[str, datetime | None] = {"last_heard_at": tx.now}
    if seen is not None and seen.held_until is not None and (heard_at is None or heard_at < seen.failing_since):
        # Only its first word: there are servers that speak all the time and can never be reached.
        _wake(tx, host)
        news["held_until"] = None
    elif heard_at is not None and heard_at > tx.now - timedelta(minutes=1):
        # At most one write a minute for a busy host.
        return
    tx.execute(tx.insert(_h).values(host=host, **news).on_conflict_do_update(index_elements=["host"], set_=news))


def forget_some(tx: Tx, *, limit: int = 500) -> bool:
    """Forget some hosts with which there was nothing for ninety days: no word, no delivery, no trouble; nothing waits
    for them and nobody there follows. False when there is none. (Anybody can have a name written down here.)"""
    f, p = schema.followers, schema.peers
    silent = [
        or_(moment.is_(None), moment < bindparam(None, tx.now - _KNOWN_FOR, moment.type))
        for moment in (_h.c.last_heard_at, _h.c.last_delivered_at, _h.c.failing_since, _h.c.scheme_at, _h.c.get_at)
    ]
    kept = [or_(until.is_(None), until < bindparam(None, tx.now, until.type))
            for until in (_h.c.held_until, _h.c.asked_until)]  # fmt: skip
    follows = exists().where(p.c.host == _h.c.host, f.c.peer_uri == p.c.uri, f.c.ended_at.is_(None)).correlate(_h)
    waits = exists().where(schema.waiting, _d.c.host == _h.c.host).correlate(_h)
    some = select(_h.c.host).where(*silent, *kept, ~follows, ~waits).limit(limit)
    return bool(tx.execute(delete(_h).where(_h.c.host.in_(some))).rowcount)


def _was_held(tx: Tx, host: str) -> bool:
    return tx.execute(select(_h.c.host).where(_h.c.host == host, _h.c.held_until.is_not(None))).first() is not None


def _wake(tx: Tx, host: str) -> None:
    # A job, since a great deal may wait for a large server that was away for a night.
    jobs.add(tx, WAKE, jobs.key_of(host), {"host": host})


def bring_forward(tx: Tx, host: str, limit: int = 500) -> bool:
    """Let the next `limit` deliveries that wait for a host be due now; False when none is left, or when it is to be
    left alone again."""
    resting = tx.execute(
        select(_h.c.host).where(_h.c.host == host, or_(_h.c.held_until > tx.now, _h.c.asked_until > tx.now))
    ).first()
    if resting is not None:
        return False
    rows = (
        select(_d.c.id)
        .where(schema.waiting, _d.c.host == host, _d.c.due_at > tx.now + timedelta(seconds=1))
        .order_by(_d.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    moved = tx.execute(update(_d).where(_d.c.id.in_(rows)).values(due_at=tx.now))
    return bool(moved.rowcount)


def rests_until(tx: Tx, host: str) -> datetime | None:
    """Until when nothing is to be sent to a host; None when something may be."""
    row = tx.execute(select(_h.c.held_until, _h.c.asked_until).where(_h.c.host == host)).first()
    until = max((moment for moment in row or () if moment is not None), default=None)
    return until if until is not None and until > tx.now else None


@dataclass(frozen=True, slots=True)
class Taken:
    """A kind of signature that a host accepted: the scheme, what its Accept-Signature had asked for (as a header),
    and the evidence: what was refused before and what was accepted then, in words."""

    scheme: str
    asked: str | None = None
    evidence: str | None = None


def schemes(tx: Tx, of: set[str]) -> dict[str, Taken]:
    """{host: what it accepted}, where that was learnt not too long ago: afterwards the usual is tried anew."""
    rows = tx.execute(
        select(_h.c.host, _h.c.scheme, _h.c.scheme_asked, _h.c.scheme_evidence).where(
            _h.c.host.in_(of), _h.c.scheme.is_not(None), _h.c.scheme_at > tx.now - _SCHEME_FOR
        )
    )
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
    learnt = {
        "get_manner": taken.scheme, "get_at": tx.now, "get_asked": taken.asked, "get_evidence": taken.evidence,
    }  # fmt: skip
    tx.execute(tx.insert(_h).values(host=host, **learnt).on_conflict_do_update(index_elements=["host"], set_=learnt))
    decisions.write(tx, "signature", f"documents: {taken.evidence or taken.scheme}", subject=host, host=host)
