"""Follow and its Undo, and Block, which ends a follow from the other side."""

from __future__ import annotations

from threadbridge.activitypub import incoming, outgoing
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.federation.heard import Heard
from threadbridge.storage import accounts, followers
from threadbridge.storage.store import Tx


def received(tx: Tx, activity: incoming.Follow, heard: Heard) -> str | None:
    """Take a new follower and say so; say it again when somebody presses the button again (their server has lost the
    follow, and shows "requested" until it hears from us)."""
    account_id = heard.ids.account_id(activity.object)
    account = accounts.by_id(tx, account_id) if account_id is not None else None
    if account is None or account.state is AccountState.GONE:
        return "follows nobody here"
    if heard.peer.moved_to:
        return "follower has moved away"
    followers.follow(tx, account.id, heard.peer, activity.id)
    said = outgoing.accept(
        heard.ids,
        account.id,
        heard.ids.accept(account.id, activity.id, tx.now),
        outgoing.follow_said(activity.id, activity.actor, activity.object),
    )
    # To the personal inbox: a shared one may be slower, and somebody is waiting in front of a button.
    outbox.answer(tx, account.id, said, heard.peer.inbox)
    return None


def undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    """End a follow, named by its id or by whom it follows."""
    if activity.inner_kind not in (None, "Follow"):
        return "undoes something else"
    account_id = heard.ids.account_id(activity.inner_object) if activity.inner_object else None
    if account_id is None and activity.inner_id:
        account_id = followers.account_followed_by(tx, activity.inner_id, activity.actor)
    if account_id is None or not followers.end(tx, account_id, activity.actor, cause="unfollowed"):
        return "undoes nothing we know"
    return None


def blocked(tx: Tx, activity: incoming.Block, heard: Heard) -> str | None:
    """Somebody blocks an account of ours: they do not want its posts any more."""
    account_id = heard.ids.account_id(activity.object)
    if account_id is None or not followers.end(tx, account_id, activity.actor, cause="blocked"):
        return "blocks nobody who follows"
    return None
