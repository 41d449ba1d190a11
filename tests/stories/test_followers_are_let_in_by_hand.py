"""Where the owner lets followers in by hand, whoever asks waits until the owner has decided, and hears of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig import Bridge, Stranger, eventually
from tests.stories.test_nobody_speaks_for_another_server import mallory

from threadbridge.domain.accounts import Account
from threadbridge.errors import NotFound
from threadbridge.federation import follow
from threadbridge.storage import accounts, requests
from threadbridge.storage.store import Tx

__all__ = ["mallory"]


def by_hand(bridge: Bridge, account: Account, on: bool = True) -> None:
    def choose(tx: Tx) -> None:
        fresh = accounts.by_id(tx, account.id)
        assert fresh is not None
        follow.choose_approval(tx, bridge.ground.ids, fresh, on)

    bridge.ground.store.transact_now(choose)


def decide(bridge: Bridge, decision: Any, account: Account, person: str) -> None:
    bridge.ground.store.transact_now(decision, bridge.ground.ids, account.id, person)


def waiting(bridge: Bridge) -> int:
    return bridge.count("follow_requests", ended_at=None)


def test_who_asks_waits_and_is_let_in_with_their_newest_follow(
    bridge: Bridge, stranger: Stranger, mallory: Stranger
) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    assert bridge.get(actor).json()["manuallyApprovesFollowers"] is False
    by_hand(bridge, account)
    assert eventually(lambda: bridge.get(actor).json()["manuallyApprovesFollowers"])
    first, again = stranger.activity("Follow", actor), stranger.activity("Follow", actor)
    for one in (first, again):
        assert stranger.post(f"{actor}/inbox", one).status_code == 202
    assert mallory.post(f"{actor}/inbox", mallory.activity("Follow", actor)).status_code == 202
    assert (waiting(bridge), bridge.count("followers")) == (2, 0)
    assert stranger.of_kind("Accept") == []

    decide(bridge, follow.approve, account, stranger.uri)
    (accept,) = eventually(lambda: stranger.of_kind("Accept"))
    assert accept["object"] == {"id": again["id"], "type": "Follow", "actor": stranger.uri, "object": actor}
    decide(bridge, follow.reject, account, mallory.uri)
    (reject,) = eventually(lambda: mallory.of_kind("Reject"))
    assert reject["object"]["actor"] == mallory.uri
    assert reject["id"].startswith(actor)
    assert (waiting(bridge), bridge.count("followers", ended_at=None)) == (0, 1)
    with pytest.raises(NotFound):
        decide(bridge, follow.approve, account, mallory.uri)

    # Who follows already is accepted again at once: their server lost the follow.
    assert stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor)).status_code == 202
    eventually(lambda: len(stranger.of_kind("Accept")) == 2)
    # Removed: a Reject of the Follow that stands, and from then on they wait again.
    decide(bridge, follow.remove, account, stranger.uri)
    (reject,) = eventually(lambda: stranger.of_kind("Reject"))
    assert reject["object"]["id"] == stranger.of_kind("Accept")[-1]["object"]["id"]
    assert bridge.count("followers", ended_by="removed") == 1
    assert stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor)).status_code == 202
    assert (waiting(bridge), bridge.count("followers", ended_at=None)) == (1, 0)

    # Everybody may follow again: who waits is let in.
    by_hand(bridge, account, on=False)
    eventually(lambda: len(stranger.of_kind("Accept")) == 3)
    assert (waiting(bridge), bridge.count("followers", ended_at=None)) == (0, 1)
    assert eventually(lambda: bridge.get(f"{actor}/followers").json()["totalItems"] == 1)


def test_who_waits_may_withdraw_block_or_vanish(bridge: Bridge, stranger: Stranger, mallory: Stranger) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    by_hand(bridge, account)

    def ask() -> dict[str, Any]:
        asked = stranger.activity("Follow", actor)
        assert stranger.post(inbox, asked).status_code == 202
        assert waiting(bridge) == 1
        return asked

    asked = ask()
    # What the owner's choice is told by has gone out.
    eventually(lambda: bridge.count("jobs", kind="fan_out") == 0)
    # Nobody else takes it back: neither by its id, which is another server's, nor by what it is about.
    before = bridge.everything()
    assert mallory.post(inbox, mallory.activity("Undo", asked["id"])).status_code == 400
    assert bridge.everything() == before
    mallory.post(inbox, mallory.activity("Undo", {"type": "Follow", "actor": mallory.uri, "object": actor}))
    assert waiting(bridge) == 1
    for undone in (asked["id"], {"type": "Follow", "actor": stranger.uri, "object": actor}):
        assert stranger.post(inbox, stranger.activity("Undo", undone)).status_code == 202
        assert waiting(bridge) == 0
        ask()
    assert stranger.post(inbox, stranger.activity("Block", actor)).status_code == 202
    assert bridge.ground.store.read_now(requests.count, account.id) == 0
    ask()
    stranger.gone = True
    assert stranger.post(inbox, stranger.activity("Delete", stranger.uri)).status_code == 202
    assert waiting(bridge) == 0
    assert bridge.count("follow_requests", outcome="withdrawn") == 1
