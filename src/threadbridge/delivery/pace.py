"""How many requests a server says that it still takes, read from the headers of its answer.

Rule: the headers are a stranger's word, and several drafts spell them differently. What cannot be read is nothing;
what is read makes us slower towards that server alone, and for an hour at most.

    X-RateLimit-Remaining, X-RateLimit-Reset    a number; a date (Mastodon, GoToSocial), a Unix time or seconds
    RateLimit-Remaining, RateLimit-Reset        draft-ietf-httpapi-ratelimit-headers up to 06: numbers, seconds
    RateLimit: limit=…, remaining=7, reset=30   the same draft, 07
    RateLimit: "name";r=7;t=30                  the same draft since 08; of several policies the tightest counts
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST = timedelta(hours=1)
HEADER_MAX = 500
_UNIX_FROM = 1_000_000_000
"""A greater number is a time, a smaller one is seconds."""
_NUMBER = re.compile(r"[0-9]{1,12}")

Quota = tuple[int, timedelta]
"""How many requests are left, and for how long."""


def read(headers: Mapping[str, str], now: datetime) -> Quota | None:
    """What is left and until when; None where nothing is said, or nothing that can be believed. Names of headers are
    looked up in lower case."""
    found: list[Quota] = []
    for prefix in ("x-ratelimit", "ratelimit"):
        left, reset = headers.get(f"{prefix}-remaining"), headers.get(f"{prefix}-reset")
        found += _quota(left, reset, now)
    found += _structured(headers.get("ratelimit", ""), now)
    return min(found, default=None)


def _structured(value: str, now: datetime) -> list[Quota]:
    if not value or len(value) > HEADER_MAX:
        return []
    if "remaining=" in value:
        # One dictionary: its commas are between its members.
        named = dict(part.strip().split("=", 1) for part in value.split(",") if "=" in part)
        return _quota(named.get("remaining"), named.get("reset"), now)
    found: list[Quota] = []
    for policy in value.split(","):
        named = dict(part.strip().split("=", 1) for part in policy.split(";")[1:] if "=" in part)
        found += _quota(named.get("r"), named.get("t"), now)
    return found


def _quota(left: str | None, reset: str | None, now: datetime) -> list[Quota]:
    """A list of one, or of none."""
    if left is None or reset is None or not _NUMBER.fullmatch(left.strip()):
        return []
    span = _span(reset.strip()[:HEADER_MAX], now)
    return [] if span is None or span <= timedelta(0) else [(int(left), min(span, LONGEST))]


def _span(value: str, now: datetime) -> timedelta | None:
    if _NUMBER.fullmatch(value):
        number = int(value)
        return timedelta(seconds=number - now.timestamp() if number >= _UNIX_FROM else number)
    for reading in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = reading(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
        except (TypeError, ValueError, OverflowError):
            continue
    return None
