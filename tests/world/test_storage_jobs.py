"""Jobs: asked for once, taken under a lease, and finished only by whoever holds it, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from tests.world.deliverable import START, Clock, rows

from threadbridge.errors import Conflict
from threadbridge.storage import jobs, migrate
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

KINDS = ["read", "fan_out"]
LEASE = 8.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    opened = Store.open(database_url, clock=clock)
    migrate.to_newest(opened)
    yield opened
    opened.close()


def take(store: Store, kinds: list[str] = KINDS, limit: int = 10) -> list[Job]:
    assert store.read_now(jobs.anything_due, kinds) in (True, False)
    return store.transact_now(jobs.take, kinds, LEASE, limit)


def due(store: Store) -> bool:
    return store.read_now(jobs.anything_due, KINDS)


def only(store: Store) -> Any:
    (row,) = rows(store, "jobs")
    return row


def test_asking_twice_is_asking_once(store: Store, clock: Clock) -> None:
    later, sooner = clock.now + timedelta(hours=2), clock.now + timedelta(hours=1)
    store.transact_now(jobs.add, "read", "1", {"account": 1}, due_at=later)
    store.transact_now(jobs.add, "read", "1", {"account": 2}, due_at=sooner)
    assert (only(store).due_at, only(store).arguments) == (sooner, '{"account": 2}')
    store.transact_now(jobs.add, "read", "1", {"account": 3}, due_at=later)
    assert (only(store).due_at, only(store).arguments) == (sooner, '{"account": 2}')
    store.transact_now(jobs.add, "fan_out", "1")
    assert len(rows(store, "jobs")) == 2


def test_work_that_is_not_made_necessary_after_all_is_not_asked_for(store: Store) -> None:
    def ask_and_fail(tx: Tx) -> None:
        jobs.add(tx, "read", "1")
        raise Conflict("no")

    with pytest.raises(Conflict):
        store.transact_now(ask_and_fail)
    assert rows(store, "jobs") == []


def test_a_job_is_taken_when_it_is_due_by_one_who_does_that_kind(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1", {"account": 1, "text": "ä\u2028"}, due_at=START + timedelta(seconds=5))
    assert (due(store), take(store)) == (False, [])
    clock.forward(seconds=5)
    assert due(store)
    assert take(store, ["fan_out"]) == []
    (job,) = take(store)
    assert (job.kind, job.key, job.arguments, job.attempts, job.lease) == (
        "read", "1", {"account": 1, "text": "ä\u2028"}, 0, 1,
    )  # fmt: skip
    assert (due(store), take(store)) == (False, [])


def test_the_oldest_are_taken_first(store: Store, clock: Clock) -> None:
    for number in range(5):
        store.transact_now(jobs.add, "read", str(number), due_at=START - timedelta(seconds=number))
    assert {job.key for job in take(store, limit=2)} == {"4", "3"}
    assert {job.key for job in take(store, limit=2)} == {"2", "1"}
    assert [job.key for job in take(store, limit=2)] == ["0"]


def test_a_lost_job_is_taken_over_and_the_loser_changes_nothing(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1")
    (old,) = take(store)
    clock.forward(seconds=LEASE + 0.001)
    (new,) = take(store)
    assert (new.id, new.lease) == (old.id, old.lease + 1)
    before = only(store)
    assert store.transact_now(jobs.finish, old) is False
    assert store.transact_now(jobs.progress, old, {"place": 1}) is False
    store.transact_now(jobs.put_off, old, clock.now + timedelta(days=1), reason="dead")
    store.transact_now(jobs.again, old, clock.now + timedelta(days=1))
    store.transact_now(jobs.give_up, old, "dead")
    store.transact_now(jobs.extend, [(old.id, old.lease)], 3600)
    assert only(store) == before
    assert store.transact_now(jobs.progress, new, {"place": 2}) is True
    assert store.transact_now(jobs.finish, new) is True
    assert rows(store, "jobs") == []


def test_an_extended_lease_lasts(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1")
    (job,) = take(store)
    for _ in range(5):
        clock.forward(seconds=6)
        store.transact_now(jobs.extend, [(job.id, job.lease)], LEASE)
        assert take(store) == []
    clock.forward(seconds=LEASE + 1)
    assert len(take(store)) == 1


def test_progress_is_where_the_next_one_goes_on(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "fan_out", "1", {"after": 0})
    (job,) = take(store)
    store.transact_now(jobs.progress, job, {"after": 500})
    clock.forward(seconds=LEASE + 1)
    assert take(store)[0].arguments == {"after": 500}


def test_putting_off_counts_attempts_and_keeps_the_reason(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1")
    for number in range(3):
        (job,) = take(store)
        assert job.attempts == number
        store.transact_now(jobs.put_off, job, clock.now + timedelta(minutes=1), reason=f"trouble {number}")
        assert take(store) == []
        clock.forward(minutes=1)
    assert (only(store).attempts, only(store).reason) == (3, "trouble 2")


def test_a_job_that_repeats_begins_anew_each_time(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1")
    (job,) = take(store)
    store.transact_now(jobs.put_off, job, clock.now, reason="trouble")
    (job,) = take(store)
    store.transact_now(jobs.again, job, clock.now + timedelta(seconds=30))
    assert take(store) == []
    clock.forward(seconds=30)
    (job,) = take(store)
    assert (job.attempts, only(store).reason) == (0, None)


def test_what_is_given_up_stays_with_its_reason_until_somebody_asks_again(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1", {"account": 1})
    (job,) = take(store)
    store.transact_now(jobs.give_up, job, "hopeless")
    clock.forward(days=30)
    assert (due(store), take(store)) == (False, [])
    assert (only(store).reason, only(store).failed_at) == ("hopeless", START)
    assert store.read_now(jobs.summary) == {"waiting": 0, "failed": 1}
    assert store.read_now(jobs.wanted, "read", "1") is False
    store.transact_now(jobs.add, "read", "1", {"account": 1}, due_at=clock.now)
    assert store.read_now(jobs.summary) == {"waiting": 1, "failed": 0}
    assert store.read_now(jobs.wanted, "read", "1") is True
    assert take(store)[0].attempts == 0


def test_work_that_nobody_wants_any_more_is_dropped(store: Store) -> None:
    store.transact_now(jobs.add, "read", "1")
    store.transact_now(jobs.add, "read", "2")
    store.transact_now(jobs.drop, "read", "1")
    assert only(store).key == "2"


def test_what_is_asked_for_while_it_is_done_is_done_once_more(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "read", "1", {"account": 1})
    (job,) = take(store)
    store.transact_now(jobs.add, "read", "1", {"account": 2}, due_at=START + timedelta(hours=1))
    store.transact_now(jobs.add, "read", "1", {"account": 3}, due_at=START + timedelta(hours=2))
    assert (only(store).arguments, only(store).due_at) == ('{"account": 1}', START)
    assert (due(store), take(store)) == (False, [])
    assert store.transact_now(jobs.progress, job, {"account": 1, "after": 500}) is True
    assert store.transact_now(jobs.finish, job) is True
    # The earlier time holds, and what was said last.
    assert (due(store), only(store).due_at) == (False, START + timedelta(hours=1))
    clock.forward(hours=1)
    (job,) = take(store)
    assert (job.arguments, job.attempts) == ({"account": 3}, 0)
    assert store.transact_now(jobs.finish, job) is True
    assert rows(store, "jobs") == []


@pytest.mark.parametrize(
    "end",
    [
        lambda tx, job: jobs.again(tx, job, tx.now + timedelta(days=7)),
        lambda tx, job: jobs.put_off(tx, job, tx.now + timedelta(hours=1), reason="trouble"),
        lambda tx, job: jobs.give_up(tx, job, "hopeless"),
        jobs.finish,
    ],
    ids=["again", "put off", "given up", "finished"],
)
def test_however_it_ends_what_was_asked_for_meanwhile_is_due(store: Store, end: Any) -> None:
    store.transact_now(jobs.add, "read", "1", {"account": 1})
    (job,) = take(store)
    store.transact_now(jobs.add, "read", "1", {"account": 2})
    store.transact_now(end, job)
    assert store.read_now(jobs.wanted, "read", "1")
    (job,) = take(store)
    assert (job.arguments, job.attempts) == ({"account": 2}, 0)
    store.transact_now(jobs.again, job, START + timedelta(days=7))
    assert (only(store).due_at, only(store).asked_again) == (START + timedelta(days=7), None)


def test_it_is_done_once_more_also_when_the_one_who_did_it_died(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "fan_out", "1", {"to": "all"})
    (job,) = take(store)
    store.transact_now(jobs.progress, job, {"to": "all", "after": 500})
    clock.forward(seconds=LEASE + 1)
    # Nobody knows yet that it died.
    store.transact_now(jobs.add, "fan_out", "1", {"to": "all"})
    (job,) = take(store)
    assert job.arguments == {"to": "all", "after": 500}
    store.transact_now(jobs.finish, job)
    assert take(store)[0].arguments == {"to": "all"}


def test_what_waits_where_somebody_stopped_begins_anew(store: Store, clock: Clock) -> None:
    store.transact_now(jobs.add, "fan_out", "1", {"to": "all"})
    (job,) = take(store)
    store.transact_now(jobs.progress, job, {"to": "all", "after": 500})
    store.transact_now(jobs.put_off, job, START + timedelta(seconds=5), reason="trouble")
    clock.forward(seconds=6)
    store.transact_now(jobs.add, "fan_out", "1", {"to": "all"})
    assert (only(store).due_at, take(store)[0].arguments) == (START + timedelta(seconds=5), {"to": "all"})


def test_some_work_sees_by_itself_what_came_meanwhile(store: Store) -> None:
    store.transact_now(jobs.add, "read", "1")
    (job,) = take(store)
    store.transact_now(jobs.add, "read", "1", anew=False)
    store.transact_now(jobs.finish, job)
    assert rows(store, "jobs") == []
    store.transact_now(jobs.add, "read", "1", anew=False)
    assert len(take(store)) == 1


def test_asking_while_it_ends_is_never_lost(store: Store, database_url: str, clock: Clock) -> None:
    """Whichever of the two is first: the other one's transaction is open at that moment."""
    other = Store.open(database_url, clock=clock)
    for key in ("1", "2", "3", "4"):
        store.transact_now(jobs.add, "read", key)
        (job,) = take(store)
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(other.transact_now, jobs.add, "read", key, {"new": True})
            ended = pool.submit(store.transact_now, jobs.finish, job)
            asked.result()
            assert ended.result()
        assert [job.arguments for job in take(store)] == [{"new": True}]
    other.close()


