"""Work written down: jobs under a lease.

Rule: a job is added in the transaction that made it necessary. Whoever takes it holds a lease with a fencing number:
finishing works only with the number under which it was taken, so a worker that was thought dead cannot undo what its
successor did. `(kind, key)` is unique: asking twice for the same work is asking once, until somebody has begun. What
is asked for then is done anew afterwards, since the one who is at it may have looked already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Insert, and_, bindparam, case, delete, func, or_, select, update

from threadbridge.storage import schema
from threadbridge.storage.prepared import InsertInto, Prepared
from threadbridge.storage.store import Tx

_j = schema.jobs
_KEY_MAX = 128


@dataclass(frozen=True, slots=True)
class Job:
    """A job as taken: `lease` must be given back to finish it."""

    id: int
    kind: str
    key: str
    arguments: dict[str, Any]
    attempts: int
    lease: int
    trail: str | None = None
    """The id in the log of what made it necessary."""


def add(
    tx: Tx,
    kind: str,
    key: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    due_at: datetime | None = None,
    anew: bool = True,
    patient: bool = False,
) -> None:
    """Ask for work at or after `due_at` (now). If it is asked for already, the earlier time holds; a job that had
    failed is tried anew. One that is being done is done once more, at `due_at`, with these arguments, unless `anew`
    is False: then whoever does it looks for what came meanwhile. A `patient` one gives way to the others (`take`)."""
    text = json.dumps(dict(arguments or {}))
    asking = _ADD if anew else _ADD_UNLESS_HELD
    asking.run(tx, kind=kind, key=key, arguments=text, due_at=due_at or tx.now, created_at=tx.now, trail=tx.trail,
               lane=int(patient))  # fmt: skip
    tx.wake(due_at)


_held = _j.c.leased_until.is_not(None)


def _adding(insert: InsertInto, *, anew: bool) -> Insert:
    asked = insert(_j)
    new = asked.excluded
    # Due already and not begun: nothing is early enough to be earlier, and what it is about is said anew.
    counts = or_(_j.c.due_at > new.due_at, new.due_at <= new.created_at, _j.c.failed_at.is_not(None))
    return asked.on_conflict_do_update(
        index_elements=["kind", "key"],
        set_={
            "due_at": case(
                (_held, _j.c.due_at),
                (and_(_j.c.failed_at.is_(None), _j.c.due_at < new.due_at), _j.c.due_at),
                else_=new.due_at,
            ),
            "arguments": case((_held, _j.c.arguments), else_=new.arguments),
            "trail": case((_held, _j.c.trail), else_=new.trail),
            "failed_at": None,
            "attempts": case((_held, _j.c.attempts), else_=0),
            "asked_again": case(
                (and_(_held, _j.c.asked_again < new.due_at), _j.c.asked_again), (_held, new.due_at), else_=None
            ),
            "asked_arguments": case((_held, new.arguments), else_=None),
        },
        where=or_(_held, counts) if anew else and_(_j.c.leased_until.is_(None), counts),
    )


_COLUMNS = ["kind", "key", "arguments", "due_at", "created_at", "trail", "lane"]
_ADD = Prepared(lambda insert: _adding(insert, anew=True), _COLUMNS)
_ADD_UNLESS_HELD = Prepared(lambda insert: _adding(insert, anew=False), _COLUMNS)


def key_of(text: str) -> str:
    """A key for work that is about a long name (an inbox, a host): itself, or its hash."""
    return text if len(text) <= _KEY_MAX else hashlib.sha256(text.encode()).hexdigest()


def wanted(tx: Tx, kind: str, key: str) -> bool:
    """Whether this work is asked for and will still be done."""
    found = select(_j.c.id).where(_j.c.kind == kind, _j.c.key == key, _j.c.failed_at.is_(None))
    return tx.execute(found).first() is not None


def trouble(tx: Tx, kind: str, key: str) -> str | None:
    """Why this work is not done yet, or was given up; None when nothing is wrong with it."""
    return tx.execute(select(_j.c.reason).where(_j.c.kind == kind, _j.c.key == key)).scalar_one_or_none()


def anything_due(tx: Tx, kinds: list[str]) -> bool:
    """Whether `take` would find something; read-only, so that an idle worker writes nothing."""
    due = select(_j.c.id).where(
        _j.c.kind.in_(kinds),
        _j.c.due_at <= tx.now,
        _j.c.failed_at.is_(None),
        or_(_j.c.leased_until.is_(None), _j.c.leased_until < tx.now),
    )
    return tx.execute(due.limit(1)).first() is not None


def next_due(tx: Tx, kinds: list[str]) -> datetime | None:
    """When the next job is due of those that are not due yet; what somebody holds is theirs."""
    later = select(_j.c.due_at).where(_j.c.kind.in_(kinds), _j.c.due_at > tx.now, _j.c.failed_at.is_(None))
    return tx.execute(later.order_by(_j.c.due_at).limit(1)).scalar()


def take(tx: Tx, kinds: list[str], lease_seconds: float, limit: int, *, patient_first: bool = False) -> list[Job]:
    """Claim due jobs that nobody holds, those that are patient last, or for once first (or they would starve)."""
    ids: list[int] = []
    for lane in (1, 0) if patient_first else (0, 1):
        if len(ids) >= limit:
            break
        free = (
            select(_j.c.id)
            .where(
                _j.c.kind.in_(kinds),
                _j.c.lane == lane,
                _j.c.due_at <= tx.now,
                _j.c.failed_at.is_(None),
                or_(_j.c.leased_until.is_(None), _j.c.leased_until < tx.now),
            )
            .order_by(_j.c.due_at)
            .limit(limit - len(ids))
            .with_for_update(skip_locked=True)
        )
        ids += [row.id for row in tx.execute(free)]
    if not ids:
        return []
    rows = tx.execute(
        update(_j)
        .where(_j.c.id.in_(ids))
        .values(leased_until=tx.now + timedelta(seconds=lease_seconds), lease=_j.c.lease + 1)
        .returning(_j.c.id, _j.c.kind, _j.c.key, _j.c.arguments, _j.c.attempts, _j.c.lease, _j.c.trail)
    )
    return [Job(r.id, r.kind, r.key, json.loads(r.arguments), r.attempts, r.lease, r.trail) for r in rows]


def extend(tx: Tx, held: list[tuple[int, int]], lease_seconds: float) -> None:
    """Keep the leases of (job id, lease) pairs still being worked on."""
    for job_id, lease in held:
        tx.execute(
            update(_j)
            .where(_j.c.id == job_id, _j.c.lease == lease)
            .values(leased_until=tx.now + timedelta(seconds=lease_seconds))
        )


def progress(tx: Tx, job: Job, arguments: Mapping[str, Any]) -> bool:
    """Write down how far a long job has come, in the transaction that came so far; False if the lease was lost."""
    kept = tx.execute(
        update(_j).where(_j.c.id == job.id, _j.c.lease == job.lease).values(arguments=json.dumps(dict(arguments)))
    )
    return bool(kept.rowcount)


def finish(tx: Tx, job: Job) -> bool:
    """The work is done: the row goes, unless it was asked for again meanwhile. False if the lease was lost (somebody
    else does it now)."""
    mine = and_(_j.c.id == job.id, _j.c.lease == job.lease)
    if tx.execute(delete(_j).where(mine, _j.c.asked_again.is_(None))).rowcount:
        return True
    return _let_go(tx, job, due_at=_j.c.asked_again, attempts=0, reason=None)


def put_off(tx: Tx, job: Job, due_at: datetime, *, reason: str | None = None) -> None:
    """Try again later."""
    attempts = case((_j.c.asked_again.is_(None), _j.c.attempts + 1), else_=0)
    _let_go(tx, job, due_at=_sooner(due_at), attempts=attempts, reason=reason)


def wait(tx: Tx, job: Job, due_at: datetime, *, reason: str) -> None:
    """Nothing was tried: it is not the time for it."""
    _let_go(tx, job, due_at=due_at, attempts=_j.c.attempts, reason=reason)


def again(tx: Tx, job: Job, due_at: datetime) -> None:
    """A job that repeats for ever: done for now, next at `due_at`, or when it was asked for again."""
    _let_go(tx, job, due_at=_sooner(due_at), attempts=0, reason=None)


def _sooner(due_at: datetime) -> ColumnElement[Any]:
    wanted = bindparam(None, due_at, _j.c.due_at.type)
    return case((_j.c.asked_again < wanted, _j.c.asked_again), else_=wanted)


def _let_go(tx: Tx, job: Job, **values: Any) -> bool:
    """Nobody holds it any more; what was asked for meanwhile is what is to be done next."""
    let_go = tx.execute(
        update(_j)
        .where(_j.c.id == job.id, _j.c.lease == job.lease)
        .values(
            leased_until=None,
            arguments=func.coalesce(_j.c.asked_arguments, _j.c.arguments),
            asked_again=None,
            asked_arguments=None,
            **values,
        )
    )
    return bool(let_go.rowcount)


def drop(tx: Tx, kind: str, key: str) -> None:
    """Nobody wants this work any more."""
    tx.execute(delete(_j).where(_j.c.kind == kind, _j.c.key == key))


def give_up(tx: Tx, job: Job, reason: str) -> None:
    """Stop trying; the row stays, with the reason, for the operator. If it was asked for again meanwhile it is tried
    anew instead, as it would be if it had been asked for a moment later."""
    anew = _j.c.asked_again.is_not(None)
    failed_at = case((anew, None), else_=bindparam(None, tx.now, _j.c.failed_at.type))
    due_at = func.coalesce(_j.c.asked_again, _j.c.due_at)
    attempts = case((anew, 0), else_=_j.c.attempts)
    _let_go(tx, job, due_at=due_at, attempts=attempts, failed_at=failed_at, reason=reason)


def summary(tx: Tx) -> dict[str, int]:
    """{'waiting': n, 'failed': n}."""
    failed = tx.execute(select(func.count()).select_from(_j).where(_j.c.failed_at.is_not(None))).scalar_one()
    waiting = tx.execute(select(func.count()).select_from(_j).where(_j.c.failed_at.is_(None))).scalar_one()
    return {"waiting": waiting, "failed": failed}
