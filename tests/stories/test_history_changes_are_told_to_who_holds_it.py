"""A post of the history is in nobody's timeline; but who liked, boosted, answered or quoted it hears of its edit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket

from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account
from threadbridge.storage import posts
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx


def edit(bridge: Bridge, account: Account, uri: str) -> None:
    number = int(uri.rsplit("/", 1)[1])
    told = PostContent(kind="post", text="edited", language="en", published=datetime(2026, 1, 1, 12, tzinfo=UTC))

    def write(tx: Tx) -> None:
        posts.revise(tx, account.id, number, told, [], updated=tx.now)
        outbox.revise(tx, bridge.ground.ids, account, number)

    bridge.ground.store.transact_now(write)


def met(stranger: Stranger, how: str, post: str) -> dict[str, Any]:
    if how == "answer":
        return stranger.activity("Create", stranger.note(post))
    if how == "quote":
        return stranger.activity("Create", stranger.note(None, quote=post))
    return stranger.activity(how, post)


@pytest.mark.parametrize("how", ["Like", "Announce", "answer", "quote"])
def test_who_holds_a_copy_hears_of_the_edit(bridge: Bridge, stranger: Stranger, how: str) -> None:
    account = bridge.account()
    post = bridge.post(account)
    assert stranger.post(f"{bridge.base}/ap/inbox", met(stranger, how, post)).status_code == 202
    edit(bridge, account, post)
    told = eventually(lambda: stranger.of_kind("Update"))[0]
    assert told["object"]["id"] == post
    assert told["object"]["content"] == "<p>edited</p>"
    assert told["object"]["updated"]
    eventually(lambda: bridge.count("deliveries", state="delivered") == 1)


def test_followers_hear_of_the_edit_of_what_is_pinned(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    pinned = bridge.post(account)
    bridge.ground.store.transact_now(posts.pin, account.id, int(pinned.rsplit("/", 1)[1]))
    stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Follow", bridge.ground.ids.actor(account.id)))
    edit(bridge, account, pinned)
    assert eventually(lambda: stranger.of_kind("Update"))[0]["object"]["id"] == pinned


def test_followers_who_never_had_it_hear_nothing(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    first, second = bridge.post(account), bridge.post(account)
    stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Follow", bridge.ground.ids.actor(account.id)))
    # Nobody holds the first: nothing is said. Somebody elsewhere holds the second: only they are told.
    edit(bridge, account, first)
    assert bridge.count("activities", kind="Update") == 0
    sock = free_socket()
    liker = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name="carol", key=a_key(2))
    served = Served(bridge.loop, liker.create_app(), sock)
    try:
        liker.post(f"{bridge.base}/ap/inbox", liker.activity("Like", second))
        edit(bridge, account, second)
        assert eventually(lambda: liker.of_kind("Update"))[0]["object"]["id"] == second
        eventually(lambda: bridge.count("activities", fanned_out_at=None) == 0)
    finally:
        served.stop()
    assert stranger.of_kind("Update") == []
    assert bridge.count("deliveries", host=urlsplit(stranger.base).netloc) == 1
