"""Nothing that a suspended server sends has an effect, whatever verb and however it comes; the same from anybody else
has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, Stranger, eventually, running_bridge
from tests.stories.neighbours import domain, kept, lift, rule, strangers

from threadbridge.federation import admission
from threadbridge.storage import decisions, seen


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, list[Stranger]]]:
    folder: Path = tmp_path_factory.mktemp("suspended")
    with (
        running_bridge(folder, worker=True) as bridge,
        strangers(bridge, "bob", "mallory", "fresh") as people,
    ):
        yield bridge, people


def said(speaker: Stranger, bridge: Bridge, post: str, actor: str) -> dict[str, dict[str, Any]]:
    """One of everything that could have an effect."""
    reply = speaker.note(post)
    return {
        "Follow": speaker.activity("Follow", actor),
        "Like": speaker.activity("Like", post),
        "EmojiReact": speaker.activity("EmojiReact", post, content="🔥"),
        "Announce": speaker.activity("Announce", post, published="2026-01-01T00:00:00Z"),
        "Create": speaker.activity("Create", reply),
        "Update of itself": speaker.activity("Update", speaker.actor()),
        "Block": speaker.activity("Block", actor),
        "Flag": speaker.activity("Flag", [actor, post], content="rude"),
        "Move": speaker.activity("Move", speaker.uri, target=f"{speaker.base}/users/other"),
        "Undo": speaker.activity("Undo", speaker.activity("Follow", actor)),
    }


def test_every_verb_of_a_suspended_server_is_refused_and_stores_nothing(scene: tuple[Bridge, list[Stranger]]) -> None:
    bridge, (bob, mallory, _) = scene
    account = bridge.account("verbs")
    post, actor, inbox = bridge.post(account), bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    # Known before, so that the key is at hand and only the rule can refuse.
    assert mallory.post(inbox, mallory.activity("Like", post)).status_code == 202
    rule(bridge, "suspend", domain(mallory))
    before = kept(bridge)
    for name, activity in said(mallory, bridge, post, actor).items():
        answer = mallory.post(inbox, activity)
        assert answer.status_code == 403, (name, answer.text)
        personal = mallory.post(f"{actor}/inbox", {**activity, "id": activity["id"] + "p"})
        assert personal.status_code == 403, name
    assert kept(bridge) == before
    refusals = {kind: times for kind, reason, times in bridge.ground.store.read_now(seen.dropped)
                if reason == "domain suspended by the operator"}  # fmt: skip
    assert {"Follow", "Like", "Announce", "Create", "Update", "Block", "Flag", "Undo"} <= set(refusals)
    for name, activity in said(bob, bridge, post, actor).items():
        assert bob.post(inbox, activity).status_code == 202, name
    assert kept(bridge) != before
    lift(bridge, domain(mallory))
    assert mallory.post(inbox, mallory.activity("Follow", actor)).status_code == 202


def test_a_suspended_server_that_we_never_met_is_not_even_asked_for_its_key(
    scene: tuple[Bridge, list[Stranger]],
) -> None:
    bridge, (_, _, fresh) = scene
    post = bridge.post(bridge.account("unmet"))
    rule(bridge, "suspend", domain(fresh))
    before = kept(bridge)
    assert fresh.post(f"{bridge.base}/ap/inbox", fresh.activity("Like", post)).status_code == 403
    assert fresh.fetched == []
    assert kept(bridge) == before
    lift(bridge, domain(fresh))
    assert fresh.post(f"{bridge.base}/ap/inbox", fresh.activity("Like", post)).status_code == 202
    assert fresh.fetched


def test_what_a_suspended_person_said_does_not_come_in_by_another_hand(scene: tuple[Bridge, list[Stranger]]) -> None:
    bridge, (bob, mallory, _) = scene
    post, inbox = bridge.post(bridge.account("hands")), f"{bridge.base}/ap/inbox"
    rule(bridge, "suspend", domain(mallory))
    note = mallory.note(post)
    mallory.objects[note["id"]] = note
    mallory.fetched.clear()
    before = kept(bridge)
    # Forwarded, named only, boosted, and edited under an innocent's name.
    assert bob.post(inbox, mallory.activity("Create", note)).status_code == 403
    assert bob.post(inbox, mallory.activity("Create", note["id"])).status_code == 403
    assert bob.post(inbox, bob.activity("Announce", note["id"])).status_code in (202, 403)
    assert bob.post(inbox, mallory.activity("Update", note)).status_code == 403
    elsewhere = {**bob.actor(), "inbox": f"{mallory.base}/inbox", "endpoints": {}}
    assert bob.post(inbox, bob.activity("Update", elsewhere)).status_code == 403
    assert mallory.fetched == []
    after = kept(bridge)
    assert {name: rows for name, rows in after.items() if rows != before[name]}.keys() <= {"peers", "seen_activities"}
    assert bridge.count("replies", peer_uri=mallory.uri) == 0
    # A suspended carrier brings nothing either, whoever wrote it.
    good = bob.note(post)
    bob.objects[good["id"]] = good
    assert mallory.post(inbox, bob.activity("Create", good)).status_code == 403
    lift(bridge, domain(mallory))
    assert bob.post(inbox, mallory.activity("Create", note)).status_code == 202
    assert mallory.post(inbox, bob.activity("Create", good)).status_code == 202
    eventually(lambda: bridge.count("replies", uri=note["id"]) and bridge.count("replies", uri=good["id"]))


def test_who_is_suspended_may_not_read_in_secure_mode(scene: tuple[Bridge, list[Stranger]]) -> None:
    bridge, (bob, mallory, _) = scene
    account = bridge.account("reading")
    store = bridge.ground.store
    assert store.read_now(admission.may_read, mallory.uri)
    rule(bridge, "suspend", domain(mallory))
    assert not store.read_now(admission.may_read, mallory.uri)
    assert store.read_now(admission.may_read, bob.uri, account.id)
    rule(bridge, "suspend", bob.uri, "actor", owner=account.id)
    assert store.read_now(admission.may_read, bob.uri)
    assert not store.read_now(admission.may_read, bob.uri, account.id)
    lift(bridge, domain(mallory))
    lift(bridge, bob.uri, "actor", owner=account.id)


def test_whom_an_owner_suspends_is_not_shown_to_that_owner_alone(scene: tuple[Bridge, list[Stranger]]) -> None:
    bridge, (bob, _, _) = scene
    mine, other = bridge.account("mine"), bridge.account("other")
    ids, inbox, store = bridge.ground.ids, f"{bridge.base}/ap/inbox", bridge.ground.store
    rule(bridge, "suspend", bob.uri, "actor", owner=mine.id)
    bob.received.clear()
    post = bridge.post(mine)
    for activity in (bob.activity("Like", post), bob.activity("Create", bob.note(post))):
        assert bob.post(inbox, activity).status_code == 202
    assert bob.post(inbox, bob.activity("Follow", ids.actor(mine.id))).status_code == 202
    assert bridge.count("reactions", account_id=mine.id) == bridge.count("replies", account_id=mine.id) == 0
    assert bridge.count("followers", account_id=mine.id) == 0
    reject = eventually(lambda: bob.of_kind("Reject"))[0]
    assert reject["actor"] == ids.actor(mine.id)
    assert reject["object"]["type"] == "Follow"
    seen_by_owner = store.read_now(decisions.page, account_id=mine.id)
    assert {one.kind for _, one in seen_by_owner} >= {"Follow", "Like", "Create"}
    assert {one.reason for _, one in seen_by_owner} == {"actor suspended by the owner"}
    # Again and again fills no page.
    for _ in range(5):
        bob.post(inbox, bob.activity("Like", post))
    assert len(store.read_now(decisions.page, account_id=mine.id)) == len(seen_by_owner)
    assert bob.post(inbox, bob.activity("Like", bridge.post(other))).status_code == 202
    assert bridge.count("reactions", account_id=other.id, undone_at=None) == 1
    assert store.read_now(decisions.page, account_id=other.id) == []
    lift(bridge, bob.uri, "actor", owner=mine.id)
    assert bob.post(inbox, bob.activity("Like", post)).status_code == 202
    assert bridge.count("reactions", account_id=mine.id, undone_at=None) == 1
