"""The store: short transactions, committed together, answered after the commit, on both databases."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, exc, func, insert, select, text

from threadbridge.errors import BadConfiguration, Conflict, DatabaseBusy, DiskFull, Unavailable
from threadbridge.storage import accounts, migrate, schema
from threadbridge.storage import store as store_module
from threadbridge.storage.schema import EPOCH, Moment
from threadbridge.storage.store import Store, Tx

facts = schema.facts


def put(tx: Tx, name: str, value: str = "x") -> str:
    tx.execute(insert(facts).values(name=name, value=value))
    return name


def names(store: Store) -> set[str]:
    return set(store.read_now(lambda tx: [row.name for row in tx.execute(select(facts.c.name))]))


def together(store: Store, *works: Callable[[Tx], Any]) -> list[Any]:
    """Results, or exceptions, of functions that reach the store at the same moment (SQLite: in one commit)."""

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(store.transact(work) for work in works), return_exceptions=True)

    return asyncio.run(all_at_once())


class WriterHeldUp:
    """Keeps the writer busy until the block ends, so that what is asked for meanwhile lands in one batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._go = threading.Event()
        self._inside = threading.Event()

    def __enter__(self) -> None:
        def wait(tx: Tx) -> None:
            self._inside.set()
            self._go.wait(10)

        self._thread = threading.Thread(target=lambda: self._store.transact_now(wait))
        self._thread.start()
        assert self._inside.wait(10)

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()


def in_one_batch(store: Store, *works: Callable[[Tx], Any]) -> list[Any]:
    """`together`, and on SQLite surely in one commit."""
    with ThreadPoolExecutor(len(works)) as pool:
        with WriterHeldUp(store):
            futures = []
            for work in works:
                futures.append(pool.submit(store.transact_now, work))
                time.sleep(0.01)  # in this order
        return [future.exception(10) or future.result(10) for future in futures]


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path / 'one.sqlite3'}")
    migrate.to_newest(opened)
    yield opened
    opened.close()


# ── one transaction per function ─────────────────────────────────────────────────────────────────────────────────


def test_a_function_that_fails_takes_back_its_own_changes_and_nobody_elses(store: Store) -> None:
    def fail(tx: Tx) -> None:
        put(tx, "half done")
        raise Conflict("no")

    def clash(tx: Tx) -> None:
        put(tx, "clash")
        put(tx, "clash")

    results = together(store, lambda tx: put(tx, "a"), fail, lambda tx: put(tx, "b"), clash, lambda tx: put(tx, "c"))
    assert [results[0], results[2], results[4]] == ["a", "b", "c"]
    assert isinstance(results[1], Conflict)
    assert isinstance(results[3], exc.IntegrityError)
    assert names(store) == {"a", "b", "c"}


def test_an_operational_error_of_one_function_is_its_own_as_well(sqlite: Store) -> None:
    def broken(tx: Tx) -> None:
        put(tx, "half done")
        tx.execute(text("SELECT * FROM no_such_table"))

    first, second, third = in_one_batch(sqlite, lambda tx: put(tx, "a"), broken, lambda tx: put(tx, "b"))
    assert (first, third) == ("a", "b")
    assert isinstance(second, Unavailable)
    assert "no_such_table" in (second.detail or "")
    assert names(sqlite) == {"a", "b"}


def test_many_writers_are_committed_together_and_nothing_is_lost(store: Store) -> None:
    commits = []
    event.listen(store.engine, "commit", lambda connection: commits.append(1))
    results = together(store, *(lambda tx, n=n: put(tx, f"fact {n}") for n in range(200)))
    assert results == [f"fact {n}" for n in range(200)]
    assert names(store) == set(results)
    if store.dialect == "sqlite":
        assert len(commits) < 100  # an fsync costs the same for one change as for many


def test_a_failing_commit_fails_everybody_in_it_and_nobody_is_told_otherwise(sqlite: Store) -> None:
    told: list[set[int]] = []
    sqlite.on_touched(told.append)

    def touch(tx: Tx) -> str:
        tx.touched.add(7)
        return put(tx, "touched")

    def break_commit(connection: Any) -> None:
        raise exc.OperationalError("COMMIT", {}, Exception("disk I/O error"))

    event.listen(sqlite.engine, "commit", break_commit)
    results = together(sqlite, touch, lambda tx: put(tx, "a"), lambda tx: put(tx, "b"))
    event.remove(sqlite.engine, "commit", break_commit)
    assert [type(result) for result in results] == [DiskFull] * 3
    assert told == []
    assert names(sqlite) == set()
    # And the next one is as good as ever.
    assert sqlite.transact_now(touch) == "touched"
    assert (told, names(sqlite)) == ([{7}], {"touched"})


def test_nobody_is_answered_before_the_commit(store: Store, database_url: str) -> None:
    other = Store.open(database_url)
    seen: list[set[str]] = []
    event.listen(store.engine, "commit", lambda connection: seen.append(names(other)))
    store.transact_now(put, "a")
    assert seen == [set()]  # a moment before the commit nobody else sees it
    assert names(other) == {"a"}
    other.close()


