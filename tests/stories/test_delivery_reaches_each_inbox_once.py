"""A post goes once to each distinct inbox, as the same bytes, and what is history goes to nobody."""

from __future__ import annotations

import json
import time
from collections import Counter

from tests.rig import Bridge, Stranger, eventually
from tests.stories.crowd import crowd, drained, follow, ledger_rows, publish, retract

from threadbridge.bridge import pause
from threadbridge.storage import ledger, schema, turns


def test_a_shared_inbox_gets_one_copy_for_all_its_people(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people, crowd(bridge.loop) as others:
        follow(bridge, account, people, *(f"p{n}" for n in range(12)))
        follow(bridge, account, others, "one", "two")
        publish(bridge, account)
        drained(bridge)
        assert [a.path for a in people.deliveries()] == ["/inbox"]
        assert [a.path for a in others.deliveries()] == ["/inbox"]
        rows = [(row.state, row.attempts, row.status, row.reason) for row in ledger_rows(bridge, post_id=1)]
        assert rows == [("delivered", 1, 202, None)] * 2
        # Accepts go to the personal inboxes: somebody is waiting in front of a button.
        assert {a.path for a in people.arrivals if a.kind == "Accept"} == {f"/users/p{n}/inbox" for n in range(12)}


def test_without_a_shared_inbox_each_gets_a_copy(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, shared=False) as people:
        follow(bridge, account, people, *(f"p{n}" for n in range(30)))
        publish(bridge, account)
        drained(bridge)
        assert Counter(a.path for a in people.deliveries()) == Counter({f"/users/p{n}/inbox": 1 for n in range(30)})
        assert len({body for headers, body in people.requests if b'"Create"' in body}) == 1


def test_what_is_sent_is_what_was_said_to_the_byte(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account, "Grüße 🌻 \u2028 <script>")
        drained(bridge)
        said = bridge.ground.store.read_now(ledger.activity, ledger_rows(bridge, post_id=1)[0].activity_id)
        assert said is not None
        told = json.loads(people.requests[-1][1])
        # All that is put to it is the proof, made of these very bytes, and the vocabulary of the proof.
        assert told.pop("proof")["type"] == "DataIntegrityProof"
        held = json.loads(said.body)
        contexts = [told.pop("@context"), held.pop("@context")]
        assert told == held
        assert all(each in contexts[0] for each in contexts[1])
        raw = said.body.split(b'"object":', 1)[1].rstrip(b"}")
        assert raw in people.requests[-1][1]


def test_a_hundred_inboxes_of_one_server_are_no_slower_than_a_hundred_servers(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, shared=False) as people:
        follow(bridge, account, people, "bob")
        bridge.stop_worker()
        post_id = publish(bridge, account)
        activity = bridge.ground.store.read_now(ledger.activity, ledger_of(bridge, post_id))
        assert activity is not None
        inboxes = [(f"{people.base}/users/q{n}/inbox", people.base[7:]) for n in range(200)]
        bridge.ground.store.transact_now(ledger.add_deliveries, activity, inboxes, lane=ledger.LANE_POST)
        started = time.monotonic()
        bridge.start_worker()
        drained(bridge)
        # Were they looked at a few at a time, with a pause between, it would take five seconds.
        assert time.monotonic() - started < 4.0
        assert len(people.deliveries()) == 201
        assert turns.HOST_LIMIT < 20


def ledger_of(bridge: Bridge, post_id: int) -> int:
    a = schema.activities
    found: int = bridge.ground.store.read_now(
        lambda tx: tx.execute(a.select().where(a.c.post_id == post_id)).one().id
    )
    return found


def test_starting_again_sends_nothing_again(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    eventually(lambda: stranger.of_kind("Accept"))
    publish(bridge, account)
    drained(bridge)
    requests = len(stranger.requests)
    bridge.stop_worker()
    bridge.start_worker()
    time.sleep(1)
    assert len(stranger.requests) == requests == 2


def test_history_is_delivered_to_nobody(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        for number in range(20):
            bridge.post(account, f"history {number}")
        time.sleep(1)
        assert people.deliveries() == []
        assert bridge.count("activities") == 1  # the Accept


def test_what_was_said_before_a_pause_still_arrives_and_so_does_a_deletion(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        bridge.stop_worker()
        post_id = publish(bridge, account)
        bridge.ground.store.transact_now(pause.pause, account.id, "test")
        bridge.start_worker()
        drained(bridge)
        retract(bridge, account, post_id)
        drained(bridge)
        assert [a.kind for a in people.deliveries()] == ["Create", "Delete"]


def test_nobody_gets_it_who_has_unfollowed(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, shared=False) as people:
        follow(bridge, account, people, "bob", "carol")
        actor = bridge.ground.ids.actor(account.id)
        inner = {"type": "Follow", "actor": people.person("bob"), "object": actor}
        people.says("bob", f"{actor}/inbox", "Undo", inner)
        publish(bridge, account)
        drained(bridge)
        assert [a.path for a in people.deliveries()] == ["/users/carol/inbox"]
