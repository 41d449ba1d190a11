"""Create of a post that answers one of ours, or names an account of ours; its Update and its Delete.

Rule: what answers one of our posts, at whatever depth, is a reply; what only names somebody here is a mention, and
becomes a reply when it turns out to hang below one of our posts after all. What is not held is never fetched here:
`thread` does that, later and within limits.
"""

from __future__ import annotations

from datetime import timedelta

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.blocks import Standing
from threadbridge.domain.people import Mention, Peer, Reply
from threadbridge.federation import admission, answering, loops
from threadbridge.federation.heard import Heard, PreparedNote
from threadbridge.federation.react import our_post
from threadbridge.storage import jobs, mentions, parking, peers, replies, seen
from threadbridge.storage.store import Tx

CLIMB = "climb_thread"
"""The kind of job that finds out where a post hangs that names somebody here; see `thread`."""
LOOK = "look_around"
"""The kind of job that looks for answers that nobody sent us, below one post of ours."""
LOOK_AFTER = timedelta(minutes=2)


def received(tx: Tx, activity: incoming.Create, heard: Heard) -> str | None:
    """Keep an answer to one of our posts, or to an answer that we hold; keep what names an account here."""
    note = heard.note
    if note is None or note.author != activity.actor:
        return "not a post"
    if seen.heard_of(tx, note.uri, activity.actor):
        return "known already, or deleted before it came"
    target = place_of(tx, heard.ids, note.in_reply_to)
    aside = {target[0]} | heard.closed if target else heard.closed
    named = [account_id for account_id in admission.named_here(tx, heard) if account_id not in aside]
    if target is not None and target[0] in heard.closed:
        # Whose post it answers does not want it; whom it names besides may.
        target = None
    if target is None and not named:
        return "answers nothing of ours"
    refused = loops.refuse_copy(tx, heard.ids, note, target[0] if target else named[0])
    if refused is not None:
        return refused
    reason = None
    if target is not None:
        reason = keep(tx, *target, note, heard.peer, ids=heard.ids, limited=target[0] in heard.limited)
    kept = [_mentioned(tx, account_id, note, heard.peer) for account_id in named]
    if target is None and any(kept) and note.in_reply_to is not None:
        jobs.add(tx, CLIMB, jobs.key_of(note.uri), {"uri": note.uri})
    if target is None and not any(kept):
        return "known already, or deleted before it came"
    return reason


def found(tx: Tx, activity: incoming.Create, heard: Heard) -> str | None:
    """Keep an answer that was fetched and not sent (`thread`): nobody is told anything, and whom it names besides did
    not get it either."""
    note = heard.note
    place = place_of(tx, heard.ids, note.in_reply_to) if note is not None else None
    if note is None or place is None:
        return "answers nothing of ours"
    if place[0] in heard.closed:
        return "not wanted by whose post it answers"
    if seen.heard_of(tx, note.uri, activity.actor):
        return "known already, or deleted before it came"
    refused = loops.refuse_copy(tx, heard.ids, note, place[0])
    return refused or keep(tx, *place, note, heard.peer)


def place_of(tx: Tx, ids: Ids, uri: str | None) -> tuple[int, int] | None:
    """(account id, post id) of the post of ours that this is, or that it answers, at whatever depth."""
    return (our_post(tx, ids, uri) or replies.target(tx, uri)) if uri is not None else None


def keep(
    tx: Tx,
    account_id: int,
    post_id: int,
    note: PreparedNote,
    peer: Peer,
    *,
    ids: Ids | None = None,
    limited: bool = False,
) -> str | None:
    """Keep a post as an answer to one of ours, and with it what had come before it and answers it; returns why not.
    With `ids` its author is told when it is not let through, or is where not everybody would be (unless they are
    `limited`: then it will be hidden)."""
    if (refused := answering.judged(tx, ids, account_id, post_id, note.uri, peer, limited=limited)) is not None:
        return refused
    if note.copy_of is not None and loops.is_told(tx, post_id, note.uri, note.copy_of):
        return "told already, over a bridge"
    reply = Reply(
        uri=note.uri,
        post_id=post_id,
        peer_uri=peer.uri,
        handle=peer.handle,
        name=peer.name,
        author_url=peer.url,
        url=note.url,
        html=note.html,
        # A date in the future would stay on top of the page for ever.
        published=min(note.published or tx.now, tx.now),
        updated=note.updated,
        public=note.public,
    )
    if not replies.add(tx, account_id, reply, note.original, copy_of=note.copy_of):
        return "known already, or deleted before it came"
    adopt(tx, account_id, post_id, note.uri)
    if note.public:
        ask_around(tx, account_id, post_id)
    return None