@pytest.mark.parametrize("text", ["short", "x" * 128, "x" * 129, "https://h.example/" + "ä" * 3000])
def test_keys_fit_and_stay_apart(store: Store, text: str) -> None:
    keys = {jobs.key_of(text), jobs.key_of(text + "1"), jobs.key_of(text + "2")}
    assert len(keys) == 3
    for key in keys:
        assert len(key) <= 128
        store.transact_now(jobs.add, "read", key)
    assert len(rows(store, "jobs")) == 3


def test_two_workers_never_take_the_same_job(store: Store, database_url: str, clock: Clock) -> None:
    def add(tx: Tx) -> None:
        for number in range(120):
            jobs.add(tx, "read", str(number))

    store.transact_now(add)
    workers = [Store.open(database_url, clock=clock) for _ in range(3)]

    def work(own: Store) -> list[int]:
        mine: list[int] = []
        while taken := own.transact_now(jobs.take, KINDS, LEASE, 5):
            mine += [job.id for job in taken]
        return mine

    with ThreadPoolExecutor(3) as pool:
        shares = list(pool.map(work, workers))
    everything = [number for share in shares for number in share] + [job.id for job in take(store, limit=200)]
    assert len(everything) == len(set(everything)) == 120
    assert {row.lease for row in rows(store, "jobs")} == {1}
    for worker in workers:
        worker.close()
