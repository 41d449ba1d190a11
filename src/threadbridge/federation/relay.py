"""Relays, as a subscriber: public posts go to them, and what they answer to our Follow.

Rule: a relay is in only after the actor that it consists of has accepted our own Follow by its id (Pixelfed
CVE-2025-30741 took the wish for the answer); who shares a server with it is not it. What relays pass on of others is
not taken: this server shows nobody's timeline.
"""

from __future__ import annotations

import structlog

from threadbridge.activitypub import incoming, outgoing
from threadbridge.activitypub.ids import PUBLIC, Ids
from threadbridge.activitypub.incoming import same_origin
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import server_word
from threadbridge.domain.people import Relay
from threadbridge.errors import Conflict, NotFound
from threadbridge.federation.heard import Heard
from threadbridge.storage import blocks, decisions, relays
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

_PROGRAMS = frozenset({"Application", "Service"})


def subscribe(tx: Tx, ids: Ids, address: str, *, inbox: str, actor_uri: str | None) -> None:
    """Ask a relay to let us in: one with an actor by following that (LitePub), else by following the public
    collection at its inbox (Mastodon's way). Raises Conflict when it was asked already, or is suspended."""
    before = relays.by_address(tx, address)
    if before is not None and before.state in ("waiting", "accepted"):
        raise Conflict(
            f"{address} is subscribed to already ({before.state})",
            hint="To ask it anew, leave it first: `threadbridge relays remove`.",
        )
    if blocks.suspended_hosts(tx, [host_of(inbox)]):
        raise Conflict(
            f"{host_of(inbox)} is suspended here, so nothing is sent there",
            hint="Lift the rule first: `threadbridge blocks remove`.",
        )
    follow_uri = ids.relay_follow(address, tx.now)
    relays.ask(tx, address=address, inbox=inbox, actor_uri=actor_uri, follow_uri=follow_uri)
    server_word.ask(tx, outgoing.follow_relay(ids, follow_uri, actor_uri or PUBLIC), inbox)


def unsubscribe(tx: Tx, ids: Ids, address: str) -> None:
    """Leave a relay: it is told, and gets nothing from now on. Raises NotFound."""
    relay = relays.by_address(tx, address)
    if relay is None or relay.state == "removed":
        raise NotFound(f"There is no relay {address}", hint="`threadbridge relays list` lists them.")
    relays.set_state(tx, address, "removed")
    about = relay.actor_uri if _follows_actor(relay) else PUBLIC
    said = outgoing.undo_follow_relay(ids, relay.follow_uri, about or PUBLIC)
    server_word.ask(tx, said, relay.inbox, after=relay.follow_uri)


def listed(tx: Tx) -> list[tuple[Relay, str | None]]:
    """The relays, each with why our Follow has not reached it, if it has not."""
    return [(one, server_word.trouble(tx, one.follow_uri, one.inbox)) for one in relays.listed(tx)]


def _follows_actor(relay: Relay) -> bool:
    return relay.actor_uri is not None and relay.address == relay.actor_uri


def answered(tx: Tx, activity: incoming.Answer, heard: Heard) -> str | None:
    """A relay lets us in, or does not (any more)."""
    relay = relays.by_follow(tx, activity.object)
    if relay is None or relay.state == "removed":
        return "answers nothing that we asked"
    actor = heard.peer.uri
    if relay.actor_uri is not None:
        speaks = relay.actor_uri == actor
    else:
        # Mastodon's way names nobody: then it is a program of that server, and none of the people there.
        speaks = same_origin(actor, relay.inbox) and heard.peer.kind in _PROGRAMS
    if not speaks:
        _decided(tx, "an answer to our Follow by somebody else than the relay", activity)
        return "answers what somebody else was asked"
    state = "accepted" if activity.accepted else "rejected"
    relays.set_state(tx, relay.address, state, actor_uri=actor)
    _decided(tx, f"the relay has {state} our Follow", activity)
    return None


def _decided(tx: Tx, reason: str, activity: incoming.Answer) -> None:
    log.info(reason, actor=activity.actor)
    decisions.write(tx, "relay", reason, subject=activity.actor, host=host_of(activity.actor))


def followed(tx: Tx, activity: incoming.Follow, heard: Heard) -> str | None:
    """A LitePub relay follows the server's own actor back, and sends nothing before it hears an Accept. Nobody else
    follows that actor: it says nothing."""
    relay = relays.by_actor(tx, heard.peer.uri)
    if relay is None:
        return "follows the server itself"
    followed = outgoing.follow_said(activity.id, activity.actor, activity.object)
    server_word.ask(tx, outgoing.accept_relay(heard.ids, followed, tx.now), heard.peer.inbox)
    return None
