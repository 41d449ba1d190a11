"""Moving brings nobody in whom a rule suspends, or whom the owner sent away, under the new id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.rig import Bridge, Stranger, eventually, running_bridge
from tests.stories.neighbours import domain, rule, strangers
from tests.stories.test_a_follower_moves import Newcomer, move, newcomer
from tests.stories.test_followers_are_let_in_by_hand import by_hand

from threadbridge.domain.accounts import Account
from threadbridge.federation import follow
from threadbridge.storage import decisions, followers, peers


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("moving")
    with running_bridge(folder) as running:
        yield running


def by_operator(bridge: Bridge, account: Account, new: Newcomer) -> str:
    rule(bridge, "suspend", new.uri, "actor")
    return "not carried: actor suspended by the operator"


def by_owner(bridge: Bridge, account: Account, new: Newcomer) -> str:
    rule(bridge, "suspend", domain(new), owner=account.id)
    return "not carried: domain suspended by the owner"


def by_handle(bridge: Bridge, account: Account, new: Newcomer) -> str:
    # Never met, and its server answers no WebFinger: recognised by what its document says.
    rule(bridge, "suspend", f"@{new.name}@{domain(new)}", "actor", owner=account.id)
    return "not carried: actor suspended by the owner"


def rejected(bridge: Bridge, account: Account, new: Newcomer) -> str:
    by_hand(bridge, account)
    assert new.post(f"{bridge.base}/ap/inbox", new.activity("Follow", bridge.ground.ids.actor(account.id))).is_success
    bridge.ground.store.transact_now(follow.reject, bridge.ground.ids, account.id, new.uri)
    return "not carried: sent away by the owner"


def removed(bridge: Bridge, account: Account, new: Newcomer) -> str:
    assert new.post(f"{bridge.base}/ap/inbox", new.activity("Follow", bridge.ground.ids.actor(account.id))).is_success
    eventually(lambda: new.of_kind("Accept"))
    bridge.ground.store.transact_now(follow.remove, bridge.ground.ids, account.id, new.uri)
    by_hand(bridge, account)
    return "not carried: sent away by the owner"


@pytest.mark.parametrize("unwelcome", [by_operator, by_owner, by_handle, rejected, removed])
def test_who_is_not_welcome_is_not_carried(
    place: Bridge, unwelcome: Callable[[Bridge, Account, Newcomer], str]
) -> None:
    name = unwelcome.__name__
    account, other = place.account(name), place.account(f"{name}_beside")
    inbox, ids, store = f"{place.base}/ap/inbox", place.ground.ids, place.ground.store
    with strangers(place, "bob") as (old,), newcomer(place) as new:
        both(place, old, account, other)
        reason = unwelcome(place, account, new)
        new.former = (old.uri,)
        new.received.clear()
        assert old.post(inbox, move(old, new.uri)).status_code == 202
        eventually(lambda: reason in {one.reason for _, one in store.read_now(decisions.page)})
        eventually(lambda: place.count("jobs", kind="confirm_move") == 0)
        # The old follow is what it was, and leads nowhere.
        assert place.count("followers", account_id=account.id, peer_uri=old.uri, carried_to=None, ended_at=None) == 1
        carried = 0 if unwelcome is by_operator else 1
        assert place.count("followers", account_id=other.id, carried_to=new.uri) == carried
        before = place.count("followers", account_id=account.id, ended_at=None)
        new.post(inbox, new.activity("Follow", ids.actor(account.id)))
        new.post(inbox, new.activity("Follow", ids.actor(other.id)))
        assert place.count("followers", account_id=account.id, ended_at=None) == before
        assert not [one for one in new.of_kind("Accept") if one["actor"] == ids.actor(account.id)]
        assert place.count("followers", account_id=other.id, peer_uri=new.uri, ended_at=None) == carried


def both(place: Bridge, old: Stranger, *accounts: Account) -> None:
    for account in accounts:
        assert old.post(
            f"{place.base}/ap/inbox", old.activity("Follow", place.ground.ids.actor(account.id))
        ).is_success


def test_a_rule_made_after_the_move_holds_when_they_arrive(place: Bridge) -> None:
    account = place.account("late_rule")
    inbox, ids, store = f"{place.base}/ap/inbox", place.ground.ids, place.ground.store
    with strangers(place, "bob") as (old,), newcomer(place) as new:
        both(place, old, account)
        new.former = (old.uri,)
        by_hand(place, account)
        # Their Follow waits, the rule is made, and only then their Move is confirmed.
        assert new.post(inbox, new.activity("Follow", ids.actor(account.id))).is_success
        place.stop_worker()
        rule(place, "suspend", new.uri, "actor", owner=account.id, wait=False)
        peer = store.read_now(peers.by_uri, new.uri)
        assert peer is not None
        assert store.transact_now(followers.carry, account.id, old.uri, new.uri)
        before = place.everything()
        store.transact_now(follow.arrived, ids, account.id, peer)
        after = place.everything()
        place.start_worker()
    assert after == before
    assert place.count("followers", peer_uri=new.uri) == 0
