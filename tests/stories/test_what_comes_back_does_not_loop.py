"""Copies of our own posts, copies of Threads posts and announcements by servers are recognised and have no effect;
what somebody says through a bridge is theirs and stays."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig import Bridge, Stranger
from tests.stories.test_nobody_speaks_for_another_server import mallory

from threadbridge.storage import decisions, outages

__all__ = ["mallory"]


def canonical(address: str) -> dict[str, Any]:
    return {"url": [{"type": "Link", "href": "https://bridge.example/1"},
                    {"type": "Link", "rel": "canonical", "href": address}]}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (lambda post: {"proxyOf": post}, "our own post, back over a bridge"),
        (lambda post: {"proxyOf": [{"proxied": post, "authoritative": False}]}, "our own post, back over a bridge"),
        (canonical, "our own post, back over a bridge"),
        (lambda _: canonical("https://www.threads.com/@x/post/1"), "a copy of a Threads post, by another bridge"),
        (lambda _: {"proxyOf": "https://threads.net/@x/post/1"}, "a copy of a Threads post, by another bridge"),
    ],
)
def test_a_copy_is_not_an_answer(bridge: Bridge, stranger: Stranger, said: Any, reason: str) -> None:
    account = bridge.account()
    post = bridge.post(account)
    note = {**stranger.note(post, cc=[bridge.ground.ids.actor(account.id)]), **said(post)}
    assert stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Create", note)).status_code == 202
    assert (bridge.count("replies"), bridge.count("mentions")) == (0, 0)
    assert bridge.count("dropped", kind="Create", reason=reason) == 1
    (_, decision), = bridge.ground.store.read_now(decisions.page, account_id=account.id)  # fmt: skip
    assert (decision.reason, decision.subject) == (reason, note["id"])


ORIGINAL = "at://did:plc:carol/app.bsky.feed.post/1"


def test_an_answer_that_one_bridge_tells_twice_is_one(bridge: Bridge, stranger: Stranger) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    for _ in range(2):
        note = {**stranger.note(post), "proxyOf": ORIGINAL}
        assert stranger.post(inbox, stranger.activity("Create", note)).status_code == 202
    assert bridge.count("replies", deleted_at=None) == 1
    assert bridge.count("dropped", reason="told already, over a bridge") == 1


@pytest.mark.parametrize("claim", [{"proxyOf": ORIGINAL}, {"url": "https://bsky.example/1"}])
def test_whoever_claims_to_be_a_copy_keeps_the_true_one_from_nobody(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, claim: dict[str, str]
) -> None:
    """What a document says of itself is believed against itself only: its id, its page, what it is a copy of."""
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    forged = {**mallory.note(post, "<p>forged</p>"), **claim}
    assert mallory.post(inbox, mallory.activity("Create", forged)).status_code == 202
    true = {**stranger.note(post, "<p>true</p>"), "proxyOf": claim.get("proxyOf", claim.get("url"))}
    assert stranger.post(inbox, stranger.activity("Create", true)).status_code == 202
    assert bridge.count("replies", deleted_at=None, html="<p>true</p>") == 1


@pytest.mark.parametrize("named", ["id", "url"])
def test_a_copy_of_an_answer_that_is_here_itself_is_dropped(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, named: str
) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    original = stranger.note(post, url=f"{stranger.base}/@bob/1")
    assert stranger.post(inbox, stranger.activity("Create", original)).status_code == 202
    copy = {**mallory.note(post), "proxyOf": original[named]}
    assert mallory.post(inbox, mallory.activity("Create", copy)).status_code == 202
    assert bridge.count("replies", deleted_at=None) == 1


def test_our_own_post_can_not_be_said_by_anybody_else(bridge: Bridge, stranger: Stranger) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    before = bridge.everything()
    for note in (
        {**stranger.note(post), "id": post},
        {**stranger.note(post), "attributedTo": post.split("/posts")[0]},
    ):
        assert stranger.post(inbox, stranger.activity("Create", note)).status_code == 400
    assert bridge.everything() == before


def test_a_server_that_announces_is_no_boost(bridge: Bridge, stranger: Stranger) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Like", post))
    assert (
        stranger.post(inbox, stranger.activity("Update", {**stranger.actor(), "type": "Application"})).status_code
        == 202
    )
    assert stranger.post(inbox, stranger.activity("Announce", post)).status_code == 202
    assert bridge.count("reactions", kind="announce") == 0
    assert bridge.count("dropped", reason="a server announces, not a person") == 1


def test_pins_of_others_concern_nobody_here(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post, inbox = bridge.post(account), f"{bridge.base}/ap/inbox"
    ours = bridge.ground.ids.featured(account.id)
    for kind in ("Add", "Remove"):
        for target in (f"{stranger.uri}/featured", ours):
            assert stranger.post(inbox, stranger.activity(kind, post, target=target)).status_code == 202
        assert bridge.count("dropped", kind=kind, reason="arranges a collection of their own") == 1
        assert bridge.count("dropped", kind=kind, reason="arranges a collection here, which is its owner's") == 1
    assert bridge.count("pins") == 0


def test_what_a_server_that_calls_itself_a_bridge_has_from_threads_is_a_copy(
    bridge: Bridge, stranger: Stranger
) -> None:
    account = bridge.account()
    inbox, store = f"{bridge.base}/ap/inbox", bridge.ground.store
    host = stranger.base.removeprefix("http://")

    def says_a_copy() -> None:
        note = stranger.note(bridge.post(account), url="https://www.threads.com/@x/post/1")
        assert stranger.post(inbox, stranger.activity("Create", note)).status_code == 202

    says_a_copy()
    assert bridge.count("replies") == 1  # of anybody else it is only an address
    store.transact_now(outages.runs, host, ("mastodon", "4.6.5"))
    says_a_copy()
    assert bridge.count("replies") == 2
    store.transact_now(outages.runs, host, ("bridgy-fed", ""))
    says_a_copy()
    assert bridge.count("replies") == 2
    assert bridge.count("dropped", kind="Create", reason="a copy of a Threads post, by another bridge") == 1
