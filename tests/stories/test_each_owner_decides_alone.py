"""What names several accounts reaches those whose owners want it, and nobody else; nothing is granted by itself to
somebody who is limited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, Stranger, eventually, running_bridge
from tests.stories.neighbours import domain, hears, kept, lift, rule, strangers

from threadbridge.domain.accounts import Account
from threadbridge.domain.rules import Rules
from threadbridge.errors import Conflict
from threadbridge.federation import enforcement, quote
from threadbridge.storage import decisions, mentions, parking, quotes, rules


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, Stranger, Stranger]]:
    folder: Path = tmp_path_factory.mktemp("owners")
    with running_bridge(folder) as bridge, strangers(bridge, "bob", "eve") as (bob, eve):
        yield bridge, bob, eve


def two(bridge: Bridge, name: str) -> tuple[Account, str, Account, str]:
    alice, carol = bridge.account(f"alice_{name}"), bridge.account(f"carol_{name}")
    return alice, bridge.post(alice), carol, bridge.post(carol)


def naming(bridge: Bridge, *accounts: Account) -> dict[str, Any]:
    uris = [bridge.ground.ids.actor(account.id) for account in accounts]
    return {"cc": uris, "tag": [{"type": "Mention", "href": uri, "name": "@x"} for uri in uris]}


def create(bridge: Bridge, speaker: Stranger, note: dict[str, Any], kind: str = "Create") -> int:
    return speaker.post(f"{bridge.base}/ap/inbox", speaker.activity(kind, note)).status_code


def held(bridge: Bridge, account: Account) -> tuple[int, int, int]:
    """Rows of replies, mentions, quotes of one account."""
    replies, named, quoted = (
        bridge.count(table, account_id=account.id) for table in ("replies", "mentions", "quotes")
    )
    return replies, named, quoted


def test_only_who_refuses_goes_without(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, eve = scene
    alice, to_alice, carol, to_carol = two(bridge, "both")
    store = bridge.ground.store
    rule(bridge, "suspend", bob.uri, "actor", owner=carol.id)
    said: tuple[Callable[[Stranger], dict[str, Any]], ...] = (
        lambda who: who.note(to_alice) | naming(bridge, carol),  # answers Alice, names Carol
        lambda who: who.note(None) | naming(bridge, alice, carol),  # names both
        lambda who: who.note(to_carol) | naming(bridge, alice),  # answers Carol, names Alice
        lambda who: who.note(to_alice, quoteUri=to_carol),  # answers Alice, quotes Carol
    )
    for make in said:
        assert create(bridge, bob, make(bob)) == 202
    assert held(bridge, carol) == (0, 0, 0)
    assert held(bridge, alice) == (2, 2, 0)
    # An edit brings nothing new in either.
    changed = bob.note(to_alice)
    assert create(bridge, bob, changed) == 202
    changed |= {"quoteUri": to_carol, "updated": "2026-11-30T00:00:00Z"}
    assert create(bridge, bob, changed, "Update") == 202
    assert held(bridge, carol) == (0, 0, 0)
    assert {one.reason for _, one in store.read_now(decisions.page, account_id=carol.id)} == {
        "actor suspended by the owner",
        "hidden: actor suspended by the owner",
    }
    # About Carol alone: nothing at all is kept.
    before = kept(bridge)
    assert create(bridge, bob, bob.note(to_carol) | naming(bridge, carol)) == 202
    assert create(bridge, bob, bob.note(None, quoteUri=to_carol)) == 202
    assert kept(bridge) == before
    # The same from anybody else reaches both.
    for make in said:
        assert create(bridge, eve, make(eve)) == 202
    assert held(bridge, carol) == (1, 2, 1)
    # What Alice holds does not get below Carol's post by a way round: Bob answers an answer that comes later.
    late = eve.note(to_carol)
    assert create(bridge, bob, bob.note(late["id"]) | naming(bridge, alice)) == 202
    assert create(bridge, eve, eve.note(late["id"]) | naming(bridge, carol)) == 202
    replies_before = bridge.count("replies", account_id=carol.id)
    assert create(bridge, eve, late) == 202
    assert bridge.count("replies", account_id=carol.id) == replies_before + 2
    assert bridge.count("replies", account_id=carol.id, peer_uri=bob.uri) == 0
    assert bob.uri not in {one.peer_uri for _, one in store.read_now(mentions.page, carol.id, limit=50)}
    lift(bridge, bob.uri, "actor", owner=carol.id)
    assert create(bridge, bob, said[3](bob)) == 202
    assert held(bridge, carol)[2] == 2


def request(who: Stranger, kind: str, post: str, note: dict[str, Any]) -> dict[str, Any]:
    return {**who.activity(kind, post), "instrument": note}


def accepted(who: Stranger, asked: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        one
        for one in who.of_kind("Accept")
        if isinstance(one["object"], dict) and one["object"].get("id") == asked["id"]
    ]


def test_a_request_with_unwanted_words_is_not_granted(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, _ = scene
    _, _, carol, post = two(bridge, "words")
    inbox = f"{bridge.base}/ap/inbox"
    rule(bridge, "suspend", "casino", "keyword", owner=carol.id)
    before = kept(bridge)
    for kind, note in (
        ("QuoteRequest", bob.note(None, "<p>A <b>Casino</b>!</p>", quote=post)),
        ("ReplyRequest", bob.note(post, "<p>A <b>Casino</b>!</p>")),
    ):
        assert bob.post(inbox, request(bob, kind, post, note)).status_code == 202
    assert kept(bridge) == before
    asked = request(bob, "QuoteRequest", post, bob.note(None, "<p>A theatre</p>", quote=post))
    assert bob.post(inbox, asked).status_code == 202
    assert eventually(lambda: accepted(bob, asked))[0]["result"]


def test_somebody_limited_waits_for_the_owner(scene: tuple[Bridge, Stranger, Stranger]) -> None:
    bridge, bob, eve = scene
    _, _, carol, post = two(bridge, "limits")
    ids, store, inbox = bridge.ground.ids, bridge.ground.store, f"{bridge.base}/ap/inbox"
    store.transact_now(rules.choose, carol.id, Rules(replies="followers"))
    rule(bridge, "limit", domain(bob))
    for who in (bob, eve):
        who.received.clear()
        assert who.post(inbox, who.activity("Follow", ids.actor(carol.id))).status_code == 202
        hears(who, "Accept")
    # Limited: no Accept with a stamp, no fan-out to the followers, neither for the answer nor for the requests.
    said = bridge.count("activities")
    answer = bob.note(post)
    assert create(bridge, bob, answer) == 202
    ask_reply = request(bob, "ReplyRequest", post, bob.note(post))
    ask_quote = request(bob, "QuoteRequest", post, bob.note(None, quote=post))
    for asked in (ask_reply, ask_quote):
        assert bob.post(inbox, asked).status_code == 202
    assert bridge.count("activities") == said
    assert bridge.count("approvals") == 0
    assert bridge.count("replies", uri=answer["id"], hidden="limited") == 1
    # The genuine twin is let through at once.
    assert create(bridge, eve, eve.note(post)) == 202
    eventually(lambda: [one for one in eve.of_kind("Accept") if one.get("result")])
    assert bridge.count("approvals") == 1
    # The owner shows the answer, and it is said that it may be there; the quote waits on their page.
    assert not store.transact_now(enforcement.show_reply, ids, carol.id, eve.note(post)["id"])
    assert store.transact_now(enforcement.show_reply, ids, carol.id, answer["id"])
    stamp = eventually(lambda: [one for one in bob.of_kind("Accept") if one.get("object") == answer["id"]])[0]
    assert bridge.get(stamp["result"]).status_code == 200
    (waiting,) = store.read_now(quotes.page, carol.id, limit=9, waiting_only=True)
    assert waiting.peer_uri == bob.uri
    assert not accepted(bob, ask_quote)
    store.transact_now(quote.let, ids, carol.id, waiting.id)
    assert eventually(lambda: accepted(bob, ask_quote))
    # Not once they are suspended.
    other = request(bob, "QuoteRequest", post, bob.note(None, quote=post))
    assert bob.post(inbox, other).status_code == 202
    (waiting,) = store.read_now(quotes.page, carol.id, limit=9, waiting_only=True)
    rule(bridge, "suspend", bob.uri, "actor", owner=carol.id, wait=False)
    with pytest.raises(Conflict):
        store.transact_now(quote.let, ids, carol.id, waiting.id)
    assert not accepted(bob, other)
    lift(bridge, bob.uri, "actor", owner=carol.id)
    lift(bridge, domain(bob))
    # Asked again now, it is answered; what was hidden is shown and stamped by itself.
    assert bob.post(inbox, request(bob, "ReplyRequest", post, bob.note(post))).status_code == 202
    eventually(
        lambda: [one for one in bob.of_kind("Accept") if one.get("object") != answer["id"] and one.get("result")]
    )
    assert store.read_now(parking.hidden_replies, carol.id, limit=9) == []
