"""Somebody follows an account: an Accept with their own Follow inside arrives in their inbox, signed."""

from __future__ import annotations

from typing import Any

from tests.rig import Bridge, Stranger, eventually


def test_a_follow_is_accepted(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    follow = stranger.activity("Follow", actor)

    assert stranger.post(f"{actor}/inbox", follow).status_code == 202

    accept = eventually(lambda: stranger.of_kind("Accept"))[0]
    assert accept["actor"] == actor
    assert accept["object"] == {"id": follow["id"], "type": "Follow", "actor": stranger.uri, "object": actor}
    assert accept["id"].startswith(actor)
    headers, _ = stranger.requests[0]
    assert f'keyId="{actor}#main-key"' in headers["signature"]
    assert bridge.count("followers") == 1
    assert bridge.get(f"{actor}/followers").json()["totalItems"] == 1


def test_pressing_follow_again_is_accepted_again_and_counts_once(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)

    def pressed() -> dict[str, Any]:
        # (An answer that has not left when the next one is made gives way to it.)
        before = len(stranger.of_kind("Accept"))
        assert stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor)).status_code == 202
        said: list[dict[str, Any]] = eventually(lambda: stranger.of_kind("Accept")[before:])
        return said[0]

    accepts = [pressed(), pressed()]
    assert accepts[0]["id"] != accepts[1]["id"]
    assert bridge.count("followers") == 1


def test_the_same_follow_delivered_twice_has_one_effect(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    follow = stranger.activity("Follow", actor)
    for inbox in (f"{actor}/inbox", f"{bridge.base}/ap/inbox"):
        assert stranger.post(inbox, follow).status_code == 202
    eventually(lambda: stranger.of_kind("Accept"))
    assert bridge.count("activities") == 1


def test_unfollowing_ends_it_and_a_late_follow_does_not_revive_it(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    follow, late = stranger.activity("Follow", actor), stranger.activity("Follow", actor)
    inbox = f"{bridge.base}/ap/inbox"
    stranger.post(inbox, follow)
    assert bridge.count("followers", ended_at=None) == 1
    bare = {key: value for key, value in follow.items() if key != "@context"}
    assert stranger.post(inbox, stranger.activity("Undo", bare)).status_code == 202
    assert bridge.count("followers", ended_at=None) == 0
    # An Undo that overtakes its Follow.
    stranger.post(inbox, stranger.activity("Undo", {key: late[key] for key in ("id", "type", "actor", "object")}))
    assert stranger.post(inbox, late).status_code == 202
    assert bridge.count("followers", ended_at=None) == 0


def test_an_undo_that_names_only_the_id_is_understood(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    follow = stranger.activity("Follow", actor)
    stranger.post(f"{actor}/inbox", follow)
    stranger.post(f"{actor}/inbox", stranger.activity("Undo", follow["id"]))
    assert bridge.count("followers", ended_at=None) == 0


def test_a_block_ends_the_follow(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    assert stranger.post(f"{actor}/inbox", stranger.activity("Block", actor)).status_code == 202
    assert bridge.count("followers", ended_by="blocked") == 1


def test_an_account_that_does_not_exist_cannot_be_followed(bridge: Bridge, stranger: Stranger) -> None:
    before = bridge.everything()
    actor = bridge.ground.ids.actor(999)
    assert stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor)).status_code == 404
    assert bridge.everything() == before
