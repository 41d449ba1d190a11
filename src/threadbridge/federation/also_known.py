"""Aliases: other actors that an owner says are the same person, from which followers may be moved here.

Rule: an alias is looked up before it is written down, so that a typing error is found by its owner and not by a move
that silently fails. What it says of the other side is shown; that the other side agrees is checked by whoever moves.
"""

from __future__ import annotations

from threadbridge.activitypub import document
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import is_web_address
from threadbridge.domain.people import Peer
from threadbridge.errors import BadAnswer, Conflict, Invalid, NetworkError
from threadbridge.net.peers import Peers
from threadbridge.storage import profiles
from threadbridge.storage.store import Store, Tx


async def add(store: Store, peers: Peers, ids: Ids, account_id: int, given: str) -> Peer:
    """Look up `@user@host` or an actor's address, and make it an alias; returns who it is. Raises Invalid and
    Conflict in words for the owner."""
    found = await look_up(peers, ids, given)
    await store.transact(_add, account_id, found)
    return found


async def look_up(peers: Peers, ids: Ids, given: str) -> Peer:
    """Who a handle or an address is. Raises Invalid."""
    wanted = given.strip()
    if ids.is_ours(wanted) or wanted.lower().endswith(f"@{ids.authority}"):
        raise Invalid("That account is on this very server", hint="Name the account that you have elsewhere.")
    try:
        if is_web_address(wanted):
            uri = document.id_of(await peers.document(wanted))
        elif wanted.lstrip("@").count("@") == 1:
            uri = await peers.webfinger(wanted)
        else:
            raise Invalid(f"{wanted[:100]!r} is no account", hint="Give @name@server, or the address of its profile.")
        return await peers.actor(uri)
    except BadAnswer as error:
        raise Invalid(f"No account was found at {wanted[:200]}", detail=str(error)) from None
    except NetworkError as error:
        raise Invalid(f"{wanted[:200]} could not be looked up", detail=error.public) from None


def _add(tx: Tx, account_id: int, found: Peer) -> None:
    if not profiles.add_alias(tx, account_id, found.uri, handle=found.handle, name=found.name):
        raise Conflict(f"{found.handle} is an alias already", hint="There is nothing to do: the profile names it.")
