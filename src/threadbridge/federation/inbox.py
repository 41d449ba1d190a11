"""The table of verbs: everything that this server reacts to when another server speaks.

    Follow    follow.received     Undo Follow      follow.undone
    Like      react.received      Undo Like        react.undone
    Announce  react.received      Undo Announce    react.undone
    Create    reply.received      Block            follow.blocked
    Update    reply.edited, actor.updated
    Delete    reply.deleted, actor.deleted

Rule: a verb gets here only with a `Verified`, which only a checked signature can make, and only for what the signer
itself says (Fedify's CVE-2025-54888 was processing before comparing). Each activity id has its effect
once: being the first to write the id down and having the effect are one transaction. What is well-formed and means
nothing here is counted with its reason and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from threadbridge.activitypub import incoming
from threadbridge.activitypub.incoming import Activity
from threadbridge.activitypub.text import host_of
from threadbridge.errors import Forbidden
from threadbridge.federation import actor, follow, react, reply
from threadbridge.federation.heard import Done, Dropped, Heard, Outcome
from threadbridge.signatures.schemes import Verified
from threadbridge.storage import hosts, peers, seen
from threadbridge.storage.store import Tx


def receive(tx: Tx, verified: Verified, activity: Activity, heard: Heard) -> Outcome:
    """Let a verified activity have its effect, once. Raises Forbidden when the signer is not the actor."""
    if verified.actor != activity.actor or verified.actor != heard.peer.uri:
        raise Forbidden(
            "The activity is signed by somebody else",
            detail=f"signed by {verified.actor}, actor {activity.actor}",
        )
    if heard.peer_is_news:
        peers.save(tx, heard.peer, host_of(heard.peer.uri))
    if heard.host_is_news:
        hosts.heard_from(tx, host_of(heard.peer.inbox))
    if not seen.first_hearing(tx, activity.id, activity.actor, "done"):
        return Dropped("seen before")
    verb = VERBS.get(type(activity))
    reason = verb(tx, activity, heard) if verb else "nothing we react to"
    return _counted(tx, activity, reason)


def receive_fetched(tx: Tx, activity: Activity, heard: Heard) -> Outcome:
    """Let a *forwarded* activity have its effect: its object was fetched from its own origin (`heard.note`), or found
    gone there, so nothing rests on who passed it on."""
    if heard.note is not None and heard.note.author != heard.peer.uri:
        raise Forbidden("The object is by somebody else than the activity says")
    peers.save(tx, heard.peer, host_of(heard.peer.uri))
    # The activity's own id is not written down: nobody has confirmed it, and writing it down would make us deaf to
    # the activity that really bears it. What was fetched has its effect once by the object's id and time.
    verb = VERBS.get(type(activity)) if isinstance(activity, FORWARDABLE) else None
    reason = verb(tx, activity, heard) if verb else "not confirmed by its origin"
    if reason is None:
        return Done()
    seen.count_dropped(tx, kind_of(activity), reason)
    return Dropped(reason)


def _counted(tx: Tx, activity: Activity, reason: str | None) -> Outcome:
    if reason is None:
        return Done()
    seen.set_outcome(tx, activity.id, reason[:32])
    seen.count_dropped(tx, kind_of(activity), reason)
    return Dropped(reason)


def kind_of(activity: Activity) -> str:
    """The activity's ActivityStreams name, for counting."""
    if isinstance(activity, incoming.Other):
        return activity.kind
    return "Undo" if isinstance(activity, incoming.UndoOf) else type(activity).__name__


def _undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    for undo in (follow.undone, react.undone):
        reason = undo(tx, activity, heard)
        if reason is None:
            return None
    if activity.inner_id:
        # The Undo overtook what it undoes: when that arrives, it has had its effect already.
        seen.first_hearing(tx, activity.inner_id, activity.actor, "undone before it came")
    return "undoes nothing we know"


def _updated(tx: Tx, activity: incoming.Update, heard: Heard) -> str | None:
    if activity.object_id == activity.actor:
        return actor.updated(tx, activity, heard)
    return reply.edited(tx, activity, heard)


def _deleted(tx: Tx, activity: incoming.Delete, heard: Heard) -> str | None:
    if activity.object == activity.actor:
        return actor.deleted(tx, activity, heard)
    return reply.deleted(tx, activity, heard)


VERBS: dict[type, Callable[[Tx, Any, Heard], str | None]] = {
    incoming.Follow: follow.received,
    incoming.UndoOf: _undone,
    incoming.Like: react.received,
    incoming.Announce: react.received,
    incoming.Create: reply.received,
    incoming.Update: _updated,
    incoming.Delete: _deleted,
    incoming.Block: follow.blocked,
}
FORWARDABLE = (incoming.Create, incoming.Update, incoming.Delete)
