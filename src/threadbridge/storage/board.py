"""The operator's board of hosts: what is known of each, what waits for it, and what can be done about it by hand.

Rule: what ends by hand ends with the operator's words as its reason; what goes again goes only where nothing later
about the same object has arrived or is on its way, so that no deleted post comes back and no old wording replaces a
new one. Everything is done by pieces, each in a transaction of its own, and is a row of `decisions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update

from threadbridge.domain import hosts as rules
from threadbridge.domain.hosts import Memory, State
from threadbridge.storage import blocks, decisions, hosts, jobs, outages, schema
from threadbridge.storage.hosts import Trouble
from threadbridge.storage.ledger import LANE_ANSWER, LANE_BULK, LANE_CHANGE, LANE_POST
from threadbridge.storage.store import Tx

_a, _d, _f, _h, _p = schema.activities, schema.deliveries, schema.followers, schema.hosts, schema.peers
CHUNK = 500
LANE_NAMES = {LANE_ANSWER: "answers", LANE_POST: "posts", LANE_CHANGE: "changes", LANE_BULK: "bulk"}
KIND = "host"
BY_HAND = "ended by the operator of this server"


@dataclass(frozen=True, slots=True)
class Line:
    """One host on the board. `until`: nothing goes there before; `queued` deliveries wait, the oldest since
    `oldest_at`; `trouble` is the last error while it lasts."""

    host: str
    state: State
    until: datetime | None
    failing_since: datetime | None
    failures: int
    queued: int
    oldest_at: datetime | None
    software: str | None
    last_delivered_at: datetime | None
    last_heard_at: datetime | None
    trouble: str | None
    refusal: str | None = None
    """Its last no to a delivery, if it has taken nothing since."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a host takes: the kind of signature, since when this is known, and what was seen."""

    scheme: str
    learnt_at: datetime | None
    evidence: str | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that is known of one host. `lives_there` counts followers by the server that they live on, `served_by` the
    hosts that take the copies of people who live on this one, where that is another."""

    line: Line
    parked_at: datetime | None
    probed_at: datetime | None
    software_asked_at: datetime | None
    quota: int | None
    quota_until: datetime | None
    signatures: Mapping[str, Signature]
    queued_by_lane: Mapping[str, int]
    followers: int
    lives_there: Mapping[str, int]
    served_by: Mapping[str, int]
    ended_badly: Mapping[str, int]
    troubles: list[Trouble]


def listed(tx: Tx, *, everything: bool = False, limit: int = 500) -> list[Line]:
    """Hosts in trouble, or that refuse what we send, or for which something waits, or all: the worst state first,
    then most queued, then longest in trouble."""
    queue = {
        row.host: row
        for row in tx.execute(
            select(_d.c.host, func.count().label("n"), func.min(_d.c.created_at).label("oldest"))
            .where(schema.waiting)
            .group_by(_d.c.host)
        )
    }
    troubled = or_(_h.c.failing_since.is_not(None), _h.c.asked_until > tx.now, _h.c.quota_until > tx.now)
    rows = tx.execute(select(_h) if everything else select(_h).where(troubled)).all()
    lines = {row.host: _line(row, queue.get(row.host), tx.now) for row in rows}
    refusals = _refusals(tx)
    names = sorted((queue.keys() | refusals.keys()) - lines.keys())
    for start in range(0, len(names), CHUNK):
        some = select(_h).where(_h.c.host.in_(names[start : start + CHUNK]))
        lines |= {row.host: _line(row, queue.get(row.host), tx.now) for row in tx.execute(some)}
    for name in queue.keys() - lines.keys():
        lines[name] = _line(None, queue[name], tx.now, host=name)
    for name, (words, at) in refusals.items():
        line = lines.get(name)
        if line is None:
            continue
        if line.last_delivered_at is None or line.last_delivered_at < at:
            lines[name] = replace(line, refusal=words)
        elif not everything and not line.queued and name in names:
            del lines[name]
    return sorted(lines.values(), key=lambda line: _worst_first(line, tx.now))[:limit]


def _refusals(tx: Tx, host: str | None = None) -> dict[str, tuple[str, datetime]]:
    """{host: the words of its last no, and when}: of what waits for its next try, and of what has ended within a
    week."""
    whose = () if host is None else (_d.c.host == host,)
    no = and_(
        _d.c.status >= 300, _d.c.status < 500, _d.c.status.not_in((*hosts.LATER, 410)), _d.c.reason.is_not(None)
    )
    waits = select(func.max(_d.c.id)).where(schema.waiting, no, *whose).group_by(_d.c.host)
    week = tx.now - timedelta(days=7)
    by_them = and_(_d.c.state == "refused", _d.c.reason.not_like(f"{BY_HAND}%"))
    ended = select(func.max(_d.c.id)).where(schema.ended_badly, _d.c.ended_at > week, no, by_them, *whose)
    found: dict[str, tuple[str, datetime]] = {}
    for numbers in (ended.group_by(_d.c.host), waits):
        for row in tx.execute(
            select(_d.c.host, _d.c.reason, _d.c.ended_at, _d.c.created_at).where(_d.c.id.in_(numbers))
        ):
            found[row.host] = (row.reason, row.ended_at or row.created_at)
    return found


def _worst_first(line: Line, now: datetime) -> tuple[int, int, datetime, str]:
    return (rules.STATES.index(line.state), -line.queued, line.failing_since or now, line.host)


def _line(row: Any, queue: Any, now: datetime, host: str = "") -> Line:
    standing = rules.standing(hosts.memory_of(row) if row is not None else Memory(), now)
    queued, oldest = (queue.n, queue.oldest) if queue is not None else (0, None)
    if row is None:
        return Line(host, standing.state, None, None, 0, queued, oldest, None, None, None, None)
    software = " ".join(part for part in (row.software, row.software_version) if part) or None
    return Line(
        row.host, standing.state, standing.until, row.failing_since, row.failures, queued, oldest, software,
        row.last_delivered_at, row.last_heard_at, row.last_trouble,
    )  # fmt: skip


def sheet(tx: Tx, host: str) -> Sheet | None:
    """Everything about one host; None when it is not known at all."""
    row = hosts.memory_row(tx, host)
    lanes = {
        LANE_NAMES[r.lane]: r.n
        for r in tx.execute(
            select(_d.c.lane, func.count().label("n")).where(schema.waiting, _d.c.host == host).group_by(_d.c.lane)
        )
    }
    served_by = _counted(tx, _f.c.inbox_host, _p.c.host == host)
    lives_there = _counted(tx, _p.c.host, _f.c.inbox_host == host)
    if row is None and not lanes and not served_by and not lives_there:
        return None
    oldest = select(func.count().label("n"), func.min(_d.c.created_at).label("oldest"))
    queue = tx.execute(oldest.where(schema.waiting, _d.c.host == host)).first()
    ended = {
        r.state: r.n
        for r in tx.execute(
            select(_d.c.state, func.count().label("n")).where(*_ended_badly(host)).group_by(_d.c.state)
        )
    }
    signatures: dict[str, Signature] = {}
    if row is not None and row.scheme is not None:
        signatures["deliveries"] = Signature(row.scheme, row.scheme_at, row.scheme_evidence)
    if row is not None and row.get_manner is not None:
        signatures["documents"] = Signature(row.get_manner, row.get_at, row.get_evidence)
    line = _line(row, queue, tx.now, host=host)
    words, at = _refusals(tx, host).get(host, (None, tx.now))
    if words is not None and (line.last_delivered_at is None or line.last_delivered_at < at):
        line = replace(line, refusal=words)
    return Sheet(
        line=line,
        parked_at=row.parked_at if row is not None else None,
        probed_at=row.probed_at if row is not None else None,
        software_asked_at=row.software_asked_at if row is not None else None,
        quota=row.quota if row is not None else None,
        quota_until=row.quota_until if row is not None else None,
        signatures=signatures,
        queued_by_lane=lanes,
        followers=sum(lives_there.values()),
        lives_there=lives_there,
        served_by={name: count for name, count in served_by.items() if name != host},
        ended_badly=ended,
        troubles=hosts.troubles(row) if row is not None else [],
    )


def _counted(tx: Tx, by: Any, which: Any) -> dict[str, int]:
    """Present followers, counted by a host, most first."""
    counted = (
        select(by.label("name"), func.count().label("n"))
        .select_from(_f.join(_p, _p.c.uri == _f.c.peer_uri))
        .where(which, _f.c.ended_at.is_(None))
        .group_by(by)
        .order_by(func.count().desc(), by)
        .limit(20)
    )
    return {row.name: row.n for row in tx.execute(counted)}


def _ended_badly(host: str) -> list[Any]:
    # Written out, as the condition of the index is.
    return [_d.c.host == host, schema.ended_badly]


def exists_here(tx: Tx, host: str) -> bool:
    """Whether anything is known of a host."""
    if hosts.memory_row(tx, host) is not None:
        return True
    waits = select(_d.c.id).where(schema.waiting, _d.c.host == host).limit(1)
    return tx.execute(waits).first() is not None or outages.followers_behind(tx, host) > 0


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────


def drop(tx: Tx, host: str, words: str) -> int:
    """End some of what waits for a host, with these words as the reason, but for what a deleted account has to say
    last, and what somebody is carrying at this moment: whether that arrives is not known yet. Returns how many, 0
    when nothing is left."""
    gone = select(schema.accounts.c.id).where(schema.accounts.c.state == "gone")
    some = (
        select(_d.c.id)
        .where(schema.waiting, _d.c.host == host, _d.c.account_id.not_in(gone), _unheld(tx))
        .limit(CHUNK)
        .with_for_update(skip_locked=True)
    )
    ended = update(_d).where(_d.c.id.in_(some), schema.waiting)
    return tx.execute(ended.values(state="refused", ended_at=tx.now, reason=words, leased_until=None)).rowcount


def _unheld(tx: Tx) -> ColumnElement[bool]:
    return or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now)


def replay(
    tx: Tx, host: str, *, since: datetime, refused_too: bool, after_id: int = 0
) -> tuple[int, int, int | None]:
    """Let some of what was given up since a time go again, in order; returns how many go, how many are out of date
    and stay as they are, and where to go on (None: at the end). From accounts for which this server is suspended
    nothing goes but their last word, which goes to everybody."""
    wanted = ["given_up", "refused"] if refused_too else ["given_up"]
    later, after = _d.alias("later"), _a.alias("after")
    same = and_(after.c.account_id == _d.c.account_id, after.c.order_key == _d.c.order_key, after.c.id > _a.c.id)
    ended = after.c.kind == "Delete"
    arrived = exists().where(
        later.c.activity_id == after.c.id, later.c.inbox == _d.c.inbox, later.c.state.in_(["delivered", "waiting"])
    )
    # By the post where there is one: an account may have said a great deal.
    about = case((_d.c.post_id.is_(None), True), else_=after.c.post_id == _d.c.post_id)
    out_of_date = exists().where(same, about, or_(ended, arrived.correlate(after, _d))).correlate(_d, _a)
    last_word = and_(_a.c.kind == "Delete", _a.c.post_id.is_(None))
    rows = tx.execute(
        select(_d.c.id, _d.c.account_id, last_word.label("last_word"), out_of_date.label("late"))
        .join(_a, _a.c.id == _d.c.activity_id)
        .where(
            *_ended_badly(host), _d.c.state.in_(wanted), _d.c.ended_at >= since, _d.c.id > after_id,
            func.length(_a.c.body) > 0,
        )
        .order_by(_d.c.id)
        .limit(CHUNK)
    ).all()  # fmt: skip
    shut = {number for number in {row.account_id for row in rows} if blocks.suspended_hosts(tx, [host], number)}
    going = [row.id for row in rows if not row.late and (row.last_word or row.account_id not in shut)]
    tx.execute(
        update(_d)
        .where(_d.c.id.in_(going), _d.c.state.in_(wanted))
        .values(
            state="waiting", due_at=tx.now, created_at=tx.now, ended_at=None, status=None,
            reason="sent again at the operator's wish", leased_until=None, lease=_d.c.lease + 1,
        )
    )  # fmt: skip
    if going:
        tx.wake()
    return len(going), len(rows) - len(going), rows[-1].id if len(rows) == CHUNK else None


def forgive(tx: Tx, host: str) -> None:
    """Forget a host's trouble, and what it asked to be left alone for: what waits for it is due now."""
    fresh = {
        "failures": 0, "failing_since": None, "held_until": None, "asked_until": None, "parked_at": None,
        "last_trouble": None, "quota": None, "quota_until": None,
    }  # fmt: skip
    tx.execute(update(_h).where(_h.c.host == host).values(**fresh))
    jobs.add(tx, hosts.WAKE, jobs.key_of(host), {"host": host})
    decided(tx, host, "its trouble was forgiven by the operator")


def decided(tx: Tx, host: str, words: str) -> None:
    """Write down what was done by hand."""
    decisions.write(tx, KIND, words, subject=host, host=host)


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def software(tx: Tx) -> list[tuple[str, int]]:
    """What the hosts run that something was delivered to within a month: (name, hosts), most first."""
    dealt_with = and_(_h.c.software.is_not(None), _h.c.last_delivered_at > tx.now - timedelta(days=30))
    counted = select(_h.c.software, func.count().label("n")).where(dealt_with).group_by(_h.c.software)
    return [(row.software, row.n) for row in tx.execute(counted.order_by(func.count().desc(), _h.c.software))]
