"""Like, EmojiReact and Announce of our posts, and their Undo."""

from __future__ import annotations

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.federation import loops
from threadbridge.federation.heard import Heard
from threadbridge.storage import accounts, posts, reactions
from threadbridge.storage.store import Tx


def received(tx: Tx, activity: incoming.Like | incoming.Announce, heard: Heard) -> str | None:
    """Keep it; it counts once per person and kind."""
    found = our_post(tx, heard.ids, activity.object)
    if found is None:
        return loops.about_others(tx, activity, heard)
    peer = heard.peer
    if isinstance(activity, incoming.Like):
        kept = reactions.react(tx, *found, peer.uri, "like", activity.id, emoji=activity.emoji, person=peer.original)
        return None if kept else "counted already"
    # A relay announces whatever passes through it, and no person has boosted anything.
    if (reason := loops.announced_by(tx, peer)) is not None:
        return reason
    if not reactions.react(tx, *found, peer.uri, "announce", activity.id, person=peer.original):
        return "counted already"
    return None


def undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    """Take it back: found by the id of the Like or Announce, else by what it was about."""
    if activity.inner_id:
        made = reactions.by_activity(tx, activity.inner_id, activity.actor)
        if made is not None:
            post_id, made_kind, emoji = made
            undone_now = reactions.undo(tx, post_id, made_kind, activity.actor, emoji=emoji)
            return None if undone_now else "undone already"
    kind = incoming.reaction_kind(activity)
    found = our_post(tx, heard.ids, activity.inner_object) if activity.inner_object else None
    if kind is None or found is None:
        return "undoes nothing we know"
    # Without its id, the emoji tells which; a plain Undo takes back the plain like, or else whatever there is.
    named = [activity.inner_emoji] if activity.inner_emoji else ["", None]
    if not any(reactions.undo(tx, found[1], kind, activity.actor, emoji=emoji) for emoji in named):
        return "undoes nothing we know"
    return None


def our_post(tx: Tx, ids: Ids, uri: str) -> tuple[int, int] | None:
    """(account id, post id) of a live post of ours, named by its id or by its page."""
    numbers = ids.post_ids(uri)
    if numbers is None:
        page = ids.page_ids(uri)
        account = (accounts.by_handle(tx, page[0]) or accounts.by_former_handle(tx, page[0])) if page else None
        numbers = (account.id, page[1]) if page and account else None
    if numbers is None:
        return None
    return numbers if posts.is_live(tx, *numbers) else None
