"""A rule also puts aside votes, stamps and who waits to follow, says so beforehand, and gives everything back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, Stranger, eventually, running_bridge
from tests.stories.neighbours import domain, lift, rule, strangers

from threadbridge.domain.accounts import Account
from threadbridge.domain.rules import Rules
from threadbridge.domain.source import SourcePoll
from threadbridge.errors import Conflict, NotFound
from threadbridge.federation import blocklists, follow
from threadbridge.storage import accounts, jobs, requests, rules
from threadbridge.storage.blocks import Entry
from threadbridge.storage.store import Tx


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, Stranger, Stranger]]:
    folder: Path = tmp_path_factory.mktemp("parked")
    with running_bridge(folder) as bridge, strangers(bridge, "bob", "mallory") as (bob, mallory):
        yield bridge, bob, mallory


def approve_by_hand(bridge: Bridge, account: Account, on: bool) -> None:
    def choose(tx: Tx) -> None:
        fresh = accounts.by_id(tx, account.id)
        assert fresh is not None
        follow.choose_approval(tx, bridge.ground.ids, fresh, on)

    bridge.ground.store.transact_now(choose)


def results(who: Stranger) -> set[str]:
    """The stamps of somebody's own posts; (who follows hears of those of others too)."""
    found = [one for one in who.of_kind("Accept") if one.get("result") and who.uri in one["to"]]
    return {one["result"] for one in found}


def stamped(who: Stranger) -> None:
    eventually(lambda: len(results(who)) == 2)


def vote(who: Stranger, poll: str, name: str) -> dict[str, Any]:
    note = who.note(poll) | {"name": name, "to": [poll.rsplit("/posts", 1)[0]]}
    del note["content"]
    return who.activity("Create", note)


def test_everything_is_put_aside_and_comes_back(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, mallory = scene
    account = bridge.account("all")
    ids, store, inbox = bridge.ground.ids, bridge.ground.store, f"{bridge.base}/ap/inbox"
    me, post = ids.actor(account.id), bridge.post(account)
    closes = datetime.now(UTC) + timedelta(hours=1)
    poll = bridge.post(account, "What?", poll=SourcePoll(("Tea", "Coffee"), (3, 2), closes))
    store.transact_now(rules.choose, account.id, Rules(replies="followers"))
    for who in (bob, mallory):
        assert who.post(inbox, who.activity("Follow", me)).status_code == 202
        assert who.post(inbox, who.activity("Create", who.note(post, "<p>A casino</p>"))).status_code == 202
        asked = {**who.activity("QuoteRequest", post), "instrument": who.note(None, quote=post)}
        assert who.post(inbox, asked).status_code == 202
        assert who.post(inbox, vote(who, poll, "Coffee")).status_code == 202
        stamped(who)
    other = bridge.account("asked")
    approve_by_hand(bridge, other, True)
    for who in (bob, mallory):
        assert who.post(inbox, who.activity("Follow", ids.actor(other.id))).status_code == 202

    def counted() -> tuple[list[int], int]:
        options = [one["replies"]["totalItems"] for one in bridge.get(poll).json()["oneOf"]]
        return options, store.read_now(requests.count, other.id)

    def stamps(who: Stranger) -> set[int]:
        return {bridge.get(stamp).status_code for stamp in results(who)}

    eventually(lambda: counted() == ([3, 4], 2))
    assert stamps(mallory) == {200}
    # Said beforehand.
    cut = store.read_now(blocklists.preview, [Entry("domain", domain(mallory), "suspend")])
    figures = {(one.handle): (one.followers, one.replies, one.quotes, one.votes, one.requests) for one in cut.losses}
    assert figures == {"all": (1, 1, 1, 1, 0), "asked": (0, 0, 0, 0, 1)}

    rule(bridge, "suspend", domain(mallory))
    eventually(lambda: counted() == ([3, 3], 1))
    assert stamps(mallory) == {404}
    assert stamps(bob) == {200}
    with pytest.raises(NotFound):
        store.transact_now(follow.approve, ids, other.id, mallory.uri)
    # Limited: what was granted holds, who asks is the owner's to see, votes do not count.
    rule(bridge, "limit", domain(mallory))
    eventually(lambda: counted() == ([3, 3], 2))
    assert stamps(mallory) == {200}
    lift(bridge, domain(mallory))
    eventually(lambda: counted() == ([3, 4], 2))
    assert stamps(mallory) == {200}
    # By its words an answer goes with its stamp; the quote, which says something else, stays.
    rule(bridge, "suspend", "casino", "keyword", owner=account.id)
    assert sorted(bridge.get(stamp).status_code for stamp in results(mallory)) == [200, 404]
    lift(bridge, "casino", "keyword", owner=account.id)
    assert stamps(mallory) == {200}


def test_a_limited_vote_is_kept_and_does_not_count(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, mallory = scene
    account = bridge.account("polls")
    closes = datetime.now(UTC) + timedelta(hours=1)
    poll = bridge.post(account, "What?", poll=SourcePoll(("Tea", "Coffee"), (0, 0), closes))
    rule(bridge, "limit", domain(mallory))
    for who in (bob, mallory):
        assert who.post(f"{bridge.base}/ap/inbox", vote(who, poll, "Tea")).status_code == 202
    assert bridge.count("votes", account_id=account.id) == 2

    def figures() -> list[int]:
        return [one["replies"]["totalItems"] for one in bridge.get(poll).json()["oneOf"]]

    eventually(lambda: figures() == [1, 0])
    lift(bridge, domain(mallory))
    eventually(lambda: figures() == [2, 0])


def test_who_waits_is_not_let_in_past_a_rule(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, mallory = scene
    account = bridge.account("gate")
    ids, store, inbox = bridge.ground.ids, bridge.ground.store, f"{bridge.base}/ap/inbox"
    approve_by_hand(bridge, account, True)
    for who in (bob, mallory):
        who.received.clear()
        assert who.post(inbox, who.activity("Follow", ids.actor(account.id))).status_code == 202
    # The rule is so new that its job has not run yet.
    bridge.stop_worker()
    rule(bridge, "suspend", domain(mallory), wait=False)
    before = bridge.everything()
    with pytest.raises(Conflict):
        store.transact_now(follow.approve, ids, account.id, mallory.uri)
    assert bridge.everything() == before
    approve_by_hand(bridge, account, False)

    def let_in(tx: Tx) -> None:
        for job in jobs.take(tx, [follow.LET_IN], 60, 1):
            while follow.let_in_some(tx, ids, job):
                pass

    store.transact_now(let_in)
    assert bridge.count("followers", account_id=account.id, peer_uri=bob.uri) == 1
    assert bridge.count("followers", account_id=account.id, peer_uri=mallory.uri) == 0
    assert bridge.count("deliveries", account_id=account.id, host=domain(mallory)) == 0
    bridge.start_worker()
    eventually(lambda: bob.of_kind("Accept"))
    lift(bridge, domain(mallory))
    assert store.read_now(requests.count, account.id) == 1
    store.transact_now(follow.approve, ids, account.id, mallory.uri)
    eventually(lambda: mallory.of_kind("Accept"))
