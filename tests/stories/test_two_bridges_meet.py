"""Two servers of ours are strangers to each other like any two of the Fediverse, and never echo each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, Stranger, a_key, eventually, running_bridge

from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account
from threadbridge.federation import farewell
from threadbridge.storage import accounts, posts
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx


@dataclass
class Resident(Stranger):
    """An account of a bridge, speaking with its own key. It is not served here: its bridge does that."""

    me: str = ""

    @property
    def uri(self) -> str:
        return self.me


@dataclass
class Two:
    one: Bridge
    two: Bridge
    alice: Account
    bea: Resident

    @property
    def alice_uri(self) -> str:
        return self.one.ground.ids.actor(self.alice.id)

    def publish(self, text: str) -> tuple[int, str]:
        content = PostContent(kind="post", text=text, language="en", published=datetime.now(UTC))

        def say(tx: Tx) -> int:
            number = posts.add(tx, self.alice.id, content, [], silent=False)
            outbox.publish(tx, self.one.ground.ids, self.alice, number)
            accounts.touch(tx, self.alice.id)
            return number

        number = self.one.ground.store.transact_now(say)
        return number, self.one.ground.ids.post(self.alice.id, number)

    def delivered(self, count: int) -> None:
        eventually(lambda: self.one.count("deliveries", state="delivered") == count)

    def bea_follows(self) -> None:
        follow = self.bea.activity("Follow", self.alice_uri)
        assert self.bea.post(f"{self.alice_uri}/inbox", follow).status_code == 202
        eventually(lambda: self.one.count("followers", ended_at=None) == 1)


@contextmanager
def meeting(folder: Path, **settings: Any) -> Iterator[Two]:
    with (
        running_bridge(folder / "one", **settings) as one,
        running_bridge(folder / "two", **settings) as two,
    ):
        alice, bea = one.account("alice"), two.account("bea")
        yield Two(one, two, alice, Resident(two.base, "bea", a_key(), me=two.ground.ids.actor(bea.id)))


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_they_find_follow_and_tell_each_other(tmp_path: Path, secure: bool) -> None:
    """In secure mode both want every reader's signature: a follow needs the key of one who needs our key first."""
    with meeting(tmp_path, secure_mode=secure) as both:
        found = both.two.get(f"/.well-known/webfinger?resource=acct:bea@{both.two.authority}")
        assert found.json()["links"][1]["href"] == both.bea.uri or both.bea.uri in found.text
        both.bea_follows()
        both.delivered(1)  # the Accept
        number, post = both.publish("Hello, neighbour")
        both.delivered(2)
        before = both.two.everything()
        # A Like and a boost by the neighbour, signed with the key that its bridge publishes.
        for kind in ("Like", "Announce"):
            assert both.bea.post(f"{both.one.base}/ap/inbox", both.bea.activity(kind, post)).status_code == 202
        assert both.one.count("reactions", undone_at=None) == 2

        def edit(tx: Tx) -> None:
            content = PostContent(kind="post", text="Edited", language="en", published=tx.now)
            posts.revise(tx, both.alice.id, number, content, [], updated=tx.now + timedelta(seconds=2))
            outbox.revise(tx, both.one.ground.ids, both.alice, number)

        def retract(tx: Tx) -> None:
            posts.bury(tx, both.alice.id, number)
            outbox.retract(tx, both.one.ground.ids, both.alice, number)

        for step, change in ((3, edit), (4, retract)):
            both.one.ground.store.transact_now(change)
            both.delivered(step)
        # What the neighbour was told is nothing that it passes on, answers or keeps as its own.
        after = both.two.everything()
        for table in ("posts", "activities", "deliveries", "replies", "reactions", "followers"):
            assert after[table] == before[table], table


def test_what_one_wrote_does_not_come_back_through_the_other(tmp_path: Path) -> None:
    with meeting(tmp_path) as both:
        both.bea_follows()
        both.delivered(1)
        _, post = both.publish("Only once")
        both.delivered(2)
        before = {name: both.one.count(name) for name in ("posts", "replies", "activities", "deliveries")}
        inbox = f"{both.one.base}/ap/inbox"
        original = both.one.get(post).json()
        # Passed on as it was, by somebody who did not write it; and as a copy that says whose it is.
        forwarded = both.one.get(f"{post}/activity").json()
        assert both.bea.post(inbox, forwarded).status_code in (202, 403)
        copy = both.bea.note(post, original["content"], url=original["url"], proxyOf=[{"proxied": post}])
        copy["id"] = f"{both.two.base}/ap/users/1/posts/77"
        copy["url"] = [{"type": "Link", "rel": "canonical", "href": post}]
        assert both.bea.post(inbox, both.bea.activity("Create", copy)).status_code == 202
        assert {name: both.one.count(name) for name in before} == before


def test_the_end_of_an_account_is_heard_by_the_other(tmp_path: Path) -> None:
    with meeting(tmp_path) as both:
        both.bea_follows()
        both.delivered(1)
        heard = both.two.count("seen_activities")
        both.one.ground.store.transact_now(farewell.ask, both.alice.id, "test", timedelta(0))
        both.delivered(2)
        # It was somebody whom the neighbour never needed to know: forgotten without a look-up.
        assert both.two.count("seen_activities") in (heard, heard + 1)
        assert both.two.count("deliveries") == 0
