"""Who was not let in at the door, before anything was known of them: one line each, and counted.

Rule: a request that anybody can send costs no transaction of its own, or counting it would be the attack; the
figures reach the database together, a few seconds later.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from threadbridge.errors import ThreadbridgeError
from threadbridge.storage import seen
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

WRITTEN_AFTER = 3.0
_KINDS = 200


class TurnedAwayCounter:
    """Counts refusals by door and reason."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: Counter[tuple[str, str]] = Counter()
        self._writing: asyncio.Task[None] | None = None

    def note(self, door: str, reason: str, **what: str) -> None:
        """One refusal: a line in the log with `what`, and one more in the figures."""
        log.info("turned away", door=door, reason=reason, **{name: value[:500] for name, value in what.items()})
        if len(self._counts) < _KINDS or (door, reason) in self._counts:
            self._counts[door, reason] += 1
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while self._counts:
            await asyncio.sleep(WRITTEN_AFTER)
            await self.write()

    async def write(self) -> None:
        """Write the figures down."""
        counted, self._counts = self._counts, Counter()
        if not counted:
            return
        try:
            await self._store.transact(_add, dict(counted))
        except ThreadbridgeError as error:
            log.warning("refusals could not be counted", error=str(error))

    async def stop(self) -> None:
        """Write down what is left."""
        if self._writing is not None:
            self._writing.cancel()
        await self.write()


def _add(tx: Tx, counted: dict[tuple[str, str], int]) -> None:
    for (door, reason), times in sorted(counted.items()):
        seen.count_dropped(tx, door, reason, times)
