"""A source post as it is held: what the source says, made into columns; and media that came late.

Rule: `content_of` is pure, and the only place where a SourcePost becomes a PostContent, so that a post read from the
API and the same post found in a download look alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select, update

from threadbridge.domain.source import MediaKind, SourcePost
from threadbridge.storage import schema
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx

# Not inside a word, an address or an entity: "page#top", "https://a.example/#x", "&#39;".
_HASHTAG = re.compile(r"(?<![\w&/#＃])[#＃](\w+)")
_CHUNK = 400


def content_of(
    post: SourcePost, *, parent_id: int | None, quoted_id: int | None, language: str | None
) -> PostContent:
    """The columns of a source post. `parent_id` and `quoted_id` are posts of ours; `language` is used where the
    source names none."""
    return PostContent(
        kind=post.kind,
        text=post.text,
        language=post.language or language,
        published=post.published,
        original_url=post.permalink,
        parent_id=parent_id,
        parent_url=post.parent.url if post.parent and parent_id is None else None,
        quoted_id=quoted_id,
        quoted_url=post.quoted.url if post.quoted else None,
        repost_url=post.reposted.url if post.reposted else None,
        topic=post.topic,
        link=post.link,
        long_text=post.long_text,
        location=post.location,
        poll=post.poll,
        sensitive=post.spoiler_media or bool(post.spoilers),
        spoilers=post.spoilers,
        tags=hashtags(post.text, post.topic),
    )


def hashtags(text: str, topic: str | None) -> tuple[str, ...]:
    """Hashtags of a text as written, without '#', each once whatever its case; the topic is one of them."""
    found = [match[1] for match in _HASHTAG.finditer(text)]
    names = [name for name in (*found, *([topic] if topic else ())) if not name.isdigit()]
    once: dict[str, str] = {}
    for name in names:
        once.setdefault(name.casefold(), name)
    return tuple(once.values())


# ── media that came late ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Gap:
    """An attachment without its file."""

    post_id: int
    position: int
    kind: MediaKind
    source_key: str


def gaps(tx: Tx, post_ids: Sequence[int], reason: str) -> list[Gap]:
    """Attachments of these posts whose file is missing for this reason."""
    a = schema.attachments
    found: list[Gap] = []
    for start in range(0, len(post_ids), _CHUNK):
        rows = tx.execute(
            select(a.c.post_id, a.c.position, a.c.kind, a.c.source_key)
            .where(a.c.post_id.in_(post_ids[start : start + _CHUNK]), a.c.sha256.is_(None), a.c.missing == reason)
            .order_by(a.c.post_id, a.c.position)
        )
        found.extend(Gap(row.post_id, row.position, row.kind, row.source_key) for row in rows)
    return found


def fill_gap(tx: Tx, gap: Gap, sha256: str, kind: MediaKind) -> bool:
    """Give an attachment its file (a row in media); False if it has one by now."""
    a = schema.attachments
    filled = tx.execute(
        update(a)
        .where(a.c.post_id == gap.post_id, a.c.position == gap.position, a.c.sha256.is_(None))
        .values(sha256=sha256, kind=kind, missing=None)
    )
    return bool(filled.rowcount)


def known_elsewhere(tx: Tx, account_id: int, source: str) -> bool:
    """Whether any post of this account was read from another source than `source`."""
    o = schema.origins
    query = select(o.c.id).where(o.c.account_id == account_id, or_(o.c.source < source, o.c.source > source))
    return tx.execute(query.limit(1)).first() is not None
