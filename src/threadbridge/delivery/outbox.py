"""Saying something: one transaction writes the activity's exact bytes and asks for its delivery.

Rule: publishing costs the same whatever the number of followers; addressing them is the fan-out's work. What is
addressed to one known person (an Accept) gets its delivery row at once. A deleted account says nothing any more but
its farewell: whoever looks for it is answered 410, and is not to hear its voice beside.
"""

from __future__ import annotations

import hashlib
from typing import Any

import structlog

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import Document
from threadbridge.activitypub.text import host_of
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.posts import Post
from threadbridge.storage import (
    accounts,
    blocks,
    certificates,
    jobs,
    ledger,
    peers,
    posts,
    profiles,
    superseding,
    surroundings,
)
from threadbridge.storage.store import Tx
from threadbridge.telemetry import traces

log = structlog.get_logger(__name__)

FAN_OUT = "fan_out"


def publish(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that there is a new post. A thread is one object as far as order goes: Mastodon shows a continuation to
    nobody who has not got the beginning."""
    post, around = _post(tx, ids, account, post_id)
    said = outgoing.create(ids, account, post, around, tx.now)
    _say(tx, account.id, outgoing.with_context(said), order_key=_thread(ids, post), post_id=post_id)
    author = peers.by_uri(tx, post.announced_author) if post.announced_author else None
    if author is not None:
        _also_to(tx, account.id, said["id"], author.inbox)
    if any(ids.account_id(uri) not in (None, account.id) for uri in outgoing.recipients(said)):
        # Whom it names here hears of it like everybody: its edits and its deletion follow by the ledger.
        _also_to(tx, account.id, said["id"], ids.shared_inbox)


def revise(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that a post was edited. What is history is in nobody's timeline: only who holds a copy hears of it."""
    post, around = _post(tx, ids, account, post_id)
    _change(tx, ids, post, outgoing.update(ids, account, post, around, tx.now))


def refresh(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that something about a post changed which is no edit: figures of its poll, who may quote or answer it, the
    authorization of what it quotes."""
    post, around = _post(tx, ids, account, post_id)
    _change(tx, ids, post, outgoing.refresh(ids, account, post, around, tx.now), kind="Refresh")


def retract(tx: Tx, ids: Ids, account: Account, post_id: int) -> None:
    """Say that a post is gone; that a repost is taken back."""
    post = posts.by_id(tx, account.id, post_id)
    assert post is not None, "only a stored post can be retracted"
    if post.announced_uri is not None:
        said = outgoing.undo_announce(ids, account, post, tx.now)
    else:
        said = outgoing.delete(ids, account.id, post_id)
    _say(tx, account.id, said, order_key=_thread(ids, post), post_id=post_id, bulk=post.silent)
    told = ledger.by_uri(tx, said["id"])
    if told is not None:
        certificates.add(tx, account.id, post_id, told.id)


def take_back_quote(tx: Tx, ids: Ids, account_id: int, post_id: int, number: int) -> None:
    """Say that a post may not be quoted by that one any more, to whoever holds the post or quotes it."""
    said = outgoing.delete_stamp(ids, account_id, number)
    _say(tx, account_id, said, order_key=said["id"], post_id=post_id, kind="Revoke")


def let_answer(tx: Tx, ids: Ids, account_id: int, answer_: Document, stamp: str, inbox: str) -> None:
    """Say to its author, and to the followers, that an answer was let through."""
    said = outgoing.accept_answer(ids, account_id, answer_, stamp, tx.now)
    _say(tx, account_id, said, order_key=said["id"], post_id=None)
    _also_to(tx, account_id, said["id"], inbox)


def announce_profile(
    tx: Tx, ids: Ids, account: Account, described: Document | None = None, *, bulk: bool = False
) -> None:
    """Say that the actor document changed (to `described`), and remember that followers know it; `bulk` when it was
    not its owner who changed it."""
    described = described or profiles.document(tx, ids, account)
    accounts.set_announced(tx, account.id, profiles.digest(described), told=True)
    said = outgoing.update_actor(ids, account.id, described, tx.now)
    _say(tx, account.id, said, order_key=said["actor"], post_id=None, bulk=bulk)


def say_farewell(tx: Tx, ids: Ids, account_id: int) -> int:
    """Write down that an account is gone; who is told is `federation.farewell`'s work. Returns the number of the
    activity, the same however often it is asked."""
    said = outgoing.delete_actor(ids, account_id)
    number = _keep(tx, account_id, said, order_key=said["actor"], post_id=None, farewell=True)
    number = number if number is not None else ledger.number_of(tx, said["id"])
    certificates.add(tx, account_id, None, number)
    return number


def relation(ids: Ids, account_id: int, other: str) -> str:
    """What answers to the same one (`other`: who asks to follow, the post that asks to quote) are ordered by."""
    return f"{ids.actor(account_id)} {hashlib.sha256(other.encode()).hexdigest()}"


def answer(tx: Tx, account_id: int, document: Document, inbox: str, *, about: str | None = None) -> None:
    """Say something to one inbox, ahead of everything else (Accept); nothing is said to a suspended server. What is
    said `about` the same (`relation`) arrives in order, and only the last word of it if it has to wait."""
    if blocks.suspended_hosts(tx, [host_of(inbox)], account_id):
        log.info("nothing is said to a suspended server", account=account_id, inbox=inbox, activity=document["id"])
        return
    key = about or document["id"]
    if about is not None:
        superseding.answered_anew(tx, key, inbox)
    said = _keep(tx, account_id, document, order_key=key, post_id=None, addressed=True)
    if said is not None:
        ledger.address(
            tx,
            activity_id=said,
            account_id=account_id,
            order_key=key,
            inbox=inbox,
            host=host_of(inbox),
            lane=ledger.LANE_ANSWER,
        )


def _change(tx: Tx, ids: Ids, post: Post, said: Document, kind: str = "Update") -> None:
    # The followers' servers have read what is pinned, also where it is history.
    history = post.silent and not posts.is_pinned(tx, post.id)
    held = not history or bool(peers.conversers(tx, post.id))
    if post.announced_uri is None and held:
        said = outgoing.with_context(said)
        place, thread = "holders" if history else "followers", _thread(ids, post)
        _say(tx, post.account_id, said, order_key=thread, post_id=post.id, kind=kind, first=place, bulk=history)


def _also_to(tx: Tx, account_id: int, uri: str, inbox: str) -> None:
    """Address what was just said to one inbox more."""
    said = ledger.by_uri(tx, uri)
    if said is not None:
        ledger.add_deliveries(tx, said, [(inbox, host_of(inbox))], lane=ledger.LANE_ANSWER)


def _post(tx: Tx, ids: Ids, account: Account, post_id: int) -> tuple[Post, outgoing.PostSurroundings]:
    post = posts.by_id(tx, account.id, post_id)
    assert post is not None, "only a stored post can be said"
    return post, surroundings.of_post(tx, ids, post)


def _thread(ids: Ids, post: Post) -> str:
    return ids.post(post.account_id, post.thread_id or post.id)


def _say(
    tx: Tx,
    account_id: int,
    document: Document,
    *,
    order_key: str,
    post_id: int | None,
    kind: str | None = None,
    first: str = "followers",
    bulk: bool = False,
) -> None:
    """`kind` is what the ledger calls it, if not by its type; `first` the phase in which the fan-out begins; `bulk`
    when nobody waits for it."""
    activity_id = _keep(tx, account_id, document, order_key=order_key, post_id=post_id, kind=kind)
    if activity_id is not None:
        for number in superseding.replace(tx, activity_id):
            jobs.drop(tx, FAN_OUT, str(number))
        place: dict[str, Any] = {"phase": "holders", "of": 0, "after": ""} if first == "holders" else {}
        if bulk:
            place["lane"] = ledger.LANE_BULK
        # Thousands of edits and deletions to be addressed keep no new post waiting.
        patient = bulk or (kind or document["type"]) not in ("Create", "Announce")
        jobs.add(tx, FAN_OUT, str(activity_id), {"activity": activity_id, **place}, patient=patient)


def _keep(
    tx: Tx,
    account_id: int,
    document: Document,
    *,
    order_key: str,
    post_id: int | None,
    addressed: bool = False,
    kind: str | None = None,
    farewell: bool = False,
) -> int | None:
    account = accounts.by_id(tx, account_id) if not farewell else None
    if account is not None and account.state is AccountState.GONE:
        log.info("a deleted account says nothing", account=account_id, activity=document["id"])
        return None
    with traces.span("publish", kind=kind or document["type"]):
        number = ledger.add_activity(
            tx,
            account_id=account_id,
            uri=document["id"],
            kind=kind or document["type"],
            order_key=order_key,
            body=outgoing.encode(document),
            post_id=post_id,
            addressed=addressed,
        )
    if number is not None:
        _tell(tx, account_id, document["id"], kind or document["type"], post_id)
    return number


def _tell(tx: Tx, account_id: int, uri: str, kind: str, post_id: int | None) -> None:
    told = {"activity": uri, "said": kind, "account": account_id, "post": post_id, "trail": tx.trail}
    tx.after_commit(lambda: log.info("an activity was said", **told))
