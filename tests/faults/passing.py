"""Time that passes as fast as the worker can follow: the database's clock runs ahead, step by step."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from tests.rig import Bridge

from threadbridge import worker
from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_d, _j = schema.deliveries, schema.jobs


class Passing:
    """The clock of a bridge's database and worker; begin before the worker starts."""

    def __init__(self, bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bridge = bridge
        self.ahead = timedelta(0)
        bridge.ground.store.clock = self.now
        monkeypatch.setattr(worker, "utc_now", self.now)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def passes(self, span: timedelta, *, steps: int = 1) -> None:
        """Time passes in so many steps; after each the worker does what is due by then."""
        for _ in range(steps):
            self.ahead += span / steps
            self.caught_up()

    def until_next(self, end: datetime) -> bool:
        """Go on to when the next delivery is due; False (and there) when that is not before `end`."""
        next_due = self._bridge.ground.store.read_now(_next_due)
        until = min(next_due or end, end)
        self.ahead += max(until - self.now(), timedelta(0)) + timedelta(milliseconds=1)
        self.caught_up()
        return next_due is not None and next_due < end

    def caught_up(self) -> None:
        """Wait until nothing is due, nor being done."""
        working = self._bridge._worker
        if working is not None:
            self._bridge.loop.loop.call_soon_threadsafe(working._wake)
        deadline = time.monotonic() + 20
        while busy := self._bridge.ground.store.read_now(_busy):
            assert time.monotonic() < deadline, f"still to be done at {self.now()}: {busy}"
            time.sleep(0.02)


def _next_due(tx: Tx) -> datetime | None:
    due: datetime | None = tx.execute(select(func.min(_d.c.due_at)).where(schema.waiting)).scalar_one()
    return due


def _busy(tx: Tx) -> list[str]:
    """What is due, or being done."""
    found = []
    for table, open_ones in ((_d, schema.waiting), (_j, _j.c.failed_at.is_(None))):
        busy = table.select().where(open_ones, (table.c.due_at <= tx.now) | (table.c.leased_until > tx.now))
        found += [str(row) for row in tx.execute(busy.limit(3))]
    return found
