"""What the server's own actor says (a Flag, a Follow of a relay) leaves like any delivery: proved, signed as its host
takes it, not to a host that rests, not to one that is suspended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.peers.integrity import author_by_proof
from tests.rig import PUBLIC, Bridge, eventually, running_bridge
from tests.stories.crowd import Arrival, Crowd, Reply, crowd

from threadbridge.activitypub.text import host_of
from threadbridge.delivery import retry, server_word
from threadbridge.federation import relay, report
from threadbridge.storage import hosts, schema
from threadbridge.storage.hosts import Taken


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


def strict(taken: Callable[[Arrival], bool]) -> Callable[[Arrival], Reply]:
    return lambda asked: Reply() if taken(asked) else Reply(401, body=b"Signature refused")


def met(bridge: Bridge, people: Crowd, *names: str) -> None:
    account = bridge.account("somebody")
    post = bridge.post(account)
    for name in names:
        assert people.says(name, f"{bridge.base}/ap/inbox", "Like", post).status_code == 202


def complain(bridge: Bridge, people: Crowd, name: str) -> None:
    bridge.ground.store.transact_now(report.complain, bridge.ground.ids, people.person(name), f"about {name}")


def settled(bridge: Bridge) -> None:
    eventually(lambda: bridge.count("jobs", kind=server_word.SAY, failed_at=None) == 0)


def fetched(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(url, headers={"Accept": "application/activity+json"}, trust_env=False).json()
    return found


def known(bridge: Bridge, people: Crowd) -> Taken | None:
    host = host_of(people.base)
    return bridge.ground.store.read_now(hosts.schemes, {host}).get(host)


def test_every_word_has_a_proof_by_the_server_itself(bridge: Bridge) -> None:
    store, ids = bridge.ground.store, bridge.ground.ids
    with crowd(bridge.loop) as people:
        met(bridge, people, "bob")
        complain(bridge, people, "bob")
        inbox = f"{people.base}/inbox"
        store.transact_now(relay.subscribe, ids, inbox, inbox=inbox, actor_uri=None)
        eventually(lambda: people.deliveries("Follow"))
        store.transact_now(relay.unsubscribe, ids, inbox)
        eventually(lambda: people.deliveries("Flag") and people.deliveries("Undo"))
        for arrival in people.deliveries("Flag", "Follow", "Undo"):
            assert author_by_proof(arrival.activity, fetched) == ids.instance == arrival.activity["actor"]
            made = datetime.fromisoformat(arrival.activity["proof"]["created"])
            assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
        (asked,) = people.deliveries("Follow")
        assert asked.activity["object"] == PUBLIC


def test_the_host_is_met_in_the_manner_that_it_takes(bridge: Bridge) -> None:
    with crowd(bridge.loop, script=strict(lambda asked: asked.rfc9421)) as people:
        met(bridge, people, "bob", "eve")
        complain(bridge, people, "bob")
        settled(bridge)
        complain(bridge, people, "eve")
        settled(bridge)
        # What the first word learnt is known to the second, and to deliveries.
        assert [one.rfc9421 for one in people.deliveries("Flag")] == [False, True, True]
        taken = known(bridge, people)
        assert taken is not None
        assert (taken.scheme, taken.evidence) == ("rfc9421", "cavage: 401 (Signature refused); rfc9421: 202")
        assert len(people.received) == 2


def test_what_is_asked_for_in_accept_signature_is_given(bridge: Bridge) -> None:
    asked = {"Accept-Signature": 'sig1=("@method" "@target-uri" "content-digest" "content-type");created;nonce="n1"'}

    def script(arrival: Arrival) -> Reply:
        return Reply() if 'nonce="n1"' in arrival.headers.get("signature-input", "") else Reply(401, asked)

    with crowd(bridge.loop, script=script) as people:
        met(bridge, people, "bob")
        complain(bridge, people, "bob")
        settled(bridge)
        assert [arrival.status for arrival in people.deliveries("Flag")] == [401, 202]


def test_a_host_in_trouble_is_noted_and_asked_again_in_its_time(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SCHEDULE", (timedelta(seconds=0.2),))
    answers = [Reply(503), Reply(429, {"Retry-After": "1"}), Reply()]
    with crowd(bridge.loop, script=lambda _: answers.pop(0)) as people:
        met(bridge, people, "bob")
        complain(bridge, people, "bob")
        settled(bridge)
        first, second, third = people.deliveries("Flag")
        assert third.at - second.at >= 0.9
        # The same bytes each time: the proof too.
        assert first.activity == second.activity == third.activity
        (row,) = bridge.ground.store.read_now(lambda tx: tx.execute(schema.hosts.select()).all())
        assert (row.failures, row.last_delivered_at is not None) == (0, True)


def test_nothing_goes_to_a_host_that_rests(bridge: Bridge) -> None:
    store = bridge.ground.store
    with crowd(bridge.loop) as people:
        met(bridge, people, "bob")
        host = host_of(people.base)
        until = datetime.now(UTC) + timedelta(hours=1)
        store.transact_now(lambda tx: hosts.in_trouble(tx, host, "503", asked_until=until))
        complain(bridge, people, "bob")

        def job() -> Any:
            query = schema.jobs.select().where(schema.jobs.c.kind == server_word.SAY)
            return store.read_now(lambda tx: tx.execute(query).one())

        eventually(lambda: job().reason)
        assert (job().due_at, job().attempts, people.deliveries("Flag")) == (until, 0, [])


def test_what_is_refused_stays_with_its_reason_for_the_operator(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REFUSED_SCHEDULE", (timedelta(seconds=0.1), timedelta(seconds=0.1)))
    with crowd(bridge.loop, script=lambda _: Reply(403)) as people:
        met(bridge, people, "bob")
        complain(bridge, people, "bob")
        settled(bridge)
        assert len(people.deliveries("Flag")) == 3
        reason = "403: this server, or this account, is not welcome there"
        assert bridge.count("jobs", kind=server_word.SAY, reason=reason) == 1
