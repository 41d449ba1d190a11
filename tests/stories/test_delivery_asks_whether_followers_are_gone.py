"""An inbox that says 410 ends that delivery; its followers end only when their own documents are gone as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.crowd import Reply, crowd, drained, follow, ledger_rows, publish

from threadbridge.federation import leaving
from threadbridge.storage import accounts, followers, schema
from threadbridge.storage.store import Tx


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


def looked_through(bridge: Bridge) -> bool:
    """Everybody was asked for: the job has ended, or waits for another day."""

    def waits(tx: Tx) -> bool:
        j = schema.jobs
        row = tx.execute(j.select().where(j.c.kind == "verify_gone")).first()
        return row is None or row.due_at > tx.now + timedelta(hours=1)

    return bridge.ground.store.read_now(waits)


def days_later(bridge: Bridge, days: float) -> None:
    """What waits for another day is due; what was missing has been so for that long."""

    def shift(tx: Tx) -> None:
        tx.execute(schema.jobs.update().where(schema.jobs.c.kind == "verify_gone").values(due_at=tx.now))
        p = schema.peers
        missing = p.update().where(p.c.missing_since.is_not(None))
        tx.execute(missing.values(missing_since=tx.now - timedelta(days=days)))

    bridge.ground.store.transact_now(shift)
    eventually(lambda: looked_through(bridge))


def test_who_is_not_found_ends_only_when_that_lasts(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob", "carol")
        people.script = lambda _: Reply(410)
        people.profile_status = 404
        publish(bridge, account)
        eventually(lambda: bridge.count("jobs", kind="verify_gone"))
        eventually(lambda: looked_through(bridge))
        asked = len(people.fetched)
        # The next 410 asks nobody again before the day has come.
        publish(bridge, account)
        drained(bridge)
        assert looked_through(bridge)
        assert len(people.fetched) == asked
        days_later(bridge, 1)
        assert bridge.count("followers", ended_at=None) == 2
        # One of the days they are there again: it begins anew.
        people.profile_status = 200
        days_later(bridge, 3)
        assert bridge.count("peers", missing_since=None) == 2
        assert bridge.count("followers", ended_at=None) == 2
        people.profile_status = 404
        publish(bridge, account)
        drained(bridge)
        eventually(lambda: not bridge.count("peers", missing_since=None))
        eventually(lambda: looked_through(bridge))
        days_later(bridge, 2.5)
        assert bridge.count("followers", ended_by="gone") == 2
        assert not bridge.count("jobs", kind="verify_gone")


def test_who_could_not_be_asked_is_asked_another_day_and_a_killed_worker_goes_on(bridge: Bridge) -> None:
    account = bridge.account()
    names = [f"p{number}" for number in range(leaving.CHUNK + 7)]
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, *names)
        people.script = lambda _: Reply(410)
        people.profile_status = 503
        publish(bridge, account)
        eventually(lambda: bridge.count("jobs", kind="verify_gone"))
        eventually(lambda: looked_through(bridge))
        assert bridge.count("followers", ended_at=None) == len(names)
        people.profile_status = 410
        people.fetched.clear()

        # As far as a worker had come that was killed after its first chunk.
        def resume(tx: Tx) -> None:
            first = followers.at_inbox(tx, f"{people.base}/inbox", limit=leaving.CHUNK)
            inbox = json.dumps({"inbox": f"{people.base}/inbox", "pass": 2, "after": first[-1].id, "left": True})
            tx.execute(
                schema.jobs.update().where(schema.jobs.c.kind == "verify_gone").values(arguments=inbox, due_at=tx.now)
            )

        bridge.ground.store.transact_now(resume)
        eventually(lambda: bridge.count("followers", ended_by="gone") == 7)
        eventually(lambda: looked_through(bridge))
        assert len(people.fetched) == 7
        days_later(bridge, 1)
        assert bridge.count("followers", ended_at=None) == 0


@pytest.mark.parametrize(
    ("profile_status", "still_there"), [(410, False), (404, True), (200, True), (500, True), (403, True)]
)
def test_followers_of_a_gone_inbox_end_only_when_they_are_gone(
    bridge: Bridge, profile_status: int, still_there: bool
) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob", "carol")
        people.script = lambda _: Reply(410)
        people.profile_status = profile_status
        publish(bridge, account)
        drained(bridge)
        eventually(lambda: looked_through(bridge))
        assert len(people.deliveries()) == 1
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status, row.reason) == ("gone", 410, "410: the inbox is gone")
        assert bridge.count("followers", ended_at=None) == (2 if still_there else 0)
        assert bridge.count("followers", ended_by="gone") == (0 if still_there else 2)
        fresh = bridge.ground.store.read_now(accounts.by_id, account.id)
        assert fresh is not None
        assert fresh.followers_count == (2 if still_there else 0)
        # Those who are still there get the next post, those who are gone do not.
        people.script = lambda _: Reply()
        publish(bridge, account)
        drained(bridge)
        assert len(people.deliveries()) == (2 if still_there else 1)
