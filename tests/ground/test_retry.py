"""What an answer to a delivery means: the whole table, and when it is tried again."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadbridge.delivery import retry
from threadbridge.delivery.retry import Answer, Outcome, asked_delay, describe, judge, other_scheme_worth_trying

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def judged(
    status: int | None,
    *,
    attempts: int = 0,
    age: timedelta = timedelta(0),
    kind: str = "Create",
    spread: float = 0.0,
    host_failures: int = 0,
    previous: int | None = None,
    retry_after: str | None = None,
    body: bytes = b"",
    trouble: str | None = None,
    ours: bool = False,
) -> Outcome:
    return judge(
        Answer(status, trouble, ours, retry_after, body),
        kind=kind,
        attempts=attempts,
        created_at=NOW - age,
        now=NOW,
        spread=spread,
        host_failures=host_failures,
        previous=previous,
    )


# ── the table as it is drawn ────────────────────────────────────────────────────────────────────────────────────


def drawn() -> list[tuple[str, str, str]]:
    """(answer, kind, what follows), as the docstring of the module has it."""
    lines = [re.split(r" {2,}", line.strip()) for line in (retry.__doc__ or "").splitlines()]
    rows = [(line[0], line[1], line[2]) for line in lines if len(line) == 3]
    assert rows[0] == ("answer", "kind", "what follows")
    return rows[1:]


def examples(answers: str) -> list[Answer]:
    """Answers that a line of the table is about."""
    special = {
        "our address guard": [Answer(None, "10.0.0.1 is private", ours=True)],
        "nothing can be signed": [Answer(None, "its key is destroyed", unsayable=True)],
        "other": [Answer(status) for status in (0, 100, 402, 409, 418, 422, 499)],
    }
    if answers in special:
        return special[answers]
    if answers in retry.CAUSES:
        return [Answer(None, cause=answers)]  # type: ignore[arg-type]
    if answers.endswith("xx"):
        return [Answer(100 * int(answers[0]) + last) for last in (0, 1, 2, 3, 4, 7, 26, 99)]
    return [Answer(int(status)) for status in answers.split()]


def what_follows(answer: Answer) -> str:
    """What really happens to a delivery that is answered this again and again, in the words of the table."""
    kind, given = retry.meaning(answer).kind, {"kind": "Create", "spread": 0.0, "now": NOW}
    tries, created_at, at = 0, NOW, NOW
    outcome = judge(answer, **given, attempts=0, created_at=NOW, previous=answer.status)  # type: ignore[arg-type]
    blamed = judge(answer, **given, attempts=0, created_at=NOW, host_failures=99).held_until is not None  # type: ignore[arg-type]
    while outcome.state == "waiting":
        assert outcome.due_at is not None
        tries, at = tries + 1, outcome.due_at
        again = {**given, "now": at}
        outcome = judge(answer, **again, attempts=tries, created_at=created_at, previous=answer.status)  # type: ignore[arg-type]
    if outcome.state == "given_up" and tries:
        assert retry.PATIENCE <= at - created_at <= retry.PATIENCE + retry.SCHEDULE[-1]
        words = "again on the schedule until patience ends" + ("; the host is in trouble" if blamed else "")
    else:
        assert not blamed
        assert at - created_at < DAY
        words = f"{tries} times more within a day, then {outcome.state}" if tries else outcome.state
    return words + ("; the owner is told" if retry.COURSES[kind].owner_is_told else "")


@pytest.mark.parametrize(("answers", "kind", "follows"), drawn())
def test_what_the_table_says_is_what_happens(answers: str, kind: str, follows: str) -> None:
    for answer in examples(answers):
        assert (retry.meaning(answer).kind, what_follows(answer)) == (kind, follows), answer
        if kind != "arrived":
            assert describe(answer)
            assert retry.COURSES[retry.meaning(answer).kind].advice.endswith(".")


def test_every_kind_and_every_cause_is_drawn() -> None:
    assert {kind for _, kind, _ in drawn()} == set(retry.COURSES)
    assert set(retry.CAUSES) <= {answers for answers, _, _ in drawn()}
    listed = {int(status) for answers, _, _ in drawn() for status in re.findall(r"\b[0-9]{3}\b", answers)}
    assert listed == set(retry.STATUSES)


def test_the_owner_reads_what_can_be_done() -> None:
    assert "not welcome" in retry.advice(403, "refused")
    assert "has left" in retry.advice(410, "gone")
    assert "can be reached" in retry.advice(None, "given_up")
    assert [retry.advice(202, state) for state in ("delivered", "waiting", "superseded")] == ["", "", ""]


@pytest.mark.parametrize(
    ("status", "asked"), [(429, None), (429, "60"), (503, "60"), (500, "Wed, 04 Mar 2026 00:00:00 GMT")]
)
def test_to_be_asked_for_time_is_no_failure(status: int, asked: str | None) -> None:
    outcome = judged(status, retry_after=asked, host_failures=99)
    assert outcome.asked_for_time
    assert outcome.held_until is None
    assert outcome.due_at is not None
    assert outcome.due_at <= NOW + DAY
    assert not judged(503).asked_for_time


# ── every class of status ────────────────────────────────────────────────────────────────────────────────────────

DELIVERED = [200, 201, 202, 204, 208, 226, 299]
LATER = [None, 408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 521, 522, 523, 524, 525, 526, 530, 599, 999]
REFUSED = [301, 302, 303, 307, 308, 304, 400, 401, 402, 403, 404, 405, 406, 409, 411, 415, 421, 422, 423, 426,
           428, 431, 451, 499, 100, 101, 0]  # fmt: skip


@pytest.mark.parametrize("status", DELIVERED)
def test_2xx_is_delivered(status: int) -> None:
    assert judged(status, attempts=9, host_failures=9, retry_after="60") == Outcome("delivered")


@pytest.mark.parametrize("status", LATER)
def test_trouble_is_tried_again_on_the_schedule_and_blames_the_host(status: int | None) -> None:
    outcome = judged(status)
    assert (outcome.state, outcome.due_at) == ("waiting", NOW + timedelta(seconds=15))
    assert outcome.host_trouble == outcome.reason != ""
    assert outcome.held_until is outcome.asked_until is None


@pytest.mark.parametrize("status", REFUSED)
def test_a_refusal_is_tried_twice_more_and_then_ends_without_blaming_the_host(status: int) -> None:
    first, second, third = (judged(status, attempts=number, previous=status or 404) for number in range(3))
    assert (first.state, first.due_at) == ("waiting", NOW + timedelta(minutes=5))
    assert (second.state, second.due_at) == ("waiting", NOW + timedelta(hours=12))
    assert (third.state, third.due_at) == ("refused", None)
    assert all(each.host_trouble is None and each.held_until is None for each in (first, second, third))
    assert third.reason is not None
    assert third.reason.startswith(str(status))


@pytest.mark.parametrize("attempts", [0, 1, 5, 50])
def test_410_is_gone_at_once(attempts: int) -> None:
    outcome = judged(410, attempts=attempts, previous=503)
    assert outcome == Outcome("gone", "410: the inbox is gone", kind="inbox gone")


def test_what_is_too_large_is_not_tried_again() -> None:
    assert judged(413) == Outcome(
        "refused", "413: the activity is too large for them", kind="activity refused"
    )  # fmt: skip


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 503])
def test_a_refusal_after_trouble_is_the_first_refusal(status: int | None) -> None:
    outcome = judged(404, attempts=12, previous=status)
    assert (outcome.state, outcome.due_at) == ("waiting", NOW + timedelta(minutes=5))
    assert judged(404, attempts=13, previous=404).state == "refused"


def test_what_our_own_guard_refuses_is_no_trouble_of_the_host() -> None:
    words = "10.0.0.1 is a private address"
    outcome = judged(None, trouble=words, ours=True)
    assert (outcome.state, outcome.reason, outcome.host_trouble) == ("waiting", words, None)
    assert judged(None, trouble=words, ours=True, attempts=2) == Outcome("refused", words, kind="our guard")


@pytest.mark.parametrize("status", [*DELIVERED, *LATER, *REFUSED, 410])
def test_only_400_and_401_are_worth_the_other_signature(status: int | None) -> None:
    assert other_scheme_worth_trying(Answer(status)) == (status in (400, 401))


# ── the schedule ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(0, 15), (1, 60), (2, 240), (3, 900), (4, 1800), (5, 3600), (6, 7200), (7, 14400), (8, 28800), (9, 43200),
     (10, 43200), (1000, 43200)],
)  # fmt: skip
def test_the_schedule(attempts: int, seconds: int) -> None:
    assert judged(503, attempts=attempts).due_at == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("kind", "age", "state"),
    [
        ("Create", timedelta(0), "waiting"),
        ("Create", 7 * DAY - timedelta(seconds=1), "waiting"),
        ("Create", 7 * DAY, "given_up"),
        ("Update", 8 * DAY, "given_up"),
        ("Accept", 8 * DAY, "given_up"),
        ("Delete", 8 * DAY, "waiting"),
        ("Delete", 30 * DAY - timedelta(seconds=1), "waiting"),
        ("Delete", 30 * DAY, "given_up"),
        ("Undo", 29 * DAY, "waiting"),
        ("Profile", 29 * DAY, "waiting"),
        ("Profile", 30 * DAY, "given_up"),
        ("Refresh", 8 * DAY, "given_up"),
        ("Create", timedelta(days=-1), "waiting"),  # the clock was set back
    ],
)
def test_patience_is_seven_days_and_thirty_for_deletes(kind: str, age: timedelta, state: str) -> None:
    outcome = judged(None, kind=kind, age=age, attempts=20, trouble="could not be reached")
    assert outcome.state == state
    assert outcome.host_trouble == "could not be reached"
    if state == "given_up":
        assert outcome.due_at is None
        assert outcome.reason == f"could not be reached; given up after {30 if kind in retry.LONG else 7} days"


@given(st.floats(allow_nan=False), st.integers(0, 100), st.sampled_from([None, 429, 500, 503, 404, 403]))
def test_jitter_is_at_most_a_fifth_either_way(spread: float, attempts: int, status: int | None) -> None:
    plain, spread_out = (
        judged(status, attempts=attempts).due_at,
        judged(status, attempts=attempts, spread=spread).due_at,
    )
    if plain is None:
        assert spread_out is None
        return
    assert spread_out is not None
    assert 0.8 <= (spread_out - NOW) / (plain - NOW) <= 1.2


def test_jitter_spreads_both_ways() -> None:
    assert judged(503, spread=-1).due_at == NOW + timedelta(seconds=12)
    assert judged(503, spread=1).due_at == NOW + timedelta(seconds=18)


# ── the breaker ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("failures_before", "minutes"),
    [(0, None), (3, None), (4, 1), (5, 2), (6, 4), (7, 8), (8, 16), (9, 30), (10, 30), (100_000, 30)],
)
def test_the_breaker_opens_at_the_fifth_failure_and_grows_to_half_an_hour(
    failures_before: int, minutes: int | None
) -> None:
    held_until = judged(None, host_failures=failures_before).held_until
    assert held_until == (None if minutes is None else NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize("status", [200, 404, 410, 401])
def test_a_host_that_answers_for_itself_opens_no_breaker(status: int) -> None:
    assert judged(status, host_failures=50).held_until is None


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────────────────────


def in_http(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


ASKED: list[tuple[str | None, timedelta | None]] = [
    (None, None),
    ("", None),
    ("   ", None),
    ("0", timedelta(0)),
    ("1", timedelta(seconds=1)),
    (" 120 ", timedelta(seconds=120)),
    ("0000000000000120", timedelta(seconds=120)),
    ("86400", DAY),
    ("86401", DAY),
    ("99999999999999999999999", DAY),
    ("9" * 5000, None),  # more digits than Python reads
    ("-1", None),
    ("+5", None),
    ("1.5", None),
    ("1e3", None),
    ("٣", None),
    ("soon", None),
    ("120, 240", None),
    (in_http(NOW + timedelta(minutes=10)), timedelta(minutes=10)),
    ("Sun, 01 Mar 2026 12:10:00 -0000", timedelta(minutes=10)),
    ("Sunday, 01-Mar-26 12:10:00 GMT", timedelta(minutes=10)),
    (in_http(NOW - timedelta(minutes=10)), timedelta(0)),
    (in_http(NOW + 400 * DAY), DAY),
    ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
    ("Mon, 01 Jan 0001 00:00:00 +2359", timedelta(0)),
    ("Fri, 32 Dec 2026 23:59:59 GMT", None),
    ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ("2026-03-01T12:10:00Z", None),
    ("\x00", None),
]


@pytest.mark.parametrize(("header", "delay"), ASKED)
def test_retry_after_is_read_as_seconds_or_a_date(header: str | None, delay: timedelta | None) -> None:
    assert asked_delay(header, NOW) == delay


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d ?([+-]\d{1,5}|GMT)?"))
def test_no_retry_after_header_does_harm(header: str) -> None:
    delay = asked_delay(header, NOW)
    assert delay is None or timedelta(0) <= delay <= DAY


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize("spread", [-1.0, 0.0, 1.0])
def test_nothing_is_sent_before_the_time_they_name(status: int, spread: float) -> None:
    outcome = judged(status, retry_after="3600", spread=spread, host_failures=20)
    assert outcome.due_at == outcome.asked_until == NOW + timedelta(hours=1)
    assert outcome.held_until is None  # they know best; our breaker adds nothing
    # A short wish does not make the schedule shorter.
    assert judged(status, retry_after="1", attempts=4).due_at == NOW + timedelta(minutes=30)


def test_a_time_that_has_passed_does_not_keep_the_breaker_from_opening() -> None:
    for header in ("0", in_http(NOW - DAY)):
        outcome = judged(503, retry_after=header, host_failures=4)
        assert (outcome.asked_until, outcome.held_until) == (None, NOW + retry.BREAKER_FIRST)


def test_giving_up_still_tells_how_long_the_host_wants_to_be_left_alone() -> None:
    outcome = judged(503, age=8 * DAY, retry_after="60")
    assert (outcome.state, outcome.asked_until) == ("given_up", NOW + timedelta(minutes=1))


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"Verification failed for bob", "401: the signature was not accepted (Verification failed for bob)"),
        (403, b"", "403: this server, or this account, is not welcome there"),
        (404, b"<!DOCTYPE html><title>Nope", "404: there is no such inbox"),
        (413, b"\xff\xfe\x00", "413: the activity is too large for them"),
        (429, b"Slow\r\n\tdown", "429: they ask us to slow down (Slow down)"),
        (503, b"x" * 5000, f"503: their server has trouble ({'x' * 200})"),
        (418, b"", "418: they refused it"),
        (302, b"", "302: the inbox has moved, and a delivery is not taken along"),
        (451, b"", "451: not welcome there, for legal reasons"),
        (500, "\u202eevil".encode(), "500: their server has trouble"),
        (500, b"\x1b[31mred", "500: their server has trouble"),
    ],
)  # fmt: skip
def test_reasons_are_words(status: int, body: bytes, words: str) -> None:
    assert describe(Answer(status, body=body)) == words


def test_the_networks_trouble_is_said_as_it_came() -> None:
    assert describe(Answer(None, "dead.example did not answer in time")) == "dead.example did not answer in time"
    assert describe(Answer(None)) == "could not be reached"


@given(st.integers(0, 999) | st.none(), st.binary(max_size=400), st.text(max_size=50) | st.none())
def test_every_answer_has_an_outcome(status: int | None, body: bytes, retry_after: str | None) -> None:
    outcome = judged(status, body=body, retry_after=retry_after, host_failures=7, attempts=3)
    assert (outcome.due_at is not None) == (outcome.state == "waiting")
    assert (outcome.reason is None) == (outcome.state == "delivered")
    assert outcome.due_at is None or outcome.due_at > NOW
