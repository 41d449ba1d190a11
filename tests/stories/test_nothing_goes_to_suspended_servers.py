"""Whatever an account says, and whatever the server says itself, nothing of it goes to a suspended server but the
deletion of a whole account; and a deleted account says nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.rig import Bridge, Stranger, eventually, running_bridge
from tests.stories.neighbours import domain, hears, kept, lift, rule, strangers

from threadbridge.activitypub import outgoing
from threadbridge.delivery import outbox, server_word
from threadbridge.domain.accounts import Account
from threadbridge.errors import Conflict
from threadbridge.federation import farewell, relay
from threadbridge.storage import accounts, farewells, posts, schema
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, Stranger, Stranger]]:
    folder: Path = tmp_path_factory.mktemp("silence")
    with running_bridge(folder) as bridge, strangers(bridge, "bob", "mallory") as (bob, mallory):
        yield bridge, bob, mallory


def follow(bridge: Bridge, account: Account, *people: Stranger) -> None:
    for who in people:
        who.received.clear()
        activity = who.activity("Follow", bridge.ground.ids.actor(account.id))
        assert who.post(f"{bridge.base}/ap/inbox", activity).status_code == 202
        hears(who, "Accept")
        who.received.clear()


def answer(bridge: Bridge, account: Account, who: Stranger) -> None:
    """Something said to one inbox, as every verb says it."""
    ids = bridge.ground.ids

    def say(tx: Tx) -> None:
        uri = f"{who.base}/activities/{time.monotonic_ns()}"
        followed = outgoing.follow_said(uri, who.uri, ids.actor(account.id))
        said = outgoing.accept(ids, account.id, ids.accept(account.id, uri, tx.now), followed)
        outbox.answer(tx, account.id, said, f"{who.base}/inbox")

    bridge.ground.store.transact_now(say)


def speak(bridge: Bridge, account: Account) -> int:
    def publish(tx: Tx) -> int:
        content = PostContent(kind="post", text="News", language="en", published=tx.now)
        number = posts.add(tx, account.id, content, [], silent=False)
        fresh = accounts.by_id(tx, account.id)
        assert fresh is not None
        outbox.publish(tx, bridge.ground.ids, fresh, number)
        return number

    return bridge.ground.store.transact_now(publish)


def retract(bridge: Bridge, account: Account, number: int) -> None:
    fresh = bridge.ground.store.read_now(accounts.by_id, account.id)
    assert fresh is not None
    bridge.ground.store.transact_now(outbox.retract, bridge.ground.ids, fresh, number)


@pytest.mark.parametrize("whose", ["the operator's rule", "the owner's rule"])
def test_nothing_is_addressed_to_a_suspended_server(scene: tuple[Bridge, Stranger, Stranger], whose: str) -> None:
    bridge, bob, mallory = scene
    by_owner = whose.startswith("the owner")
    account = bridge.account("owner_rule" if by_owner else "operator_rule")
    other = bridge.account("beside_owner" if by_owner else "beside_operator")
    follow(bridge, account, bob, mallory)
    number = speak(bridge, account)
    for who in (bob, mallory):
        hears(who, "Create")
        who.received.clear()
    owner = account.id if by_owner else None
    rule(bridge, "suspend", domain(mallory), owner=owner)
    for who in (bob, mallory):
        answer(bridge, account, who)
    # Neither what is new, nor the end of what they hold.
    speak(bridge, account)
    retract(bridge, account, number)
    hears(bob, "Create")
    hears(bob, "Delete")
    before = bridge.count("deliveries", host=domain(mallory))
    said = bridge.count("activities")
    # A new Follow: no Reject where the whole server is suspended.
    again = mallory.activity("Follow", bridge.ground.ids.actor(account.id))
    status = mallory.post(f"{bridge.base}/ap/inbox", again).status_code
    assert status == (202 if by_owner else 403)
    assert mallory.received == []
    assert bridge.count("deliveries", host=domain(mallory)) == before
    assert bridge.count("activities") == said
    # Another account's owner has not said so.
    answer(bridge, other, mallory)
    assert bridge.count("deliveries", account_id=other.id) == (1 if by_owner else 0)
    lift(bridge, domain(mallory), owner=owner)
    answer(bridge, account, mallory)
    eventually(lambda: mallory.of_kind("Accept"))


def test_the_servers_own_word_does_not_go_there(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, mallory = scene
    store, ids = bridge.ground.store, bridge.ground.ids

    def said(who: Stranger, name: str = "") -> dict[str, Any]:
        return outgoing.follow_relay(ids, f"{bridge.base}/relays/{who.name}{name}", who.uri)

    # Asked for before the rule, and said after it: called back.
    bridge.stop_worker()
    mallory.received.clear()
    store.transact_now(server_word.ask, said(mallory), f"{mallory.base}/inbox")
    rule(bridge, "suspend", domain(mallory), wait=False)
    bridge.start_worker()

    def ended(tx: Tx) -> str | None:
        j = schema.jobs
        return tx.execute(select(j.c.reason).where(j.c.kind == server_word.SAY)).scalar_one_or_none()

    eventually(lambda: store.read_now(ended) == server_word.SUSPENDED)
    before = kept(bridge)
    store.transact_now(server_word.ask, said(mallory, "again"), f"{mallory.base}/inbox")
    with pytest.raises(Conflict):
        store.transact_now(relay.subscribe, ids, mallory.uri, inbox=f"{mallory.base}/inbox", actor_uri=mallory.uri)
    assert kept(bridge) == before
    assert mallory.of_kind("Follow") == []
    store.transact_now(server_word.ask, said(bob), f"{bob.base}/inbox")
    eventually(lambda: bob.of_kind("Follow"))
    lift(bridge, domain(mallory))


def test_a_deleted_account_says_only_that(
    scene: tuple[Bridge, Stranger, Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, bob, mallory = scene
    monkeypatch.setattr(farewell, "KEY_STAYS", timedelta(hours=12))
    store, ids, inbox = bridge.ground.store, bridge.ground.ids, f"{bridge.base}/ap/inbox"
    account, living = bridge.account("leaving"), bridge.account("staying")
    follow(bridge, account, bob, mallory)
    for each in (account, living):
        rule(bridge, "suspend", bob.uri, "actor", owner=each.id)
    eventually(lambda: bob.of_kind("Reject"))
    rule(bridge, "suspend", domain(mallory))
    bob.received.clear()
    store.transact_now(farewell.ask, account.id, "test", timedelta(0))
    # To whoever holds copies, the suspended server too: afterwards nobody can ask for it any more.
    for who in (bob, mallory):
        hears(who, "Delete")
    # Somebody suspended knocks again: from the living account a Reject, from the deleted one nothing.
    said = bridge.count("activities", account_id=account.id)
    assert bob.post(inbox, bob.activity("Follow", ids.actor(account.id))).status_code == 202
    assert bridge.count("activities", account_id=account.id) == said
    assert bob.post(inbox, bob.activity("Follow", ids.actor(living.id))).status_code == 202
    assert eventually(lambda: bob.of_kind("Reject"))[0]["actor"] == ids.actor(living.id)
    # Nor when the rule is lifted: no Accept of a follow that is parked.
    said = bridge.count("activities", account_id=account.id)
    lift(bridge, bob.uri, "actor", owner=account.id)
    assert bridge.count("activities", account_id=account.id) == said
    answer(bridge, account, bob)
    assert bridge.count("activities", account_id=account.id) == said
    assert bridge.get("/@leaving", accept="text/html").status_code == 410
    lift(bridge, domain(mallory))
    assert bridge.count("activities", account_id=account.id) == said


def test_what_cannot_be_signed_any_more_ends_with_its_reason(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, _, _ = scene
    account = bridge.account("keyless")
    bridge.ground.store.transact_now(farewells.destroy_keys, account.id)
    with strangers(bridge, "fresh") as (fresh,):
        answer(bridge, account, fresh)
        words = "the key of this account is destroyed: nothing more can be said"
        eventually(lambda: bridge.count("deliveries", account_id=account.id, state="given_up", reason=words) == 1)
        # At the first try, and it says nothing about the server.
        assert bridge.count("deliveries", account_id=account.id, attempts=1) == 1
        assert bridge.count("hosts", host=domain(fresh)) == 0
        assert fresh.requests == []
