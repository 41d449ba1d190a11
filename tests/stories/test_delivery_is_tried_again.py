"""What could not be delivered is tried again: after trouble, at the time they name, when a dead server is back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.crowd import Arrival, Reply, crowd, drained, follow, ledger_rows, publish

from threadbridge import server
from threadbridge.delivery import carrier, retry, send
from threadbridge.storage import schema


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr(retry, "SCHEDULE", (timedelta(seconds=0.3),))
    monkeypatch.setattr(retry, "REFUSED_SCHEDULE", (timedelta(seconds=0.2), timedelta(seconds=0.3)))
    with running_bridge(tmp_path) as running:
        yield running


def failing(times: int, *replies: Reply) -> object:
    """A script: the first Creates are answered with these, in turn."""
    left = list(replies) * times

    def script(asked: Arrival) -> Reply:
        return left.pop(0) if asked.kind == "Create" and left else Reply()

    return script


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
def test_trouble_passes(bridge: Bridge, status: int) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=failing(2, Reply(status))) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account)
        drained(bridge)
        arrivals = people.deliveries()
        assert [a.status for a in arrivals] == [status, status, 202]
        assert len({a.activity["id"] for a in arrivals}) == 1
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.attempts, row.reason) == ("delivered", 3, None)
        assert bridge.count("hosts", failures=0) == 1


def test_each_attempt_is_signed_anew(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=failing(1, Reply(503, seconds=1.1))) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account)
        drained(bridge)
        first, second = people.deliveries()
        assert first.headers["date"] != second.headers["date"]
        assert first.headers["signature"] != second.headers["signature"]


@pytest.mark.parametrize("status", [429, 503])
def test_nothing_comes_before_the_time_they_name_not_even_another_post(bridge: Bridge, status: int) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=failing(1, Reply(status, {"Retry-After": "2"}))) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account, "one")
        eventually(people.deliveries)
        eventually(lambda: bridge.count("hosts", asked_until=None) == 0)
        publish(bridge, account, "two")
        # Not even when they speak to us meanwhile.
        people.says("bob", f"{bridge.base}/ap/inbox", "Like", bridge.ground.ids.post(account.id, 1))
        drained(bridge)
        refused, *later = people.deliveries()
        assert len(later) == 2
        # A hair less: they count from their answer, we from its arrival.
        assert min(a.at for a in later) - refused.at >= 1.99
        assert [row.state for row in ledger_rows(bridge, post_id=1)] == ["delivered"]


def test_a_date_is_a_time_as_well(bridge: Bridge) -> None:
    account = bridge.account()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    asked_for = {"Retry-After": format_datetime(at, usegmt=True)}
    with crowd(bridge.loop, script=failing(1, Reply(429, asked_for))) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account)
        eventually(lambda: len(people.deliveries()) == 2)
        assert datetime.now(UTC) >= at


def test_a_dead_server_keeps_its_post_and_gets_it_when_it_is_back(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        port = int(people.base.rpartition(":")[2])
    publish(bridge, account)
    row = eventually(lambda: next(iter(ledger_rows(bridge, post_id=1, attempts=2)), None))
    assert (row.state, row.status) == ("waiting", None)
    assert row.reason == f"{people.base}/inbox could not be reached"
    (host,) = bridge.ground.store.read_now(lambda tx: tx.execute(schema.hosts.select()).all())
    assert (host.failures, host.last_trouble) == (2, row.reason)
    with crowd(bridge.loop, server.listen("127.0.0.1", port)) as back:
        drained(bridge)
        assert [a.kind for a in back.deliveries()] == ["Create"]


def test_a_server_that_never_answers_is_let_go_of(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "DEADLINE_SECONDS", 0.5)
    account = bridge.account()
    with crowd(bridge.loop, script=failing(1, Reply(seconds=2))) as people, crowd(bridge.loop) as others:
        follow(bridge, account, people, "bob")
        follow(bridge, account, others, "carol")
        publish(bridge, account)
        eventually(lambda: others.deliveries(), 1.0)  # nobody waits for the slow one
        row = eventually(lambda: next(iter(ledger_rows(bridge, host=people.base[7:], post_id=1, attempts=1)), None))
        assert row.reason == f"{people.base}/inbox did not answer in time"
        drained(bridge)


def test_a_refusal_ends_after_three_tries_and_says_why(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=failing(9, Reply(403, body=b"Your server is blocked"))) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account)
        drained(bridge)
        assert [a.status for a in people.deliveries()] == [403] * 3
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status) == ("refused", 403)
        assert row.reason == ("403: this server, or this account, is not welcome there (Your server is blocked)")
        assert bridge.count("hosts", failures=0) == 1  # it is there, it does not want


def test_an_address_that_the_guard_refuses_is_no_status_of_theirs(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        f = schema.followers
        away = f.update().values(inbox="http://169.254.169.254/inbox")
        bridge.ground.store.transact_now(lambda tx: tx.execute(away))
        publish(bridge, account)
        drained(bridge)
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status) == ("refused", None)
        assert "169.254.169.254" in row.reason


def test_a_post_that_always_fails_does_not_hold_up_the_others(bridge: Bridge) -> None:
    account = bridge.account()

    def poison(asked: Arrival) -> Reply:
        return Reply(500) if "poison" in str(asked.activity.get("object")) else Reply()

    with crowd(bridge.loop, script=poison) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account, "poison")
        for number in range(5):
            publish(bridge, account, f"good {number}")
        eventually(lambda: len(people.of_kind("Create")) == 5)
        before = len(people.deliveries())
        time.sleep(1)
        # On its schedule, and not each time that another one arrives.
        assert len(people.deliveries()) - before <= 5
        assert bridge.count("deliveries", state="waiting") == 1


def test_what_a_living_worker_still_waits_for_is_not_sent_again(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "LEASE_SECONDS", 0.8)
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        bridge.stop_worker()
        bridge.start_worker()
        people.script = lambda _: Reply(seconds=3)
        publish(bridge, account)
        drained(bridge)
        assert len(people.deliveries()) == 1
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.lease) == ("delivered", 1)
