"""A server that fails again and again is left alone for a while, and woken by its first word or its first success."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.crowd import Reply, crowd, drained, follow, publish

from threadbridge.delivery import retry
from threadbridge.storage import schema
from threadbridge.storage.store import Tx
from threadbridge.web import inbox


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr(retry, "SCHEDULE", (timedelta(seconds=0.05),) * 6 + (timedelta(hours=12),))
    monkeypatch.setattr(inbox, "HOST_NEWS_SECONDS", 0.0)
    with running_bridge(tmp_path) as running:
        yield running


def held(bridge: Bridge) -> bool:
    h = schema.hosts
    query = h.select().where(h.c.held_until.is_not(None))
    return bridge.ground.store.read_now(lambda tx: tx.execute(query).first() is not None)


def test_the_breaker_holds_everything_and_the_first_word_lets_it_go(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people, crowd(bridge.loop) as others:
        follow(bridge, account, people, "bob")
        follow(bridge, account, others, "carol")
        people.script = lambda _: Reply(503)
        publish(bridge, account)
        eventually(lambda: held(bridge))
        tried = len(people.deliveries())
        assert tried == retry.BREAKER_AFTER
        for number in range(4):
            publish(bridge, account, f"meanwhile {number}")
        eventually(lambda: len(others.deliveries()) == 5)  # nobody else waits
        time.sleep(0.6)
        assert len(people.deliveries()) == tried  # and nobody is asked
        people.script = lambda _: Reply()
        people.says("bob", f"{bridge.base}/ap/inbox", "Like", bridge.ground.ids.post(account.id, 1))
        drained(bridge, 5)
        assert len(people.of_kind("Create")) == 5
        assert bridge.count("deliveries", state="delivered") == 12
        assert bridge.count("hosts", failures=0) == 2


def test_a_success_lets_go_what_waits_for_its_hour(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        people.script = lambda _: Reply(503)
        for number in range(4):
            publish(bridge, account, f"post {number}")
        eventually(lambda: held(bridge))
        d, h = schema.deliveries, schema.hosts

        def an_hour_passes_for_one(tx: Tx) -> None:
            # The breaker's time is over, and one row is due; the others are due in twelve hours.
            tx.execute(h.update().values(held_until=tx.now))
            waiting = d.update().where(d.c.state == "waiting")
            tx.execute(waiting.values(due_at=tx.now + timedelta(hours=12)))
            tx.execute(waiting.where(d.c.post_id == 3).values(due_at=tx.now))

        people.script = lambda _: Reply()
        bridge.ground.store.transact_now(an_hour_passes_for_one)
        drained(bridge, 5)
        assert len(people.of_kind("Create")) == 4


def test_a_held_server_is_asked_once_when_its_time_is_over(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        people.script = lambda _: Reply(503, seconds=0.1)
        for number in range(10):
            publish(bridge, account, f"post {number}")
        eventually(lambda: held(bridge))
        time.sleep(0.3)
        before = len(people.deliveries())
        h, d = schema.hosts, schema.deliveries

        def time_is_over(tx: Tx) -> None:
            tx.execute(h.update().values(held_until=tx.now))
            tx.execute(d.update().where(d.c.state == "waiting").values(due_at=tx.now))

        bridge.ground.store.transact_now(time_is_over)
        eventually(lambda: len(people.deliveries()) > before)
        time.sleep(0.6)
        assert len(people.deliveries()) == before + 1
