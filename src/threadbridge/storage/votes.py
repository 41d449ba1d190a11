"""Votes from the Fediverse on our polls.

Rule: one person has one vote, and it stays, though it does not count while a rule of ours has it parked; what the
source counts is never touched by it.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, func, select

from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

_v = schema.votes


def add(tx: Tx, account_id: int, post_id: int, peer_uri: str, choice: int) -> bool:
    """Count a vote for the option at place `choice`; False if this person has voted."""
    made = tx.execute(
        tx.insert(_v)
        .values(account_id=account_id, post_id=post_id, peer_uri=peer_uri, choice=choice, at=tx.now)
        .on_conflict_do_nothing()
        .returning(_v.c.id)
    )
    if made.first() is None:
        return False
    touch(tx, account_id, figures_only=True)
    return True


def counts(tx: Tx, post_ids: Collection[int]) -> dict[int, dict[int, int]]:
    """{post id: {place of the option: votes from the Fediverse}}."""
    held: dict[int, dict[int, int]] = {}
    if not post_ids:
        return held
    rows = tx.execute(
        select(_v.c.post_id, _v.c.choice, func.count().label("votes"))
        .where(_v.c.post_id.in_(list(post_ids)), _v.c.parked.is_(None))
        .group_by(_v.c.post_id, _v.c.choice)
    )
    for row in rows:
        held.setdefault(row.post_id, {})[row.choice] = row.votes
    return held


def end_of_peer(tx: Tx, peer_uri: str) -> None:
    """Somebody is gone, and their votes."""
    rows = tx.execute(delete(_v).where(_v.c.peer_uri == peer_uri).returning(_v.c.account_id)).all()
    for account_id in {row.account_id for row in rows}:
        touch(tx, account_id, figures_only=True)
