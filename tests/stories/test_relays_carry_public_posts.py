"""The operator subscribes to relays: asked, let in by the relay itself, given what is public, left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.rig import PUBLIC, Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge
from tests.stories.command_line import CommandLine
from tests.stories.crowd import drained, publish, retract
from tests.stories.test_nobody_speaks_for_another_server import mallory

from threadbridge.domain.people import Relay
from threadbridge.errors import ThreadbridgeError
from threadbridge.federation import relay
from threadbridge.storage import relays

__all__ = ["mallory"]


class RelayServer(Stranger):
    """A relay: an Application with an inbox."""

    kind = "Application"

    def actor(self) -> dict[str, Any]:
        return {**super().actor(), "type": self.kind}

    @property
    def inbox(self) -> str:
        return f"{self.base}/inbox"


@contextmanager
def relay_server(bridge: Bridge) -> Iterator[RelayServer]:
    sock = free_socket()
    somebody = RelayServer(f"http://127.0.0.1:{sock.getsockname()[1]}", name="relay", key=a_key(3))
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def the_relay(bridge: Bridge, address: str) -> Relay:
    found = bridge.ground.store.read_now(relays.by_address, address)
    assert found is not None
    return found


def subscribe(bridge: Bridge, address: str, inbox: str, actor_uri: str | None = None) -> None:
    bridge.ground.store.transact_now(relay.subscribe, bridge.ground.ids, address, inbox=inbox, actor_uri=actor_uri)


def test_a_relay_in_mastodons_way(bridge: Bridge, stranger: Stranger, mallory: Stranger) -> None:
    account, instance = bridge.account(), bridge.ground.ids.instance
    inbox = f"{bridge.base}/actor/inbox"
    with relay_server(bridge) as one:
        subscribe(bridge, one.inbox, one.inbox)
        (asked,) = eventually(lambda: one.of_kind("Follow"))
        assert (asked["actor"], asked["object"]) == (instance, PUBLIC)
        assert f'keyId="{instance}#main-key"' in one.requests[0][0]["signature"]
        eventually(lambda: not bridge.count("jobs", kind="own_word"))
        publish(bridge, account, "not yet")
        drained(bridge)
        # Somebody else can not let us in, nor can the relay by another name.
        for answer in (mallory.activity("Accept", asked), mallory.activity("Reject", asked["id"]),
                       one.activity("Accept", f"{instance}#follows/another")):  # fmt: skip
            (mallory if answer["actor"] == mallory.uri else one).post(inbox, answer)
            assert the_relay(bridge, one.inbox).state == "waiting"
        assert one.post(inbox, one.activity("Accept", asked)).status_code == 202
        assert the_relay(bridge, one.inbox).state == "accepted"
        number = publish(bridge, account, "to everybody")
        drained(bridge)
        (created,) = eventually(lambda: one.of_kind("Create"))
        assert "to everybody" in created["object"]["content"]
        # What it passes on, ours or others', is nobody's boost.
        post = bridge.ground.ids.post(account.id, number)
        for about in (post, f"{stranger.base}/notes/1"):
            assert one.post(inbox, one.activity("Announce", about, to=[PUBLIC])).status_code == 202
        assert bridge.count("reactions") == 0
        assert bridge.count("dropped", reason="a relay passes on our own post") == 1
        assert bridge.count("dropped", reason="a relay passes on others' posts") == 1
        # It hears of the end of what it got.
        retract(bridge, account, number)
        eventually(lambda: one.of_kind("Delete"))
        # Later it throws us out; asked anew, and left.
        assert one.post(inbox, one.activity("Reject", asked["id"])).status_code == 202
        publish(bridge, account, "not any more")
        drained(bridge)
        assert len(one.of_kind("Create")) == 1
        subscribe(bridge, one.inbox, one.inbox)
        again = eventually(lambda: len(one.of_kind("Follow")) == 2 and one.of_kind("Follow")[1])
        assert again["id"] != asked["id"]
        with pytest.raises(ThreadbridgeError):
            subscribe(bridge, one.inbox, one.inbox)
        one.post(inbox, one.activity("Accept", again["id"]))
        assert the_relay(bridge, one.inbox).state == "accepted"
        bridge.ground.store.transact_now(relay.unsubscribe, bridge.ground.ids, one.inbox)
        (undo,) = eventually(lambda: one.of_kind("Undo"))
        assert undo["object"] == {"id": again["id"], "type": "Follow", "actor": instance, "object": PUBLIC}
        one.post(inbox, one.activity("Accept", again["id"]))
        assert the_relay(bridge, one.inbox).state == "removed"


def test_nobody_else_on_its_server_is_the_relay(bridge: Bridge) -> None:
    """Mastodon's way names no actor: it is a program, and it names the Follow that it was asked with."""
    inbox = f"{bridge.base}/actor/inbox"
    with relay_server(bridge) as one:
        subscribe(bridge, one.inbox, one.inbox)
        (asked,) = eventually(lambda: one.of_kind("Follow"))
        before = bridge.count("relays")
        for kind in ("Person", "Group", "Organization"):
            one.kind = kind
            assert one.post(inbox, one.activity("Update", one.actor())).status_code == 202
            for verb in ("Accept", "Reject"):
                assert one.post(inbox, one.activity(verb, asked)).status_code == 202
                assert the_relay(bridge, one.inbox).state == "waiting"
            # Met anew.
            one.name += "x"
        one.kind = "Service"
        for wrong in (f"{bridge.ground.ids.instance}#follows/1", {**asked, "id": f"{asked['id']}0"}):
            assert one.post(inbox, one.activity("Accept", wrong)).status_code == 202
            assert the_relay(bridge, one.inbox).state == "waiting"
        assert one.post(inbox, one.activity("Accept", asked)).status_code == 202
        assert the_relay(bridge, one.inbox).state == "accepted"
        assert bridge.count("relays") == before


