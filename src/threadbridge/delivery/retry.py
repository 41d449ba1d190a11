"""What an answer to a delivery means, as one pure table, and when to try again.

Rule: no clock and no randomness here; the time and a spread in [-1, 1] come as arguments. Every end has a reason in
words, since owners read them.

    2xx                         delivered
    410                         the inbox is gone
    400, 401                    the other signature scheme at once (see `signatures.knocking`); then as 'refused'
    408, 425, 429, 5xx, network again, on the schedule, for 7 days (30 for Deletes); the host is in trouble. Never
                                before the time that they name (Retry-After), be it later than the schedule
    other 4xx, 3xx, our guard   refused: two more tries within a day, since some servers answer 404 while starting
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

State = Literal["waiting", "delivered", "refused", "gone", "given_up"]

SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (15, 60, 240, 900, 1800, 3600, 7200, 14400, 28800, 43200))
"""Delays after the first, second, … failed attempt; the last one repeats."""
REFUSED_SCHEDULE = (timedelta(minutes=5), timedelta(hours=12))
PATIENCE = timedelta(days=7)
PATIENCE_FOR_DELETES = timedelta(days=30)
SPREAD = 0.2
RETRY_AFTER_MAX = timedelta(hours=24)
BREAKER_AFTER = 5
"""Failures in a row after which a host is left alone for a while."""
BREAKER_FIRST, BREAKER_MAX = timedelta(minutes=1), timedelta(minutes=30)

_LATER = frozenset({408, 425, 429})
_PHRASES = {
    401: "the signature was not accepted",
    403: "this server, or this account, is not welcome there",
    404: "there is no such inbox",
    405: "that address takes no deliveries",
    410: "the inbox is gone",
    413: "the activity is too large for them",
    429: "they ask us to slow down",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended: an HTTP status, or the network's trouble in words."""

    status: int | None
    trouble: str | None = None
    ours: bool = False
    """It was our own address guard that said no."""
    retry_after: str | None = None
    body: bytes = b""
    asked_signature: str | None = None
    """Its Accept-Signature."""
    unsayable: bool = False
    """Nothing was sent, and nothing ever can be (its key is destroyed)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The judgement. `due_at` is set when `state` is 'waiting'; `host_trouble` when the whole host is to blame.
    Nothing is to be sent to the host before `held_until` (our breaker) and `asked_until` (their Retry-After)."""

    state: State
    reason: str | None = None
    due_at: datetime | None = None
    host_trouble: str | None = None
    held_until: datetime | None = None
    asked_until: datetime | None = None


def other_scheme_worth_trying(answer: Answer) -> bool:
    """Whether the same request, signed by the other scheme, might be accepted ("double knocking")."""
    return answer.status in (400, 401)


def judge(
    answer: Answer,
    *,
    kind: str,
    attempts: int,
    created_at: datetime,
    now: datetime,
    spread: float,
    host_failures: int = 0,
    previous: int | None = None,
) -> Outcome:
    """What becomes of a delivery after this answer. `attempts` counts the earlier ones, `previous` is the status that
    the last of them got, `host_failures` counts the host's failures in a row; `spread` is in [-1, 1]."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Outcome("delivered")
    words = describe(answer)
    if answer.unsayable:
        return Outcome("given_up", words)
    if answer.status == 410:
        return Outcome("gone", words)
    if is_trouble(answer.status) and not answer.ours:
        return _later(
            answer, words, kind=kind, attempts=attempts, created_at=created_at, now=now, spread=spread,
            host_failures=host_failures,
        )  # fmt: skip
    # A server that was down for days, and answers 404 until it is up again, has refused for the first time only now.
    refusals = attempts if answer.ours or not is_trouble(previous) else 0
    if refusals < len(REFUSED_SCHEDULE):
        return Outcome("waiting", words, due_at=now + _jittered(REFUSED_SCHEDULE[refusals], spread))
    return Outcome("refused", words)


def is_trouble(status: int | None) -> bool:
    """Whether an answer blames the whole host; None is no answer."""
    return status is None or status >= 500 or status in _LATER


def _later(
    answer: Answer,
    words: str,
    *,
    kind: str,
    attempts: int,
    created_at: datetime,
    now: datetime,
    spread: float,
    host_failures: int,
) -> Outcome:
    patience = PATIENCE_FOR_DELETES if kind == "Delete" else PATIENCE
    asked = asked_delay(answer.retry_after, now)
    held_until = asked_until = None
    if asked:
        asked_until = now + asked
    elif host_failures + 1 >= BREAKER_AFTER:
        steps = min(host_failures + 1 - BREAKER_AFTER, 10)
        held_until = now + _jittered(min(BREAKER_FIRST * 2**steps, BREAKER_MAX), spread)
    if now - created_at >= patience:
        return Outcome(
            "given_up", f"{words}; given up after {patience.days} days", host_trouble=words, held_until=held_until,
            asked_until=asked_until,
        )  # fmt: skip
    delay = _jittered(SCHEDULE[min(attempts, len(SCHEDULE) - 1)], spread)
    return Outcome(
        "waiting", words, due_at=now + max(asked or delay, delay), host_trouble=words, held_until=held_until,
        asked_until=asked_until,
    )  # fmt: skip


def _jittered(delay: timedelta, spread: float) -> timedelta:
    return delay * (1 + SPREAD * max(-1.0, min(1.0, spread)))


def asked_delay(header: str | None, now: datetime) -> timedelta | None:
    """A Retry-After header (seconds or a date, RFC 9110) as a delay of at most a day; None if there is none."""
    if not header:
        return None
    value = header.strip()
    if re.fullmatch(r"[0-9]{1,100}", value):
        return timedelta(seconds=min(int(value), int(RETRY_AFTER_MAX.total_seconds())))
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment - now, timedelta(0)), RETRY_AFTER_MAX)
    except (TypeError, ValueError, OverflowError):
        return None


def describe(answer: Answer) -> str:
    """An answer in words for the owner; the beginning of what the server said is kept, since Mastodon's and
    GoToSocial's error texts name the cause."""
    if answer.status is None:
        return answer.trouble or "could not be reached"
    phrase = _PHRASES.get(answer.status) or (
        "their server has trouble" if answer.status >= 500 else "they refused it"
    )
    said = readable(answer)
    return f"{answer.status}: {phrase}" + (f" ({said})" if said else "")


def readable(answer: Answer) -> str:
    """The beginning of what the server said, on one line; empty when it is no plain text."""
    said = " ".join(answer.body[:200].decode("utf-8", "replace").split())
    return said if said and not said.startswith("<") and said.isprintable() else ""
