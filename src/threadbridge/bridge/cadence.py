"""When an account is read again, as a pure function.

Rule: fast while something may change, slow when quiet; never faster than the operator's `poll_seconds` nor slower
than ten times that (trouble apart), and never beyond what the source's usage header leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from threadbridge.errors import NetworkError, RateLimited, SignInAgain, SourceError, SourceUnavailable

# Threads lets an owner edit for fifteen minutes and tells nobody about it.
EDIT_WINDOW = timedelta(minutes=20)
SLOWEST = 10
USAGE_CAREFUL, USAGE_STOP = 70.0, 95.0
# Meta counts its allowance over a rolling day; nothing that it says is worth waiting longer for.
LONGEST_WAIT = timedelta(days=1)
_RESTRICTED = 4279013

TroubleKind = Literal["sign_in_again", "restricted", "refused", "rate_limited", "unreachable"]
TROUBLES: dict[TroubleKind, str] = {
    "sign_in_again": "the token is dead; not asked again until the owner signs in",
    "restricted": "Threads has restricted the account; not asked again until it is connected anew",
    "refused": "Threads says no, and will not say otherwise soon",
    "rate_limited": "Threads asked for a pause",
    "unreachable": "Threads, or the way to it, is down",
}
NEEDS_OWNER: frozenset[str] = frozenset({"sign_in_again", "restricted"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a read failed, for how many times in a row; `retry_after` in seconds if the source said."""

    kind: TroubleKind
    failures: int
    retry_after: float | None = None


def trouble_kind(error: SourceError | NetworkError) -> TroubleKind:
    """What an error of a read means for the next one."""
    if isinstance(error, SignInAgain):
        return "sign_in_again"
    if isinstance(error, SourceError) and error.subcode == _RESTRICTED:
        return "restricted"
    if isinstance(error, RateLimited):
        return "rate_limited"
    if isinstance(error, SourceUnavailable | NetworkError):
        return "unreachable"
    return "refused"


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
    # The fastest is spread upwards, all else downwards: a read takes a while itself, and the bounds are promises.
    jitter = 0.1 * spread if factor == 1.0 else -0.05 - 0.1 * spread
    return now + unit * factor * (1 + jitter)


def _patience(unit: timedelta, trouble: Trouble) -> timedelta:
    doubled = 1 << min(max(trouble.failures - 1, 0), 8)
    if trouble.kind == "unreachable":
        grown = min(unit * (2 * doubled), max(timedelta(minutes=30), unit * 2))
    else:
        grown = min(unit * (SLOWEST * doubled), max(timedelta(hours=6), unit * SLOWEST))
    return max(grown, min(timedelta(seconds=trouble.retry_after or 0), LONGEST_WAIT))
