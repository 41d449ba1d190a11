"""Opening the database and running plain functions in short transactions.

    store = Store.open("sqlite:////var/lib/threadbridge/threadbridge.sqlite3")
    account = await store.transact(accounts.create, handle, …)      # from async code
    rows = store.read_now(followers.list_page, account.id)          # from a command

Rules: a function given to `transact` takes a `Tx` first, decides and writes, and never waits for anything but the
database. It may run again after a conflict, so it has no other effects. When `transact` returns, the change is
durable (SQLite: WAL with synchronous=FULL; one writer thread that commits what has queued up in one go, since an
fsync costs the same for one change as for fifty). Each function has its own savepoint: one that raises takes back
its own changes and nobody else's.

On PostgreSQL a process opens no more than `connections` connections, one of them for wake-ups (see `wakeups`). What
the database cannot do now (it refuses, restarts, fails over) is Unavailable within seconds: an address that swallows
everything is given up after five, a peer that falls silent after fifteen.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import structlog
from sqlalchemy import Connection, Engine, Table, create_engine, event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import Executable

from threadbridge.errors import BadConfiguration, DatabaseBusy, DiskFull, Invalid, Unavailable
from threadbridge.storage import wakeups
from threadbridge.telemetry import metrics, trail

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_BATCH = 128
_READS = 8
_BUSY_MILLISECONDS = 10_000
_ATTEMPTS = 5
CONNECTIONS = 20
"""Connections to PostgreSQL that one process opens at most, unless told otherwise."""
_POOL_SECONDS = 10.0
# For libpq, where the address itself says nothing else: how long to wait for a server that does not answer, and when
# a connection whose other end has vanished (a cut cable, a machine that lost power) is given up.
_LIBPQ = {
    "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}  # fmt: skip


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Tx:
    """A transaction under way: the connection, the time at which it happens, and which accounts it changed."""

    connection: Connection
    now: datetime
    touched: set[int] = field(default_factory=set)
    """Accounts whose public documents changed so that no stale copy may be served after the commit."""
    wakes: bool = False
    """Whether something is due after the commit that somebody may wait for."""
    _driver: Any = field(default=None, repr=False)
    afterwards: list[Callable[[], object]] = field(default_factory=list, repr=False)
    _trail: str | None = field(default=None, repr=False)

    @property
    def trail(self) -> str:
        """The id under which what happens here is told in the log, and goes on elsewhere (`telemetry.trail`)."""
        if self._trail is None:
            self._trail = trail.current() or trail.new()
        return self._trail

    def after_commit(self, tell: Callable[[], object]) -> None:
        """Do this when what was done is durable, and not at all when it is taken back: lines of the log and figures,
        which are not to be told twice, nor of what never was."""
        self.afterwards.append(tell)

    def wake(self, due_at: datetime | None = None) -> None:
        """Something is to be done at `due_at` (now): whoever waits for work is woken by the commit, unless they look
        by themselves before."""
        if due_at is None or due_at <= self.now + timedelta(seconds=wakeups.SLOW_SECONDS):
            self.wakes = True

    @property
    def driver(self) -> Any:
        """The driver's own connection, inside this transaction; for `prepared` only."""
        if self._driver is None:
            self._driver = self.connection.connection.driver_connection
        return self._driver

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run one Core statement."""
        return self.connection.execute(statement, parameters)

    def insert(self, table: Table) -> sqlite.Insert:
        """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`; both databases speak the same
        form of it, through constructs of two names."""
        if self.connection.dialect.name == "postgresql":
            return cast("sqlite.Insert", postgresql.insert(table))
        return sqlite.insert(table)


Work = Callable[Concatenate[Tx, P], T]
TouchedListener = Callable[[set[int]], None]
WorkListener = Callable[[], None]


class Store:
    """One database. Thread-safe; `close` waits for running transactions."""

    def __init__(self, engine: Engine, readers: Engine, clock: Callable[[], datetime]) -> None:
        self.engine = engine
        self._readers = readers
        self.clock = clock
        self._listeners: list[TouchedListener] = []
        self._waiting_for_work: list[WorkListener] = []
        self._listening: wakeups.Listening | None = None
        self._pooled = False
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="store")
        self._writer = _Writer(self) if engine.dialect.name == "sqlite" else None
        self._gathered: Gathered = {}
        self._wanted: Gathered = {}

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = _utc_now,
        connections: int = CONNECTIONS,
        pooled: bool = False,
    ) -> Store:
        """Connect; SQLAlchemy URL of SQLite or PostgreSQL. Tables are made by `migrate`.

        For PostgreSQL: `connections` is the most that this process opens at a time; `pooled` says that a pooler in
        transaction mode stands in front, where nothing may outlive a transaction (no LISTEN, no prepared statements).
        """
        try:
            parsed = make_url(url)
        except exc.ArgumentError:
            # Its own words might hold the password.
            raise BadConfiguration(
                "THREADBRIDGE_DATABASE_URL is no database address",
                hint="Use sqlite:///path or postgresql+psycopg://user@host/database.",
            ) from None
        if parsed.get_backend_name() == "sqlite":
            return cls(_sqlite_engine(parsed, read_only=False), _sqlite_engine(parsed, read_only=True), clock)
        if parsed.get_backend_name() != "postgresql":
            raise BadConfiguration(
                f"THREADBRIDGE_DATABASE_URL: {parsed.get_backend_name()!r} is not supported",
                hint="Use sqlite:///path or postgresql+psycopg://user@host/database.",
            )
        try:
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                # Half of them are kept open; one beside these listens.
                pool_size=max(1, connections // 2),
                max_overflow=max(0, connections - max(1, connections // 2) - (0 if pooled else 1)),
                pool_timeout=_POOL_SECONDS,
                pool_pre_ping=True,
                connect_args=_libpq(parsed) | ({"prepare_threshold": None} if pooled else {}),
            )
        except ModuleNotFoundError:
            raise BadConfiguration(
                "PostgreSQL needs the extra 'postgres'",
                hint="Install it: pip install 'threadbridge[postgres]'.",
            ) from None
        if pooled:
            event.listen(engine, "begin", _set_up_transaction)
        else:
            event.listen(engine, "connect", _set_up_postgresql)
        store = cls(engine, engine, clock)
        store._pooled = pooled
        return store

    @property
    def dialect(self) -> str:
        """'sqlite' or 'postgresql'."""
        return self.engine.dialect.name

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for PostgreSQL, and in memory."""
        name = self.engine.url.database
        return Path(name).resolve() if self.dialect == "sqlite" and name and name != ":memory:" else None

    def on_touched(self, listener: TouchedListener) -> None:
        """Call `listener(account ids)` right after each commit that changed public documents."""
        self._listeners.append(listener)

    def on_work(self, listener: WorkListener) -> None:
        """Call `listener()` after each commit that made something due, in this process or (PostgreSQL) in another; in
        any thread. A hint only: see `patience`."""
        self._waiting_for_work.append(listener)
        self.wake_apart()

    def wake_apart(self) -> None:
        """Have wake-ups said and heard over a connection of their own, from now on (PostgreSQL): for processes that
        live on."""
        if self.dialect == "postgresql" and not self._pooled and self._listening is None:
            self._listening = wakeups.Listening(self.engine.url, _libpq(self.engine.url), self._ring)

    def off_work(self, listener: WorkListener) -> None:
        """Call it no more."""
        self._waiting_for_work.remove(listener)

    def patience(self, next_due: datetime | None) -> float:
        """For how many seconds whoever found nothing to do may wait before looking again, when the next thing that is
        known of is due at `next_due`."""
        heard = self._listening is not None and self._listening.live
        most = wakeups.SLOW_SECONDS if heard else wakeups.FAST_SECONDS
        if next_due is None:
            return most
        return min(most, max(0.001, (next_due - self.clock()).total_seconds()))

    def _wake(self) -> None:
        if self._listening is not None:
            self._listening.tell()
        if self._listening is None or not self._listening.live:
            self._ring()

    def _ring(self) -> None:
        for listener in self._waiting_for_work:
            try:
                listener()
            except Exception:
                log.exception("a listener for work failed")

    # ── from async code ──────────────────────────────────────────────────────────────────────────────────────────

    async def transact(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(tx, …)` in a transaction in another thread; durable when this returns."""
        loop = asyncio.get_running_loop()
        with metrics.asking(writes=True):
            if self._writer is not None:
                promise: asyncio.Future[T] = loop.create_future()
                self._gather(_Task(work, args, kwargs, promise, loop), self._gathered, self._writer.submit)
                return await promise
            context = copy_context()
            return await loop.run_in_executor(
                self._pool, lambda: context.run(lambda: self.transact_now(work, *args, **kwargs))
            )

    def _gather(self, task: _Task, gathered: Gathered, submit: Callable[[list[_Task]], None]) -> None:
        """Hand over to other threads what one turn of the event loop has brought together: all threads share one
        interpreter, and pass it to and fro with every statement while several have something to do."""
        assert task.loop is not None
        if task.loop not in gathered:
            gathered[task.loop] = []
            task.loop.call_soon(_hand_over, gathered, task.loop, submit)
        gathered[task.loop].append(task)

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(tx, …)` against a consistent snapshot in another thread; writing raises."""
        loop = asyncio.get_running_loop()
        with metrics.asking(writes=False):
            if self._writer is not None:
                promise: asyncio.Future[T] = loop.create_future()
                self._gather(_Task(work, args, kwargs, promise, loop), self._wanted, self._submit_reads)
                return await promise
            context = copy_context()
            return await loop.run_in_executor(
                self._pool, lambda: context.run(lambda: self.read_now(work, *args, **kwargs))
            )

    def _submit_reads(self, tasks: list[_Task]) -> None:
        for start in range(0, len(tasks), _READS):
            self._pool.submit(self._read_some, tasks[start : start + _READS])

    def _read_some(self, tasks: list[_Task]) -> None:
        """Several small readings from one snapshot, since opening it costs more than they do."""
        outcomes: list[_Outcome] = []
        begun = [task for task in tasks if task.begins()]
        try:
            with self.snapshot() as tx:
                for task in begun:
                    outcomes += [_read_one(task, Tx(tx.connection, tx.now))]
        except Exception as error:
            outcomes += [(task, None, error) for task in begun[len(outcomes) :]]
        _answer(outcomes)

    # ── from commands and threads ────────────────────────────────────────────────────────────────────────────────

    def transact_now(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`transact` for code that is not async."""
        if self._writer is not None:
            promise: Future[T] = Future()
            self._writer.submit([_Task(work, args, kwargs, promise)])
            return promise.result()
        for attempt in range(_ATTEMPTS):
            try:
                with self.engine.begin() as connection:
                    tx = Tx(connection, self.clock())
                    result = work(tx, *args, **kwargs)
                    if tx.wakes and self._listening is None:
                        connection.exec_driver_sql(f"NOTIFY {wakeups.CHANNEL}")
                self._tell(tx.touched)
                if tx.wakes:
                    self._wake()
                _tell_of(tx)
                return result
            except exc.DBAPIError as error:
                if attempt + 1 < _ATTEMPTS and _is_conflict(error):
                    time.sleep(0.01 * 2**attempt)
                    continue
                if getattr(error.orig, "sqlstate", None) == "25006":
                    # It was the primary, before a failover; the address may lead to another one by now.
                    self.engine.dispose()
                    raise Unavailable("The database can only be read just now", detail=str(error.orig)) from error
                raise _explained(error) from error
            except exc.TimeoutError as error:
                raise DatabaseBusy("All connections to the database are in use", detail=str(error)) from error
        raise AssertionError("unreachable")

    def read_now(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read` for code that is not async."""
        with self.snapshot() as tx:
            return work(tx, *args, **kwargs)

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """A read-only view of one moment, for as long as the block runs (exports)."""
        try:
            with self._readers.connect() as connection:
                if self.dialect == "postgresql":
                    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                with connection.begin():
                    yield Tx(connection, self.clock())
        except exc.DBAPIError as error:
            raise _explained(error) from error
        except exc.TimeoutError as error:
            raise DatabaseBusy("All connections to the database are in use", detail=str(error)) from error

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A bare connection, for migrations; what goes wrong with it is said as everywhere."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except exc.DBAPIError as error:
            raise _explained(error) from error

    def close(self) -> None:
        """Finish what is under way and disconnect."""
        if self._writer is not None:
            self._writer.close()
        if self._listening is not None:
            self._listening.close()
        self._pool.shutdown(wait=True)
        self.engine.dispose()
        self._readers.dispose()

    def _tell(self, touched: set[int]) -> None:
        for listener in self._listeners if touched else ():
            try:
                listener(touched)
            except Exception:
                # The change is made: whoever made it must not hear that it failed.
                log.exception("a listener to changes failed")


def _libpq(url: URL) -> dict[str, Any]:
    """What is said to libpq beside the address; what stands in the address itself holds."""
    return {name: value for name, value in _LIBPQ.items() if name not in url.query}


def _set_up_transaction(connection: Connection) -> None:
    # Behind a pooler the next transaction may run in another session.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_BUSY_MILLISECONDS}")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    # Nobody waits for ever for a row that somebody else has locked; SQLite has its busy_timeout.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {_BUSY_MILLISECONDS}")
    connection.commit()


def _sqlite_engine(url: URL, *, read_only: bool) -> Engine:
    # autocommit at the driver; SQLAlchemy's begin event below says BEGIN itself. Python's sqlite3 would otherwise
    # begin late (at the first write), and a reader turned writer cannot wait for the lock.
    engine = create_engine(
        url,
        connect_args={
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": _BUSY_MILLISECONDS / 1000,
        },
        **({"pool_size": 8, "max_overflow": 8} if read_only else {"poolclass": NullPool}),
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"busy_timeout={_BUSY_MILLISECONDS}",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "journal_size_limit=67108864",
            "cache_size=-16384",
            "temp_store=MEMORY",
            *(("query_only=ON",) if read_only else ()),
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


class _Writer:
    """The one thread that writes to SQLite: takes what has queued up, runs it, commits once, then answers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, tasks: list[_Task]) -> None:
        with self._lock:
            if self._closed:
                raise Unavailable("The server is shutting down")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
                self._thread.start()
            for task in tasks:
                self._queue.put(task)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._queue.put(None)
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        connection: Connection | None = None
        while True:
            first = self._queue.get()
            if first is None:
                break
            batch = [first]
            closing = False
            while len(batch) < _BATCH:
                try:
                    task = self._queue.get_nowait()
                except queue.Empty:
                    break
                if task is None:
                    closing = True
                    break
                batch.append(task)
            try:
                connection = connection or self._store.engine.connect()
                self._commit(connection, batch)
            except BaseException as error:
                # The whole batch is undone: nobody was answered yet, so nobody was lied to.
                if connection is not None:
                    connection.invalidate()
                    connection.close()
                    connection = None
                if isinstance(error, sqlite3.Error):
                    error = exc.OperationalError(None, None, error)
                failure = _explained(error) if isinstance(error, exc.DBAPIError) else error
                _answer([(task, None, failure) for task in batch])
            if closing:
                break
        if connection is not None:
            connection.close()

    def _commit(self, connection: Connection, batch: list[_Task]) -> None:
        touched: set[int] = set()
        wakes = False
        told: list[tuple[_Task, Tx]] = []
        outcomes: list[_Outcome] = []
        now = self._store.clock()
        with connection.begin():
            driver = connection.connection.driver_connection
            assert driver is not None
            for task in batch:
                if not task.begins():
                    continue
                tx = Tx(connection, now, _driver=driver)
                driver.execute("SAVEPOINT work")
                try:
                    result = task.context.run(task.work, tx, *task.args, **task.kwargs)
                except Exception as error:
                    if not _in_transaction(connection):
                        # SQLite itself has undone everything (the disk is full): nothing of the batch is left.
                        raise
                    driver.execute("ROLLBACK TO work")
                    outcomes.append((task, None, _explained(error) if isinstance(error, exc.DBAPIError) else error))
                else:
                    outcomes.append((task, result, None))
                    touched |= tx.touched
                    wakes = wakes or tx.wakes
                    if tx.afterwards:
                        told.append((task, tx))
                driver.execute("RELEASE work")
        self._store._tell(touched)
        _answer(outcomes)
        if wakes:
            self._store._ring()
        for task, tx in told:
            task.context.run(_tell_of, tx)


@dataclass(frozen=True, slots=True)
class _Task:
    """Work that waits for its turn; `loop` is that of an asyncio promise, `context` what was known where it was asked
    for (`telemetry.trail`)."""

    work: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    promise: Future[Any] | asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop | None = None
    context: Context = field(default_factory=copy_context)

    def begins(self) -> bool:
        """False when whoever asked has gone away meanwhile."""
        if isinstance(self.promise, Future):
            return self.promise.set_running_or_notify_cancel()
        return not self.promise.cancelled()


_Outcome = tuple[_Task, Any, BaseException | None]
Gathered = dict[asyncio.AbstractEventLoop, list[_Task]]


def _tell_of(tx: Tx) -> None:
    for tell in tx.afterwards:
        try:
            tell()
        except Exception:
            # The change is made: whoever made it must not hear that it failed.
            log.exception("what was done could not be told")


def _hand_over(gathered: Gathered, loop: asyncio.AbstractEventLoop, submit: Callable[[list[_Task]], None]) -> None:
    tasks = gathered.pop(loop)
    try:
        submit(tasks)
    except (Unavailable, RuntimeError) as error:
        # Closed, or (the pool of readers says so in its own way) closing.
        failure = error if isinstance(error, Unavailable) else Unavailable("The server is shutting down")
        _fulfil([(task, None, failure) for task in tasks])


def _read_one(task: _Task, tx: Tx) -> _Outcome:
    try:
        return task, task.context.run(task.work, tx, *task.args, **task.kwargs), None
    except Exception as error:
        return task, None, _explained(error) if isinstance(error, exc.DBAPIError) else error


def _answer(outcomes: list[_Outcome]) -> None:
    """Tell everybody what became of their work: an event loop is woken once for all of its promises, since waking it
    costs more than a statement does."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        loop = outcome[0].loop
        if loop is None:
            _fulfil([outcome])
        else:
            by_loop.setdefault(loop, []).append(outcome)
    for loop, theirs in by_loop.items():
        # A loop that was closed meanwhile has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_fulfil, theirs)


def _fulfil(outcomes: list[_Outcome]) -> None:
    for task, result, failure in outcomes:
        if task.promise.done():
            continue
        if failure is not None:
            task.promise.set_exception(failure)
        else:
            task.promise.set_result(result)


def _in_transaction(connection: Connection) -> bool:
    return cast("sqlite3.Connection", connection.connection.dbapi_connection).in_transaction


def _is_conflict(error: exc.DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    # 23505: somebody was first with the same key. The second run sees their row and decides anew.
    return state in ("40001", "40P01", "23505")


def _explained(error: exc.DBAPIError) -> Exception:
    if isinstance(error, exc.DataError) or getattr(error.orig, "sqlstate", None) == "54000":
        return Invalid("A value is longer than can be stored", detail=type(error.orig).__name__)
    if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
        # A mistake of ours. Its text can quote values, so it is not searched for words.
        return error
    message = str(error.orig)
    if "disk is full" in message or "No space left" in message:
        return DiskFull("No space is left for the database", detail=message, hint="Free some space and try again.")
    if "disk I/O error" in message:
        # What SQLite also says at a quota or a limit on the size of files.
        return DiskFull("The disk cannot be written", detail=message, hint="It is full, over its quota, or failing.")
    if "locked" in message or "busy" in message or "lock timeout" in message:
        return DatabaseBusy("The database is busy", detail=message)
    if isinstance(error, exc.OperationalError) and "unable to open database file" in message:
        return BadConfiguration("The database file cannot be opened", detail=message)
    if "readonly database" in message:
        return BadConfiguration("The database cannot be written", detail=message)
    if "file is not a database" in message or "malformed" in message:
        return BadConfiguration(
            "The database file is damaged, or is no database", detail=message, hint="Restore a backup."
        )
    if isinstance(error, exc.OperationalError | exc.InterfaceError):
        return Unavailable("The database cannot be reached", detail=message)
    return error


def prepare_folder(folder: Path) -> None:
    """Make a folder that we can write into, or say why not (BadConfiguration)."""
    try:
        # Followers, answers meant for the owner alone, sessions: nobody else on the machine reads them.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process may be starting just now
    except OSError as error:
        raise BadConfiguration(
            f"The data folder {folder} cannot be written",
            detail=str(error),
            hint="Set THREADBRIDGE_DATA_DIR to a folder that this user may write to.",
        ) from None
