"""What the memory of a host comes to, as a table; what is written down for one that is away; how a pace is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadbridge.delivery import pace, retry
from threadbridge.domain import hosts
from threadbridge.domain.hosts import Memory, Standing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON, PAST = NOW + timedelta(minutes=5), NOW - timedelta(minutes=5)
LATER = NOW + timedelta(hours=1)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


@pytest.mark.parametrize(
    ("memory", "state", "until"),
    [
        ({}, "closed", None),
        ({"failures": 3, "failing_since": PAST}, "closed", None),
        ({"failures": 5, "failing_since": PAST, "held_until": SOON}, "open", SOON),
        ({"failures": 5, "failing_since": PAST, "held_until": NOW}, "probing", None),
        ({"failures": 5, "failing_since": PAST, "held_until": PAST}, "probing", None),
        ({"asked_until": SOON}, "asked", SOON),
        ({"asked_until": PAST}, "closed", None),
        ({"failures": 5, "failing_since": PAST, "held_until": SOON, "asked_until": LATER}, "open", LATER),
        ({"failures": 5, "failing_since": PAST, "held_until": PAST, "asked_until": SOON}, "asked", SOON),
        ({"quota": 0, "quota_until": SOON}, "asked", SOON),
        ({"quota": 1, "quota_until": SOON}, "closed", None),
        ({"quota": 0, "quota_until": PAST}, "closed", None),
        ({"quota": 0, "quota_until": SOON, "asked_until": LATER}, "asked", LATER),
        ({"parked_at": PAST, "failing_since": ago(days=8), "held_until": LATER}, "parked", LATER),
        ({"parked_at": PAST, "failing_since": ago(days=8), "held_until": PAST}, "parked", None),
    ],
)
def test_the_state_of_a_host(memory: dict[str, Any], state: str, until: datetime | None) -> None:
    assert hosts.standing(Memory(**memory), NOW) == Standing(state, until)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "about_a_post", "days", "parked", "written"),
    [
        ("Create", True, 8, True, False),
        ("Announce", True, 8, True, False),
        ("Update", True, 8, True, False),
        ("Delete", True, 8, True, True),
        ("Delete", True, 29.9, True, True),
        ("Delete", True, 30, True, False),
        ("Update", False, 29.9, True, True),
        ("Update", False, 30, True, False),
        ("Undo", True, 8, True, True),
        ("Accept", False, 8, True, False),
        ("Delete", False, 3000, True, True),
        ("Create", True, 8, False, True),
    ],
)
def test_what_is_still_written_for_a_host_that_is_away(
    kind: str, about_a_post: bool, days: float, parked: bool, written: bool
) -> None:
    memory = Memory(9, ago(days=days), SOON, parked_at=PAST if parked else None)
    assert hosts.is_written_for(memory, kind, about_a_post=about_a_post, now=NOW) is written


def test_what_is_tried_for_longer_is_held_for_longer() -> None:
    assert {"Delete", "Undo", "Revoke", "Move", "Profile"} == retry.LONG
    for kind in ("Create", "Update", "Delete", "Accept", "Undo", "Revoke", "Move"):
        for about_a_post in (True, False):
            called = "Profile" if kind == "Update" and not about_a_post else kind
            tried = retry.PATIENCE_LONG if called in retry.LONG else retry.PATIENCE
            assert hosts.patience(kind, about_a_post=about_a_post) == tried


def test_when_a_host_is_parked_and_looked_at() -> None:
    assert not hosts.is_to_be_parked(Memory(9, ago(days=6.99)), NOW)
    assert hosts.is_to_be_parked(Memory(9, ago(days=7)), NOW)
    assert not hosts.is_to_be_parked(Memory(9, ago(days=9), parked_at=ago(days=2)), NOW)
    assert not hosts.is_to_be_parked(Memory(), NOW)
    assert hosts.next_look(Memory(9, ago(days=9)), NOW) == NOW + timedelta(days=1)
    assert hosts.next_look(Memory(9, ago(days=31)), NOW) == NOW + timedelta(days=7)


@pytest.mark.parametrize(
    ("memory", "roused_at", "roused"),
    [
        (Memory(), None, False),
        (Memory(2, PAST), None, False),  # nothing is held back
        (Memory(5, PAST, SOON), None, True),
        (Memory(5, PAST, SOON), ago(minutes=6), True),  # of another trouble
        (Memory(5, ago(hours=3), SOON), ago(minutes=59), False),
        (Memory(5, ago(hours=3), SOON), ago(minutes=60), True),
        (Memory(5, ago(days=9), SOON, parked_at=ago(days=2)), None, True),
    ],
)
def test_when_a_word_makes_us_look(memory: Memory, roused_at: datetime | None, roused: bool) -> None:
    assert hosts.is_roused(memory, roused_at, NOW) is roused


IN_A_MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "2026-03-01T12:01:00Z"}, (7, IN_A_MINUTE)),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "2026-03-01T12:01:00.000000+00:00"}, (7, IN_A_MINUTE)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 60)}, (0, IN_A_MINUTE)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}, (0, IN_A_MINUTE)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "Sun, 01 Mar 2026 12:01:00 GMT"}, (0, IN_A_MINUTE)),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "60"}, (3, IN_A_MINUTE)),
        ({"ratelimit": "limit=100, remaining=3, reset=60"}, (3, IN_A_MINUTE)),
        ({"ratelimit": '"default";r=3;t=60'}, (3, IN_A_MINUTE)),
        ({"ratelimit": '"burst";r=9;t=60, "daily";r=3;t=60'}, (3, IN_A_MINUTE)),
        # Huge, negative, past or broken.
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "999999999999"}, (0, pace.LONGEST)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9999-12-31T23:59:59Z"}, (0, pace.LONGEST)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "-60"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2026-03-01T11:59:00Z"}, None),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "60"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-remaining": "0x10", "x-ratelimit-reset": "60"}, None),
        ({"x-ratelimit-remaining": "٧", "x-ratelimit-reset": "60"}, None),  # of another script
        ({"ratelimit": "remaining=;reset"}, None),
        ({"ratelimit": '"default";r=3;t=60' + "," * 1000}, None),
    ],
)
def test_what_a_server_still_takes(headers: dict[str, str], found: tuple[int, timedelta] | None) -> None:
    assert pace.read(headers, NOW) == found


@given(st.dictionaries(st.sampled_from(
    ["ratelimit", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-remaining", "x-ratelimit-reset"]),
    st.text(max_size=40)))  # fmt: skip
def test_no_header_does_any_harm(headers: dict[str, str]) -> None:
    found = pace.read(headers, NOW)
    assert found is None or (found[0] >= 0 and timedelta(0) < found[1] <= pace.LONGEST)
