"""Create of a post that answers one of ours, or names an account of ours; its Update and its Delete.

Rule: what answers one of our posts, at whatever depth, is a reply; what only names somebody here is a mention, and
becomes a reply when it turns out to hang below one of our posts after all. What is not held is never fetched here:
`thread` does that, later and within limits.
"""

from __future__ import annotations

from datetime import timedelta

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.people import Mention, Peer, Reply
from threadbridge.federation import answering, loops
from threadbridge.federation.heard import Heard, PreparedNote
from threadbridge.federation.react import our_post
from threadbridge.storage import accounts, jobs, mentions, peers, replies, seen
from threadbridge.storage.store import Tx

CLIMB = "climb_thread"
"""The kind of job that finds out where a post hangs that names somebody here; see `thread`."""
LOOK = "look_around"
"""The kind of job that looks for answers that nobody sent us, below one post of ours."""
LOOK_AFTER = timedelta(minutes=2)
NAMED_MAX = 20
"""How many accounts here one post is a mention of, at most."""


def received(tx: Tx, activity: incoming.Create, heard: Heard) -> str | None:
    """Keep an answer to one of our posts, or to an answer that we hold; keep what names an account here."""
    note = heard.note
    if note is None or note.author != activity.actor:
        return "not a post"
    if note.in_reply_to is not None and note.is_vote:
        return "a vote; polls are decided at their source"
    if seen.heard_of(tx, note.uri, activity.actor):
        return "known already, or deleted before it came"
    target = None
    if note.in_reply_to is not None:
        target = our_post(tx, heard.ids, note.in_reply_to) or replies.target(tx, note.in_reply_to)
    named = _named(tx, heard, besides=target[0] if target else None)
    if target is None and not named:
        return "answers nothing of ours"
    refused = loops.refuse_copy(tx, heard.ids, note, target[0] if target else named[0])
    if refused is not None:
        return refused
    reason = keep(tx, *target, note, heard.peer, ids=heard.ids) if target is not None else None
    kept = [_mentioned(tx, account_id, note, heard.peer) for account_id in named]
    if target is None and any(kept) and note.in_reply_to is not None:
        jobs.add(tx, CLIMB, jobs.key_of(note.uri), {"uri": note.uri})
    if target is None and not any(kept):
        return "known already, or deleted before it came"
    return reason


def keep(
    tx: Tx, account_id: int, post_id: int, note: PreparedNote, peer: Peer, *, ids: Ids | None = None
) -> str | None:
    """Keep a post as an answer to one of ours, and with it what had come before it and answers it; returns why not.
    With `ids` its author is told when it is not let through, or is where not everybody would be."""
    if (refused := answering.judged(tx, ids, account_id, post_id, note.uri, peer)) is not None:
        return refused
    if note.copy_of is not None and replies.is_told(tx, post_id, note.copy_of):
        return "told already, over another bridge"
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
    if peer is None or answering.judged(tx, None, account_id, post_id, mention.uri, peer) is not None:
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
    if mention.public:
        ask_around(tx, account_id, post_id)
    return True


def ask_around(tx: Tx, account_id: int, post_id: int) -> None:
    """Have the answers to the answers of a post looked for, in a while."""
    jobs.add(tx, LOOK, str(post_id), {"account": account_id, "post": post_id}, due_at=tx.now + LOOK_AFTER)


def _named(tx: Tx, heard: Heard, *, besides: int | None) -> list[int]:
    """Which accounts here a post is addressed to or mentions."""
    assert heard.note is not None
    found: list[int] = []
    for uri in heard.note.named:
        number = heard.ids.account_id(uri)
        if number is None or number == besides or number in found:
            continue
        account = accounts.by_id(tx, number)
        if account is not None and account.state is not AccountState.GONE:
            found.append(number)
        if len(found) == NAMED_MAX:
            break
    return found


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
            updated=note.updated or tx.now,
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
