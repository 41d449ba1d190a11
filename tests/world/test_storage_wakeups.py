"""Wake-ups: who waits for work hears of it when it is committed, here or in another process, and of nothing else; and
while it cannot be heard of, it is looked for more often."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from tests.rig import eventually

from threadbridge.errors import Conflict
from threadbridge.storage import jobs, wakeups
from threadbridge.storage.store import Store, Tx


class Bell:
    """Counts how often it rang."""

    def __init__(self) -> None:
        self.times = 0
        self._rang = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        self._rang.set()

    def rings(self, seconds: float) -> bool:
        """Whether it rings within `seconds`."""
        rang = self._rang.wait(seconds)
        self._rang.clear()
        return rang


@contextmanager
def waiting(store: Store) -> Iterator[Bell]:
    """Somebody waits for work, and hears if that can be."""
    bell = Bell()
    store.on_work(bell)
    if store.dialect == "postgresql" and not store._pooled:
        # The first ring says that it listens now.
        assert bell.rings(5)
        assert eventually(lambda: store.patience(None) == wakeups.SLOW_SECONDS)
    yield bell
    store.off_work(bell)


def ask(tx: Tx, key: str = "1", seconds: float = 0) -> None:
    jobs.add(tx, "read", key, due_at=tx.now + timedelta(seconds=seconds))


def test_whoever_waits_is_woken_by_the_commit_and_by_nothing_else(store: Store) -> None:
    def regretted(tx: Tx) -> None:
        ask(tx)
        raise Conflict("no")

    with waiting(store) as bell:
        with pytest.raises(Conflict):
            store.transact_now(regretted)
        store.transact_now(lambda tx: tx.execute(text("SELECT 1")).all())
        store.transact_now(ask, "later", 60)
        assert not bell.rings(0.1)
        store.transact_now(ask)
        assert bell.rings(2)
        # Not due yet, but before anybody would look by themselves: they must learn of it to look in time.
        store.transact_now(ask, "soon", 0.5)
        assert bell.rings(2)
    store.transact_now(ask, "nobody waits any more")
    assert not bell.rings(0.1)


def test_one_who_waits_in_another_process_is_woken(postgres_url: str) -> None:
    here, there = Store.open(postgres_url), Store.open(postgres_url)
    try:
        with waiting(here) as bell:
            there.transact_now(ask)
            assert bell.rings(2)
            assert bell.times == 2  # once for the beginning, once for the job
    finally:
        here.close()
        there.close()


def test_a_lost_connection_is_made_again_and_meanwhile_work_is_looked_for(postgres_url: str) -> None:
    here, there = Store.open(postgres_url), Store.open(postgres_url)
    name = here.engine.url.database
    elsewhere = create_engine(here.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND query LIKE 'LISTEN%'"
    )
    try:
        with waiting(here) as bell:
            with elsewhere.connect() as admin:
                admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
                assert admin.execute(kill, {"name": name}).all() == [(True,)]
                eventually(lambda: here.patience(None) == wakeups.FAST_SECONDS)
                admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
            # It rings when it listens again: what was said in between was not heard.
            assert bell.rings(5)
            eventually(lambda: here.patience(None) == wakeups.SLOW_SECONDS)
            there.transact_now(ask)
            assert bell.rings(2)
    finally:
        elsewhere.dispose()
        here.close()
        there.close()


def test_behind_a_pooler_nothing_outlives_a_transaction(postgres_url: str) -> None:
    store = Store.open(postgres_url, pooled=True, connections=3)
    try:
        with waiting(store) as bell:
            for _ in range(12):
                store.transact_now(ask)
            assert bell.rings(2)  # of our own; of others nothing is heard
            assert store.patience(None) == wakeups.FAST_SECONDS

            def left(tx: Tx) -> tuple[int, int, str, str]:
                prepared = tx.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
                listens = tx.execute(text("SELECT count(*) FROM pg_listening_channels()")).scalar_one()
                inside = tx.execute(text("SHOW lock_timeout")).scalar_one()
                tx.execute(text("SET LOCAL lock_timeout = DEFAULT"))
                return prepared, listens, inside, tx.execute(text("SHOW lock_timeout")).scalar_one()

            assert store.transact_now(left) == (0, 0, "10s", "0")
    finally:
        store.close()


def test_one_process_opens_no_more_connections_than_it_may(postgres_url: str) -> None:
    store = Store.open(postgres_url, connections=4)
    at_once, most, gate = threading.Barrier(3), 0, threading.Lock()

    def count(tx: Tx) -> None:
        nonlocal most
        at_once.wait(10)  # three at the same time, no fourth
        held = tx.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> 0")
        ).scalar_one()
        with gate:
            most = max(most, held)

    try:
        with waiting(store):
            threads = [threading.Thread(target=store.read_now, args=(count,)) for _ in range(9)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert most == 4
    finally:
        store.close()


def test_one_waits_until_the_next_thing_is_due(store: Store) -> None:
    store.transact_now(ask, "a", 0.05)
    store.transact_now(ask, "b", 3600)
    first = store.read_now(jobs.next_due, ["read"])
    assert first is not None
    assert store.patience(first) <= 0.05
    eventually(lambda: store.read_now(jobs.anything_due, ["read"]))
    later = store.read_now(jobs.next_due, ["read"])
    assert later is not None
    assert later > first
    assert store.patience(later) == wakeups.FAST_SECONDS  # nobody listens here
    assert store.read_now(jobs.next_due, ["other"]) is None


def test_what_somebody_waits_for_is_there_at_once(store: Store) -> None:
    """From the commit to the wake-up: far below what asking five times a second would take."""
    with waiting(store) as bell:
        spent = []
        for number in range(5):
            started = time.perf_counter()
            store.transact_now(ask, str(number))
            assert bell.rings(2)
            spent.append(time.perf_counter() - started)
        assert min(spent) < wakeups.FAST_SECONDS / 4
