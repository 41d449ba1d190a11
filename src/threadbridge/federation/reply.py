"""Create of a post that answers one of ours, its Update and its Delete."""

from __future__ import annotations

from threadbridge.activitypub import incoming
from threadbridge.domain.people import Reply
from threadbridge.federation.heard import Heard
from threadbridge.federation.react import our_post
from threadbridge.storage import replies, seen
from threadbridge.storage.store import Tx


def received(tx: Tx, activity: incoming.Create, heard: Heard) -> str | None:
    """Keep an answer to one of our posts, or to an answer that we hold."""
    note = heard.note
    if note is None or note.author != activity.actor:
        return "not a post"
    if note.in_reply_to is None:
        return "answers nothing of ours"
    if note.is_vote:
        return "a vote; polls are decided at their source"
    target = our_post(tx, heard.ids, note.in_reply_to) or replies.target(tx, note.in_reply_to)
    if target is None:
        return "answers nothing of ours"
    account_id, post_id = target
    reply = Reply(
        uri=note.uri,
        post_id=post_id,
        peer_uri=activity.actor,
        handle=heard.peer.handle,
        name=heard.peer.name,
        author_url=heard.peer.url,
        url=note.url,
        html=note.html,
        # A date in the future would stay on top of the page for ever.
        published=min(note.published or tx.now, tx.now),
        updated=note.updated,
        public=note.public,
    )
    if seen.heard_of(tx, note.uri, activity.actor) or not replies.add(tx, account_id, reply, note.original):
        return "known already, or deleted before it came"
    return None


def edited(tx: Tx, activity: incoming.Update, heard: Heard) -> str | None:
    """Take over the new text of an answer, if it is by the same author and newer."""
    note = heard.note
    if note is None or note.author != activity.actor:
        return "not a post"
    changed = replies.edit(
        tx,
        note.uri,
        activity.actor,
        html=note.html,
        updated=note.updated or tx.now,
        public=note.public,
        original=note.original,
    )
    return None if changed else "no such answer, or not newer"


def deleted(tx: Tx, activity: incoming.Delete, heard: Heard) -> str | None:
    """Forget an answer; if it has not come yet, make sure that it never does."""
    if replies.remove(tx, activity.object, activity.actor):
        return None
    seen.first_hearing(tx, activity.object, activity.actor, "deleted before it came")
    return "no such answer"
