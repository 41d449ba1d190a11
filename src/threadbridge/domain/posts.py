"""Posts as held here, ready to be said in any format.

Rule: texts are plain text; markup is made when a document is built (`activitypub/text`, the pages, the feeds), so
that one row serves every form.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from threadbridge.domain.source import MediaKind, PostKind, SourcePoll, SourcePost

ReplyRule = Literal["source", "everyone", "followers", "mentioned", "nobody"]
QuoteRule = Literal["everyone", "followers", "ask", "nobody"]

_HASHTAG_BREAK = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture or video of a post. `sha256` is None when the bytes could not be had; `missing` says why."""

    position: int
    kind: MediaKind
    alt: str
    sha256: str | None
    media_type: str | None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    blurhash: str | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """One post of one account. The ids are ours and permanent; what the source calls it stays in storage."""

    id: int
    account_id: int
    kind: PostKind
    text: str
    language: str | None
    published: datetime
    updated: datetime | None
    original_url: str | None
    parent_id: int | None
    """Our own post that this one continues."""
    thread_id: int | None
    """The first post of that thread."""
    parent_url: str | None
    """What it answers at the source, when that is not a post of ours."""
    quoted_id: int | None
    quoted_url: str | None
    repost_url: str | None
    topic: str | None
    link: str | None
    long_text: str | None
    location: str | None
    poll: SourcePoll | None
    sensitive: bool
    spoilers: tuple[tuple[int, int], ...]
    silent: bool
    """History: shown and exported, never delivered."""
    deleted_at: datetime | None
    likes_count: int
    shares_count: int
    replies_count: int
    attachments: tuple[Attachment, ...] = ()
    audience: str | None = None
    """Who may answer, in the source's word; None for everybody."""
    reply_rule: ReplyRule | None = None
    """What the owner chose for this post (`domain.rules`); None for what holds for all."""
    quote_rule: QuoteRule | None = None
    announced_uri: str | None = None
    """The post in the Fediverse that this repost announces, where it is known, and its author."""
    announced_author: str | None = None
    quotes_count: int = 0


def fingerprint(post: SourcePost) -> str:
    """A digest of everything of a source post that readers see; equal for unchanged posts. Poll counts are left
    out, since they move by themselves."""
    visible = [
        post.kind,
        post.text,
        [[item.kind, item.key, item.alt] for item in post.media],
        post.topic,
        post.link,
        list(post.poll.options) if post.poll else None,
        post.spoiler_media,
        [list(pair) for pair in post.spoilers],
        post.long_text,
        post.location,
        [post.quoted.native_id, post.quoted.url] if post.quoted else None,
        [post.reposted.native_id, post.reposted.url] if post.reposted else None,
    ]
    packed = json.dumps(visible, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(packed.encode("ascii")).hexdigest()


def hashtag_name(topic: str) -> str | None:
    """A topic as a hashtag without '#': 'Street Photography' becomes 'StreetPhotography'.

    Hashtag names hold no spaces or punctuation in the Fediverse, and one made of digits only is no hashtag; None
    when nothing usable is left.
    """
    words = [word for word in _HASHTAG_BREAK.split(unicodedata.normalize("NFKC", topic.lstrip("#"))) if word]
    if not words:
        return None
    joined = words[0] if len(words) == 1 else "".join(word[:1].upper() + word[1:] for word in words)
    return None if joined.isdigit() or not joined.strip("_") else joined
