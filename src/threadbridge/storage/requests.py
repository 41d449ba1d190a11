"""Who waits for an owner to let them follow.

Rule: one row per account and person; how it ended is a mark on the row, never its removal.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, func, select, update

from threadbridge.domain.people import FollowRequest
from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_r, _p = schema.follow_requests, schema.peers
_waits = _r.c.ended_at.is_(None)
_aside = _r.c.outcome == "suspended"


def ask(tx: Tx, account_id: int, peer_uri: str, follow_uri: str) -> bool:
    """Somebody asks to follow; False if they wait already (then only their Follow's id is renewed)."""
    waits = waiting(tx, account_id, peer_uri) is not None
    asked = {} if waits else {"asked_at": tx.now, "ended_at": None, "outcome": None}
    tx.execute(
        tx.insert(_r)
        .values(account_id=account_id, peer_uri=peer_uri, follow_uri=follow_uri, asked_at=tx.now)
        .on_conflict_do_update(index_elements=["account_id", "peer_uri"], set_={"follow_uri": follow_uri, **asked})
    )
    return not waits


def waiting(tx: Tx, account_id: int, peer_uri: str) -> str | None:
    """The id of the Follow with which somebody waits; None if they do not."""
    return tx.execute(
        select(_r.c.follow_uri).where(_r.c.account_id == account_id, _r.c.peer_uri == peer_uri, _waits)
    ).scalar_one_or_none()


_END = Prepared(
    lambda _: (
        update(_r)
        .where(_r.c.account_id == bindparam("account"), _r.c.peer_uri == bindparam("peer"), _waits)
        .values(ended_at=bindparam("now", type_=_r.c.ended_at.type), outcome=bindparam("how"))
    )
)


def end(tx: Tx, account_id: int, peer_uri: str, outcome: str) -> bool:
    """The waiting is over: 'approved', 'rejected', 'withdrawn' (also while a rule has it put aside) or 'suspended';
    False if they did not wait."""
    if _END.run(tx, account=account_id, peer=peer_uri, now=tx.now, how=outcome):
        return True
    if outcome != "withdrawn":
        return False
    # Put aside by a rule: whoever takes the wish back meanwhile does not wait again with the end of the rule.
    aside = update(_r).where(_r.c.account_id == account_id, _r.c.peer_uri == peer_uri, _aside)
    return bool(tx.execute(aside.values(outcome=outcome)).rowcount)


def rejected(tx: Tx, account_id: int, peer_uri: str) -> bool:
    """Whether the owner sent somebody away who asked, and they have not asked anew."""
    said_no = (_r.c.account_id == account_id, _r.c.peer_uri == peer_uri, _r.c.outcome == "rejected")
    return tx.execute(select(_r.c.id).where(*said_no)).first() is not None


def withdraw_all(tx: Tx, peer_uri: str) -> int:
    """Somebody is gone: they wait nowhere any more."""
    there = _waits | _aside
    return tx.execute(
        update(_r).where(_r.c.peer_uri == peer_uri, there).values(ended_at=tx.now, outcome="withdrawn")
    ).rowcount


def account_asked(tx: Tx, follow_uri: str, peer_uri: str) -> int | None:
    """Which account a waiting Follow with this id is about (an Undo may name the id only)."""
    there = _waits | _aside
    return tx.execute(
        select(_r.c.account_id).where(_r.c.peer_uri == peer_uri, _r.c.follow_uri == follow_uri, there).limit(1)
    ).scalar_one_or_none()


def count(tx: Tx, account_id: int) -> int:
    """How many wait."""
    waits = select(func.count()).select_from(_r).where(_r.c.account_id == account_id, _waits)
    return int(tx.execute(waits).scalar_one())


def page(tx: Tx, account_id: int, *, limit: int, after_id: int = 0) -> list[tuple[int, FollowRequest]]:
    """Who waits, longest first, with the row number to go on from."""
    rows = tx.execute(
        select(_r.c.id, _r.c.peer_uri, _r.c.asked_at, _p.c.handle, _p.c.name, _p.c.url)
        .join(_p, _p.c.uri == _r.c.peer_uri)
        .where(_r.c.account_id == account_id, _waits, _r.c.id > after_id)
        .order_by(_r.c.id)
        .limit(limit)
    )
    return [(row.id, _request(row)) for row in rows]


def _request(row: Row[Any]) -> FollowRequest:
    return FollowRequest(row.peer_uri, row.handle, row.name, row.url, row.asked_at)
