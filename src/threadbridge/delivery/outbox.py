"""Saying something: one transaction writes the activity's exact bytes and asks for its delivery.

Rule: publishing costs the same whatever the number of followers; addressing them is the fan-out's work. What is
addressed to one known person (an Accept) gets its delivery row at once.
"""

from __future__ import annotations

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import Document
from threadbridge.activitypub.text import host_of
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Post
from threadbridge.storage import accounts, jobs, ledger, posts, surroundings
from threadbridge.storage.store import Tx

FAN_OUT = "fan_out"


def publish(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that there is a new post. A thread is one object as far as order goes: Mastodon shows a continuation to
    nobody who has not got the beginning."""
    post, around = _post(tx, ids, account, post_id)
    said = outgoing.create(ids, account, post, around, tx.now)
    _say(tx, account.id, outgoing.with_context(said), order_key=_thread(ids, post), post_id=post_id)


def revise(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that a post was edited."""
    post, around = _post(tx, ids, account, post_id)
    said = outgoing.update(ids, account, post, around, tx.now)
    _say(tx, account.id, outgoing.with_context(said), order_key=_thread(ids, post), post_id=post_id)


def retract(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that a post is gone."""
    post = posts.by_id(tx, account.id, post_id)
    assert post is not None, "only a stored post can be retracted"
    said = outgoing.delete(ids, account.id, post_id)
    _say(tx, account.id, said, order_key=_thread(ids, post), post_id=post_id)


def announce_profile(tx: Tx, ids: Ids, account: Account) -> None:
    """Say that the profile changed."""
    said = outgoing.update_actor(ids, account, accounts.public_key(tx, account.id))
    _say(tx, account.id, said, order_key=said["actor"], post_id=None)


def answer(tx: Tx, account_id: int, document: Document, inbox: str) -> None:
    """Say something to one inbox, ahead of everything else (Accept)."""
    activity_id = _keep(tx, account_id, document, order_key=document["id"], post_id=None)
    said = ledger.activity(tx, activity_id) if activity_id is not None else None
    if said is not None:
        ledger.add_deliveries(tx, said, [(inbox, host_of(inbox))], lane=ledger.LANE_ANSWER)
        ledger.mark_fanned_out(tx, said.id)


def _post(tx: Tx, ids: Ids, account: Account, post_id: int) -> tuple[Post, outgoing.PostSurroundings]:
    post = posts.by_id(tx, account.id, post_id)
    assert post is not None, "only a stored post can be said"
    return post, surroundings.of_post(tx, ids, post)


def _thread(ids: Ids, post: Post) -> str:
    return ids.post(post.account_id, post.thread_id or post.id)


def _say(tx: Tx, account_id: int, document: Document, *, order_key: str, post_id: int | None) -> None:
    activity_id = _keep(tx, account_id, document, order_key=order_key, post_id=post_id)
    if activity_id is not None:
        jobs.add(tx, FAN_OUT, str(activity_id), {"activity": activity_id})


def _keep(tx: Tx, account_id: int, document: Document, *, order_key: str, post_id: int | None) -> int | None:
    return ledger.add_activity(
        tx,
        account_id=account_id,
        uri=document["id"],
        kind=document["type"],
        order_key=order_key,
        body=outgoing.encode(document),
        post_id=post_id,
    )
