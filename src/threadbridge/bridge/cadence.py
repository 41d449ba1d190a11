"""When an account is read again, as a pure function.

Rule: fast while something may change, slow when quiet; never faster than the operator's `poll_seconds` nor slower
than ten times that (trouble apart), and never beyond what the source's usage header leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# Threads lets an owner edit for fifteen minutes and tells nobody about it.
EDIT_WINDOW = timedelta(minutes=20)
SLOWEST = 10
USAGE_CAREFUL, USAGE_STOP = 70.0, 95.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a read failed: `kind` is 'rate_limited' or 'unreachable'; `retry_after` in seconds if the source said."""

    kind: str
    failures: int
    retry_after: float | None = None


def next_read(
    now: datetime,
    poll_seconds: float,
    *,
    newest: datetime | None,
    usage: float = 0.0,
    trouble: Trouble | None = None,
    spread: float = 0.0,
) -> datetime:
    """The time of the next read. `newest` is when the latest post was published, `usage` the source's own percentage,
    `spread` in [0, 1] keeps accounts from marching in step."""
    unit = timedelta(seconds=poll_seconds)
    if trouble is not None:
        return now + _patience(unit, trouble) * (1 + 0.2 * spread)
    quiet = now - newest if newest is not None else timedelta.max
    if quiet < EDIT_WINDOW:
        factor = 1.0
    elif quiet < timedelta(hours=2):
        factor = 2.0
    elif quiet < timedelta(days=1):
        factor = 5.0
    else:
        factor = SLOWEST
    if usage >= USAGE_STOP:
        # The allowance is counted over a rolling day; an hour of silence gives some of it back.
        return now + max(unit * SLOWEST, timedelta(hours=1))
    if usage >= USAGE_CAREFUL:
        factor = SLOWEST
    jitter = 0.1 * spread if factor == 1.0 else -0.1 * spread
    return now + unit * factor * (1 + jitter)


def _patience(unit: timedelta, trouble: Trouble) -> timedelta:
    steps = min(trouble.failures - 1, 8)
    if trouble.kind == "rate_limited":
        grown = min(unit * (SLOWEST * int(2**steps)), max(timedelta(hours=6), unit * SLOWEST))
        return max(grown, timedelta(seconds=trouble.retry_after or 0))
    return min(unit * int(2 ** (steps + 1)), max(timedelta(minutes=30), unit * 2))
