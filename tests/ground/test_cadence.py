"""When an account is read next: a table, and bounds that hold whatever is put in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadbridge.bridge.cadence import (
    LONGEST_WAIT,
    NEEDS_OWNER,
    TROUBLES,
    Trouble,
    TroubleKind,
    next_read,
    trouble_kind,
)
from threadbridge.errors import (
    BadAnswer,
    NetworkError,
    NoSuchObject,
    RateLimited,
    SignInAgain,
    SourceError,
    SourceUnavailable,
)

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def seconds(**given: object) -> float:
    return (next_read(NOW, 30, **given) - NOW).total_seconds()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (timedelta(0), 30),
        (-MINUTE, 30),
        (19 * MINUTE, 30),
        (21 * MINUTE, 57),
        (119 * MINUTE, 57),
        (121 * MINUTE, 142.5),
        (timedelta(hours=23), 142.5),
        (timedelta(days=2), 285),
    ],
)
def test_fast_after_a_post_and_slow_when_quiet(ago: timedelta, expected: float) -> None:
    assert seconds(newest=NOW - ago) == expected


def test_an_account_without_posts_is_quiet() -> None:
    assert seconds(newest=None) == 285


@given(
    poll=st.floats(0.01, 3600),
    ago=st.none() | st.timedeltas(timedelta(0), timedelta(days=4000)),
    spread=st.floats(0, 1),
    usage=st.floats(0, 94.9),
)
def test_never_faster_than_the_setting_nor_slower_than_ten_times(
    poll: float, ago: timedelta | None, spread: float, usage: float
) -> None:
    newest = NOW - ago if ago is not None else None
    wait = (next_read(NOW, poll, newest=newest, usage=usage, spread=spread) - NOW).total_seconds()
    assert poll - 1e-5 <= wait <= 10 * poll + 1e-5


def test_a_spent_allowance_slows_down() -> None:
    fresh = NOW - MINUTE
    assert seconds(newest=fresh, usage=69) == 30
    assert seconds(newest=fresh, usage=70) == 285
    assert seconds(newest=fresh, usage=95) == 3600
    assert seconds(newest=fresh, usage=400) == 3600


def patience(kind: TroubleKind, failures: int, retry_after: float | None = None) -> float:
    return seconds(newest=NOW, trouble=Trouble(kind, failures, retry_after))


def test_patience_grows_and_ends() -> None:
    assert [patience("rate_limited", n) for n in (1, 2, 3, 8, 9, 50)] == [300, 600, 1200, 21600, 21600, 21600]
    assert [patience("refused", n) for n in (1, 2)] == [300, 600]
    assert [patience("unreachable", n) for n in (1, 2, 3, 5, 6, 50)] == [60, 120, 240, 960, 1800, 1800]


def test_the_pause_that_the_source_asks_for_is_the_least() -> None:
    assert patience("rate_limited", 1, 900) == 900
    assert patience("rate_limited", 3, 900) == 1200
    assert patience("unreachable", 1, 900) == 900
    assert patience("rate_limited", 1, 1e9) == LONGEST_WAIT.total_seconds()


@given(failures=st.integers(1, 1000), spread=st.floats(0, 1), poll=st.floats(0.01, 3600))
def test_after_trouble_never_sooner_than_without(failures: int, spread: float, poll: float) -> None:
    for kind in TROUBLES:
        due = next_read(NOW, poll, newest=NOW, trouble=Trouble(kind, failures), spread=spread)
        assert due >= NOW + timedelta(seconds=poll)
        assert due >= next_read(NOW, poll, newest=NOW, trouble=Trouble(kind, failures), spread=0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SignInAgain("x", code=190), "sign_in_again"),
        (SourceError("x", code=1, subcode=4279013), "restricted"),
        (RateLimited("x", code=4), "rate_limited"),
        (SourceUnavailable("x", code=2), "unreachable"),
        (NetworkError("x"), "unreachable"),
        (BadAnswer("x"), "unreachable"),
        (NoSuchObject("x", code=100, subcode=33), "refused"),
        (SourceError("x", code=10), "refused"),
    ],
)
def test_what_an_error_means(error: SourceError | NetworkError, kind: str) -> None:
    assert trouble_kind(error) == kind
    assert kind in TROUBLES


def test_only_the_owner_mends_these() -> None:
    assert {"sign_in_again", "restricted"} == NEEDS_OWNER
