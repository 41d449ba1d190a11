"""Update and Delete of an actor who speaks about itself."""

from __future__ import annotations

from threadbridge.activitypub import incoming
from threadbridge.federation.heard import Heard
from threadbridge.storage import followers, peers
from threadbridge.storage.store import Tx


def updated(tx: Tx, activity: incoming.Update, heard: Heard) -> str | None:
    """The actor's description changed. It was signed with the key we know, so the new one, inboxes and key included,
    is believed (`heard.peer` holds it already: the door reads it from the activity)."""
    followers.move_inbox(tx, heard.peer)
    return None


def deleted(tx: Tx, activity: incoming.Delete, heard: Heard) -> str | None:
    """The actor is gone: so are its follow, its reactions and its answers."""
    peers.bury(tx, activity.actor)
    return None
