"""Who waits for work is woken when there is some, rather than asking again and again.

    store.on_work(worker.look)        # called after each commit, here or elsewhere, that made something due
    tx.wake()                         # in the transaction that makes it due: jobs.add, ledger.add_deliveries

SQLite has one process that writes: whoever commits rings. On PostgreSQL one connection per process LISTENs, and says
NOTIFY after a commit, once for as many as came meanwhile: said inside the transactions, it would have them commit one
after another, since PostgreSQL holds one lock for the whole server from a NOTIFY to the end of its commit. A command,
which has no such connection, says it inside.

Rule: a wake-up is a hint and nothing depends on it. Whoever waits looks by itself as well: every second while it is
known that wake-ups arrive, five times a second while they do not (the listening connection was lost, or a pooler in
transaction mode stands in front, which cannot pass them on).
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy import Engine, create_engine, exc
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

log = structlog.get_logger(__name__)

CHANNEL = "threadbridge_work"
SLOW_SECONDS = 1.0
"""How often whoever waits looks by itself while wake-ups arrive."""
FAST_SECONDS = 0.2
"""How often while they do not."""
_BEAT_SECONDS = 15.0
_AGAIN_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class Listening:
    """One connection to PostgreSQL that hears NOTIFY, in a thread of its own; made again when it is lost."""

    def __init__(self, url: URL, options: dict[str, Any], heard: Callable[[], None]) -> None:
        self._engine: Engine = create_engine(url, poolclass=NullPool, connect_args=options)
        self._heard = heard
        self._closing = threading.Event()
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self.live = False
        """Whether wake-ups arrive just now."""
        self._thread = threading.Thread(target=self._run, name="store-listening", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Wake whoever waits, in every process. Comes back at once."""
        # A full pipe says it already.
        with suppress(BlockingIOError):
            os.write(self._writes, b"n")

    def close(self) -> None:
        """Hang up."""
        self._closing.set()
        self.tell()
        # A connection that is being made to a server that does not answer is not waited for.
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            os.close(self._reads)
            os.close(self._writes)
        self._engine.dispose()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                raw = self._engine.raw_connection()
                try:
                    driver: Any = raw.driver_connection
                    driver.autocommit = True
                    driver.execute(f"LISTEN {CHANNEL}")
                    self.live, failures = True, 0
                    # What was said while nobody listened.
                    self._heard()
                    self._listen(driver)
                finally:
                    self.live = False
                    with suppress(Exception):
                        raw.driver_connection.close()  # type: ignore[union-attr]
                    raw.invalidate()
            except Exception as error:
                # Also what the driver says in its own words: whoever waits asks more often until this is mended.
                wait = _AGAIN_SECONDS[min(failures, len(_AGAIN_SECONDS) - 1)]
                failures += 1
                if not self._closing.is_set():
                    words = str(error.orig) if isinstance(error, exc.DBAPIError) else str(error)
                    log.warning("wake-ups are not heard just now", error=words.strip(), again_in=wait)
                self._closing.wait(wait)

    def _listen(self, driver: Any) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(driver.fileno(), selectors.EVENT_READ)
            selector.register(self._reads, selectors.EVENT_READ)
            while not self._closing.is_set():
                ready = {key.fd for key, _ in selector.select(_BEAT_SECONDS)}
                if not ready:
                    # Nothing for a while: a connection whose other end has vanished without a word shows it now.
                    driver.execute("SELECT 1")
                if self._reads in ready:
                    os.read(self._reads, 65536)
                    driver.execute(f"NOTIFY {CHANNEL}")
                if any(True for _ in driver.notifies(timeout=0)):
                    self._heard()
