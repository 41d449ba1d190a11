"""While the brake is on nothing leaves and nobody is asked; all is written down, shown, and leaves afterwards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.faults.beside import Beside, beside
from tests.rig import eventually, new_sqlite
from tests.stories.crowd import Crowd, crowd, ledger_rows, publish, retract

from threadbridge import worker
from threadbridge.delivery import send
from threadbridge.delivery.carrier import Carrier
from threadbridge.errors import Unavailable
from threadbridge.storage import jobs


def queue(here: Beside, *options: str) -> Any:
    return here.shell.run("queue", *options, "--json").went_well().json


def held(here: Beside, people: Crowd) -> None:
    """A follow, a post that is shared, one that is deleted, a word of the server itself, a question of ours."""
    account = here.account()
    actor = here.ground.ids.actor(account.id)
    for name in ("bob", "carol"):
        assert people.says(name, f"{here.base}/ap/inbox", "Follow", actor).status_code == 202
    publish(here, account)
    retract(here, account, publish(here, account, "a mistake"))
    here.shell.run("relays", "add", f"{people.base}/inbox").went_well()
    here.ground.store.transact_now(jobs.add, send.VERIFY_GONE, "x", {"inbox": people.person("bob") + "/inbox"})
    eventually(lambda: here.count("jobs", kind="fan_out") == 0)


def test_nothing_leaves_until_it_is_released(tmp_path: Path) -> None:
    new_sqlite(tmp_path / "a home" / "data dir" / "threadbridge.sqlite3")
    with beside(tmp_path) as here, crowd(here.loop) as people:
        with here.shell.serving(QUIET="1") as running:
            held(here, people)
            # Whoever speaks to us is looked up, since they asked; nothing else.
            asked = len(people.fetched)
            time.sleep(1.5)
            assert people.arrivals == []
            assert len(people.fetched) == asked
            assert "the brake is on" in running.err
            assert here.count("followers", ended_at=None) == 2
            assert {row.attempts for row in ledger_rows(here)} == {0}

            shown = queue(here)
            told = {(one["handle"], one["kind"]): (one["deliveries"], one["servers"]) for one in shown["deliveries"]}
            assert told[("alice", "Accept")] == (2, 1)
            assert told[("alice", "Create")][0] >= 1
            assert {one["kind"] for one in shown["own_work"]} >= {"own_word", send.VERIFY_GONE}
            words = here.shell.run("queue", QUIET="1").went_well().out
            assert "The brake is on" in words
            assert people.base[7:] in words
            findings = {one["subject"]: one for one in here.shell.run("doctor", "--json", QUIET="1").json}
            assert findings["brake"]["level"] == "warning"
            assert findings["balance"]["level"] == "ok"
        waiting = sum(one["deliveries"] for one in queue(here)["deliveries"])
        assert here.count("deliveries", state="waiting") == waiting > 2
        with here.shell.serving():
            eventually(lambda: not here.count("deliveries", state="waiting"))
            eventually(lambda: people.of_kind("Follow"))  # the relay is asked now
        assert len(people.of_kind("Accept")) == 2
        assert people.of_kind("Create")
        assert queue(here)["deliveries"] == []


def test_what_should_not_leave_is_taken_back_with_a_reason(tmp_path: Path) -> None:
    new_sqlite(tmp_path / "a home" / "data dir" / "threadbridge.sqlite3")
    with beside(tmp_path) as here, crowd(here.loop) as people:
        with here.shell.serving(QUIET="1"):
            held(here, people)
        before = here.everything()
        creates = len([row for row in ledger_rows(here, state="waiting") if row.lane == 1])
        here.shell.run("queue", "drop").refused("--all")
        here.shell.run("queue", "drop", "--kind", "Create", "--handle", "nobody").refused("no account")
        assert here.shell.run("queue", "drop", "--kind", "Create", "--json").json["deliveries"] == creates > 0
        assert here.everything() == before
        assert here.count("deliveries", state="given_up") == 0
        here.shell.run("queue", "drop", "--kind", "Create", "--said-before", "2020-01-01", "--yes").went_well()
        assert here.count("deliveries", state="given_up") == 0
        here.shell.run("queue", "drop", "--kind", "Create", "--yes").went_well()
        rows = ledger_rows(here, state="given_up")
        assert {row.reason for row in rows} == {"taken back by the operator before it left"}
        assert len(rows) == creates
        assert here.count("decisions", kind="queue") == 1
        with here.shell.serving():
            eventually(lambda: not here.count("deliveries", state="waiting"))
        assert people.of_kind("Create") == []
        assert len(people.of_kind("Accept")) == 2


def test_every_kind_of_job_is_known_to_be_inward_or_waits() -> None:
    assert set(worker.JOBS) >= worker.INWARD
    assert not worker.INWARD & {send.VERIFY_GONE, "own_word", "confirm_move", "climb_thread", "look_around",
                                "check_links", "check_domain", "read_list", "find_name", "find_post", "check_stamp",
                                "rotate_key"}  # fmt: skip


async def _knock(carrier: Carrier) -> None:
    unused: Any = None
    await carrier.knock("http://127.0.0.1:1/inbox", "127.0.0.1:1", b"{}", unused, None)


def test_not_even_a_programmers_mistake_gets_past_it() -> None:
    import asyncio

    unused: Any = None
    carrier = Carrier(unused, clock=unused, quiet=True)
    with pytest.raises(Unavailable, match="brake"):
        asyncio.run(_knock(carrier))
    carrier.close()
