"""Restraint towards third parties: how often one host is asked, what is not asked for again, what is asked once for
many.

Rule: whatever a stranger makes us fetch, its target hears little of it (Fedify CVE-2026-34148: failed key fetches
were neither limited nor remembered). All memories here are bounded; the oldest entry goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from threadbridge.errors import BadAnswer, NetworkError

T = TypeVar("T")

DEAD_FIRST = 300.0
DEAD_LONGEST = 6 * 3600.0
REMEMBERED = 10_000


class BudgetSpent(NetworkError):
    """We have asked this host often enough for now."""


class Budgets:
    """At most so many requests to one host, or on behalf of one, within any `seconds`."""

    def __init__(self, number: int, monotonic: Callable[[], float], *, seconds: float = 60.0) -> None:
        self._number = number
        self._seconds = seconds
        self._monotonic = monotonic
        self._hosts: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, host: str) -> bool:
        """Note one request; False, and nothing noted, when the host has had its share."""
        now = self._monotonic()
        times = self._hosts.setdefault(host, deque())
        self._hosts.move_to_end(host)
        while len(self._hosts) > REMEMBERED:
            self._hosts.popitem(last=False)
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if len(times) >= self._number:
            return False
        times.append(now)
        return True

    def spend(self, host: str) -> None:
        """`take`, or raise BudgetSpent."""
        if not self.take(host):
            raise BudgetSpent(
                f"{host} has been asked {self._number} times within {self._seconds:.0f} seconds and is left in peace "
                "for a while"
            )


@dataclass(frozen=True, slots=True)
class _Failure:
    until: float
    wait: float
    kind: type[NetworkError]
    public: str
    status: int | None


class Dead:
    """What was not there when we asked, and until when we do not ask again."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures: OrderedDict[str, _Failure] = OrderedDict()

    def check(self, *names: str) -> None:
        """Raises the remembered error, anew, while one of `names` is not to be asked for."""
        now = self._monotonic()
        for name in names:
            failure = self._failures.get(name)
            if failure is None or failure.until <= now:
                continue
            later = f"not asked again for {failure.until - now:.0f} s"
            if issubclass(failure.kind, BadAnswer):
                raise failure.kind(failure.public, detail=later, status=failure.status)
            raise failure.kind(failure.public, detail=later)

    def failed(self, name: str, error: NetworkError, *, lasting: bool) -> None:
        """Remember a failure; a `lasting` one waits twice as long each time."""
        before = self._failures.pop(name, None)
        wait = min(before.wait * 2, DEAD_LONGEST) if before is not None and lasting else DEAD_FIRST
        status = error.status if isinstance(error, BadAnswer) else None
        self._failures[name] = _Failure(self._monotonic() + wait, wait, type(error), error.public, status)
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def forget(self, *names: str) -> None:
        """They answered."""
        for name in names:
            self._failures.pop(name, None)


class SingleFlight(Generic[T]):
    """Work under way by name; who asks for the same meanwhile waits for the same answer. One caller's patience
    ending does not take it from the others."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[T]] = {}

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        task = self._tasks.get(name)
        if task is None:

            async def flight() -> T:
                return await work()

            task = self._tasks[name] = asyncio.create_task(flight())
            task.add_done_callback(lambda done: self._landed(name, done))
        return await asyncio.shield(task)

    def _landed(self, name: str, task: asyncio.Task[T]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled():
            task.exception()  # counts as retrieved, also when nobody waited to the end