def adopt(tx: Tx, account_id: int, post_id: int, uri: str) -> None:
    """A post is in its place: what is held as a mention and hangs below it belongs there too."""
    mentions.drop(tx, uri, account_id)
    found = [uri]
    while found:
        below = mentions.answering(tx, found.pop())
        found += [held.mention.uri for held in below if hang(tx, account_id, post_id, held)]


def hang(tx: Tx, account_id: int, post_id: int, held: mentions.Held) -> bool:
    """A mention turns out to be an answer to a post of this account; False if it is held as one."""
    mention = held.mention
    peer = peers.by_uri(tx, mention.peer_uri)
    if peer is None:
        return False
    standing = max(
        admission.ruling_about(tx, peer.uri, account_id).standing,
        admission.ruling_on_words(tx, mention.html, account_id).standing,
    )
    # It was let in by those whom it names; whose post it hangs below is asked as well.
    if standing is Standing.SUSPENDED:
        return False
    if answering.judged(tx, None, account_id, post_id, mention.uri, peer) is not None:
        return False
    reply = Reply(
        uri=mention.uri,
        post_id=post_id,
        peer_uri=mention.peer_uri,
        handle=mention.handle,
        name=mention.name,
        author_url=mention.author_url,
        url=mention.url,
        html=mention.html,
        published=mention.published,
        updated=mention.updated,
        public=mention.public,
    )
    mentions.drop(tx, mention.uri, account_id)
    if not replies.add(tx, account_id, reply, held.original):
        return False
    if standing is Standing.LIMITED:
        for tie in parking.reply(tx, mention.uri):
            parking.mark_reply(tx, tie, parking.LIMITED)
    if mention.public:
        ask_around(tx, account_id, post_id)
    return True


def ask_around(tx: Tx, account_id: int, post_id: int) -> None:
    """Have the answers to the answers of a post looked for, in a while. Not anew while that is done: it finds new
    ones itself, and whoever makes them by the thousand would have it begin its rounds again and again."""
    arguments = {"account": account_id, "post": post_id}
    jobs.add(tx, LOOK, str(post_id), arguments, due_at=tx.now + LOOK_AFTER, anew=False)


def _mentioned(tx: Tx, account_id: int, note: PreparedNote, peer: Peer) -> bool:
    mention = Mention(
        uri=note.uri,
        peer_uri=peer.uri,
        handle=peer.handle,
        name=peer.name,
        author_url=peer.url,
        url=note.url,
        html=note.html,
        in_reply_to=note.in_reply_to,
        published=min(note.published or tx.now, tx.now),
        updated=note.updated,
        public=note.public,
    )
    return mentions.add(tx, account_id, mention, note.original)


def edited(tx: Tx, activity: incoming.Update, heard: Heard) -> str | None:
    """Take over the new text of an answer or a mention, if it is by the same author and newer."""
    note = heard.note
    if note is None or note.author != activity.actor:
        return "not a post"
    changed = [
        edit(
            tx,
            note.uri,
            activity.actor,
            html=note.html,
            updated=note.updated,
            public=note.public,
            original=note.original,
        )
        for edit in (replies.edit, mentions.edit)
    ]
    return None if any(changed) else "no such answer, or not newer"


def deleted(tx: Tx, activity: incoming.Delete, heard: Heard) -> str | None:
    """Forget an answer or a mention; if it has not come yet, make sure that it never does."""
    removed = [remove(tx, activity.object, activity.actor) for remove in (replies.remove, mentions.remove)]
    if any(removed):
        return None
    seen.first_hearing(tx, activity.object, activity.actor, "deleted before it came")
    return "no such answer"
