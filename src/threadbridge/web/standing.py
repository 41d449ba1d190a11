"""How things stand, for whoever asks: read from the database at most once in a few seconds, and judged.

Rule: asking costs the same however many ask, and however much waits. What is told to the public names no host, no
account and nobody.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from threadbridge.config import Config
from threadbridge.services import Services
from threadbridge.storage import figures, migrate
from threadbridge.storage.figures import Standing
from threadbridge.storage.ledger import LANE_ANSWER, LANE_POST
from threadbridge.storage.store import Tx
from threadbridge.telemetry import metrics

FRESH_SECONDS = 4.0
IDLE_TIMES = 20
"""It is kept for so many times as long as reading it took: with millions of rows it is older, and costs no more."""
ASKED_SECONDS = 0.5
SILENCE = timedelta(minutes=30)
"""Connected accounts are read every five minutes at least; when none was for so long, reading has stopped."""


class Watch:
    """Looks after how things stand, for one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._standing: Standing | None = None
        self._until = float("-inf")
        self._newest: bool = False
        self._asked_at = float("-inf")
        self._reading = asyncio.Lock()

    async def standing(self) -> Standing:
        """How things stood a few seconds ago at most. Raises Unavailable."""
        async with self._reading:
            begun = time.monotonic()
            if self._standing is None or begun >= self._until:
                self._standing = await self._services.store.read(figures.standing)
                ended = time.monotonic()
                self._until = ended + max(FRESH_SECONDS, IDLE_TIMES * (ended - begun))
            return self._standing

    async def why_not_ready(self, *, backlog: bool) -> list[str]:
        """Everything that keeps requests, or the work, from being done; empty when nothing does. Raises Unavailable
        when the database does not answer."""
        async with self._reading:
            if time.monotonic() - self._asked_at >= ASKED_SECONDS:
                self._newest = await self._services.store.read(_is_newest)
                self._asked_at = time.monotonic()
        return why_not(
            self._services.config,
            is_newest=self._newest,
            free=await asyncio.to_thread(self.free),
            standing=await self.standing() if backlog and self._newest else None,
        )

    def free(self) -> int:
        """Bytes that are free in the data folder."""
        return shutil.disk_usage(self._services.config.data_dir).free

    async def shared(self) -> metrics.Shared:
        """The figures that all processes share."""
        standing = await self.standing()
        return metrics.Shared(
            waiting={number: lane.waiting for number, lane in standing.lanes.items()},
            due={number: lane.due for number, lane in standing.lanes.items()},
            age={number: lane.oldest_due_seconds for number, lane in standing.lanes.items()},
            jobs=standing.jobs,
            hosts=standing.hosts,
            accounts_in_trouble=standing.in_trouble,
            last_read=standing.last_read.timestamp() if standing.last_read else None,
            last_hour=standing.last_hour,
            disk_free=await asyncio.to_thread(self.free),
        )


def _is_newest(tx: Tx) -> bool:
    return migrate.is_newest(tx)


def why_not(config: Config, *, is_newest: bool, free: int, standing: Standing | None) -> list[str]:
    """The same, decided from what was found; `standing` is None where the backlog does not count."""
    reasons = []
    if not is_newest:
        reasons.append("the database does not have the form that this program expects: start the newest version")
    if free < config.ready_free_bytes:
        reasons.append(f"only {free / 1e6:,.0f} MB are free in the data folder: free some space")
    # While the brake is on waiting is what is wanted.
    if standing is not None and config.ready_backlog_seconds and not config.quiet:
        for number in (LANE_ANSWER, LANE_POST):
            age = standing.lanes[number].oldest_due_seconds if number in standing.lanes else 0.0
            if age > config.ready_backlog_seconds:
                what = "answers" if number == LANE_ANSWER else "new posts"
                reasons.append(f"{what} have waited {age:,.0f} s for their turn: is a worker running?")
    return reasons


def in_words(standing: Standing, *, quiet: bool = False) -> Sequence[str]:
    """How things stand, honestly, for everybody: the first sentence is the one that matters. `quiet`: the brake is
    on."""
    told = [BRAKE] if quiet else []
    behind = max(
        (standing.lanes[n].oldest_due_seconds for n in (LANE_ANSWER, LANE_POST) if n in standing.lanes), default=0.0
    )
    if quiet:
        waiting = sum(lane.waiting for lane in standing.lanes.values())
        told.append(f"{waiting:,} {'delivery waits' if waiting == 1 else 'deliveries wait'} for that.")
    elif behind < 5:
        told.append("New posts and answers leave at once.")
    else:
        told.append(f"New posts and answers are {span(behind)} behind.")
    for number, lane in sorted(standing.lanes.items()):
        if number > LANE_POST and lane.oldest_due_seconds >= 60 and not quiet:
            what = "Edits and deletions" if number < len(metrics.LANES) - 1 else "Work in bulk (moves, farewells)"
            verb = "are" if number < len(metrics.LANES) - 1 else "is"
            told.append(f"{what} {verb} {span(lane.oldest_due_seconds)} behind.")
    held = sum(lane.waiting - lane.due for lane in standing.lanes.values())
    if held:
        told.append(_held(held, standing.waited_for))
    if not standing.connected:
        told.append("No account is connected to its source.")
    elif standing.last_read is None or standing.at - standing.last_read > SILENCE:
        told.append("Accounts are not being read: new posts are not seen.")
    if standing.in_trouble:
        accounts = "account" if standing.in_trouble == 1 else "accounts"
        told.append(f"{standing.in_trouble:,} {accounts} cannot be read.")
    return told


BRAKE = "The brake is on: nothing is sent to other servers until it is released."

_WHY = {
    "asked": ("asked to wait", "asked to wait"),
    "trouble": ("has trouble", "have trouble"),
    "refuses": ("refuses", "refuse"),
}


def _held(held: int, waited_for: Mapping[str, int]) -> str:
    """'3 deliveries wait: 1 server asked to wait, 1 has trouble, 1 refuses.'"""
    parts: list[str] = []
    for why, (one, many) in _WHY.items():
        if count := waited_for.get(why, 0):
            noun = ("" if parts else " server") if count == 1 else ("" if parts else " servers")
            parts.append(f"{count:,}{noun} {one if count == 1 else many}")
    words = f"{held:,} {'delivery waits' if held == 1 else 'deliveries wait'}"
    if not parts:
        return f"{words} for what goes before {'it' if held == 1 else 'them'}."
    if waited_for.get("order"):
        parts.append("some for what goes before them")
    return f"{words}: {', '.join(parts)}."


def span(seconds: float) -> str:
    """'40 s', '12 minutes', '3.5 hours', '2 days'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f}".removesuffix(".0") + " hours"
    return f"{seconds / 86_400:.1f}".removesuffix(".0") + " days"
