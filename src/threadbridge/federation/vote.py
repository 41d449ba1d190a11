"""Votes from the Fediverse on our polls: a Note with the option's name and nothing else, to the poll (Mastodon).

Rule: one person, one vote, before the end, for an option that there is. What comes late, twice or for nothing is
counted by its reason and dropped: voters are told by their own servers.
"""

from __future__ import annotations

import unicodedata

from threadbridge.delivery import polls
from threadbridge.federation.heard import Heard, PreparedNote
from threadbridge.federation.react import our_post
from threadbridge.storage import posts, seen, votes
from threadbridge.storage.store import Tx


def received(tx: Tx, note: PreparedNote, heard: Heard) -> str | None:
    """Count a vote."""
    found = our_post(tx, heard.ids, note.in_reply_to) if note.in_reply_to else None
    post = posts.by_id(tx, *found) if found else None
    if post is None or post.poll is None or post.poll.votes is None:
        # A poll whose figures nobody knows is said as a list: nothing could be added to it.
        return "a vote in no poll of ours"
    if post.poll.closes_at is not None and post.poll.closes_at <= tx.now:
        return "a vote after the end"
    if post.account_id in heard.closed:
        return "not wanted by whose poll it is"
    wanted = _plain(note.name or "")
    choice = next((place for place, name in enumerate(post.poll.options) if _plain(name) == wanted), None)
    if choice is None:
        return "a vote for no option of the poll"
    if seen.heard_of(tx, note.uri, note.author):
        return "deleted before it came"
    if not votes.add(tx, post.account_id, post.id, note.author, choice):
        return "has voted already"
    polls.moved(tx, post.account_id, post.id)
    return None


def _plain(name: str) -> str:
    """An option without what servers change by themselves: composition, spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())
