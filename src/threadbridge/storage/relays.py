"""Relays that the operator subscribed to.

Rule: a relay speaks as one only while its row is 'accepted', and a row becomes that only by an Accept of the Follow
that it holds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, or_, select, update

from threadbridge.domain.people import Relay
from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_r = schema.relays


def ask(tx: Tx, *, address: str, inbox: str, actor_uri: str | None, follow_uri: str) -> None:
    """A relay was asked to let us in (again)."""
    asked = {
        "inbox": inbox, "actor_uri": actor_uri, "follow_uri": follow_uri, "state": "waiting", "asked_at": tx.now,
        "changed_at": tx.now,
    }  # fmt: skip
    tx.execute(
        tx.insert(_r).values(address=address, **asked).on_conflict_do_update(index_elements=["address"], set_=asked)
    )


def by_follow(tx: Tx, follow_uri: str) -> Relay | None:
    """The relay that was asked with this Follow."""
    return _one(tx, _r.c.follow_uri == follow_uri)


def by_address(tx: Tx, address: str) -> Relay | None:
    """The relay with this address as it was given."""
    return _one(tx, _r.c.address == address)


def by_actor(tx: Tx, actor_uri: str) -> Relay | None:
    """The relay, asked or accepted, whose actor this is."""
    return _one(tx, _r.c.actor_uri == actor_uri, _r.c.state.in_(["waiting", "accepted"]))


def is_accepted(tx: Tx, actor_uri: str) -> bool:
    """Whether this is the actor of a relay that has let us in."""
    found = by_actor(tx, actor_uri)
    return found is not None and found.state == "accepted"


def set_state(tx: Tx, address: str, state: str, *, actor_uri: str | None = None) -> None:
    """What became of it; the actor is kept when it is learnt."""
    learnt = {"actor_uri": actor_uri} if actor_uri is not None else {}
    tx.execute(update(_r).where(_r.c.address == address).values(state=state, changed_at=tx.now, **learnt))


def inboxes(tx: Tx) -> list[str]:
    """Where public posts go besides."""
    return [row.inbox for row in tx.execute(select(_r.c.inbox).where(_r.c.state == "accepted").order_by(_r.c.id))]


def listed(tx: Tx) -> list[Relay]:
    """All but the removed, in the order in which they were asked first."""
    return [_relay(row) for row in tx.execute(select(_r).where(_r.c.state != "removed").order_by(_r.c.id))]


def any_known(tx: Tx) -> bool:
    """Whether there is any relay at all."""
    known = or_(_r.c.state == "waiting", _r.c.state == "accepted")
    return tx.execute(select(_r.c.id).where(known).limit(1)).first() is not None


def _one(tx: Tx, *conditions: Any) -> Relay | None:
    row = tx.execute(select(_r).where(*conditions).order_by(_r.c.id).limit(1)).first()
    return _relay(row) if row else None


def _relay(row: Row[Any]) -> Relay:
    return Relay(row.address, row.inbox, row.actor_uri, row.follow_uri, row.state, row.asked_at, row.changed_at)
