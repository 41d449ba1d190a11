"""Like and Announce of our posts, and their Undo."""

from __future__ import annotations

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.people import ReactionKind
from threadbridge.federation.heard import Heard
from threadbridge.storage import accounts, posts, reactions
from threadbridge.storage.store import Tx


def received(tx: Tx, activity: incoming.Like | incoming.Announce, heard: Heard) -> str | None:
    """Count it, once per person and kind."""
    found = our_post(tx, heard.ids, activity.object)
    if found is None:
        return "about no post of ours"
    kind: ReactionKind = "like" if isinstance(activity, incoming.Like) else "announce"
    if not reactions.react(tx, *found, activity.actor, kind, activity.id):
        return "counted already"
    return None


def undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    """Take it back: found by the id of the Like or Announce, else by what it was about."""
    if activity.inner_id:
        made = reactions.by_activity(tx, activity.inner_id, activity.actor)
        if made is not None:
            return None if reactions.undo(tx, *made, activity.actor) else "undone already"
    kind: ReactionKind | None = {"Like": "like", "EmojiReact": "like", "Announce": "announce"}.get(  # type: ignore[assignment]  # the values are the two kinds
        activity.inner_kind or ""
    )
    found = our_post(tx, heard.ids, activity.inner_object) if activity.inner_object else None
    if kind is None or found is None or not reactions.undo(tx, found[1], kind, activity.actor):
        return "undoes nothing we know"
    return None


def our_post(tx: Tx, ids: Ids, uri: str) -> tuple[int, int] | None:
    """(account id, post id) of a live post of ours, named by its id or by its page."""
    numbers = ids.post_ids(uri)
    if numbers is None:
        page = ids.page_ids(uri)
        account = accounts.by_handle(tx, page[0]) if page else None
        numbers = (account.id, page[1]) if page and account else None
    if numbers is None:
        return None
    return numbers if posts.is_live(tx, *numbers) else None
