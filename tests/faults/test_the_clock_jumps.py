"""The clock is a day ahead for a while and is set right: nothing is lost or done twice, and nothing waits for a day
to come that was there already."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.faults.chaos import given_followers
from tests.faults.passing import Passing
from tests.faults.sink import sink
from tests.rig import eventually, running_bridge
from tests.stories.crowd import drained, ledger_rows, publish, retract

from threadbridge import worker
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.storage import balance, set_back
from threadbridge.storage.store import Store, Tx

DAY = timedelta(days=1)

pytestmark = pytest.mark.unjudged("signed by the real clock, said by another")


def test_a_day_ahead_and_back_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOCK_SECONDS", 0.0)
    with running_bridge(tmp_path, worker=False) as bridge, sink(bridge.loop) as heard:
        passing = Passing(bridge, monkeypatch)
        account = bridge.account()
        bridge.ground.store.transact_now(given_followers, account.id, heard, 3)
        bridge.start_worker()
        posts = [publish(bridge, account, "today")]
        drained(bridge)
        passing.ahead = DAY
        posts.append(publish(bridge, account, "said tomorrow"))
        drained(bridge)
        remembered = bridge.ground.store.clock() - timedelta(minutes=1)
        eventually(lambda: str(bridge.ground.store.read_now(_latest)) > remembered.isoformat())
        bridge.stop_worker()
        posts += [publish(bridge, account, f"waits {number}") for number in range(3)]
        retract(bridge, account, posts[-1])
        # Somebody took some of it and was killed.
        bridge.ground.store.transact_now(
            Tx.execute,
            text("UPDATE jobs SET leased_until = due_at + 8000000, lease = lease + 1 WHERE kind = 'fan_out'"),
        )
        passing.ahead = timedelta(0)
        assert ledger_rows(bridge, state="waiting") or bridge.count("jobs", kind=FAN_OUT)
        bridge.start_worker()
        drained(bridge, 20)
        posts.append(publish(bridge, account, "and again today"))
        drained(bridge)
        passing.ahead = -DAY
        posts.append(publish(bridge, account, "said yesterday"))
        drained(bridge, 20)
        assert heard.wrong == []
        assert heard.overtaken() == []
        assert heard.duplicates() == 0
        ids = bridge.ground.ids
        for server in heard.servers.values():
            there = {uri for uri, state in server.objects.items() if state == "there"}
            assert there == {ids.post(account.id, number) for number in posts if number != posts[4]}
        found = bridge.ground.store.read_now(balance.account_for, fan_out=FAN_OUT)
        assert found.comes_out, found


def _latest(tx: Tx) -> str:
    return str(tx.execute(text("SELECT value FROM facts WHERE name = 'latest_time'")).scalar_one())


def test_clocks_that_are_a_little_apart_move_nothing(store: Store) -> None:
    now = store.clock()
    store.transact_now(set_back.noticed)
    monday = store.read_now(_latest)
    store.clock = lambda: now - timedelta(minutes=4)
    assert store.transact_now(set_back.noticed) is None
    assert store.read_now(_latest) == monday
    store.clock = lambda: now - timedelta(minutes=6)
    back = store.transact_now(set_back.noticed)
    assert back is not None
    assert timedelta(minutes=5) < back < timedelta(minutes=7)
    while store.transact_now(set_back.mend):
        pass
    assert store.transact_now(set_back.noticed) is None
