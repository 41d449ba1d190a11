"""Ready bytes: documents that are asked for again and again, kept with their headers until the thing changes.

Rule: a document is served from here only while nothing it shows has changed. Content changes in this process drop it
at their commit; everything else (another process, a like) is seen by the watcher within half a second. Serving one
touches no database and builds no JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from threadbridge.errors import ThreadbridgeError
from threadbridge.storage import accounts
from threadbridge.storage.store import Store

log = structlog.get_logger(__name__)

WATCH_SECONDS = 0.5
BYTES_MAX = 128 * 1024 * 1024
# Looked at again after every commit up to this old: a transaction may commit a little after the time it carries.
OVERLAP = timedelta(seconds=15)

Headers = list[tuple[bytes, bytes]]


def vary(signed: bool) -> str:
    """What an answer depends on; `signed`: on who signed the request, too."""
    return "Accept, Signature, Signature-Input" if signed else "Accept"


@dataclass(frozen=True, slots=True)
class Ready:
    """A whole response: status, body and every header, for 200 and for 304."""

    status: int
    body: bytes
    headers: Headers
    headers_unchanged: Headers
    etag: bytes
    accounts: frozenset[int] = frozenset()
    ends_at: float = field(default=float("inf"))
    head: bytes = field(init=False, repr=False)
    """`headers` as they stand on the wire, each with its line end."""

    def __post_init__(self) -> None:
        head = b"".join(b"%s: %s\r\n" % pair for pair in self.headers)
        # What Starlette and uvicorn refuse one header at a time is refused here for all of them: nothing that is
        # shown in a header can break out of its line.
        if head.count(b"\n") != len(self.headers) or head.count(b"\r") != len(self.headers):
            raise ValueError("a header of a ready document holds a line break")
        object.__setattr__(self, "head", head)

    @classmethod
    def of(
        cls,
        body: bytes,
        content_type: str,
        *,
        max_age: int,
        status: int = 200,
        account_ids: frozenset[int] = frozenset(),
        lives: float | None = None,
        extra: Mapping[str, str] | None = None,
        signed: bool = False,
    ) -> Ready:
        """A public document. `max_age` is for caches in between, `lives` bounds how long we keep it ourselves.
        `signed`: what stands there depends on who signed the request, and is for that reader's cache alone."""
        etag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
        shared: Headers = [
            (b"etag", etag),
            (b"cache-control", f"{'private' if signed else 'public'}, max-age={max_age}".encode()),
            (b"vary", vary(signed).encode()),
            (b"access-control-allow-origin", b"*"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"strict-origin-when-cross-origin"),
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in (extra or {}).items()),
        ]
        full = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *shared,
        ]
        ends_at = time.monotonic() + lives if lives is not None else float("inf")
        return cls(status, body, full, shared, etag, account_ids, ends_at)


@dataclass(eq=False, slots=True)
class _Building:
    """A document that is being built, and whose changes came in between."""

    promise: asyncio.Future[Ready]
    changed: set[int] = field(default_factory=set)


class HotDocuments:
    """Ready documents by request target (path and query as received); the longest unasked makes room."""

    def __init__(self, store: Store, bytes_max: int = BYTES_MAX) -> None:
        self._store = store
        self._kept: OrderedDict[bytes, Ready] = OrderedDict()
        self._by_account: dict[int, set[bytes]] = {}
        self._revisions: dict[int, int] = {}
        self._building: set[_Building] = set()
        self._to_join: dict[bytes, _Building] = {}
        self._bytes = 0
        self._bytes_max = bytes_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None

    def get(self, target: bytes) -> Ready | None:
        """The ready document for a request target, if there is a fresh one."""
        ready = self._kept.get(target)
        if ready is None:
            return None
        if ready.ends_at < time.monotonic():
            self._drop(target)
            return None
        self._kept.move_to_end(target)
        return ready

    async def get_or_build(self, target: bytes, build: Callable[[], Awaitable[Ready]]) -> Ready:
        """The ready document, built at most once at a time. Errors are not kept."""
        ready = self.get(target)
        if ready is not None:
            return ready
        joined = self._to_join.get(target)
        if joined is not None:
            return await asyncio.shield(joined.promise)
        ours = _Building(asyncio.get_running_loop().create_future())
        self._building.add(ours)
        self._to_join[target] = ours
        try:
            ready = await build()
        except BaseException as error:
            ours.promise.set_exception(error)
            ours.promise.exception()  # whoever waits gets it; nobody waiting is no trouble
            raise
        else:
            ours.promise.set_result(ready)
        finally:
            self._building.discard(ours)
            if self._to_join.get(target) is ours:
                del self._to_join[target]
        # Something it shows changed while it was being built: right for who asked before, not for keeping.
        if ready.accounts.isdisjoint(ours.changed):
            self._keep(target, ready)
        return ready

    def _keep(self, target: bytes, ready: Ready) -> None:
        self._drop(target)
        self._kept[target] = ready
        self._bytes += len(ready.body) + len(target) + 512
        for number in ready.accounts:
            self._by_account.setdefault(number, set()).add(target)
        while self._bytes > self._bytes_max and self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, target: bytes) -> None:
        ready = self._kept.pop(target, None)
        if ready is None:
            return
        self._bytes -= len(ready.body) + len(target) + 512
        for number in ready.accounts:
            self._by_account.get(number, set()).discard(target)

    def forget(self, account_ids: set[int]) -> None:
        """Drop everything that shows one of these accounts."""
        if not account_ids:
            return
        for building in self._building:
            building.changed |= account_ids
        # What is being built may have been read before the change: nobody who asks after it is given that.
        self._to_join.clear()
        for number in account_ids:
            for target in list(self._by_account.pop(number, ())):
                self._drop(target)

    # ── following changes ────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Begin to follow changes."""
        self._loop = asyncio.get_running_loop()
        self._store.on_touched(self._touched)
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        self._loop = None

    def _touched(self, account_ids: set[int]) -> None:
        # Called in the writer's thread, before the one who wrote is told.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.forget, account_ids)

    async def _watch(self) -> None:
        since = self._store.clock() - OVERLAP
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                now = self._store.clock()
                changed = await self._store.read(accounts.changed_since, since)
                since = now - OVERLAP
                self.forget(
                    {number for number, revision in changed.items() if self._revisions.get(number) != revision}
                )
                self._revisions = changed
            except ThreadbridgeError as error:
                log.warning("changes could not be followed", error=str(error))
                self.forget(set(self._by_account))
            except Exception:
                # Whatever it was: a watcher that ends would leave documents standing for ever.
                log.exception("changes could not be followed")
                self.forget(set(self._by_account))
