"""The port behind which a centralized network lives: what a source hands over, whatever it is.

Rule: nothing here knows JSON keys of any network. Adapters (`sources/`) turn wire shapes into these types; the
bridge compares these types with what is held. Times are timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

THREADS_HOSTS = ("www.threads.com", "www.threads.net", "threads.com", "threads.net")
"""Where the profile pages of Threads are, the present address first."""
MediaKind = Literal["image", "video", "audio"]
PostKind = Literal["post", "reply", "repost"]
Listing = Literal["post", "reply"]
"""A source lists own posts and own replies apart; reposts are among the posts."""


@dataclass(frozen=True, slots=True)
class SourceMedia:
    """One picture or video as the source names it.

    `key` identifies it across reads (never the expiring URL). Exactly one of `url` (fetch it, soon: it expires)
    and `member` (a name inside an opened download) says where the bytes are; both None means known to be missing.
    """

    kind: MediaKind
    key: str
    url: str | None = None
    member: str | None = None
    alt: str = ""


@dataclass(frozen=True, slots=True)
class SourcePoll:
    """A poll; `votes` are counts per option where known, `closes_at` its end."""

    options: tuple[str, ...]
    votes: tuple[int, ...] | None = None
    closes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SourceReference:
    """Another post that this one quotes, reposts or answers. Any field may be unknown."""

    native_id: str | None = None
    url: str | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class SourcePost:
    """One post of the owner as read from the source.

    `native_id` is stable and unique within (account, source). `spoilers` are (start, end) ranges of `text` in code
    points. `country_gated` posts and `expires_at` (ghost) posts are not bridged, see `bridge`.
    """

    native_id: str
    published: datetime
    text: str
    kind: PostKind = "post"
    media: tuple[SourceMedia, ...] = ()
    permalink: str | None = None
    parent: SourceReference | None = None
    quoted: SourceReference | None = None
    reposted: SourceReference | None = None
    topic: str | None = None
    language: str | None = None
    link: str | None = None
    poll: SourcePoll | None = None
    spoiler_media: bool = False
    spoilers: tuple[tuple[int, int], ...] = ()
    long_text: str | None = None
    location: str | None = None
    audience: str = "everyone"
    country_gated: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SourceProfile:
    """The account as the source describes it. `avatar` may be a URL or a download's member."""

    native_id: str
    handle: str
    name: str = ""
    bio: str = ""
    url: str | None = None
    avatar: SourceMedia | None = None
    private: bool = False
    joined: datetime | None = None


@dataclass(frozen=True, slots=True)
class SourcePage:
    """Posts read in one go, newest first, and the window about which the page is complete.

    `complete_from` says: every post of `kinds` published at or after this time and before `read_at` is in `posts`
    (of this page and the earlier pages of the same read). It is a claim (a lost permission gives an empty list), so
    what is missing is asked for with `Source.exists` before it is believed to be gone. None: no such claim.
    `read_at` is the source's own time where it tells it.
    """

    posts: tuple[SourcePost, ...]
    kinds: frozenset[PostKind]
    complete_from: datetime | None
    read_at: datetime
    next_cursor: str | None = None
    skipped: tuple[tuple[str, str], ...] = field(default=())


class Source(Protocol):
    """A connected account at a source network. All methods talk to the network; none writes to the database."""

    async def profile(self) -> SourceProfile:
        """The owner's profile. Raises SourceError."""
        ...

    async def page(self, kind: Listing, cursor: str | None, limit: int) -> SourcePage:
        """One page of own posts or own replies, newest first. Raises SourceError."""
        ...

    async def exists(self, native_id: str) -> bool:
        """Ask for one object by id: False only when the source says that it is not there."""
        ...

    def history(self, kind: Listing) -> AsyncIterator[SourcePage]:
        """All pages from the newest to the oldest."""
        ...
