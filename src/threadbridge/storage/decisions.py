"""What this server refused or decided by itself.

Rule: every refusal that concerns somebody is one row with its reason in words, beside the structured log line; rows
are few (what arrives from nowhere is only counted, see `seen.count_dropped`) and forgotten after thirty days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_d = schema.decisions


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


def forget(tx: Tx, before: datetime) -> int:
    """Forget what was decided before a time; returns how many rows went."""
    return tx.execute(delete(_d).where(_d.c.at < before)).rowcount
