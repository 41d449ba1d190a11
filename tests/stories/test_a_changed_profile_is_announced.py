"""A profile that changed at the source reaches the followers by an Update, once."""

from __future__ import annotations

from tests.rig import Bridge, Stranger, eventually

from threadbridge.domain.source import SourceProfile


def test_a_changed_profile_is_announced(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account(name="Alice")
    actor = bridge.ground.ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    changed = SourceProfile("1", "alice", name="Alice Liddell", bio="Now with a bio")
    for _ in range(2):
        bridge.loop.run(bridge.services.reader.profile(account.id, changed))
    update = eventually(lambda: stranger.of_kind("Update"))[0]
    assert update["object"]["id"] == actor
    assert update["object"]["name"] == "Alice Liddell"
    assert "Now with a bio" in update["object"]["summary"]
    assert bridge.get(actor).json()["name"] == "Alice Liddell"
    assert len(stranger.of_kind("Update")) == 1


def test_nobody_is_told_while_the_account_is_paused(bridge: Bridge, stranger: Stranger) -> None:
    from threadbridge.bridge import pause

    account = bridge.account(name="Alice")
    actor = bridge.ground.ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    bridge.ground.store.transact_now(pause.pause, account.id, "test")
    bridge.loop.run(bridge.services.reader.profile(account.id, SourceProfile("1", "alice", name="Somebody else")))
    assert bridge.count("activities", kind="Update") == 0
