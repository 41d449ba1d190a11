"""What an answer to a delivery means, as one pure table, and when to try again.

Rule: the table is data, and this is all of it; no clock and no randomness: the time and a spread in [-1, 1] come as
arguments. Every end has a reason in words, and something that the owner can do about it (`advice`).

    answer                    kind              what follows
    2xx                       arrived           delivered
    408 425                   later             again on the schedule until patience ends; the host is in trouble
    429                       slow down         again on the schedule until patience ends
    5xx                       host trouble      again on the schedule until patience ends; the host is in trouble
    no connection             host trouble      again on the schedule until patience ends; the host is in trouble
    no answer in time         host trouble      again on the schedule until patience ends; the host is in trouble
    not proper HTTP           host trouble      again on the schedule until patience ends; the host is in trouble
    name unknown              host trouble      again on the schedule until patience ends; the host is in trouble
    TLS refused               host trouble      again on the schedule until patience ends; the host is in trouble
    400 401                   other scheme      2 times more within a day, then refused
    403 451                   policy refused    2 times more within a day, then refused; the owner is told
    404 405                   no inbox          2 times more within a day, then refused
    410                       inbox gone        gone
    413                       activity refused  refused
    3xx                       moved             2 times more within a day, then refused
    other                     activity refused  2 times more within a day, then refused
    our address guard         our guard         2 times more within a day, then refused
    nothing can be signed     unsayable         given_up

400 and 401 are tried with the other signature schemes at once (`signatures.knocking`), before this is asked. Patience
is seven days, thirty for what must not be missed (deletions, changed profiles). A Retry-After is honoured up to 24
hours, whatever the kind that is tried again on the schedule, and to be asked for time is no failure of the host.
(Mastodon and Misskey end at any 4xx; GoToSocial at a broken certificate or unknown name too, which for small servers
are faults of a day.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from threadbridge.domain import hosts

State = Literal["waiting", "delivered", "refused", "gone", "given_up"]
Cause = Literal["no connection", "no answer in time", "not proper HTTP", "name unknown", "TLS refused"]
"""Why there was no answer."""
Kind = Literal[
    "arrived", "later", "slow down", "host trouble", "other scheme", "policy refused", "no inbox", "inbox gone",
    "activity refused", "moved", "our guard", "unsayable",
]  # fmt: skip

SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (15, 60, 240, 900, 1800, 3600, 7200, 14400, 28800, 43200))
"""Delays after the first, second, … failed attempt; the last one repeats."""
REFUSED_SCHEDULE = (timedelta(minutes=5), timedelta(hours=12))
"""A server that is starting, or being moved, says no as well."""
PATIENCE, PATIENCE_LONG = hosts.HELD_FOR, hosts.HELD_LONGER
LONG = hosts.LASTING | {"Profile"}
"""What must not be missed: deletions, and changed profiles (with them keys and moves)."""
SPREAD = 0.2
RETRY_AFTER_MAX = timedelta(hours=24)
BREAKER_AFTER = 5
"""Failures in a row after which a host is left alone for a while."""
BREAKER_FIRST, BREAKER_MAX = timedelta(minutes=1), timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Course:
    """What follows from a kind of answer: the `end` when no try is left; whether it is tried `again` (on `SCHEDULE`
    until patience ends, or as often as `REFUSED_SCHEDULE` says); whether the whole host is to blame; whether the
    owner is told at once; what the owner can do when it has ended."""

    end: State
    again: Literal["patiently", "a few times", "never"] = "never"
    blames_host: bool = False
    owner_is_told: bool = False
    advice: str = ""


_ASK_THEM = "Ask the people who run that server."
COURSES: Mapping[Kind, Course] = {
    "arrived": Course("delivered"),
    "later": Course("given_up", "patiently", True, advice="Try again when the server is well."),
    "slow down": Course("given_up", "patiently", advice="Try again later: the server was too busy all the time."),
    "host trouble": Course("given_up", "patiently", True, advice="Try again when the server can be reached."),
    "other scheme": Course("refused", "a few times", advice=f"It does not take our signature. {_ASK_THEM}"),
    "policy refused": Course(
        "refused", "a few times", owner_is_told=True,
        advice=f"You, or this bridge, are not welcome there. {_ASK_THEM} Followers there get nothing meanwhile.",
    ),
    "no inbox": Course("refused", "a few times", advice="Whoever followed from there may have left."),
    "inbox gone": Course("gone", advice="Nothing: whoever followed from there has left."),
    "activity refused": Course("refused", "a few times", advice=f"Other posts may arrive. {_ASK_THEM}"),
    "moved": Course("refused", "a few times", advice="The server has moved; who follows from there follows anew."),
    "our guard": Course("refused", "a few times", advice="The address is not one of a public server."),
    "unsayable": Course("given_up", advice="Nothing: the account was deleted."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one answer means: its kind, and the words for it. `at_once`: trying again cannot help."""

    kind: Kind
    phrase: str
    at_once: bool = False


