"""The ledger in the long run: deliveries that ended thirty days ago become figures, and the set of who holds what.

    step     some deliveries -> delivery_totals, inboxes, post_holders, account_holders; their rows go
    holders  to whom anything about a post was ever addressed, of what went into the roll-ups
    known_to the same of an account

Rule: nothing that waits is ever touched, and nobody is forgotten: a row goes in the transaction that writes its inbox
among the holders, so that an Update or Delete finds the same servers before and after; of a deleted account nobody is
kept, once all have been told. What speaks of a key change that is under way stays as it is, and so does a deletion
until its last host has ended.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, case, delete, func, or_, select, update

from threadbridge.signatures import proofs
from threadbridge.storage import schema
from threadbridge.storage.rotations import OPEN
from threadbridge.storage.store import Tx

DETAILS = timedelta(days=30)
"""How long what became of each single delivery is kept."""
OUTCOMES = ("delivered", "gone", "refused", "given_up", "parked", "superseded", "waiting")
"""The ends of a delivery by what they say of who holds a post, the best first; rows name them by their places."""
LOOK_AT = 100
TOGETHER = 500
REASONS = 20
"""Different reasons that are told apart in the figures of one activity; reasons can name addresses, one per host."""

_a, _d, _t = schema.activities, schema.deliveries, schema.delivery_totals
_i, _ph, _ah, _c, _r = (
    schema.inboxes,
    schema.post_holders,
    schema.account_holders,
    schema.certificates,
    schema.key_rotations,
)
_w = schema.farewells
_ANSWERS = ("Accept", "Reject")


def step(tx: Tx, after: int, *, limit: int = TOGETHER) -> int | None:
    """Roll up to `limit` deliveries up, of activities behind the number `after`; the number to go on behind, or None
    when all that is old enough was looked at."""
    before = tx.now - DETAILS
    looked_at = tx.execute(
        select(_a.c.id, _a.c.account_id, _a.c.post_id, _a.c.kind, _a.c.created_at, _a.c.fanned_out_at)
        .where(_a.c.rolled_up_at.is_(None), _a.c.id > after)
        .order_by(_a.c.id)
        .limit(LOOK_AT)
    ).all()
    # Numbers rise with time: behind the first that is too young there is nothing.
    old = [row for row in looked_at if row.created_at < before]
    if not old:
        return None
    about = {row.id: row for row in old if row.fanned_out_at is not None}
    ripe = about.keys() - _in_use(tx, about.keys())
    unripe = _close_certificates(tx, ripe, before)
    ended = tx.execute(
        select(_d.c.id, _d.c.activity_id, _d.c.inbox, _d.c.host, _d.c.state, _d.c.reason, _d.c.ended_at)
        .where(_d.c.activity_id.in_(ripe - unripe), _d.c.ended_at < before, _d.c.state != "waiting")
        .order_by(_d.c.activity_id, _d.c.id)
        .limit(limit)
    ).all()
    if ended:
        _count(tx, ended)
        _keep_holders(tx, ended, about)
        tx.execute(delete(_d).where(_d.c.id.in_([row.id for row in ended])))
    if len(ended) == limit:
        return after
    _finish(tx, ripe)
    return int(old[-1].id) if len(old) == LOOK_AT else None


def _in_use(tx: Tx, activity_ids: Collection[int]) -> set[int]:
    """Those of them by which a change of keys that is under way looks what became of it."""
    named = (_r.c.update_id, _r.c.probe_id, _r.c.restore_id)
    rows = tx.execute(
        select(*named).where(_r.c.state.in_(OPEN), or_(*(column.in_(activity_ids) for column in named)))
    )
    return {number for row in rows for number in row if number is not None}


def _finish(tx: Tx, activity_ids: Collection[int]) -> None:
    """Mark those of which no delivery is left; what a deleted post said is erased with them."""
    left = set(tx.execute(select(_d.c.activity_id).where(_d.c.activity_id.in_(activity_ids)).distinct()).scalars())
    done = set(activity_ids) - left
    if not done:
        return
    tx.execute(update(_a).where(_a.c.id.in_(done)).values(rolled_up_at=tx.now))
    p, other = schema.posts, _a.alias("other")
    gone = select(other.c.post_id).join(p, p.c.id == other.c.post_id)
    gone = gone.where(other.c.id.in_(done), p.c.deleted_at.is_not(None))
    erase_words(
        tx,
        tx.execute(
            select(_a.c.id, _a.c.body).where(
                _a.c.post_id.in_(gone), _a.c.rolled_up_at.is_not(None), _a.c.kind.not_in(["Delete", "Undo"]),
                func.length(_a.c.body) > 0,
            )
        ).all(),
    )  # fmt: skip


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _count(tx: Tx, ended: Sequence[Row[Any]]) -> None:
    known: dict[tuple[int, str], set[str]] = {}
    numbers = {row.activity_id for row in ended}
    for row in tx.execute(select(_t.c.activity_id, _t.c.state, _t.c.reason).where(_t.c.activity_id.in_(numbers))):
        known.setdefault((row.activity_id, row.state), set()).add(row.reason)
    figures: dict[tuple[int, str, str], list[datetime]] = {}
    for row in ended:
        reasons = known.setdefault((row.activity_id, row.state), set())
        reason = (row.reason or "")[:200]
        if reason not in reasons and len(reasons) >= REASONS:
            reason = ""
        reasons.add(reason)
        figures.setdefault((row.activity_id, row.state, reason), []).append(row.ended_at)
    values = [
        {"activity_id": activity, "state": state, "reason": reason, "count": len(moments), "first_at": min(moments),
         "last_at": max(moments)}
        for (activity, state, reason), moments in figures.items()
    ]  # fmt: skip
    counted = tx.insert(_t).values(values)
    new = counted.excluded
    tx.execute(
        counted.on_conflict_do_update(
            index_elements=["activity_id", "state", "reason"],
            set_={
                "count": _t.c.count + new.count,
                "first_at": case((_t.c.first_at < new.first_at, _t.c.first_at), else_=new.first_at),
                "last_at": case((_t.c.last_at > new.last_at, _t.c.last_at), else_=new.last_at),
            },
        )
    )


# ── holders ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _keep_holders(tx: Tx, ended: Sequence[Row[Any]], about: dict[int, Row[Any]]) -> None:
    # Whom an account ever spoke to goes with it, and does not come back by the roll-ups.
    erased = set(
        tx.execute(
            select(_w.c.account_id).where(
                _w.c.account_id.in_({row.account_id for row in about.values()}), _w.c.phase.in_(["erasing", "done"])
            )
        ).scalars()
    )
    saying = {number for number, row in about.items() if row.kind not in _ANSWERS and row.account_id not in erased}
    named = [row for row in ended if row.activity_id in saying]
    if not named:
        return
    hosts = {row.inbox: row.host for row in named}
    tx.execute(
        tx.insert(_i)
        .values([{"address": address, "host": host} for address, host in sorted(hosts.items())])
        .on_conflict_do_nothing()
    )
    numbers = {
        row.address: row.id for row in tx.execute(select(_i.c.id, _i.c.address).where(_i.c.address.in_(hosts)))
    }
    best: dict[tuple[int, int], int] = {}
    met: set[tuple[int, int]] = set()
    for row in named:
        said, number = about[row.activity_id], numbers[row.inbox]
        met.add((said.account_id, number))
        if said.post_id is not None:
            place = (said.post_id, number)
            best[place] = min(best.get(place, len(OUTCOMES)), outcome_of(row.state))
    tx.execute(
        tx.insert(_ah)
        .values([{"account_id": account, "inbox_id": number} for account, number in sorted(met)])
        .on_conflict_do_nothing()
    )
    if not best:
        return
    held = tx.insert(_ph).values(
        [{"post_id": post, "inbox_id": number, "outcome": best[post, number]} for post, number in sorted(best)]
    )
    tx.execute(
        held.on_conflict_do_update(
            index_elements=["post_id", "inbox_id"],
            set_={"outcome": held.excluded.outcome},
            where=_ph.c.outcome > held.excluded.outcome,
        )
    )


def outcome_of(state: str) -> int:
    """The place of an end among `OUTCOMES`."""
    return OUTCOMES.index(state) if state in OUTCOMES else OUTCOMES.index("given_up")


def holders(tx: Tx, post_id: int, *, after: int = 0, limit: int = TOGETHER) -> list[tuple[int, str, str]]:
    """(number, inbox, host) of whoever holds a post by the roll-ups, by number, behind one."""
    rows = tx.execute(
        select(_i.c.id, _i.c.address, _i.c.host)
        .join(_ph, _ph.c.inbox_id == _i.c.id)
        .where(_ph.c.post_id == post_id, _ph.c.inbox_id > after)
        .order_by(_ph.c.inbox_id)
        .limit(limit)
    )
    return [(row.id, row.address, row.host) for row in rows]


def known_to(tx: Tx, account_id: int, *, after: int = 0, limit: int = TOGETHER) -> list[tuple[int, str, str]]:
    """(number, inbox, host) of whoever an account ever said anything to, by the roll-ups, by number, behind one."""
    rows = tx.execute(
        select(_i.c.id, _i.c.address, _i.c.host)
        .join(_ah, _ah.c.inbox_id == _i.c.id)
        .where(_ah.c.account_id == account_id, _ah.c.inbox_id > after)
        .order_by(_ah.c.inbox_id)
        .limit(limit)
    )
    return [(row.id, row.address, row.host) for row in rows]


# ── deletions ────────────────────────────────────────────────────────────────────────────────────────────────────


def _close_certificates(tx: Tx, activity_ids: Collection[int], before: datetime) -> set[int]:
    """Keep what each host answered to a deletion, once all have ended; returns the deletions that are not so far."""
    open_ones = tx.execute(
        select(_c.c.id, _c.c.activity_id).where(_c.c.activity_id.in_(activity_ids), _c.c.closed_at.is_(None))
    ).all()
    unripe: set[int] = set()
    for certificate in open_ones:
        young = or_(_d.c.state == "waiting", _d.c.ended_at.is_(None), _d.c.ended_at >= before)
        own = _d.c.activity_id == certificate.activity_id
        if tx.execute(select(_d.c.id).where(own, young).limit(1)).first() is not None:
            unripe.add(certificate.activity_id)
            continue
        packed = pack(answers(tx, certificate.activity_id))
        tx.execute(update(_c).where(_c.c.id == certificate.id).values(closed_at=tx.now, answers=packed))
    return unripe


Answer = tuple[str, str, int | None, int, int | None, int | None]
"""(host, state, HTTP status, attempts, end, next try) of one delivery, times in whole seconds since 1970."""


def answers(tx: Tx, activity_id: int) -> list[Answer]:
    """What each host answered to an activity, by the rows of the ledger; by host."""
    rows = tx.execute(
        select(_d.c.host, _d.c.state, _d.c.status, _d.c.attempts, _d.c.ended_at, _d.c.due_at)
        .where(_d.c.activity_id == activity_id)
        .order_by(_d.c.host, _d.c.inbox)
    )
    return [
        (
            row.host, row.state, row.status, row.attempts,
            int(row.ended_at.timestamp()) if row.ended_at else None,
            int(row.due_at.timestamp()) if row.state == "waiting" else None,
        )
        for row in rows
    ]  # fmt: skip


def pack(told: Sequence[Answer]) -> bytes:
    """Answers as they are kept: an eighth of their size, since hosts answer alike."""
    return zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 9)


def unpack(packed: bytes) -> list[Answer]:
    """The answers that were packed."""
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in json.loads(zlib.decompress(packed))]


def erase_words(tx: Tx, said: Sequence[Row[Any]]) -> None:
    """Empty the bytes of these activities (`id`, `body`); the digest of the object that they said stays."""
    for row in said:
        tx.execute(update(_a).where(_a.c.id == row.id).values(body=b"", digest=digest_of(row.body)))


def digest_of(body: bytes) -> str:
    """SHA-256 (hex) over the canonical form (RFC 8785) of the `object` of an activity's bytes: whoever holds the
    activity can compute it, whatever proof it came with."""
    try:
        return proofs.digest(json.loads(body)["object"])
    except (ValueError, KeyError, TypeError):
        return hashlib.sha256(body).hexdigest()
