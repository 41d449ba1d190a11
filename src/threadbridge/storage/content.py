"""A source post as it is held: what the source says, made into columns; the same post told by two sources; and
what arrives later than the post: its file, its parent, its alt text.

Rule: `content_of` is pure, and the only place where a SourcePost becomes a PostContent; `twin` is the only place that
says when two sources tell the same post. So a post read from the API and found in a download looks alike, once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update

from threadbridge.activitypub import text
from threadbridge.domain.posts import hashtag_name
from threadbridge.domain.source import MediaKind, SourcePost
from threadbridge.storage import posts, schema
from threadbridge.storage.posts import NewAttachment, PostContent
from threadbridge.storage.store import Tx

_CHUNK = 400
_SECOND = timedelta(seconds=1)
_p, _a = schema.posts, schema.attachments


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
        audience=audience_of(post),
        tags=hashtags(post.text, post.topic),
    )


def audience_of(post: SourcePost) -> str | None:
    """Who may answer, as it is held: None for everybody."""
    return None if post.audience == "everyone" else post.audience[:32]


def hashtags(written: str, topic: str | None) -> tuple[str, ...]:
    """Hashtags of a text as written, without '#', each once whatever its case; the topic is one of them."""
    once = {name.casefold(): name for name in text.hashtags_in(written)}
    name = hashtag_name(topic) if topic else None
    if topic and name:
        once.setdefault(name.casefold(), topic)
    return tuple(once.values())


# ── one post, told twice ─────────────────────────────────────────────────────────────────────────────────────────


def twin(tx: Tx, account_id: int, source: str, post: SourcePost, claimed: Collection[int] = ()) -> int | None:
    """The post of ours that this one of `source` is, read another way: of the same second and the same text, and
    not known to `source` yet. `claimed` are taken already.

    A post of that second that was deleted is the same one too, whatever it said: an old download does not bring back
    what its owner has taken away.
    """
    second = post.published.replace(microsecond=0)
    o = schema.origins
    # Asked per post: a list of all that are known costs 19 ms with 70,000 of them.
    known = select(o.c.id).where(o.c.post_id == _p.c.id, o.c.account_id == account_id, o.c.source == source).exists()
    rows = tx.execute(
        select(_p.c.id, _p.c.text, _p.c.deleted_at)
        .where(
            _p.c.account_id == account_id,
            _p.c.published >= second,
            _p.c.published < second + _SECOND,
            ~known,
        )
        .order_by(_p.c.id)
    ).all()
    free = [row for row in rows if row.id not in claimed]
    words = _words(post.text)
    live = (row.id for row in free if row.deleted_at is None and _words(row.text) == words)
    buried = (row.id for row in free if row.deleted_at is not None)
    found: int | None = next(live, None) or next(buried, None)
    return found


def _words(told: str) -> str:
    """A text without what exports and APIs change by themselves: line ends, spaces at the edges, composition."""
    return unicodedata.normalize("NFC", "\n".join(line.rstrip() for line in told.splitlines())).strip()


def known_elsewhere(tx: Tx, account_id: int, source: str) -> bool:
    """Whether any post of this account was read from another source than `source`."""
    o = schema.origins
    query = select(o.c.id).where(o.c.account_id == account_id, or_(o.c.source < source, o.c.source > source))
    return tx.execute(query.limit(1)).first() is not None


_FILLED = ("original_url", "parent_id", "parent_url", "quoted_id", "quoted_url", "repost_url", "topic", "link",
           "long_text", "location", "poll", "spoilers")  # fmt: skip


def complete(tx: Tx, account_id: int, post_id: int, content: PostContent, media: Sequence[NewAttachment]) -> None:
    """Fill, silently, what a held post lacks and another source tells: a download has no address, parent, quote,
    poll, topic or alt text. What is held stays as it is."""
    held = tx.execute(select(_p).where(_p.c.id == post_id, _p.c.account_id == account_id)).one()
    if held.deleted_at is not None:
        return
    told = posts.columns(tx, content)
    lacking: dict[str, Any] = {name: told[name] for name in _FILLED if getattr(held, name) is None and told[name]}
    if "parent_id" in lacking:
        lacking["thread_id"] = told["thread_id"]
    if content.sensitive and not held.sensitive:
        lacking["sensitive"] = True
    if content.kind != held.kind and held.kind == "post":
        lacking["kind"] = content.kind
    if lacking:
        tx.execute(update(_p).where(_p.c.id == post_id).values(**lacking))
    if content.topic and "topic" in lacking:
        t = schema.post_tags
        tagged = {row.tag for row in tx.execute(select(t.c.tag).where(t.c.post_id == post_id))}
        if (hashtag_name(content.topic) or "").casefold() not in tagged:
            posts.add_tags(tx, account_id, post_id, [content.topic])
    _complete_media(tx, post_id, media)


def _complete_media(tx: Tx, post_id: int, media: Sequence[NewAttachment]) -> None:
    held = tx.execute(select(_a).where(_a.c.post_id == post_id).order_by(_a.c.position)).all()
    if not held:
        posts.add_attachments(tx, post_id, media)
    if len(held) != len(media):
        return
    for row, item in zip(held, media, strict=True):
        change: dict[str, Any] = {}
        if item.alt and not row.alt:
            change["alt"] = item.alt
        if row.sha256 is None and item.sha256 is not None:
            change |= {"sha256": item.sha256, "kind": item.kind, "missing": None}
        if row.sha256 is not None or item.sha256 is not None:
            # Under the key of the source that goes on telling, an edit finds the file again.
            change["source_key"] = item.source_key
        if change:
            tx.execute(update(_a).where(_a.c.post_id == post_id, _a.c.position == row.position).values(**change))


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
    found: list[Gap] = []
    for start in range(0, len(post_ids), _CHUNK):
        rows = tx.execute(
            select(_a.c.post_id, _a.c.position, _a.c.kind, _a.c.source_key)
            .where(_a.c.post_id.in_(post_ids[start : start + _CHUNK]), _a.c.sha256.is_(None), _a.c.missing == reason)
            .order_by(_a.c.post_id, _a.c.position)
        )
        found.extend(Gap(row.post_id, row.position, row.kind, row.source_key) for row in rows)
    return found


def fill_gap(tx: Tx, gap: Gap, sha256: str, kind: MediaKind) -> bool:
    """Give an attachment its file (a row in media); False if it has one by now."""
    filled = tx.execute(
        update(_a)
        .where(_a.c.post_id == gap.post_id, _a.c.position == gap.position, _a.c.sha256.is_(None))
        .values(sha256=sha256, kind=kind, missing=None)
    )
    return bool(filled.rowcount)


def changed(tx: Tx, post_id: int, at: datetime) -> None:
    """Date a change of a post's media, so that an Update can be said."""
    tx.execute(update(_p).where(_p.c.id == post_id).values(updated=at))


