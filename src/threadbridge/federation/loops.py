"""The loop guard: what comes back to us over bridges and relays, and must not count as somebody's word.

Rule: what a document claims about itself is believed against itself only. Dropped are copies of our own posts, copies
of Threads posts (the owner has the original at its source), and announcements by servers rather than people. What
somebody says *through* a bridge is theirs, and stays.
"""

from __future__ import annotations

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import same_origin
from threadbridge.activitypub.text import host_of
from threadbridge.domain.people import Peer
from threadbridge.domain.source import THREADS_HOSTS
from threadbridge.federation.heard import Heard, PreparedNote
from threadbridge.storage import decisions, outages, relays, replies
from threadbridge.storage.store import Tx

BRIDGES = frozenset({"birdsitelive", "bridgy-fed", "momostr", "threadbridge"})
"""Software, as its NodeInfo calls it, that brings what was said on another network."""
OTHERS = "a relay passes on others' posts"


def announced_by(tx: Tx, peer: Peer) -> str | None:
    """Why an Announce of a post of ours is nobody's boost; None when it is one."""
    if relays.by_actor(tx, peer.uri) is not None:
        return "a relay passes on our own post"
    if peer.kind in incoming.SERVER_KINDS:
        # Relays that others subscribed to; every one of them speaks as an Application.
        return "a server announces, not a person"
    return None


def about_others(tx: Tx, activity: incoming.Like | incoming.Announce, heard: Heard) -> str:
    """Why a reaction to something that is not ours has no effect."""
    if isinstance(activity, incoming.Announce) and relays.by_actor(tx, heard.peer.uri) is not None:
        return OTHERS
    return "about no post of ours"


def arranged(tx: Tx, activity: incoming.Arrange, heard: Heard) -> str:
    """Somebody puts something into a collection, or takes it out. On their own profile that is nothing here, also
    when it is a post of ours; and nobody but their owners arranges the collections here."""
    if activity.target is not None and activity.target.startswith(heard.ids.base + "/"):
        return "arranges a collection here, which is its owner's"
    return "arranges a collection of their own"


def copied(tx: Tx, ids: Ids, note: PreparedNote) -> str | None:
    """Why a post is a copy that we do not take; None when it may be kept."""
    original = note.copy_of
    if original is None and note.url is not None and is_bridge(tx, host_of(note.uri)):
        # Older ones say only in its human address where it was said first.
        original = note.url
    if original is None:
        return None
    if original.startswith(ids.base + "/"):
        return "our own post, back over a bridge"
    host = host_of(original) if original.startswith(("https://", "http://")) else ""
    # threads.net speaks ActivityPub itself: there the address is the post's own, not that of a copy.
    if host in THREADS_HOSTS and host_of(note.uri) not in THREADS_HOSTS:
        return "a copy of a Threads post, by another bridge"
    return None


def is_bridge(tx: Tx, host: str) -> bool:
    """Whether a server says of itself that it is a bridge. Against itself that is believed."""
    return outages.software_of(tx, host) in BRIDGES


def is_told(tx: Tx, post_id: int, uri: str, copy_of: str) -> bool:
    """Whether what an answer says that it is a copy of is held here, as itself or as another copy of one bridge.

    An address is believed only of the server that it is on, and a copy only against copies of the same server: what
    anybody claims to be a copy must not keep out the one that is (what comes over two bridges is shown twice)."""
    for other, original in replies.told_as(tx, post_id, copy_of):
        # Its page may be anywhere, by its own word; its id is where it was fetched or signed.
        if other == copy_of or same_origin(other, copy_of if original else uri):
            return True
    return False


def refuse_copy(tx: Tx, ids: Ids, note: PreparedNote, account_id: int | None) -> str | None:
    """`copied`, with the refusal written down for the owner whom it concerns."""
    reason = copied(tx, ids, note)
    if reason is not None:
        decisions.write(tx, "Create", reason, subject=note.uri, host=host_of(note.uri), account_id=account_id)
    return reason
