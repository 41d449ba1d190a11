"""Accounts: an owner's identity on the bridge, its states, and the rules for handles.

Rule: an account's id never changes and is never derived from its handle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

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
    approves_followers: bool = False
    """Whether the owner lets each follower in by hand."""
    header: str | None = None
    """sha256 (hex) of the picture across the top of the profile, or None."""
    header_type: str | None = None
    header_alt: str = ""
    avatar_alt: str = ""
    indexable: bool = True
    """Whether search engines and full-text searches of other servers may hold the posts; `discoverable` is about
    directories and recommendations."""
    bridge_line: str | None = None
    """The owner's own words for the line that says that this is a bridge; None: ours; '': a field says it."""
    credit_domains: tuple[str, ...] = ()
    """Web sites that may name this account as an author (`fediverse:creator`)."""
    featured_count: int = 5
    """How many of the newest posts stand on top of the profile when none is pinned."""
    domain: str | None = None
    """The own domain that both sides agreed to: the account is found as `@handle@domain`."""


@dataclass(frozen=True, slots=True)
class ProfileField:
    """A line of the profile's table. When `value` is an address, `verified_at` says since when the page there links
    back, and `trouble` why it is not known to."""

    name: str
    value: str
    verified_at: datetime | None = None
    checked_at: datetime | None = None
    trouble: str | None = None

    @property
    def link(self) -> str | None:
        """The value, if it is a web address."""
        return self.value if is_web_address(self.value) else None


@dataclass(frozen=True, slots=True)
class Alias:
    """Another actor that the owner says is the same person; `handle` and `name` as its own server gave them."""

    uri: str
    handle: str
    name: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Profile:
    """What an actor document says beyond the account itself."""

    fields: tuple[ProfileField, ...] = ()
    aliases: tuple[Alias, ...] = ()


FIELDS_MAX = 8
FIELD_LENGTH = 255
"""As Mastodon allows its own people; it cuts others at 2,047."""
ALIASES_MAX = 20
"""GoToSocial reads no more."""
CREDIT_DOMAINS_MAX = 16
LINE_LENGTH = 200
FEATURED_MAX = 20
ALT_LENGTH = 1500


def is_web_address(value: str) -> bool:
    """Whether a text is one http(s) address and nothing else."""
    if not value.startswith(("https://", "http://")) or any(c.isspace() or not c.isprintable() for c in value):
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.username is None and (parts.port or 443) > 0
    except ValueError:
        return False


def check_fields(fields: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names and values as they may stand on a profile, without empty lines; raises Invalid."""
    kept = []
    for name, value in fields:
        pair = " ".join(name.split()), " ".join(value.split())
        if pair == ("", ""):
            continue
        if not all(pair):
            raise Invalid("A field of the profile needs a name and a value", detail=repr(pair[0] or pair[1])[:80])
        if any(len(part) > FIELD_LENGTH or not part.isprintable() for part in pair):
            raise Invalid(
                f"The field {pair[0][:40]!r} cannot be shown",
                detail=f"name and value are text of {FIELD_LENGTH} characters at most",
            )
        kept.append(pair)
    if len(kept) > FIELDS_MAX:
        raise Invalid(f"A profile has {FIELDS_MAX} fields at most", hint="Remove some first.")
    return tuple(kept)


def check_bridge_line(line: str, host: str) -> str:
    """The owner's wording of the line that says what this account is; raises Invalid unless it is honest, that is,
    names the source or this server. An empty line moves the statement to a field."""
    words = " ".join(line.split())
    if len(words) > LINE_LENGTH or not words.isprintable():
        raise Invalid("This line cannot be shown", detail=f"it is text of {LINE_LENGTH} characters at most")
    if words and "threads" not in words.casefold() and host.casefold() not in words.casefold():
        raise Invalid(
            "The line has to say what this account is",
            detail=f"it must name Threads or {host}",
            hint="Or leave it empty: then a field of the profile says it.",
        )
    return words


_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def check_domain(domain: str, *, private_allowed: bool = False) -> str:
    """A host name in ASCII and lower case, as it stands behind the @ of a handle; raises Invalid. Ports and addresses
    only where private networks may be reached."""
    given = domain.strip().lower().removeprefix("https://").rstrip("/").removeprefix("@")
    host, colon, port = given.partition(":")
    labels = host.rstrip(".").split(".")
    good = len(host) <= 253 and len(labels) > 1 and all(_LABEL.fullmatch(label) for label in labels)
    if good and not private_allowed:
        good = not colon and not labels[-1].isdigit() and not _is_address(host)
    if not good or (colon and not (port.isdigit() and 0 < int(port) < 65536)):
        raise Invalid(
            f"{domain[:80]!r} is no domain",
            hint="Give the bare name, for example example.org (in ASCII: xn--… for others).",
        )
    return given.rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


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
