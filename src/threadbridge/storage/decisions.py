"""What this server refused or decided by itself.

Rule: every refusal that concerns somebody is one row with its reason in words, beside the structured log line; rows
are few (what arrives from nowhere is only counted, see `seen.count_dropped`) and forgotten after thirty days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_d = schema.decisions
_AGAIN_AFTER = timedelta(days=1)
FORGOTTEN_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. `kind` is the verb or the door ("Follow", "read", …), `subject` the id it is about."""

    account_id: int | None
    kind: str
    reason: str
    subject: str
    host: str
    at: datetime


def write(tx: Tx, kind: str, reason: str, *, subject: str, host: str, account_id: int | None = None) -> None:
    """Write down a decision; with `account_id` its owner sees it."""
    tx.execute(
        insert(_d).values(
            account_id=account_id, kind=kind[:64], reason=reason[:200], subject=subject, host=host[:255], at=tx.now
        )
    )


def write_once(tx: Tx, kind: str, reason: str, *, subject: str, host: str, account_id: int | None = None) -> bool:
    """Write down a decision unless the same one was written within the last day: whoever tries a thousand times fills
    no page. Returns whether it was written."""
    same = (
        _d.c.kind == kind[:64], _d.c.reason == reason[:200], _d.c.subject == subject, _d.c.at > tx.now - _AGAIN_AFTER,
        _d.c.account_id.is_(None) if account_id is None else _d.c.account_id == account_id,
    )  # fmt: skip
    if tx.execute(select(_d.c.id).where(*same).limit(1)).first() is not None:
        return False
    write(tx, kind, reason, subject=subject, host=host, account_id=account_id)
    return True


def page(
    tx: Tx, *, account_id: int | None = None, limit: int = 50, before_id: int | None = None
) -> list[tuple[int, Decision]]:
    """Decisions, latest first, with the row number to go on from: those about one account, or all."""
    query = select(_d)
    if account_id is not None:
        query = query.where(_d.c.account_id == account_id)
    if before_id is not None:
        query = query.where(_d.c.id < before_id)
    rows = tx.execute(query.order_by(_d.c.id.desc()).limit(limit))
    return [(row.id, Decision(row.account_id, row.kind, row.reason, row.subject, row.host, row.at)) for row in rows]


def forget(tx: Tx, before: datetime, *, limit: int = FORGOTTEN_AT_ONCE) -> int:
    """Forget some of what was decided before a time; returns how many rows went."""
    some = select(_d.c.id).where(_d.c.at < before).limit(limit)
    return tx.execute(delete(_d).where(_d.c.id.in_(some))).rowcount
