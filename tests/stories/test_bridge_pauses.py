"""A paused account says nothing new; what was posted meanwhile stays silent, what was deleted meanwhile is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig import eventually
from tests.stories.bridged_account import Place, place

from threadbridge.bridge import pause
from threadbridge.storage import connections, jobs


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def pause_now(here: Place) -> None:
    here.bridge.ground.store.transact_now(pause.pause, here.account().id, "test")
    # The last read may be under way still.
    eventually(lambda: here.bridge.count("jobs", kind=connections.READ) == 0)


def resume_now(here: Place) -> None:
    here.bridge.ground.store.transact_now(pause.resume, here.account().id, "test")


def past_this_second() -> None:
    """Posts are dated in whole seconds: what is to lie before a moment has to be of an earlier one."""
    time.sleep(1.05 - time.time() % 1)


def test_a_pause_is_quiet_and_its_posts_stay_silent(here: Place) -> None:
    here.followed(2)
    before = here.threads.post("before")
    note = here.note_of(before)
    pause_now(here)
    asked = len(here.threads.asked)
    meanwhile = here.threads.post("meanwhile", media=here.threads.items("a cat"))
    assert here.bridge.get(note["id"]).status_code == 200
    past_this_second()
    assert len(here.threads.asked) == asked
    resume_now(here)
    after = here.threads.post("after")
    assert "after" in here.note_of(after)["content"]
    held = eventually(lambda: here.held(meanwhile))
    assert held.silent
    assert held.attachments[0].sha256
    here.threads.after_reads(2)
    assert here.said("Create") == 2


def test_edits_and_deletions_of_a_pause_are_told_afterwards(here: Place) -> None:
    here.followed(2)
    edited, deleted = here.threads.post("tpyo"), here.threads.post("regretted")
    notes = [here.note_of(edited), here.note_of(deleted)]
    pause_now(here)
    here.threads.edit(edited, text="typo")
    here.threads.delete(deleted)
    for number in range(30):
        here.threads.post(f"meanwhile {number}")
    past_this_second()
    assert here.said("Update") == here.said("Delete") == 0
    resume_now(here)
    assert here.heard("Update")[0]["object"]["id"] == notes[0]["id"]
    assert here.heard("Delete")[0]["object"]["id"] == notes[1]["id"]
    assert here.said("Create") == 2


def test_connecting_a_paused_account_says_nothing(here: Place) -> None:
    here.followed(2)
    pause_now(here)
    new = here.threads.post("new")
    here.connect()
    held = here.held(new)
    assert held is not None
    assert held.silent
    assert here.said("Create") == 0


def test_a_resume_that_meets_a_worker_about_to_drop_the_job_wins(here: Place) -> None:
    here.followed(1)
    here.bridge.stop_worker()
    here.bridge.ground.store.transact_now(pause.pause, here.account().id, "test")
    # It may not be due for a moment.
    (taken,) = eventually(lambda: here.bridge.ground.store.transact_now(jobs.take, [connections.READ], 30.0, 1))
    resume_now(here)
    here.bridge.ground.store.transact_now(jobs.finish, taken)
    assert here.bridge.count("jobs", kind=connections.READ) == 1
    here.bridge.start_worker()
    here.note_of(here.threads.post("read again"))