def test_what_a_relay_passes_on_of_others_is_taken_and_dropped(
    bridge: Bridge, stranger: Stranger, mallory: Stranger
) -> None:
    inbox = f"{bridge.base}/actor/inbox"
    post = bridge.post(bridge.account())
    with relay_server(bridge) as one:
        subscribe(bridge, one.inbox, one.inbox)
        (asked,) = eventually(lambda: one.of_kind("Follow"))
        passed_on = [
            stranger.activity("Create", stranger.note(None)),
            stranger.activity("Update", stranger.note(None)),
            stranger.activity("Delete", f"{stranger.base}/notes/1"),
            stranger.activity("Announce", f"{stranger.base}/notes/1"),
        ]
        # Before it has let us in it is like anybody.
        assert {one.post(inbox, activity).status_code for activity in passed_on} == {403}
        assert one.post(inbox, one.activity("Accept", asked)).status_code == 202
        before = bridge.everything()
        assert {one.post(inbox, activity).status_code for activity in passed_on} == {202}
        assert {mallory.post(inbox, activity).status_code for activity in passed_on} == {403}
        assert {**bridge.everything(), "dropped": before["dropped"]} == before
        assert bridge.count("dropped", reason="a relay passes on others' posts", times=1) == 4
        assert stranger.fetched == []
        # What concerns us is looked up at its origin, as when anybody brings it.
        note = stranger.note(post)
        stranger.objects[note["id"]] = note
        assert one.post(inbox, stranger.activity("Create", note)).status_code == 202
        assert bridge.count("replies") == 1


def test_a_litepub_relay_is_followed_and_follows_back(bridge: Bridge, stranger: Stranger) -> None:
    instance = bridge.ground.ids.instance
    inbox = f"{bridge.base}/actor/inbox"
    with relay_server(bridge) as one:
        subscribe(bridge, one.uri, one.inbox, one.uri)
        (asked,) = eventually(lambda: one.of_kind("Follow"))
        assert asked["object"] == one.uri
        back = one.activity("Follow", instance)
        assert one.post(inbox, back).status_code == 202
        (accept,) = eventually(lambda: one.of_kind("Accept"))
        assert (accept["actor"], accept["object"]["id"]) == (instance, back["id"])
        # Nobody else follows the server itself.
        assert stranger.post(inbox, stranger.activity("Follow", instance)).status_code == 202
        assert bridge.count("dropped", kind="Follow", reason="follows the server itself") == 1
        assert bridge.count("followers") == 0
        assert one.post(inbox, one.activity("Accept", asked["id"])).status_code == 202
        assert the_relay(bridge, one.uri).state == "accepted"


def test_the_commands(tmp_path: Path) -> None:
    shell = CommandLine(tmp_path / "a home")
    with running_bridge(shell.data) as bridge, relay_server(bridge) as one:
        shell.settings["BASE_URL"] = bridge.base
        actor = bridge.ground.ids.actor(bridge.account().id)
        for address in (one.inbox, one.uri):
            shell.run("relays", "add", address).went_well()
        eventually(lambda: len(one.of_kind("Follow")) == 2)
        assert [row["address"] for row in shell.run("relays", "list", "--json").json] == [one.inbox, one.uri]
        shell.run("relays", "remove", one.uri).went_well()
        assert [row["state"] for row in shell.run("relays", "list", "--json").json] == ["waiting"]
        for wrong in (["relays", "remove", one.uri], ["relays", "add", "relay.example"],
                      ["relays", "add", "http://10.1.1.1/inbox"],
                      ["followers", "approve", "alice", "@nobody@nowhere"]):  # fmt: skip
            shell.run(*wrong).refused(status=1)
        shell.run("followers", "approval", "alice", "perhaps").refused(status=2)

        shell.run("followers", "approval", "alice", "by-hand").went_well()
        one.post(f"{actor}/inbox", one.activity("Follow", actor))
        (row,) = shell.run("followers", "list", "alice", "--waiting", "--json").json
        assert row["id"] == one.uri
        shell.run("followers", "approve", "alice", f"@{row['address']}").went_well()
        eventually(lambda: one.of_kind("Accept"))
        assert [row["id"] for row in shell.run("followers", "list", "alice", "--json").json] == [one.uri]
        shell.run("followers", "remove", "alice", one.uri).went_well()
        eventually(lambda: one.of_kind("Reject"))
        one.post(f"{actor}/inbox", one.activity("Follow", actor))
        shell.run("followers", "reject", "alice", one.uri).went_well()
        eventually(lambda: len(one.of_kind("Reject")) == 2)
        assert bridge.count("followers", ended_at=None) == 0
