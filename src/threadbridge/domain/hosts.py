"""What is remembered of a host, and what follows from it: whether it gets anything now, what is kept for it, when we
look whether it is back.

Rule: how well we reach a host and how well it reaches us are two facts. Its word makes us look at once, now and then;
only what it takes from us ends its trouble (Mastodon took every word of a server as proof that it could be reached,
and so never gave up on those that speak and cannot be spoken to).

    closed    nothing is the matter, or it failed a few times: what is due goes
    open      it failed again and again: nothing goes until a time
    probing   that time is over: one delivery goes, the next when that one has arrived
    asked     it asked for peace (429, Retry-After, a spent quota): nothing goes until a time; that is no failure
    parked    seven days without success: nothing new is written for it but what ends or changes what it holds
              (Delete, Update of an actor: for thirty days); its followers wait. We look daily, after thirty days
              weekly, until it answers, or speaks
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

State = Literal["closed", "open", "probing", "asked", "parked"]
STATES: tuple[State, ...] = ("parked", "open", "probing", "asked", "closed")
"""Worst first."""

HELD_FOR = timedelta(days=7)
"""How long work is held for a host that does not answer, and after which its followers are parked."""
HELD_LONGER = timedelta(days=30)
"""The same for what ends or changes something that it holds. (Mastodon gives a host up after seven days with
failures, for everything alike.)"""
LOOK_DAILY, LOOK_WEEKLY = timedelta(days=1), timedelta(days=7)
ROUSED_EVERY = timedelta(hours=1)
"""How often a word of a host that cannot be reached makes us look whether it can."""
PROBE_FOR = timedelta(seconds=30)
"""How long a probe may be under way before somebody else may try."""
FEW_LEFT = 16
"""With fewer requests left of its quota, a host gets one at a time."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is written down of one host that bears on whether it gets anything; without a row, all is well."""

    failures: int = 0
    failing_since: datetime | None = None
    """When it was first not reached since its last success."""
    held_until: datetime | None = None
    """Set by our breaker when it opens, and taken away when something has arrived."""
    asked_until: datetime | None = None
    parked_at: datetime | None = None
    quota: int | None = None
    quota_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a host, and until when nothing goes there (None: something may)."""

    state: State
    until: datetime | None = None


def standing(memory: Memory, now: datetime) -> Standing:
    """What a memory comes to at a time."""
    held, asked = _ahead(memory.held_until, now), _ahead(memory.asked_until, now)
    if (left := left_of_quota(memory, now)) is not None and left <= 0:
        asked = max(asked or now, memory.quota_until or now)
    until = max((at for at in (held, asked) if at), default=None)
    if memory.parked_at is not None:
        return Standing("parked", until)
    if held is not None:
        return Standing("open", until)
    if asked is not None:
        return Standing("asked", until)
    return Standing("probing" if memory.held_until is not None else "closed")


def in_words(state: State, failures: int, until: str, *, refuses: bool = False) -> str:
    """How a host is, for people; `until` is when it gets something again, in words, or ''."""
    if state == "parked":
        return "parked"
    if state == "open":
        return f"left alone until {until}" if until else "left alone"
    if state == "asked":
        return f"asked to wait until {until}" if until else "asked to wait"
    if state == "probing":
        return "being looked at"
    if failures:
        return f"in trouble ({failures} {'failure' if failures == 1 else 'failures'})"
    return "refuses" if refuses else "well"


def left_of_quota(memory: Memory, now: datetime) -> int | None:
    """How many requests a host still takes; None where it does not count them."""
    return memory.quota if _ahead(memory.quota_until, now) is not None else None


def _ahead(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is not None and moment > now else None


LASTING = frozenset({"Delete", "Undo", "Revoke", "Move"})
"""Kinds of activities that must not be missed; beside them the Update of an account itself."""


def patience(kind: str, *, about_a_post: bool) -> timedelta:
    """How long an activity is held for a host that does not take it."""
    lasting = kind in LASTING or (kind == "Update" and not about_a_post)
    return HELD_LONGER if lasting else HELD_FOR


def is_written_for(memory: Memory, kind: str, *, about_a_post: bool, now: datetime) -> bool:
    """Whether something new is written down for a host. The end of an account always is: nothing of it may stay."""
    if memory.parked_at is None or (kind == "Delete" and not about_a_post):
        return True
    since = memory.failing_since or memory.parked_at
    return patience(kind, about_a_post=about_a_post) == HELD_LONGER and now - since < HELD_LONGER


def is_to_be_parked(memory: Memory, now: datetime) -> bool:
    """Whether a host has been without success for so long that nothing more is written for it."""
    since = memory.failing_since
    return memory.parked_at is None and since is not None and now - since >= HELD_FOR


def next_look(memory: Memory, now: datetime) -> datetime:
    """When to look next whether a parked host is back."""
    since = memory.failing_since or memory.parked_at or now
    return now + (LOOK_DAILY if now - since < HELD_LONGER else LOOK_WEEKLY)


def is_roused(memory: Memory, roused_at: datetime | None, now: datetime) -> bool:
    """Whether a word of a host is a reason to look whether it can be reached: the first since its trouble began, and
    one every hour."""
    if memory.failing_since is None or (memory.parked_at is None and memory.held_until is None):
        return False
    return roused_at is None or roused_at < memory.failing_since or roused_at <= now - ROUSED_EVERY
