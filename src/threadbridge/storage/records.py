"""What only the owner's archive reads: every file, delivery, state and consent of one account.

Rule: everything comes as a stream in a fixed order, so that an account of any size is read with constant memory and
the same state gives the same sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select

from threadbridge.storage import belongings, rollups, schema
from threadbridge.storage.store import Tx

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the media store that a live post of the account shows."""

    sha256: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Sent:
    """One delivery of one activity to one inbox, and what became of it."""

    activity_uri: str
    kind: str
    host: str
    state: str
    attempts: int
    status: int | None
    reason: str | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Total:
    """Deliveries of one activity that ended in the same way, more than thirty days ago."""

    activity_uri: str
    kind: str
    state: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Holder:
    """A server to which a post was addressed more than thirty days ago, and the best that became of it there."""

    post_id: int
    host: str
    state: str


@dataclass(frozen=True, slots=True)
class StateChange:
    """A state that the account came into, and why."""

    state: str
    cause: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Consent:
    """What the owner agreed to."""

    kind: str
    wording: str
    at: datetime


def extent(tx: Tx, account_id: int) -> int:
    """How many things an archive of the account goes through: posts, files, deliveries, people, what came back."""
    p, d = schema.posts, schema.deliveries
    counted = (
        select(func.count()).select_from(p).where(p.c.account_id == account_id, p.c.deleted_at.is_(None)),
        select(func.count()).select_from(_files(account_id).subquery()),
        select(func.count())
        .select_from(d.join(schema.activities, schema.activities.c.id == d.c.activity_id))
        .where(schema.activities.c.account_id == account_id),
    )
    rolled_up = (select(func.count()).select_from(query.subquery()) for query in _rolled_up(account_id))
    gathered = sum(belongings.count(tx, kind, account_id) for kind in belongings.KINDS)
    return gathered + sum(int(tx.execute(query).scalar_one()) for query in (*counted, *rolled_up))


def files(tx: Tx, account_id: int) -> Iterator[StoredFile]:
    """Every file that live posts show, each once, by hash."""
    rows = tx.execute(_files(account_id).order_by(schema.media.c.sha256).execution_options(yield_per=_CHUNK))
    return (StoredFile(row.sha256, row.media_type, row.size) for row in rows)


def _files(account_id: int) -> Select[tuple[str, str, int]]:
    a, p, m = schema.attachments, schema.posts, schema.media
    shown = (
        select(a.c.sha256)
        .join(p, p.c.id == a.c.post_id)
        .where(p.c.account_id == account_id, p.c.deleted_at.is_(None), a.c.sha256.is_not(None))
    )
    return select(m.c.sha256, m.c.media_type, m.c.size).where(m.c.sha256.in_(shown))


def deliveries(tx: Tx, account_id: int) -> Iterator[Sent]:
    """The ledger of the account, in the order in which it was written."""
    d, a = schema.deliveries, schema.activities
    rows = tx.execute(
        select(
            a.c.uri, a.c.kind, d.c.host, d.c.state, d.c.attempts, d.c.status, d.c.reason, d.c.created_at, d.c.ended_at
        )
        .join(a, a.c.id == d.c.activity_id)
        .where(a.c.account_id == account_id)
        .order_by(a.c.id, d.c.id)
        .execution_options(yield_per=_CHUNK)
    )
    for row in rows:
        yield Sent(
            row.uri, row.kind, row.host, row.state, row.attempts, row.status, row.reason, row.created_at, row.ended_at
        )


def _rolled_up(account_id: int) -> tuple[Select[Any], Select[Any]]:
    t, a, h, i, p = (
        schema.delivery_totals, schema.activities, schema.post_holders, schema.inboxes, schema.posts,
    )  # fmt: skip
    totals = (
        select(a.c.uri, a.c.kind, t.c.state, t.c.reason, t.c.count.label("n"), t.c.first_at, t.c.last_at)
        .join(a, a.c.id == t.c.activity_id)
        .where(a.c.account_id == account_id)
        .order_by(t.c.activity_id, t.c.state, t.c.reason)
    )
    holders = (
        select(h.c.post_id, i.c.host, func.min(h.c.outcome).label("outcome"))
        .join(i, i.c.id == h.c.inbox_id)
        .join(p, p.c.id == h.c.post_id)
        .where(p.c.account_id == account_id)
        .group_by(h.c.post_id, i.c.host)
        .order_by(h.c.post_id, i.c.host)
    )
    return totals, holders


def totals(tx: Tx, account_id: int) -> Iterator[Total]:
    """What the roll-ups say of the account's deliveries, in the order of its activities."""
    rows = tx.execute(_rolled_up(account_id)[0].execution_options(yield_per=_CHUNK))
    for row in rows:
        yield Total(row.uri, row.kind, row.state, row.reason, row.n, row.first_at, row.last_at)


def holders(tx: Tx, account_id: int) -> Iterator[Holder]:
    """Which servers hold which posts by the roll-ups, each once, by post."""
    rows = tx.execute(_rolled_up(account_id)[1].execution_options(yield_per=_CHUNK))
    return (Holder(row.post_id, row.host, rollups.OUTCOMES[row.outcome]) for row in rows)


def states(tx: Tx, account_id: int) -> list[StateChange]:
    """Every state the account has been in, oldest first."""
    s = schema.account_states
    rows = tx.execute(select(s).where(s.c.account_id == account_id).order_by(s.c.id))
    return [StateChange(row.state, row.cause, row.at) for row in rows]


def consents(tx: Tx, account_id: int) -> list[Consent]:
    """Everything that was agreed to, oldest first."""
    c = schema.consents
    rows = tx.execute(select(c).where(c.c.account_id == account_id).order_by(c.c.id))
    return [Consent(row.kind, row.wording, row.at) for row in rows]
