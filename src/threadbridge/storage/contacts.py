"""People at the source: the owner's followers and followed people, as a download lists them.

Rule: they are the owner's address book, shown to the owner and exported; nothing is ever sent to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, insert, select

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

Relation = Literal["follower", "following"]
_CHUNK = 400
_t = schema.contacts


@dataclass(frozen=True, slots=True)
class Contact:
    """One person at the source. `at` is since when, if known."""

    relation: Relation
    username: str
    name: str
    url: str | None
    at: datetime | None


def unknown(tx: Tx, account_id: int, contacts: Sequence[Contact]) -> list[Contact]:
    """Those of `contacts` that are not held yet, each person once."""
    first: dict[tuple[str, str], Contact] = {}
    for contact in contacts:
        first.setdefault((contact.relation, contact.username), contact)
    names = sorted({username for _, username in first})
    for start in range(0, len(names), _CHUNK):
        held = tx.execute(
            select(_t.c.relation, _t.c.username).where(
                _t.c.account_id == account_id, _t.c.username.in_(names[start : start + _CHUNK])
            )
        )
        for row in held:
            first.pop((row.relation, row.username), None)
    return list(first.values())


def add(tx: Tx, account_id: int, contacts: Sequence[Contact]) -> int:
    """Keep contacts (idempotent); returns how many were new."""
    new = unknown(tx, account_id, contacts)
    if new:
        tx.execute(
            insert(_t),
            [
                {
                    "account_id": account_id,
                    "relation": contact.relation,
                    "username": contact.username,
                    "name": contact.name,
                    "url": contact.url,
                    "at": contact.at,
                }
                for contact in new
            ],
        )
    return len(new)


def counts(tx: Tx, account_id: int) -> dict[str, int]:
    """How many are held, by relation."""
    rows = tx.execute(
        select(_t.c.relation, func.count().label("held")).where(_t.c.account_id == account_id).group_by(_t.c.relation)
    )
    return {row.relation: row.held for row in rows}


def listed(tx: Tx, account_id: int, relation: Relation) -> Iterator[Contact]:
    """All of one relation, by user name, in constant memory."""
    last = ""
    while True:
        rows = tx.execute(
            select(_t)
            .where(_t.c.account_id == account_id, _t.c.relation == relation, _t.c.username > last)
            .order_by(_t.c.username)
            .limit(_CHUNK)
        ).all()
        for row in rows:
            yield Contact(row.relation, row.username, row.name, row.url, row.at)
        if len(rows) < _CHUNK:
            return
        last = rows[-1].username
