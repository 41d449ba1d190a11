"""What somebody says about ids of another server changes nothing there: no post, follow or like can be suppressed
before it comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket


@pytest.fixture
def mallory(bridge: Bridge) -> Iterator[Stranger]:
    """Somebody with a server of their own, apart from the stranger's."""
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name="mallory", key=a_key(2))
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def test_a_delete_of_a_strangers_object_is_refused(bridge: Bridge, stranger: Stranger, mallory: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    mallory.post(inbox, mallory.activity("Like", post))
    note = stranger.note(post)
    before = bridge.contents()
    assert mallory.post(inbox, mallory.activity("Delete", note["id"])).status_code == 400
    assert bridge.contents() == before
    assert stranger.post(inbox, stranger.activity("Create", note)).status_code == 202
    assert bridge.count("replies", deleted_at=None) == 1


def test_a_forwarded_activity_does_not_use_up_its_id(bridge: Bridge, stranger: Stranger, mallory: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    note = stranger.note(post)
    stranger.objects[note["id"]] = note
    like = stranger.activity("Like", post)
    forwarded = {**stranger.activity("Create", note), "id": like["id"]}
    assert mallory.post(inbox, forwarded).status_code == 202
    assert bridge.count("replies", deleted_at=None) == 1
    assert stranger.post(inbox, like).status_code == 202
    assert bridge.count("reactions", undone_at=None) == 1


def test_a_key_that_changed_is_asked_for_once_more(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    assert stranger.post(inbox, stranger.activity("Like", post)).status_code == 202
    stranger.key = a_key(3)
    assert stranger.post(inbox, stranger.activity("Announce", post)).status_code == 202
    fetched = len(stranger.fetched)
    # Bad signatures in their name cost their server nothing more for a while.
    for _ in range(5):
        assert stranger.post(inbox, stranger.activity("Like", post), key=a_key(2)).status_code == 401
    assert len(stranger.fetched) <= fetched + 1


def test_many_things_said_at_once_by_one_person_are_all_taken(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
    inbox = f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Block", actor))
    statuses: list[int] = []

    def say(kind: str, about: str) -> None:
        statuses.append(stranger.post(inbox, stranger.activity(kind, about)).status_code)

    threads = [
        threading.Thread(target=say, args=(kind, about))
        for kind, about in (("Like", post), ("Announce", post), ("Follow", actor))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {202}
    assert bridge.count("reactions") == 2
    assert bridge.count("followers") == 1
    # The one that counts is answered; what answers the others is replaced by that, if it has not left yet.
    eventually(
        lambda: any(bridge.count("followers", follow_uri=said["object"]["id"]) for said in stranger.of_kind("Accept"))
    )


@pytest.mark.parametrize("letter", ["a", "語"])
def test_names_and_ids_as_long_as_they_may_be_are_no_fault_of_ours(
    bridge: Bridge, stranger: Stranger, letter: str
) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    inbox = f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))
    for change in (
        {"inbox": f"{stranger.base}/{letter * 900}"},
        {"preferredUsername": letter * 1500},
        {"name": letter * 5000},
    ):
        update = stranger.activity("Update", {**stranger.actor(), **change})
        assert stranger.post(inbox, update).status_code in (202, 400)
    like = {**stranger.activity("Like", actor), "id": f"{stranger.base}/{letter * 1950}"}
    assert stranger.post(inbox, like).status_code in (202, 400)
