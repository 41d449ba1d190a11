"""Changes of an account's RSA key: how each stands, and with which key a host is spoken to meanwhile.

Rule: a host is spoken to with the key that it believes in: the old one until it has taken the news (an Update signed
with the old key), the new one from then on. What it has taken is in the ledger; nothing is written down twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Row, func, insert, or_, select, update

from threadbridge.storage import schema
from threadbridge.storage.store import Tx
from threadbridge.storage.turns import Claimed

State = Literal["trying", "spreading", "restoring", "done", "rolled_back"]
OPEN = ("trying", "spreading", "restoring")

_r, _d, _f, _h, _k, _p = (
    schema.key_rotations,
    schema.deliveries,
    schema.followers,
    schema.hosts,
    schema.account_keys,
    schema.peers,
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """One change of keys; see `schema.key_rotations`."""

    id: int
    account_id: int
    state: State
    old_key_id: int
    new_key_id: int
    update_id: int | None
    probe_id: int | None
    restore_id: int | None
    reason: str
    started_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Addressed:
    """What became of telling one inbox."""

    inbox: str
    host: str
    state: str
    status: int | None
    attempts: int


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """Numbers of keys: the one to sign with, and the one to try when that is refused; `news` is the activity that
    tells of the new key, where a host that still believes in the old one has to be told."""

    first: int
    other: int | None = None
    news: int | None = None


def start(tx: Tx, account_id: int, old_key_id: int, new_key_id: int, reason: str) -> Rotation:
    """Write down that a key is to be changed."""
    number = tx.execute(
        insert(_r)
        .values(
            account_id=account_id,
            state="trying",
            old_key_id=old_key_id,
            new_key_id=new_key_id,
            reason=reason,
            started_at=tx.now,
            changed_at=tx.now,
        )
        .returning(_r.c.id)
    ).scalar_one()
    made = by_id(tx, number)
    assert made is not None
    return made


def by_id(tx: Tx, rotation_id: int) -> Rotation | None:
    row = tx.execute(select(_r).where(_r.c.id == rotation_id)).first()
    return _rotation(row) if row else None


def latest(tx: Tx, account_id: int) -> Rotation | None:
    """The last change of an account's key, under way or over."""
    row = tx.execute(select(_r).where(_r.c.account_id == account_id).order_by(_r.c.id.desc()).limit(1)).first()
    return _rotation(row) if row else None


def move(tx: Tx, rotation: Rotation, state: State, reason: str) -> None:
    """The next state, with its reason in words."""
    tx.execute(update(_r).where(_r.c.id == rotation.id).values(state=state, reason=reason, changed_at=tx.now))


def link(tx: Tx, rotation: Rotation, column: Literal["update_id", "probe_id", "restore_id"], activity: int) -> None:
    """Write down by which activity something was said."""
    tx.execute(update(_r).where(_r.c.id == rotation.id).values({column: activity, "changed_at": tx.now}))


def canaries(tx: Tx, account_id: int, limit: int) -> list[str]:
    """Inboxes of followers on hosts that took something most recently and have had no trouble since, one per
    host."""
    reached = (
        select(_h.c.host, func.min(_f.c.inbox).label("inbox"))
        .join(_p, _p.c.uri == _f.c.peer_uri)
        .join(_h, _h.c.host == _p.c.host)
        .where(
            _f.c.account_id == account_id, _f.c.ended_at.is_(None),
            _h.c.failures == 0, _h.c.last_delivered_at.is_not(None),
        )
        .group_by(_h.c.host, _h.c.last_delivered_at)
        .order_by(_h.c.last_delivered_at.desc())
        .limit(limit)
    )  # fmt: skip
    return [row.inbox for row in tx.execute(reached)]


def addressed(tx: Tx, activity_id: int) -> list[Addressed]:
    """What became of an activity at the inboxes it was addressed to (a few: those of a trial)."""
    rows = tx.execute(select(_d).where(_d.c.activity_id == activity_id).order_by(_d.c.id))
    return [Addressed(row.inbox, row.host, row.state, row.status, row.attempts) for row in rows]


def totals(tx: Tx, activity_id: int) -> dict[str, int]:
    """{state: deliveries} of one activity."""
    rows = tx.execute(
        select(_d.c.state, func.count().label("n")).where(_d.c.activity_id == activity_id).group_by(_d.c.state)
    )
    return {row.state: row.n for row in rows}


