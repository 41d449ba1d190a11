"""Archives that owners asked for: how far each has come, and where the finished ones lie.

Rule: an export ends as 'ready' or as 'failed' with its reason, both visible to the owner; one account has one under
way at a time. `file` is a name inside the folder of exports, never a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Row, String, cast, delete, insert, select, update

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

ExportState = Literal["waiting", "building", "ready", "failed"]
_UNDER_WAY = get_args(ExportState)[:2]
_e = schema.exports


@dataclass(frozen=True, slots=True)
class Export:
    """One archive. `done` of `total` counts things written (posts, files, deliveries …); `size` is in bytes."""

    id: int
    account_id: int
    state: ExportState
    phase: str
    done: int
    total: int
    file: str | None
    size: int | None
    sha256: str | None
    reason: str | None
    requested_at: datetime
    finished_at: datetime | None

    @property
    def under_way(self) -> bool:
        return self.state in _UNDER_WAY


def _export(row: Row[Any]) -> Export:
    return Export(
        id=row.id,
        account_id=row.account_id,
        state=row.state,
        phase=row.phase,
        done=row.done,
        total=row.total,
        file=row.file,
        size=row.size,
        sha256=row.sha256,
        reason=row.reason,
        requested_at=row.requested_at,
        finished_at=row.finished_at,
    )


def create(tx: Tx, account_id: int) -> int:
    """A new export that waits to be built; returns its number."""
    number: int = tx.execute(
        insert(_e).values(account_id=account_id, state="waiting", phase="", requested_at=tx.now).returning(_e.c.id)
    ).scalar_one()
    return number


def get(tx: Tx, export_id: int) -> Export | None:
    row = tx.execute(select(_e).where(_e.c.id == export_id)).first()
    return _export(row) if row else None


def listed(tx: Tx, account_id: int) -> list[Export]:
    """An account's exports, latest first."""
    return [
        _export(row) for row in tx.execute(select(_e).where(_e.c.account_id == account_id).order_by(_e.c.id.desc()))
    ]


def under_way(tx: Tx, account_id: int, job_kind: str) -> Export | None:
    """The export that waits or is being built; None when there is none, or its job of `job_kind` was given up.

    Holds the account's row until the end of the transaction, so that two requests at once find each other.
    """
    j = schema.jobs
    tx.execute(select(schema.accounts.c.id).where(schema.accounts.c.id == account_id).with_for_update())
    row = tx.execute(
        select(_e)
        .join(j, j.c.key == cast(_e.c.id, String))
        .where(
            _e.c.account_id == account_id, _e.c.state.in_(_UNDER_WAY), j.c.kind == job_kind, j.c.failed_at.is_(None)
        )
        .order_by(_e.c.id.desc())
        .limit(1)
    ).first()
    return _export(row) if row else None


def abandon(tx: Tx, account_id: int, reason: str) -> None:
    """Mark exports as failed that nobody works on any more."""
    tx.execute(
        update(_e)
        .where(_e.c.account_id == account_id, _e.c.state.in_(_UNDER_WAY))
        .values(state="failed", reason=reason, finished_at=tx.now)
    )


def set_progress(tx: Tx, export_id: int, phase: str, done: int, total: int) -> None:
    """Say how far it has come; without effect once it has ended."""
    tx.execute(
        update(_e)
        .where(_e.c.id == export_id, _e.c.state.in_(_UNDER_WAY))
        .values(state="building", phase=phase, done=done, total=total)
    )


def set_ready(tx: Tx, export_id: int, *, file: str, size: int, sha256: str) -> None:
    """The archive lies in `file`."""
    tx.execute(
        update(_e)
        .where(_e.c.id == export_id)
        .values(
            state="ready",
            phase="",
            done=_e.c.total,
            file=file,
            size=size,
            sha256=sha256,
            reason=None,
            finished_at=tx.now,
        )
    )


def set_failed(tx: Tx, export_id: int, reason: str) -> None:
    """It came to nothing, and why, in words that the owner may read."""
    tx.execute(update(_e).where(_e.c.id == export_id).values(state="failed", reason=reason, finished_at=tx.now))


def retire(tx: Tx, account_id: int, keep: int) -> list[str]:
    """Forget all but the newest `keep` finished archives of an account; returns the files that may go."""
    old = tx.execute(
        select(_e.c.id, _e.c.file)
        .where(_e.c.account_id == account_id, _e.c.state == "ready")
        .order_by(_e.c.id.desc())
        .offset(keep)
    ).all()
    if old:
        tx.execute(delete(_e).where(_e.c.id.in_([row.id for row in old])))
    return [row.file for row in old if row.file]


def by_ids(tx: Tx, export_ids: Sequence[int]) -> dict[int, Export]:
    """{number: export} of those that exist."""
    rows = tx.execute(select(_e).where(_e.c.id.in_(list(export_ids))))
    return {row.id: _export(row) for row in rows}