STATUSES: Mapping[int, Meaning] = {
    400: Meaning("other scheme", "they refused it"),
    401: Meaning("other scheme", "the signature was not accepted"),
    403: Meaning("policy refused", "this server, or this account, is not welcome there"),
    404: Meaning("no inbox", "there is no such inbox"),
    405: Meaning("no inbox", "that address takes no deliveries"),
    408: Meaning("later", "it took them too long"),
    410: Meaning("inbox gone", "the inbox is gone"),
    413: Meaning("activity refused", "the activity is too large for them", at_once=True),
    425: Meaning("later", "they want it later"),
    429: Meaning("slow down", "they ask us to slow down"),
    451: Meaning("policy refused", "not welcome there, for legal reasons"),
}
_CLASSES: Mapping[int, Meaning] = {
    2: Meaning("arrived", "delivered"),
    3: Meaning("moved", "the inbox has moved, and a delivery is not taken along"),
}
_FAILING = Meaning("host trouble", "their server has trouble")
_REFUSED = Meaning("activity refused", "they refused it")
CAUSES: Mapping[Cause, Meaning] = {
    "no connection": Meaning("host trouble", "could not be reached"),
    "no answer in time": Meaning("host trouble", "did not answer in time"),
    "not proper HTTP": Meaning("host trouble", "did not speak proper HTTP"),
    "name unknown": Meaning("host trouble", "its name does not resolve"),
    "TLS refused": Meaning("host trouble", "could not be reached securely"),
}
_GUARDED = Meaning("our guard", "our address guard said no")
_UNSAYABLE = Meaning("unsayable", "nothing can be signed", at_once=True)


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
    quota: tuple[int, timedelta] | None = None
    """How many requests it says that it still takes, and for how long (see `pace`)."""
    cause: Cause = "no connection"
    """Why there is no status."""
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
    kind: Kind = "arrived"

    @property
    def asked_for_time(self) -> bool:
        """Whether the host is well and only wants to be asked later."""
        return self.asked_until is not None or self.kind == "slow down"