def hasten(tx: Tx, activity_id: int, inbox: str, due_at: datetime) -> None:
    """Let a refused delivery of a trial be tried again sooner than others are."""
    tx.execute(
        update(_d)
        .where(
            _d.c.activity_id == activity_id, _d.c.inbox == inbox, schema.waiting, _d.c.leased_until.is_(None),
            _d.c.due_at > due_at,
        )
        .values(due_at=due_at)
    )  # fmt: skip
    tx.wake(due_at)


def call_off(tx: Tx, activity_ids: Sequence[int], reason: str) -> None:
    """End what still waits to be said and is not true any more."""
    tx.execute(
        update(_d)
        .where(_d.c.activity_id.in_(list(activity_ids)), schema.waiting, _d.c.leased_until.is_(None))
        .values(state="given_up", reason=reason, ended_at=tx.now)
    )


def choices(tx: Tx, rows: Sequence[Claimed]) -> dict[int, KeyChoice]:
    """{delivery id: the key to sign it with}. Where no key is being changed, that is the current one."""
    accounts = sorted({row.account_id for row in rows})
    if not accounts:
        return {}
    held = tx.execute(
        select(_k.c.account_id, _k.c.id).where(
            _k.c.account_id.in_(accounts), _k.c.kind == "rsa", _k.c.state == "current"
        )
    )
    current = {row.account_id: row.id for row in held}
    found = tx.execute(select(_r).where(_r.c.account_id.in_(accounts), _r.c.state.in_(OPEN)))
    changing = {row.account_id: _rotation(row) for row in found}
    told = {number: _beliefs(tx, one, rows) for number, one in changing.items()}
    chosen = {}
    for row in rows:
        if row.account_id in changing:
            chosen[row.id] = choose(changing[row.account_id], row.activity_id, told[row.account_id].get(row.host))
        elif row.account_id in current:
            chosen[row.id] = KeyChoice(current[row.account_id])
    return chosen


Belief = Literal["asked", "new", "old again"]
"""What a host believes: it was addressed and has not answered; it took the new key; it took the old one back."""


def choose(rotation: Rotation, activity_id: int, belief: Belief | None) -> KeyChoice:
    """The key for one delivery while keys change over; pure. A host that was never told (None) learns what it needs
    from our document, which names the old key while the new one is on trial, and the new one afterwards."""
    old, new = rotation.old_key_id, rotation.new_key_id
    if activity_id == rotation.probe_id:
        # The question that a trial asks: no second way to an answer.
        return KeyChoice(new)
    if belief == "new":
        return KeyChoice(new, old)
    if rotation.state == "spreading" and belief is None:
        return KeyChoice(new, old, news=rotation.update_id)
    return KeyChoice(old, new if belief is not None else None)


def _beliefs(tx: Tx, rotation: Rotation, rows: Sequence[Claimed]) -> dict[str, Belief]:
    hosts = {row.host for row in rows if row.account_id == rotation.account_id}
    said = [number for number in (rotation.update_id, rotation.restore_id) if number is not None]
    if not said:
        return {}
    found = tx.execute(
        select(_d.c.host, _d.c.activity_id, func.max(_d.c.ended_at).label("at"))
        .where(_d.c.activity_id.in_(said), _d.c.host.in_(hosts), or_(schema.waiting, _d.c.state == "delivered"))
        .group_by(_d.c.host, _d.c.activity_id, _d.c.state)
    )
    beliefs: dict[str, Belief] = {}
    for row in found:
        arrived = row.at is not None
        if row.activity_id == rotation.restore_id and arrived:
            beliefs[row.host] = "old again"
        elif row.activity_id == rotation.update_id and arrived:
            if beliefs.get(row.host) != "old again":
                beliefs[row.host] = "new"
        else:
            beliefs.setdefault(row.host, "asked")
    return beliefs


def _rotation(row: Row[tuple[object, ...]]) -> Rotation:
    return Rotation(**{name: getattr(row, name) for name in Rotation.__slots__})


KEPT = timedelta(days=8)
"""How long an old key is published beside the new one: a day longer than a delivery is tried."""
