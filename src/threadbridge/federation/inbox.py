"""The table of verbs: everything that this server reacts to when another server speaks.

    Follow                follow.received, relay.followed
    Like, EmojiReact      react.received
    Announce              react.received
    Undo                  follow.undone, react.undone, quote.undone; what it overtook never counts
    Create                reply.received, vote.received, quote.noticed
    Update                reply.edited, quote.noticed, actor.updated
    Delete                reply.deleted, quote.ended, quote.withdrawn, rules.end_approval, actor.deleted
    Block                 follow.blocked
    Move                  move.received
    QuoteRequest          quote.requested
    ReplyRequest          answering.requested
    Accept, Reject        quote.answered, relay.answered      (of what we asked)
    Add, Remove           loops.arranged
    Flag                  report.received
    (fetched, not sent)   reply.found, by `thread`

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
from threadbridge.federation import (
    actor,
    admission,
    answering,
    enforcement,
    follow,
    loops,
    move,
    quote,
    react,
    relay,
    reply,
    report,
    vote,
)
from threadbridge.federation.heard import Done, Dropped, Heard, Outcome
from threadbridge.signatures.schemes import Verified
from threadbridge.storage import hosts, peers, quotes, rules, seen, strangers
from threadbridge.storage.store import Tx

kind_of = incoming.name_of

Verb = Callable[[Tx, Any, Heard], str | None]
"""Lets an activity have its effect; returns why it has none."""


def receive(tx: Tx, verified: Verified, activity: Activity, heard: Heard) -> Outcome:
    """Let a verified activity have its effect, once. Raises Forbidden when the signer is not the actor."""
    if verified.actor != activity.actor or verified.actor != heard.peer.uri:
        raise Forbidden(
            "The activity is signed by somebody else",
            detail=f"signed by {verified.actor}, actor {activity.actor}",
        )
    admitted = admission.admit(tx, activity, heard)
    if isinstance(admitted, admission.Refused):
        return admission.turned_away(tx, kind_of(activity), activity, heard, admitted)
    heard = admission.narrowed(tx, kind_of(activity), heard, admitted)
    first = seen.first_hearing(tx, activity.id, activity.actor, "done")
    reason = _done(tx, activity, heard, VERBS.get(type(activity)), admitted) if first else "seen before"
    if heard.host_is_news:
        taken_at = host_of(heard.peer.shared_inbox or heard.peer.inbox)
        hosts.heard_from(tx, taken_at, only_known=reason is not None)
    return _counted(tx, activity, reason) if first else Dropped("seen before")


def _done(tx: Tx, activity: Activity, heard: Heard, verb: Verb | None, admitted: admission.Admitted) -> str | None:
    """Let a verb have its effect; why it has none. Whoever is met by it stays met only then: or anybody could have
    us write down any number of people, by saying nothing."""
    if verb is None:
        return "nothing we react to"
    met = strangers.met(tx, heard.peer.uri)
    if heard.peer_is_news or not met:
        peers.save(tx, heard.peer, host_of(heard.peer.uri))
    reason = verb(tx, activity, heard)
    if reason is None and admitted.limited:
        enforcement.keep_back(tx, kind_of(activity), heard, admitted)
    if reason is not None and not met:
        strangers.forget(tx, [heard.peer.uri])
    return reason


def passed_on(tx: Tx, activity: Activity) -> Outcome:
    """A relay that we are subscribed to brings what is of no use here."""
    seen.count_dropped(tx, kind_of(activity), loops.OTHERS)
    return Dropped(loops.OTHERS)


def receive_fetched(tx: Tx, activity: Activity, heard: Heard, verb: Verb | None = None) -> Outcome:
    """Let an activity that its actor has not signed have its effect: its object was fetched from its own origin
    (`heard.note`), or found gone there, so nothing rests on who passed it on. `verb` is what `thread` does with what
    nobody sent at all."""
    if heard.note is not None and heard.note.author != heard.peer.uri:
        raise Forbidden("The object is by somebody else than the activity says")
    admitted = admission.admit(tx, activity, heard)
    if isinstance(admitted, admission.Refused):
        return admission.turned_away(tx, kind_of(activity), activity, heard, admitted)
    heard = admission.narrowed(tx, kind_of(activity), heard, admitted)
    # The activity's own id is not written down: nobody has confirmed it, and writing it down would make us deaf to
    # the activity that really bears it. What was fetched has its effect once by the object's id and time.
    forwardable = isinstance(activity, FORWARDABLE)
    verb = verb or VERBS[type(activity)]
    reason = _done(tx, activity, heard, verb, admitted) if forwardable else "not confirmed by its origin"
    if reason is None:
        return Done()
    seen.count_dropped(tx, kind_of(activity), reason)
    return Dropped(reason)


def _counted(tx: Tx, activity: Activity, reason: str | None) -> Outcome:
    if reason is None:
        return Done()
    seen.set_outcome(tx, activity.id, activity.actor, reason[:32])
    seen.count_dropped(tx, kind_of(activity), reason)
    return Dropped(reason)


def _undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    for undo in (follow.undone, react.undone, quote.undone):
        reason = undo(tx, activity, heard)
        if reason is None:
            return None
    if activity.inner_id:
        # The Undo overtook what it undoes: when that arrives, it has had its effect already.
        seen.first_hearing(tx, activity.inner_id, activity.actor, "undone before it came")
    return "undoes nothing we know"


def _followed(tx: Tx, activity: incoming.Follow, heard: Heard) -> str | None:
    if activity.object == heard.ids.instance:
        return relay.followed(tx, activity, heard)
    return follow.received(tx, activity, heard)


def _answered(tx: Tx, activity: incoming.Answer, heard: Heard) -> str | None:
    if quotes.quoting(tx, request_uri=activity.object) is not None:
        return quote.answered(tx, activity, heard)
    return relay.answered(tx, activity, heard)


def _updated(tx: Tx, activity: incoming.Update, heard: Heard) -> str | None:
    if activity.object_id == activity.actor:
        return actor.updated(tx, activity, heard)
    reason = reply.edited(tx, activity, heard)
    if heard.note is None or not _own_note(activity, heard):
        return reason
    noticed = quote.noticed(tx, heard.note, heard)
    return None if noticed is None else reason


def _deleted(tx: Tx, activity: incoming.Delete, heard: Heard) -> str | None:
    if activity.object == activity.actor:
        return actor.deleted(tx, activity, heard)
    rules.end_approval(tx, activity.object, activity.actor)
    ended = quote.ended(tx, activity.object, activity.actor)
    withdrawn = quote.withdrawn(tx, activity.object, activity.actor, heard.ids)
    reason = reply.deleted(tx, activity, heard)
    return None if ended or withdrawn else reason


def _own_note(activity: incoming.Create | incoming.Update, heard: Heard) -> bool:
    return heard.note is not None and heard.note.author == activity.actor


def _created(tx: Tx, activity: incoming.Create, heard: Heard) -> str | None:
    note = heard.note
    if note is None or not _own_note(activity, heard):
        return "not a post"
    if note.in_reply_to is not None and note.is_vote:
        return vote.received(tx, note, heard)
    reason = reply.received(tx, activity, heard)
    # A post may answer and quote at once.
    noticed = quote.noticed(tx, note, heard) if note.quotes is not None else reason
    return None if noticed is None else reason


def _requested(tx: Tx, activity: incoming.Request, heard: Heard) -> str | None:
    asked = quote.requested if activity.to_quote else answering.requested
    return asked(tx, activity, heard)


VERBS: dict[type, Verb] = {
    incoming.Follow: _followed,
    incoming.UndoOf: _undone,
    incoming.Like: react.received,
    incoming.Announce: react.received,
    incoming.Create: _created,
    incoming.Request: _requested,
    incoming.Update: _updated,
    incoming.Delete: _deleted,
    incoming.Block: follow.blocked,
    incoming.Move: move.received,
    incoming.Answer: _answered,
    incoming.Arrange: loops.arranged,
    incoming.Flag: report.received,
}
FORWARDABLE = (incoming.Create, incoming.Update, incoming.Delete)
