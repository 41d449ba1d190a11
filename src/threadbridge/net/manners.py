"""Which kind of signature each host takes when a document is asked for.

Rule: what was learnt is written down with its evidence and holds for thirty days, in every process and after a
restart (`Memory`, which never raises); here it is kept for a while, so that asking a host often costs one look.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from threadbridge.net.restraint import REMEMBERED
from threadbridge.signatures import knocking
from threadbridge.signatures.knocking import Manner

MANNER_SECONDS = 30 * 24 * 3600.0
"""How long it is known which signature a server took when it did not take the usual one."""
LOOKED_UP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is written down, by host (name and port): `recall` gives what was learnt within thirty days, `remember`
    keeps it with its evidence in words."""

    recall: Callable[[str], Awaitable[Manner | None]]
    remember: Callable[[str, Manner, str], Awaitable[None]]


class Manners:
    """The manner of each host; without a `memory`, for as long as this lives."""

    def __init__(self, monotonic: Callable[[], float], memory: Memory | None = None) -> None:
        self._monotonic = monotonic
        self._memory = memory
        self._known: OrderedDict[str, tuple[Manner, float]] = OrderedDict()

    async def of(self, host: str) -> Manner:
        """How to sign for a host."""
        manner, ends_at = self._known.get(host, (knocking.USUAL, float("-inf")))
        if self._monotonic() < ends_at:
            return manner
        found = await self._memory.recall(host) if self._memory else None
        if self._memory:
            self._keep(host, found or knocking.USUAL)
        return found or knocking.USUAL

    async def learnt(self, host: str, manner: Manner, evidence: str) -> None:
        """A host accepted this after it had refused what was tried before."""
        self._keep(host, manner.lasting)
        if self._memory:
            await self._memory.remember(host, manner.lasting, evidence)

    def _keep(self, host: str, manner: Manner) -> None:
        seconds = LOOKED_UP_SECONDS if self._memory else MANNER_SECONDS
        self._known.pop(host, None)
        self._known[host] = (manner, self._monotonic() + seconds)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
