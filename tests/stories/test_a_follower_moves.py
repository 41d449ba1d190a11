"""A follower moves to another account: nothing is lost, and nobody is moved by somebody else's word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket
from tests.stories.test_followers_are_let_in_by_hand import by_hand

from threadbridge.federation import follow
from threadbridge.storage import decisions


class Newcomer(Stranger):
    """The account moved to; its document names former ids."""

    former: tuple[str, ...] = ()
    moved_to: str | None = None
    broken: int = 0

    def actor(self) -> dict[str, Any]:
        more = {"movedTo": self.moved_to} if self.moved_to else {}
        return {**super().actor(), "alsoKnownAs": list(self.former), **more}


@contextmanager
def newcomer(bridge: Bridge) -> Iterator[Newcomer]:
    sock = free_socket()
    somebody = Newcomer(f"http://127.0.0.1:{sock.getsockname()[1]}", name="robert", key=a_key(2))
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def reasons(bridge: Bridge) -> list[str]:
    return [one.reason for _, one in bridge.ground.store.read_now(decisions.page)]


def move(old: Stranger, target: str) -> dict[str, Any]:
    return old.activity("Move", old.uri, target=target)


def test_the_new_account_is_recognised_also_where_followers_are_let_in_by_hand(
    bridge: Bridge, stranger: Stranger
) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))
    by_hand(bridge, account)
    with newcomer(bridge) as new:
        new.former = (stranger.uri,)
        assert stranger.post(inbox, move(stranger, new.uri)).status_code == 202
        eventually(lambda: bridge.count("followers", carried_to=new.uri))
        # Until their own Follow comes the old account goes on getting everything.
        assert bridge.count("followers", ended_at=None) == 1
        # Their old server takes the old follow back before the new one has said anything: still recognised.
        undo = {"type": "Follow", "actor": stranger.uri, "object": actor}
        assert stranger.post(inbox, stranger.activity("Undo", undo)).status_code == 202
        assert new.post(inbox, new.activity("Follow", actor)).status_code == 202
        eventually(lambda: new.of_kind("Accept"))
        assert bridge.count("follow_requests", ended_at=None) == 0
        assert bridge.count("followers", ended_at=None, peer_uri=new.uri) == 1
        assert bridge.count("followers", ended_at=None) == 1
        # The old account can not come back as a second one.
        stranger.post(inbox, stranger.activity("Follow", actor))
        assert bridge.count("followers", ended_at=None) == 1
        assert any(reason.startswith("a follower has moved to") for reason in reasons(bridge))


def test_a_follow_that_came_before_its_move_is_let_in_by_it(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))
    by_hand(bridge, account)
    with newcomer(bridge) as new:
        new.former = (stranger.uri,)
        new.post(inbox, new.activity("Follow", actor))
        assert bridge.count("follow_requests", ended_at=None) == 1
        assert stranger.post(inbox, move(stranger, new.uri)).status_code == 202
        eventually(lambda: new.of_kind("Accept"))
        assert bridge.count("followers", ended_by="moved") == 1
        assert bridge.count("followers", ended_at=None) == 1


@pytest.mark.parametrize(
    ("named", "moved_on", "gone", "reason"),
    [
        (False, False, False, "the new account does not name the old one"),
        (True, True, False, "the new account has moved itself"),
        (True, False, True, "the new account could not be read"),
    ],
)
def test_a_move_that_the_new_account_does_not_confirm_changes_nothing(
    bridge: Bridge, stranger: Stranger, named: bool, moved_on: bool, gone: bool, reason: str
) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))
    with newcomer(bridge) as new:
        new.former = (stranger.uri,) if named else ("https://else.example/users/bob",)
        new.moved_to = "https://else.example/users/bob" if moved_on else None
        new.gone = gone
        assert stranger.post(inbox, move(stranger, new.uri)).status_code == 202
        eventually(lambda: reason in reasons(bridge))
        assert bridge.count("jobs", kind="confirm_move") == 0
        assert bridge.count("followers", ended_at=None, carried_to=None) == 1


def test_forged_moves_store_nothing(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))
    with newcomer(bridge) as new:
        new.former = (stranger.uri,)
        new.post(inbox, new.activity("Like", actor))
        before = bridge.everything()
        for forged, status in (
            # The thief says that its victim has moved to it: as somebody else, in its name, or signed by another.
            (new.activity("Move", stranger.uri, target=new.uri), 400),
            ({**move(new, new.base + "/users/x"), "actor": stranger.uri}, 400),
            ({**move(stranger, new.uri)}, 403),
            (move(new, new.uri), 400),
            ({key: value for key, value in move(new, "x").items() if key != "target"}, 400),
        ):
            assert new.post(inbox, forged).status_code == status, forged
            assert bridge.everything() == before
        # True, but about nobody who follows here, or to an account here: counted, and no job.
        assert new.post(inbox, move(new, stranger.uri)).status_code == 202
        assert stranger.post(inbox, move(stranger, actor)).status_code == 202
        assert bridge.count("jobs", kind="confirm_move") == 0
        assert bridge.count("followers", ended_at=None, carried_to=None) == 1


def test_a_removed_follower_does_not_come_back_by_moving(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))
    with newcomer(bridge) as new:
        new.former = (stranger.uri,)
        stranger.post(inbox, move(stranger, new.uri))
        eventually(lambda: bridge.count("followers", carried_to=new.uri))
        bridge.ground.store.transact_now(follow.remove, bridge.ground.ids, account.id, stranger.uri)
        by_hand(bridge, account)
        new.post(inbox, new.activity("Follow", actor))
        assert bridge.count("follow_requests", ended_at=None) == 1
        # A second Move within a week is not looked into.
        stranger.post(inbox, stranger.activity("Move", stranger.uri, target=f"{new.base}/users/third"))
        assert bridge.count("jobs", kind="confirm_move") == 0