def meaning(answer: Answer) -> Meaning:
    """The line of the table that an answer is in."""
    if answer.unsayable:
        return _UNSAYABLE
    if answer.ours:
        return _GUARDED
    if answer.status is None:
        return CAUSES[answer.cause]
    found = STATUSES.get(answer.status) or _CLASSES.get(answer.status // 100)
    return found or (_FAILING if answer.status >= 500 else _REFUSED)


def kind_of(status: int | None, *, ours: bool = False) -> Kind:
    """The kind of a status that was written down; None is no answer."""
    return meaning(Answer(status, ours=ours)).kind


def advice(status: int | None, state: str) -> str:
    """What the owner can do about a delivery that ended in `state`, with the status that came last."""
    if state in ("delivered", "waiting", "superseded"):
        return ""
    return COURSES[kind_of(status)].advice


def other_scheme_worth_trying(answer: Answer) -> bool:
    """Whether the same request, signed by the other scheme, might be accepted ("double knocking")."""
    return answer.status is not None and meaning(answer).kind == "other scheme"


def is_trouble(status: int | None) -> bool:
    """Whether an answer says nothing of the delivery, only of the host; None is no answer."""
    return COURSES[kind_of(status)].again == "patiently"


def tries_on_schedule(answer: Answer, attempts: int, waited: timedelta) -> int:
    """How many of its tries count for where a delivery is on its schedule, having waited for so long since it was
    written down, or since somebody wanted it tried again: then the schedule begins anew, and the tries are still
    counted."""
    schedule = SCHEDULE if COURSES[meaning(answer).kind].again == "patiently" else REFUSED_SCHEDULE
    gone = timedelta(0)
    for tries, delay in enumerate(schedule):
        gone += delay
        if waited < gone * (1 - SPREAD):
            return min(attempts, tries)
    return attempts


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
    """What becomes of a delivery after this answer. `kind` is the ledger's, or "Profile" for an Update of an account
    itself; `attempts` counts the earlier ones, `previous` is the status that the last of them got, `host_failures`
    counts the host's failures in a row; `spread` is in [-1, 1]."""
    met = meaning(answer)
    course = COURSES[met.kind]
    if course.end == "delivered":
        return Outcome("delivered", kind=met.kind)
    words = describe(answer)
    if course.again == "patiently":
        return _later(
            answer, met.kind, words, patience=PATIENCE_LONG if kind in LONG else PATIENCE, attempts=attempts,
            created_at=created_at, now=now, spread=spread, host_failures=host_failures,
        )  # fmt: skip
    # A server that was down for days, and answers 404 until it is up again, has refused for the first time only now.
    refusals = attempts if answer.ours or not is_trouble(previous) else 0
    if course.again == "a few times" and refusals < len(REFUSED_SCHEDULE) and not met.at_once:
        return Outcome("waiting", words, due_at=now + _jittered(REFUSED_SCHEDULE[refusals], spread), kind=met.kind)
    return Outcome(course.end, words, kind=met.kind)


def _later(
    answer: Answer,
    kind: Kind,
    words: str,
    *,
    patience: timedelta,
    attempts: int,
    created_at: datetime,
    now: datetime,
    spread: float,
    host_failures: int,
) -> Outcome:
    asked = asked_delay(answer.retry_after, now)
    held_until = asked_until = None
    if asked:
        asked_until = now + asked
    elif COURSES[kind].blames_host and host_failures + 1 >= BREAKER_AFTER:
        steps = min(host_failures + 1 - BREAKER_AFTER, 10)
        held_until = now + _jittered(min(BREAKER_FIRST * 2**steps, BREAKER_MAX), spread)
    if now - created_at >= patience:
        return Outcome(
            "given_up", f"{words}; given up after {patience.days} days", host_trouble=words, held_until=held_until,
            asked_until=asked_until, kind=kind,
        )  # fmt: skip
    delay = _jittered(SCHEDULE[min(attempts, len(SCHEDULE) - 1)], spread)
    return Outcome(
        "waiting", words, due_at=now + max(asked or delay, delay), host_trouble=words, held_until=held_until,
        asked_until=asked_until, kind=kind,
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
    phrase = meaning(answer).phrase
    if answer.status is None:
        return answer.trouble or phrase
    said = readable(answer)
    return f"{answer.status}: {phrase}" + (f" ({said})" if said else "")


def readable(answer: Answer) -> str:
    """The beginning of what the server said, on one line; empty when it is no plain text."""
    said = " ".join(answer.body[:200].decode("utf-8", "replace").split())
    return said if said and not said.startswith("<") and said.isprintable() else ""
