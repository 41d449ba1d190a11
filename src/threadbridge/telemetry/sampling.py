"""Lines that repeat: the first ones of a minute are written, the rest are counted.

Rule: only what is no trouble is ever left out (info and below), and never silently: the next line of its kind says
how many there were. What is refused is counted in the database whether its line was written or not.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

KINDS_KEPT = 500
MINUTE = 60.0


@dataclass(slots=True)
class _Minute:
    begun: float
    written: int = 0
    left_out: int = 0


class Sampler:
    """A processor for structlog. Lines are of one kind when event, kind and reason are the same; what has neither
    kind nor reason tells what we did ourselves, and is always written."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._kinds: OrderedDict[tuple[str, str, str], _Minute] = OrderedDict()

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method not in ("info", "debug") or not ("kind" in event or "reason" in event):
            return event
        kind = (str(event.get("event")), str(event.get("kind")), str(event.get("reason"))[:100])
        now = self._monotonic()
        minute = self._kinds.get(kind)
        if minute is None:
            minute = self._kinds[kind] = _Minute(now)
            while len(self._kinds) > KINDS_KEPT:
                self._kinds.popitem(last=False)
        elif now - minute.begun >= MINUTE:
            if minute.left_out:
                event["left_out"] = minute.left_out
            minute = self._kinds[kind] = _Minute(now)
            self._kinds.move_to_end(kind)
        if minute.written >= self._per_minute:
            minute.left_out += 1
            raise structlog.DropEvent
        minute.written += 1
        return event
