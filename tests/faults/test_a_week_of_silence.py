"""A server does not answer for almost seven days: it is asked seldom, nothing is given up, and when it is back it
gets everything, in order; a deletion waits for thirty days."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.faults.chaos import given_followers
from tests.faults.passing import Passing
from tests.faults.sink import Sink, sink
from tests.rig import Bridge, running_bridge
from tests.stories.crowd import ledger_rows, publish, retract, revise

from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.storage import balance

pytestmark = pytest.mark.unjudged("signed by the real clock, said by another")


def whole(bridge: Bridge) -> balance.Balance:
    found = bridge.ground.store.read_now(balance.account_for, fan_out=FAN_OUT)
    assert found.comes_out, found
    return found


def test_seven_days_dead_and_everything_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_bridge(tmp_path, worker=False) as bridge, sink(bridge.loop) as heard:
        passing = Passing(bridge, monkeypatch)
        account = bridge.account()
        bridge.ground.store.transact_now(given_followers, account.id, heard, 1)
        asked: list[datetime] = []
        down = True

        def script(host: str, activity: dict[str, object]) -> int:
            asked.append(passing.now())
            return 503 if down else 202

        heard.script = script
        began = passing.now()
        kept = publish(bridge, account, "kept")
        gone = publish(bridge, account, "gone")
        bridge.start_worker()
        passing.caught_up()
        retract(bridge, account, gone)
        while passing.until_next(began + timedelta(hours=18)):
            pass
        revise(bridge, account, kept, "edited while you were away")
        seldom(asked, began + timedelta(hours=6))
        passing.passes(timedelta(days=6), steps=8)
        assert {row.state for row in ledger_rows(bridge)} <= {"waiting", "superseded"}
        whole(bridge)
        down = False
        for _ in range(40):
            if not ledger_rows(bridge, state="waiting"):
                break
            passing.until_next(passing.now() + timedelta(hours=13))
        assert passing.now() < began + timedelta(days=8)
        assert heard.wrong == []
        assert heard.overtaken() == []
        objects = heard.servers[heard.host(0)].objects
        ids = bridge.ground.ids
        assert objects[ids.post(account.id, kept)] == "there"
        assert objects.get(ids.post(account.id, gone), "deleted") == "deleted"
        assert [c.kind for c in heard.came if c.status == 202 and c.about == ids.post(account.id, kept)][-1] in (
            "Create", "Update",
        )  # fmt: skip
        assert whole(bridge).pending == 0


def seldom(asked: list[datetime], after: datetime) -> None:
    """Once it is known to be away: in no half hour more than one question, but for the spread of the times."""
    later = sorted(at for at in asked if at > after)
    assert later, "it was not asked at all"
    apart = [second - first for first, second in pairwise(later)]
    assert all(span > timedelta(minutes=20) for span in apart), apart


def test_a_deletion_is_carried_for_thirty_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_bridge(tmp_path, worker=False) as bridge, sink(bridge.loop) as heard:
        passing = Passing(bridge, monkeypatch)
        account = bridge.account()
        bridge.ground.store.transact_now(given_followers, account.id, heard, 1)
        bridge.start_worker()
        number = publish(bridge, account)
        passing.caught_up()
        told(heard, "Create")
        heard.script = lambda host, activity: 503
        retract(bridge, account, number)
        passing.passes(timedelta(days=29), steps=16)
        assert [row.state for row in ledger_rows(bridge)][-1] == "waiting"
        heard.script = lambda host, activity: 202
        for _ in range(10):
            passing.until_next(passing.now() + timedelta(hours=20))
        told(heard, "Create", "Delete")
        assert whole(bridge).pending == 0


def told(heard: Sink, *kinds: str) -> None:
    assert [came.kind for came in heard.came if came.status == 202] == [*kinds]
