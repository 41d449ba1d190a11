"""SIGTERM ends `serve` and `work` within eight seconds, whatever they are doing; starting again needs no repair."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.beside import beside, kill, seconds_until_drained
from tests.rig import eventually
from tests.stories.crowd import Reply, crowd, follow, ledger_rows, publish


def test_deliveries_that_hang_do_not_hold_up_the_end_and_go_out_right_after_the_next_start(tmp_path: Path) -> None:
    with beside(tmp_path) as here:
        account = here.account()
        running = here.start()
        with crowd(here.loop) as people, crowd(here.loop) as others:
            follow(here, account, people, "bob")
            follow(here, account, others, "carol")
            people.script = lambda _: Reply(seconds=14)
            publish(here, account)
            eventually(lambda: people.deliveries() and others.of_kind("Create"))
            started = time.monotonic()
            assert running.stopped(seconds=8).went_well()
            assert time.monotonic() - started < 8
            # What was under way is given back: nobody has to wait until a lease runs out.
            assert [row.leased_until for row in ledger_rows(here, state="waiting")] == [None]
            people.script = lambda _: Reply()
            again = here.start()
            seconds_until_drained(here, 10)
            again.stopped().went_well()
            # Sent again: nobody knows whether the first one arrived. The other server hears nothing twice.
            assert [a.kind for a in people.deliveries()] == ["Create", "Create"]
            assert len({a.activity["id"] for a in people.deliveries()}) == 1
            assert len(others.of_kind("Create")) == 1
            here.whole()


def test_what_was_under_way_and_ends_in_time_is_written_down(tmp_path: Path) -> None:
    with beside(tmp_path) as here:
        account = here.account()
        running = here.start()
        with crowd(here.loop) as people:
            follow(here, account, people, "bob")
            people.script = lambda _: Reply(seconds=2)
            publish(here, account)
            eventually(people.deliveries)
            assert running.stopped().went_well()
            assert here.count("deliveries", state="delivered") == 2
            here.start().stopped().went_well()
            assert len(people.deliveries()) == 1


def test_a_worker_alone_ends_in_time_and_what_a_killed_one_held_is_taken_up(tmp_path: Path) -> None:
    with beside(tmp_path) as here:
        account = here.account()
        shell = here.shell
        with crowd(here.loop) as people, shell.serving("--no-worker") as web:
            actor = here.ground.ids.actor(account.id)
            assert people.says("bob", f"{actor}/inbox", "Follow", actor).status_code == 202
            time.sleep(0.5)
            assert people.arrivals == []  # nobody works
            with shell.working() as worker:
                eventually(lambda: people.of_kind("Accept"))
                people.script = lambda _: Reply(seconds=14)
                publish(here, account)
                eventually(people.deliveries)
                kill(worker)
            people.script = lambda _: Reply()
            with shell.working() as worker:
                assert seconds_until_drained(here, 15) < 10
                assert worker.stopped().went_well()
            assert web.stopped().went_well()