def test_listeners_hear_of_changes_after_the_commit_and_cannot_spoil_it(store: Store) -> None:
    heard: list[tuple[set[int], set[str]]] = []

    def broken(_: set[int]) -> None:
        raise RuntimeError("a listener's own trouble")

    store.on_touched(broken)
    store.on_touched(lambda ids: heard.append((ids, names(store))))

    def touch(tx: Tx) -> str:
        tx.touched |= {1, 2}
        return put(tx, "a")

    def touch_and_fail(tx: Tx) -> None:
        tx.touched.add(3)
        raise Conflict("no")

    assert store.transact_now(touch) == "a"
    with pytest.raises(Conflict):
        store.transact_now(touch_and_fail)
    store.transact_now(put, "b")
    assert heard == [({1, 2}, {"a"})]


def test_whoever_stops_waiting_before_the_turn_has_changed_nothing(sqlite: Store) -> None:
    async def give_up() -> None:
        with WriterHeldUp(sqlite):
            task = asyncio.create_task(sqlite.transact(put, "unwanted"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(give_up())
    sqlite.transact_now(put, "wanted")
    assert names(sqlite) == {"wanted"}


def test_closing_finishes_what_was_asked_for_and_refuses_the_rest(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'c.sqlite3'}")
    migrate.to_newest(store)
    with ThreadPoolExecutor(2) as pool:
        with WriterHeldUp(store):
            asked = pool.submit(store.transact_now, put, "asked for")
            time.sleep(0.05)
            closing = pool.submit(store.close)
            time.sleep(0.05)
        assert asked.result(10) == "asked for"
        closing.result(10)
    with pytest.raises(Unavailable):
        store.transact_now(put, "too late")
    again = Store.open(f"sqlite:///{tmp_path / 'c.sqlite3'}")
    assert names(again) == {"asked for"}
    again.close()


def test_what_is_acknowledged_is_synced(sqlite: Store) -> None:
    def pragma(tx: Tx, name: str) -> Any:
        return tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    assert sqlite.transact_now(pragma, "synchronous") == 2  # FULL
    assert sqlite.transact_now(pragma, "journal_mode") == "wal"
    assert sqlite.transact_now(pragma, "foreign_keys") == 1
    assert sqlite.read_now(pragma, "trusted_schema") == 0


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises((Unavailable, BadConfiguration, exc.DBAPIError)):
        store.read_now(put, "by a reader")
    assert names(store) == set()
    store.transact_now(put, "by a writer")
    assert names(store) == {"by a writer"}


def test_a_snapshot_shows_one_moment_however_long_it_is_looked_at(store: Store) -> None:
    store.transact_now(put, "before")
    with store.snapshot() as tx:
        assert accounts.fact(tx, "before") == "x"
        store.transact_now(put, "meanwhile")
        store.transact_now(lambda inner: inner.execute(facts.update().values(value="changed")))
        assert accounts.fact(tx, "meanwhile") is None
        assert accounts.fact(tx, "before") == "x"
    assert names(store) == {"before", "meanwhile"}


def test_the_time_of_a_transaction_is_the_clocks(database_url: str) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    store = Store.open(database_url, clock=lambda: moment)
    migrate.to_newest(store)
    assert store.transact_now(lambda tx: tx.now) == store.read_now(lambda tx: tx.now) == moment
    store.close()


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_is_said_and_nothing_is_lost(sqlite: Store) -> None:
    sqlite.transact_now(put, "before")
    store = Store.open(str(sqlite.engine.url))

    @event.listens_for(store.engine, "connect")
    def _full(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 3}").close()

    results = in_one_batch(
        store, lambda tx: put(tx, "small"), lambda tx: put(tx, "large", "x" * 200_000), lambda tx: put(tx, "other")
    )
    assert isinstance(results[1], DiskFull)
    # The others were told the truth, whichever it was.
    kept = {result for result in results if isinstance(result, str)}
    assert all(isinstance(result, DiskFull) for result in results if result not in kept)
    assert names(sqlite) == {"before", *kept}
    assert store.transact_now(put, "afterwards") == "afterwards"
    assert names(sqlite) == {"before", "afterwards", *kept}
    assert sqlite.read_now(accounts.damage) is None
    store.close()


def test_a_file_that_may_not_grow_is_said_and_nothing_is_lost(sqlite: Store) -> None:
    sqlite.transact_now(put, "before")
    program = """
        import os, resource, sys
        from sqlalchemy import insert
        from threadbridge.errors import DiskFull
        from threadbridge.storage import schema
        from threadbridge.storage.store import Store

        store = Store.open(sys.argv[1])
        file = sys.argv[1].removeprefix("sqlite:///")
        most = max(os.path.getsize(name) for name in (file, file + "-wal")) + 400_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        done = 0
        try:
            for number in range(1000):
                store.transact_now(lambda tx: tx.execute(
                    insert(schema.facts).values(name=f"fact {number}", value="x" * 5000)))
                done += 1
                print(done, flush=True)
        except DiskFull as error:
            print("full", error.public, flush=True)
        store.close()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(sqlite.engine.url)],
        capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    lines = ran.stdout.split("\n")
    assert lines[-2].startswith("full"), ran.stderr
    acknowledged = int(lines[-3])
    assert 0 < acknowledged < 1000
    assert len(names(sqlite)) == 1 + acknowledged
    assert sqlite.read_now(accounts.damage) is None
    sqlite.transact_now(put, "afterwards")


def test_a_database_that_another_process_has_locked_is_busy_and_not_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_BUSY_MILLISECONDS", 300)
    store, other = Store.open(database_url), Store.open(database_url)
    migrate.to_newest(store)
    store.transact_now(put, "row")

    def change(tx: Tx) -> None:
        tx.execute(facts.update().where(facts.c.name == "row").values(value="mine"))

    with other.engine.begin() as connection:
        connection.execute(facts.update().values(value="theirs"))
        started = time.monotonic()
        with pytest.raises(DatabaseBusy):
            store.transact_now(change)
        assert 0.2 < time.monotonic() - started < 3
        assert store.read_now(accounts.fact, "row") == "x"  # readers do not wait
    store.transact_now(change)
    assert other.read_now(accounts.fact, "row") == "mine"
    store.close()
    other.close()


def test_words_in_a_value_are_not_taken_for_the_databases_words(store: Store) -> None:
    store.transact_now(put, "the door is locked and the line is busy")
    with pytest.raises(exc.IntegrityError):
        store.transact_now(put, "the door is locked and the line is busy")


def test_a_server_that_cannot_be_reached_is_unavailable() -> None:
    store = Store.open("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(Unavailable, match="cannot be reached"):
        store.read_now(names)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="cannot be reached"):
        store.transact_now(put, "a")
    store.close()


def test_connections_that_the_server_ended_are_replaced(postgres_url: str) -> None:
    store, other = Store.open(postgres_url), Store.open(postgres_url)
    migrate.to_newest(store)
    store.transact_now(put, "a")
    killed = other.transact_now(
        lambda tx: tx.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                 "WHERE datname = current_database() AND pid <> pg_backend_pid()")
        ).all()
    )  # fmt: skip
    assert killed
    store.transact_now(put, "b")
    assert names(store) == {"a", "b"}
    store.close()
    other.close()


@pytest.mark.parametrize("url", ["mysql://root@localhost/x", "oracle://x", "sqlite3:///x", "no url at all"])
def test_other_databases_are_refused_in_words(url: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        Store.open(url)
    assert "sqlite" in str(caught.value)


# ── beside another process ───────────────────────────────────────────────────────────────────────────────────────


def write_many(url: str, who: str, count: int) -> None:
    store = Store.open(url)
    for number in range(count):
        store.transact_now(put, f"{who} {number}")
    store.close()


def test_several_processes_write_beside_each_other(store: Store, database_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=write_many, args=(database_url, f"process {n}", 60)) for n in range(2)]
    for process in others:
        process.start()
    for number in range(60):
        store.transact_now(put, f"here {number}")
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    assert store.read_now(lambda tx: tx.execute(select(func.count()).select_from(facts)).scalar_one()) == 180


# ── moments ──────────────────────────────────────────────────────────────────────────────────────────────────────

moments = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11.5))])
)


@given(moments)
def test_a_moment_comes_back_to_the_microsecond(moment: datetime) -> None:
    column = Moment()
    kept = column.process_bind_param(moment, None)  # type: ignore[arg-type]
    assert isinstance(kept, int)
    back = column.process_result_value(kept, None)  # type: ignore[arg-type]
    assert back == moment
    assert back is not None
    assert back.tzinfo is UTC


@given(moments, moments)
def test_moments_keep_their_order(one: datetime, other: datetime) -> None:
    kept = [Moment().process_bind_param(moment, None) or 0 for moment in (one, other)]  # type: ignore[arg-type]
    assert (one < other) == (kept[0] < kept[1])


def test_moments_are_compared_alike_by_both_databases(store: Store) -> None:
    times = [EPOCH, EPOCH - timedelta(days=40_000), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
             datetime(2026, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]  # fmt: skip
    seen = schema.seen_activities

    def add(tx: Tx) -> None:
        for number, at in enumerate(times):
            tx.execute(insert(seen).values(key=str(number), uri=str(number), peer_uri="x", outcome="done", at=at))

    store.transact_now(add)
    held = store.read_now(lambda tx: [row.at for row in tx.execute(select(seen.c.at).order_by(seen.c.at))])
    assert held == sorted(times)
    early = select(func.count()).where(seen.c.at < datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC))
    assert store.read_now(lambda tx: tx.execute(early).scalar_one()) == 3