def files(tx: Tx, post_ids: Sequence[int]) -> dict[str, tuple[MediaKind, str]]:
    """{source key: (kind, sha256)} of the attachments of these posts that have their file."""
    found: dict[str, tuple[MediaKind, str]] = {}
    for start in range(0, len(post_ids), _CHUNK):
        rows = tx.execute(
            select(_a.c.source_key, _a.c.kind, _a.c.sha256).where(
                _a.c.post_id.in_(post_ids[start : start + _CHUNK]), _a.c.sha256.is_not(None)
            )
        )
        found.update({row.source_key: (row.kind, row.sha256) for row in rows})
    return found


def lacks_files(tx: Tx, post_id: int, wanted: int) -> bool:
    """Whether a post lacks any of the `wanted` files of its media; not for deleted posts."""
    row = tx.execute(select(_p.c.deleted_at).where(_p.c.id == post_id)).one()
    held = tx.execute(select(_a.c.sha256).where(_a.c.post_id == post_id)).all()
    return row.deleted_at is None and (len(held) in (0, wanted) and sum(r.sha256 is not None for r in held) < wanted)


# ── references that came late ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Reference:
    """What a source post answers and quotes, by the source's ids."""

    native_id: str
    parent: str | None
    quoted: str | None


def refer(tx: Tx, account_id: int, source: str, references: Sequence[Reference]) -> int:
    """Give posts the parents and quotes that were written after them; the oldest first, since a thread's number
    goes from a post to what continues it. Returns how many posts changed."""
    wanted = {name for one in references for name in (one.native_id, one.parent, one.quoted) if name}
    held = posts.origins(tx, account_id, source, sorted(wanted))
    count = 0
    for one in references:
        here = held.get(one.native_id)
        row = tx.execute(select(_p).where(_p.c.id == here.post_id)).one() if here else None
        if row is None or row.deleted_at is not None:
            continue
        change: dict[str, Any] = {}
        parent, quoted = held.get(one.parent or ""), held.get(one.quoted or "")
        parent_id = row.parent_id or (parent.post_id if parent and parent.post_id != row.id else None)
        # Also where the parent was known: it may have found its own parent only now.
        thread_id = posts.thread_of(tx, parent_id)
        if (row.parent_id, row.thread_id) != (parent_id, thread_id):
            change |= {"parent_id": parent_id, "thread_id": thread_id, "parent_url": None}
        if row.quoted_id is None and quoted is not None and quoted.post_id != row.id:
            change["quoted_id"] = quoted.post_id
        if change:
            tx.execute(update(_p).where(_p.c.id == row.id).values(**change))
            count += 1
    return count
