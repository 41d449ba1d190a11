"""A rule parks followers, reactions, replies and what waits to be sent; lifting it gives back what it took, and
nothing that somebody ended themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.rig import Bridge, Stranger, eventually, running_bridge
from tests.stories.neighbours import domain, enforced, kept, lift, rule, strangers
from tests.stories.test_followers_are_let_in_by_hand import by_hand

from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account
from threadbridge.storage import accounts, decisions, parking, posts, schema
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx


def figures(bridge: Bridge, account: Account, post: str) -> dict[str, int]:
    """The public figures: they are what everybody sees, and must equal the rows."""

    def read(tx: Tx) -> dict[str, int]:
        a, p = schema.accounts, schema.posts
        number = int(post.rpartition("/")[2])
        row = tx.execute(select(p.c.likes_count, p.c.shares_count, p.c.replies_count).where(p.c.id == number)).one()
        followers = tx.execute(select(a.c.followers_count).where(a.c.id == account.id)).scalar_one()
        return {
            "followers": followers,
            "likes": row.likes_count,
            "shares": row.shares_count,
            "replies": row.replies_count,
        }

    return bridge.ground.store.read_now(read)


def say_all(bridge: Bridge, speaker: Stranger, account: Account, post: str) -> dict[str, Any]:
    inbox, actor = f"{bridge.base}/ap/inbox", bridge.ground.ids.actor(account.id)
    note = speaker.note(post, "<p>Hello there</p>")
    said = {
        "follow": speaker.activity("Follow", actor),
        "like": speaker.activity("Like", post),
        "boost": speaker.activity("Announce", post),
        "reply": speaker.activity("Create", note),
    }
    for activity in said.values():
        assert speaker.post(inbox, activity).status_code == 202
    return {**said, "note": note}


def test_a_suspended_server_is_parked_and_comes_back(bridge: Bridge) -> None:
    account = bridge.account()
    post = bridge.post(account)
    inbox, store = f"{bridge.base}/ap/inbox", bridge.ground.store
    with strangers(bridge, "bob", "mallory") as (bob, mallory):
        say_all(bridge, bob, account, post)
        said = say_all(bridge, mallory, account, post)
        both = {"followers": 2, "likes": 2, "shares": 2, "replies": 2}
        assert figures(bridge, account, post) == both
        # What they took back before stays taken back.
        assert mallory.post(inbox, mallory.activity("Undo", said["boost"])).status_code == 202
        eventually(lambda: len(mallory.of_kind("Accept")) == 1)
        before_rule = {**both, "shares": 1}
        assert figures(bridge, account, post) == before_rule

        rule(bridge, "suspend", domain(mallory))
        assert figures(bridge, account, post) == {"followers": 1, "likes": 1, "shares": 1, "replies": 1}
        eventually(lambda: said["note"]["id"] not in bridge.get(f"{post}/replies").text)
        told = store.read_now(decisions.page, account_id=account.id)
        assert [one.reason for _, one in told][:1] == ["1 follower parked: domain suspended by the operator"]
        # Nothing goes there, neither what is new nor the deletion of what they hold.
        deliveries = bridge.count("deliveries", host=domain(mallory))

        def publish(tx: Tx) -> None:
            content = PostContent(kind="post", text="News", language="en", published=tx.now)
            number = posts.add(tx, account.id, content, [], silent=False)
            found = accounts.by_id(tx, account.id)
            assert found is not None
            outbox.publish(tx, bridge.ground.ids, found, number)

        store.transact_now(publish)
        eventually(lambda: bob.of_kind("Create"))
        assert bridge.count("deliveries", host=domain(mallory)) == deliveries
        assert [one["type"] for one in mallory.received] == ["Accept"]

        lift(bridge, domain(mallory))
        assert figures(bridge, account, post) == before_rule
        eventually(lambda: said["note"]["id"] in bridge.get(f"{post}/replies").text)
        store.transact_now(publish)
        eventually(lambda: mallory.of_kind("Create"))
        # A second sweep changes nothing.
        rule(bridge, "allow", domain(mallory))
        assert figures(bridge, account, post) == before_rule


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("parking")
    with running_bridge(folder) as running:
        yield running


def test_what_waits_for_a_suspended_server_is_called_back(place: Bridge) -> None:
    account = place.account("waiting")
    with strangers(place, "bob") as (bob,):
        bob.answer = lambda _: 503
        assert bob.post(
            f"{place.base}/ap/inbox", bob.activity("Follow", place.ground.ids.actor(account.id))
        ).is_success
        eventually(lambda: bob.requests)
        eventually(lambda: place.count("deliveries", host=domain(bob), state="waiting"))
        rule(place, "suspend", domain(bob))
        assert place.count("deliveries", host=domain(bob), state="waiting") == 0
        assert (
            place.count("deliveries", host=domain(bob), state="refused", reason="this server is suspended here") == 1
        )
        lift(place, domain(bob))


def test_one_suspended_person_is_told_and_their_neighbours_stay(place: Bridge) -> None:
    account = place.account("persons")
    post = place.post(account)
    with strangers(place, "bob") as (bob,):
        say_all(place, bob, account, post)
        eventually(lambda: bob.of_kind("Accept"))
        rule(place, "suspend", bob.uri, "actor", owner=account.id)
        reject = eventually(lambda: bob.of_kind("Reject"))[0]
        assert reject["object"]["actor"] == bob.uri
        assert figures(place, account, post) == {"followers": 0, "likes": 0, "shares": 0, "replies": 0}
        lift(place, bob.uri, "actor", owner=account.id)
        eventually(lambda: len(bob.of_kind("Accept")) == 2)
        assert figures(place, account, post) == {"followers": 1, "likes": 1, "shares": 1, "replies": 1}


def test_what_is_taken_back_while_it_is_put_aside_does_not_come_back(place: Bridge) -> None:
    account = place.account("undone")
    post, inbox = place.post(account), f"{place.base}/ap/inbox"
    with strangers(place, "bob") as (bob,):
        said = say_all(place, bob, account, post)
        rule(place, "limit", domain(bob))
        # Limited: heard, followed, and shown to nobody.
        assert figures(place, account, post) == {"followers": 1, "likes": 0, "shares": 0, "replies": 0}
        assert bob.post(inbox, bob.activity("Undo", said["like"])).status_code == 202
        gone = {"id": said["note"]["id"], "type": "Tombstone"}
        assert bob.post(inbox, bob.activity("Delete", gone)).status_code == 202
        lift(place, domain(bob))
        assert figures(place, account, post) == {"followers": 1, "likes": 0, "shares": 1, "replies": 0}


@pytest.mark.parametrize("verb", ["Undo", "Undo by its id", "Block"])
def test_who_leaves_while_put_aside_stays_away(place: Bridge, verb: str) -> None:
    account, asked = place.account(f"left{len(verb)}"), place.account(f"asked{len(verb)}")
    ids, inbox = place.ground.ids, f"{place.base}/ap/inbox"
    by_hand(place, asked)
    with strangers(place, "bob") as (bob,):
        for one in (account, asked):
            me = ids.actor(one.id)
            said = bob.activity("Follow", me)
            assert bob.post(inbox, said).status_code == 202
            rule(place, "suspend", bob.uri, "actor", owner=one.id)
            left = {"Undo": ("Undo", said), "Undo by its id": ("Undo", said["id"]), "Block": ("Block", me)}[verb]
            assert bob.post(inbox, bob.activity(*left)).status_code == 202
        eventually(lambda: bob.of_kind("Reject"))
        accepted = len(bob.of_kind("Accept"))
        for one in (account, asked):
            lift(place, bob.uri, "actor", owner=one.id)
            assert place.count("followers", account_id=one.id, ended_at=None) == 0
            assert place.count("follow_requests", account_id=one.id, ended_at=None) == 0
            assert place.count("accounts", id=one.id, followers_count=0) == 1
        # Nothing more is said to who has left.
        assert place.count("deliveries", host=domain(bob), state="waiting") == 0
        assert len(bob.of_kind("Accept")) == accepted


def test_who_is_limited_is_kept_and_shown_when_the_owner_wants(place: Bridge) -> None:
    account, other = place.account("limits"), place.account("others")
    post, store = place.post(account), place.ground.store
    with strangers(place, "bob") as (bob,):
        rule(place, "limit", domain(bob))
        said = say_all(place, bob, account, post)
        assert figures(place, account, post) == {"followers": 1, "likes": 0, "shares": 0, "replies": 0}
        assert said["note"]["id"] not in place.get(f"{post}/replies").text
        reasons = {one.reason for _, one in store.read_now(decisions.page, account_id=account.id)}
        assert "hidden: domain limited by the operator" in reasons
        hidden = store.read_now(parking.hidden_replies, account.id, limit=10)
        assert [one.uri for one in hidden] == [said["note"]["id"]]
        assert not store.transact_now(parking.show, other.id, said["note"]["id"])
        assert store.transact_now(parking.show, account.id, said["note"]["id"])
        assert figures(place, account, post)["replies"] == 1
        eventually(lambda: said["note"]["id"] in place.get(f"{post}/replies").text)
        # What was shown once is not hidden again by the next sweep; a suspension hides it.
        rule(place, "limit", bob.uri, "actor")
        assert figures(place, account, post)["replies"] == 1
        rule(place, "suspend", bob.uri, "actor")
        assert figures(place, account, post)["replies"] == 0
        lift(place, bob.uri, "actor")
        lift(place, domain(bob))
        assert figures(place, account, post) == {"followers": 1, "likes": 1, "shares": 1, "replies": 1}


def test_words_keep_replies_away(place: Bridge) -> None:
    account = place.account("words")
    post, inbox = place.post(account), f"{place.base}/ap/inbox"
    with strangers(place, "bob") as (bob,):
        old, new = bob.note(post, "<p>Old <b>casino</b> news</p>"), bob.note(post, "<p>Visit our CASINO!</p>")
        innocent = bob.note(post, "<p>casinos are loud</p>")
        assert bob.post(inbox, bob.activity("Create", old)).status_code == 202
        rule(place, "suspend", "casino", "keyword", owner=account.id)
        assert figures(place, account, post)["replies"] == 0
        before = kept(place)
        assert bob.post(inbox, bob.activity("Create", new)).status_code == 202
        assert kept(place) == before
        assert bob.post(inbox, bob.activity("Create", innocent)).status_code == 202
        assert figures(place, account, post)["replies"] == 1
        # Edited into it afterwards: hidden, not lost.
        edited = {**innocent, "content": "<p>casino</p>", "updated": "2026-11-30T00:00:00Z"}
        assert bob.post(inbox, bob.activity("Update", edited)).status_code == 202
        eventually(lambda: figures(place, account, post)["replies"] == 0)
        lift(place, "casino", "keyword", owner=account.id)
        assert figures(place, account, post)["replies"] == 2


def test_allow_list_mode(tmp_path: Path) -> None:
    with running_bridge(tmp_path, allow_list=True) as closed, strangers(closed, "bob", "eve") as (bob, eve):
        enforced(closed)
        account = closed.account()
        post, inbox = closed.post(account), f"{closed.base}/ap/inbox"
        rule(closed, "allow", domain(bob))
        before = kept(closed)
        assert eve.post(inbox, eve.activity("Like", post)).status_code == 403
        assert kept(closed) == before
        assert eve.fetched == []
        assert bob.post(inbox, bob.activity("Like", post)).status_code == 202
        assert figures(closed, account, post)["likes"] == 1
    with running_bridge(tmp_path, base_url=closed.base) as opened:
        eventually(lambda: opened.count("blocks", held_by="setting") == 0)
