"""Accounts: an owner's identity on the bridge, its states, and the rules for handles.

Rule: an account's id never changes and is never derived from its handle.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from threadbridge.errors import Invalid

# Mastodon: /[a-z0-9_]+([.-]+[a-z0-9_]+)*/i; Misskey: ^\w([\w-.]*\w)?$, 128 characters at most. Inside both.
_HANDLE = re.compile(r"[a-z0-9_]+(?:[.-]+[a-z0-9_]+)*")
HANDLE_MAX = 30

# Routes of our own under "/": a handle is always shown as "/@handle", so none of them can collide; these names are
# kept from owners because people read them as the server speaking.
RESERVED_HANDLES = frozenset({"admin", "administrator", "root", "support", "threadbridge", "moderator", "abuse"})


class AccountState(StrEnum):
    """active: bridged. paused: fetchable, nothing new is bridged. gone: deleted, 410 for ever."""

    ACTIVE = "active"
    PAUSED = "paused"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Account:
    """One bridged account as the rest of the house sees it. Times are UTC."""

    id: int
    handle: str
    name: str
    bio: str
    source_url: str | None
    avatar: str | None
    """sha256 (hex) of the avatar in the media store, or None."""
    avatar_type: str | None
    state: AccountState
    discoverable: bool
    created_at: datetime
    joined_at: datetime | None
    """When the account began at its source, if known."""
    followers_count: int
    posts_count: int
    revision: int
    """Grows with every change that any public document of the account shows."""
    changed_at: datetime


def check_handle(handle: str) -> str:
    """The handle, if every server of the Fediverse accepts it; raises Invalid with the rule otherwise."""
    if not _HANDLE.fullmatch(handle) or len(handle) > HANDLE_MAX:
        raise Invalid(
            f"The handle {handle!r} cannot be used in the Fediverse",
            detail="it must be lower-case letters, digits and _, with . or - only between them, "
            f"{HANDLE_MAX} characters at most",
            hint=f"Choose another with --handle, for example {suggest_handle(handle)!r}.",
        )
    if handle in RESERVED_HANDLES:
        raise Invalid(f"The handle {handle!r} is reserved on this server", hint="Choose another with --handle.")
    return handle


def suggest_handle(name: str) -> str:
    """The nearest usable handle to a source's user name (lower case; dots only where allowed)."""
    lowered = name.strip().lstrip("@").lower()
    kept = re.sub(r"[^a-z0-9_.-]+", "_", lowered)
    trimmed = kept.strip(".-")[:HANDLE_MAX].strip(".-")
    if not _HANDLE.fullmatch(trimmed) or trimmed in RESERVED_HANDLES:
        trimmed = (re.sub(r"[^a-z0-9_]+", "_", trimmed).strip("_") or "account")[:HANDLE_MAX]
    if trimmed in RESERVED_HANDLES:
        trimmed = f"{trimmed}_"[:HANDLE_MAX]
    return trimmed


def handle_from_source(username: str) -> str:
    """A source's user name as a Fediverse handle: lower case, mapped only where the patterns demand it."""
    lowered = username.strip().lstrip("@").lower()
    try:
        return check_handle(lowered)
    except Invalid:
        return check_handle(suggest_handle(lowered))
