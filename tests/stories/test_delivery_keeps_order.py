"""A post, its edits and its deletion arrive in that order, however slow the inbox and whoever is restarted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.crowd import Arrival, Crowd, Reply, crowd, drained, follow, ledger_rows, publish, retract, revise

from threadbridge.delivery import fanout, retry
from threadbridge.storage import jobs, superseding


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr(retry, "SCHEDULE", (timedelta(seconds=0.3),))
    with running_bridge(tmp_path) as running:
        yield running


def test_create_update_and_delete_wait_for_each_other_at_a_slow_inbox(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people, crowd(bridge.loop) as quick:
        follow(bridge, account, people, "bob")
        follow(bridge, account, quick, "carol")
        people.script = lambda asked: Reply(seconds=0.6)
        post_id = publish(bridge, account)
        eventually(lambda: people.deliveries("Create"))
        revise(bridge, account, post_id, "edited")
        other = publish(bridge, account, "another")
        eventually(lambda: people.deliveries("Update"))
        retract(bridge, account, post_id)
        drained(bridge)
        for server in (people, quick):
            assert [a.kind for a in about(server, post_id)] == ["Create", "Update", "Delete"]
        slow = about(people, post_id)
        assert all(later.at - earlier.at >= 0.59 for earlier, later in pairwise(slow))
        # Another post waits for none of them.
        (alone,) = about(people, other)
        assert alone.at < slow[1].at + 0.59


def about(server: Crowd, post_id: int) -> list[Arrival]:
    """What came about a post."""

    def number_of(asked: Arrival) -> str:
        said = asked.activity["object"]
        uri = said if isinstance(said, str) else said["id"]
        return str(uri).rpartition("/")[2]

    return [asked for asked in server.deliveries() if number_of(asked) == str(post_id)]


def test_a_create_that_has_to_be_tried_again_is_not_overtaken_by_its_edit(bridge: Bridge) -> None:
    account = bridge.account()
    left = [503, 503, 503]

    def script(asked: Arrival) -> Reply:
        return Reply(left.pop()) if asked.kind == "Create" and left else Reply()

    with crowd(bridge.loop, script=script) as people:
        follow(bridge, account, people, "bob")
        post_id = publish(bridge, account)
        revise(bridge, account, post_id, "edited")
        drained(bridge)
        assert [(a.kind, a.status) for a in people.deliveries()] == [("Create", 503)] * 3 + [
            ("Create", 202), ("Update", 202),
        ]  # fmt: skip


def test_a_post_is_not_tried_again_after_its_deletion_was_said_which_goes_wherever_it_may_have_arrived(
    bridge: Bridge,
) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        # The answer to a Create may be lost after the Create was taken.
        people.script = lambda asked: Reply(503 if asked.kind == "Create" else 202)
        post_id = publish(bridge, account)
        eventually(lambda: people.deliveries("Create"))
        bridge.stop_worker()
        tried = len(people.deliveries("Create"))
        retract(bridge, account, post_id)
        bridge.start_worker()
        drained(bridge)
        assert [a.kind for a in people.deliveries()] == ["Create"] * tried + ["Delete"]
        create, delete = ledger_rows(bridge, post_id=post_id)
        assert (create.state, create.reason) == ("superseded", superseding.DELETED_AFTER_A_TRY)
        assert (delete.state, delete.reason) == ("delivered", None)


def test_the_order_outlives_a_restart_of_the_worker(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        people.script = lambda asked: Reply(503)
        post_id = publish(bridge, account)
        eventually(people.deliveries)
        bridge.stop_worker()
        revise(bridge, account, post_id, "edited")
        bridge.start_worker()
        eventually(lambda: bridge.count("deliveries", post_id=post_id) == 2)
        bridge.stop_worker()
        people.script = lambda asked: Reply(seconds=0.2)
        bridge.start_worker()
        eventually(lambda: people.of_kind("Update"))
        bridge.stop_worker()
        retract(bridge, account, post_id)
        bridge.start_worker()
        drained(bridge)
        assert [a.kind for a in people.deliveries() if a.status == 202] == ["Create", "Update", "Delete"]
        assert {a.kind for a in people.deliveries() if a.status == 503} == {"Create"}


def test_a_post_that_is_deleted_before_anybody_is_told_never_leaves(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, shared=False) as people:
        follow(bridge, account, people, *(f"p{n}" for n in range(5)))
        bridge.stop_worker()
        post_id = publish(bridge, account)
        retract(bridge, account, post_id)
        bridge.start_worker()
        drained(bridge)
        assert people.deliveries() == []
        assert ledger_rows(bridge, post_id=post_id) == []


def test_a_deletion_in_the_midst_of_the_addressing_reaches_everybody_who_got_the_post(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two followers at a time: the post's addressing takes many steps, and the deletion comes meanwhile.
    monkeypatch.setattr(fanout, "CHUNK", 2)
    account = bridge.account()
    with crowd(bridge.loop, shared=False) as people:
        follow(bridge, account, people, *(f"p{n}" for n in range(25)))
        bridge.stop_worker()
        post_id = publish(bridge, account)
        (job,) = bridge.ground.store.transact_now(jobs.take, ["fan_out"], 0.0, 10)
        for _ in range(3):
            left = bridge.ground.store.transact_now(fanout.step, job)
            assert left is not None
            job = jobs.Job(job.id, job.kind, job.key, left, job.attempts, job.lease)
        monkeypatch.setattr(jobs, "take", lambda *_: [])
        bridge.start_worker()
        eventually(lambda: len(people.of_kind("Create")) == 6)
        monkeypatch.undo()
        retract(bridge, account, post_id)
        drained(bridge)
        heard = [[a.kind for a in people.deliveries() if a.path == f"/users/p{n}/inbox"] for n in range(25)]
        assert sorted(heard, key=len) == [[]] * 19 + [["Create", "Delete"]] * 6


def test_a_step_of_addressing_before_its_turn_does_nothing(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        bridge.stop_worker()
        post_id = publish(bridge, account)
        revise(bridge, account, post_id, "edited")
        taken = bridge.ground.store.transact_now(jobs.take, ["fan_out"], 8.0, 10)
        create, update = sorted(taken, key=lambda job: job.id)
        assert bridge.ground.store.transact_now(fanout.step, update) is None
        assert bridge.count("deliveries", post_id=post_id) == 0
        # One whose addressing was given up is waited for no longer.
        bridge.ground.store.transact_now(jobs.give_up, create, "test")
        bridge.start_worker()
        assert len(eventually(lambda: people.deliveries("Update"))) == 1
