"""Posts, their origins at the source, attachments and hashtags.

Rule: pages of posts are read by key (published, id), never by offset, so that page one million costs what page one
costs. Deleted posts keep their row, emptied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, func, insert, or_, select, update

from threadbridge.domain.posts import Attachment, Post, hashtag_name
from threadbridge.domain.source import MediaKind, PostKind, SourcePoll
from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_p = schema.posts
_CHUNK = 400


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an account's posts, ordered by time and id."""

    published: datetime
    id: int


@dataclass(frozen=True, slots=True)
class NewAttachment:
    """An attachment to be stored: `sha256` of a row in media, or `missing` with the reason."""

    kind: MediaKind
    alt: str
    source_key: str
    sha256: str | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class PostContent:
    """Everything of a post that its source determines."""

    kind: PostKind
    text: str
    language: str | None
    published: datetime
    original_url: str | None = None
    parent_id: int | None = None
    parent_url: str | None = None
    quoted_id: int | None = None
    quoted_url: str | None = None
    repost_url: str | None = None
    topic: str | None = None
    link: str | None = None
    long_text: str | None = None
    location: str | None = None
    poll: SourcePoll | None = None
    sensitive: bool = False
    spoilers: tuple[tuple[int, int], ...] = ()
    audience: str | None = None
    """Who may answer, in the source's word; None for everybody."""
    tags: tuple[str, ...] = ()
    """Hashtags as written, without '#'."""


def dump_poll(poll: SourcePoll | None) -> str | None:
    if poll is None:
        return None
    closes = poll.closes_at.isoformat() if poll.closes_at else None
    return json.dumps({"options": poll.options, "votes": poll.votes, "closes_at": closes}, ensure_ascii=False)


def load_poll(value: str | None) -> SourcePoll | None:
    if value is None:
        return None
    data = json.loads(value)
    return SourcePoll(
        options=tuple(data["options"]),
        votes=tuple(data["votes"]) if data["votes"] is not None else None,
        closes_at=datetime.fromisoformat(data["closes_at"]) if data["closes_at"] else None,
    )


def thread_of(tx: Tx, parent_id: int | None) -> int | None:
    """The first post of the thread that an answer to `parent_id` belongs to."""
    if parent_id is None:
        return None
    above = tx.execute(select(_p.c.thread_id).where(_p.c.id == parent_id)).scalar_one_or_none()
    return above or parent_id


def columns(tx: Tx, content: PostContent) -> dict[str, Any]:
    """What a post's row holds of its content."""
    return {
        "kind": content.kind,
        "text": content.text,
        "language": content.language,
        "published": content.published,
        "original_url": content.original_url,
        "parent_id": content.parent_id,
        "thread_id": thread_of(tx, content.parent_id),
        "parent_url": content.parent_url,
        "quoted_id": content.quoted_id,
        "quoted_url": content.quoted_url,
        "repost_url": content.repost_url,
        "topic": content.topic,
        "link": content.link,
        "long_text": content.long_text,
        "location": content.location,
        "poll": dump_poll(content.poll),
        "sensitive": content.sensitive,
        "spoilers": json.dumps(content.spoilers) if content.spoilers else None,
        "audience": content.audience,
    }


def _post(row: Row[Any], attachments: tuple[Attachment, ...]) -> Post:
    return Post(
        id=row.id,
        account_id=row.account_id,
        kind=row.kind,
        text=row.text,
        language=row.language,
        published=row.published,
        updated=row.updated,
        original_url=row.original_url,
        parent_id=row.parent_id,
        thread_id=row.thread_id,
        parent_url=row.parent_url,
        quoted_id=row.quoted_id,
        quoted_url=row.quoted_url,
        repost_url=row.repost_url,
        topic=row.topic,
        link=row.link,
        long_text=row.long_text,
        location=row.location,
        poll=load_poll(row.poll),
        sensitive=row.sensitive,
        spoilers=tuple((start, end) for start, end in json.loads(row.spoilers)) if row.spoilers else (),
        silent=row.silent,
        deleted_at=row.deleted_at,
        likes_count=row.likes_count,
        shares_count=row.shares_count,
        replies_count=row.replies_count,
        attachments=attachments,
        audience=row.audience,
        reply_rule=row.reply_rule,
        quote_rule=row.quote_rule,
        announced_uri=row.announced_uri,
        announced_author=row.announced_author,
        quotes_count=row.quotes_count,
    )


def with_attachments(tx: Tx, rows: Sequence[Row[Any]]) -> list[Post]:
    """Rows of `posts` as posts, with their attachments, in the same order."""
    held: dict[int, list[Attachment]] = {}
    a, m = schema.attachments, schema.media
    ids = [row.id for row in rows]
    for start in range(0, len(ids), _CHUNK):
        found = tx.execute(
            select(a, m.c.media_type, m.c.size, m.c.width, m.c.height, m.c.duration, m.c.blurhash)
            .select_from(a.outerjoin(m, m.c.sha256 == a.c.sha256))
            .where(a.c.post_id.in_(ids[start : start + _CHUNK]))
            .order_by(a.c.post_id, a.c.position)
        )
        for row in found:
            held.setdefault(row.post_id, []).append(
                Attachment(
                    position=row.position,
                    kind=row.kind,
                    alt=row.alt,
                    sha256=row.sha256,
                    media_type=row.media_type,
                    size=row.size,
                    width=row.width,
                    height=row.height,
                    duration=row.duration,
                    blurhash=row.blurhash,
                    missing=row.missing,
                )
            )
    return [_post(row, tuple(held.get(row.id, ()))) for row in rows]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def by_id(tx: Tx, account_id: int, post_id: int) -> Post | None:
    """A post of this account, also a deleted one (see `deleted_at`)."""
    row = tx.execute(select(_p).where(_p.c.id == post_id, _p.c.account_id == account_id)).first()
    return with_attachments(tx, [row])[0] if row else None


_IS_LIVE = Prepared(
    lambda _: select(_p.c.id).where(
        _p.c.id == bindparam("post"), _p.c.account_id == bindparam("account"), _p.c.deleted_at.is_(None)
    )
)


def is_live(tx: Tx, account_id: int, post_id: int) -> bool:
    """Whether this account has this post, not deleted."""
    return _IS_LIVE.first(tx, post=post_id, account=account_id) is not None


def owner(tx: Tx, post_id: int) -> int | None:
    """Whose a post is; None for a deleted one."""
    query = select(_p.c.account_id).where(_p.c.id == post_id, _p.c.deleted_at.is_(None))
    return tx.execute(query).scalar_one_or_none()


def newest(
    tx: Tx,
    account_id: int,
    *,
    limit: int,
    before: Cursor | None = None,
    after: Cursor | None = None,
    kinds: Iterable[PostKind] | None = None,
) -> list[Post]:
    """Live posts, newest first: the ones just older than `before`, or the ones just newer than `after`."""
    query = select(_p).where(_p.c.account_id == account_id, _p.c.deleted_at.is_(None))
    if kinds is not None:
        query = query.where(_p.c.kind.in_(list(kinds)))
    if before is not None:
        query = query.where(
            or_(
                _p.c.published < before.published,
                and_(_p.c.published == before.published, _p.c.id < before.id),
            )
        )
    if after is not None:
        query = query.where(
            or_(_p.c.published > after.published, and_(_p.c.published == after.published, _p.c.id > after.id))
        )
        rows = list(tx.execute(query.order_by(_p.c.published, _p.c.id).limit(limit)))[::-1]
    else:
        rows = list(tx.execute(query.order_by(_p.c.published.desc(), _p.c.id.desc()).limit(limit)))
    return with_attachments(tx, rows)


def oldest_first(tx: Tx, account_id: int) -> Iterator[Post]:
    """Every live post, oldest first, in constant memory (exports)."""
    last: Cursor | None = None
    while True:
        query = select(_p).where(_p.c.account_id == account_id, _p.c.deleted_at.is_(None))
        if last is not None:
            query = query.where(
                or_(_p.c.published > last.published, and_(_p.c.published == last.published, _p.c.id > last.id))
            )
        rows = list(tx.execute(query.order_by(_p.c.published, _p.c.id).limit(_CHUNK)))
        yield from with_attachments(tx, rows)
        if len(rows) < _CHUNK:
            return
        last = Cursor(rows[-1].published, rows[-1].id)


def continuations(tx: Tx, post_id: int, limit: int = 50) -> list[int]:
    """Ids of the owner's own live posts that continue this one."""
    rows = tx.execute(
        select(_p.c.id)
        .where(_p.c.parent_id == post_id, _p.c.deleted_at.is_(None))
        .order_by(_p.c.published, _p.c.id)
        .limit(limit)
    )
    return [row.id for row in rows]


def is_pinned(tx: Tx, post_id: int) -> bool:
    """Whether a post is among those that stand on top of its account's profile."""
    p = schema.pins
    return tx.execute(select(p.c.post_id).where(p.c.post_id == post_id)).first() is not None


def pinned(tx: Tx, account_id: int) -> list[Post]:
    """Posts that the owner pinned, latest pin first."""
    pins = schema.pins
    rows = tx.execute(
        select(_p)
        .join(pins, pins.c.post_id == _p.c.id)
        .where(pins.c.account_id == account_id, _p.c.deleted_at.is_(None))
        .order_by(pins.c.pinned_at.desc())
    ).all()
    return with_attachments(tx, rows)


def tagged(tx: Tx, tag: str, *, limit: int, before_id: int | None = None) -> list[Post]:
    """Live posts of active accounts with a hashtag (without '#'), newest row first."""
    t, acc = schema.post_tags, schema.accounts
    query = (
        select(_p)
        .join(t, t.c.post_id == _p.c.id)
        .join(acc, acc.c.id == _p.c.account_id)
        .where(t.c.tag == tag.casefold(), _p.c.deleted_at.is_(None), acc.c.state != "gone")
    )
    if before_id is not None:
        query = query.where(_p.c.id < before_id)
    return with_attachments(tx, tx.execute(query.order_by(_p.c.id.desc()).limit(limit)).all())


def top_tags(tx: Tx, account_id: int, limit: int = 10) -> list[tuple[str, int]]:
    """(tag as written, number of posts), most used first."""
    t = schema.post_tags
    rows = tx.execute(
        select(func.min(t.c.shown).label("shown"), func.count().label("uses"))
        .where(t.c.account_id == account_id)
        .group_by(t.c.tag)
        .order_by(func.count().desc(), t.c.tag)
        .limit(limit)
    )
    return [(row.shown, row.uses) for row in rows]


# ── origins ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Origin:
    """How a source post is held."""

    native_id: str
    post_id: int
    fingerprint: str


def origins(tx: Tx, account_id: int, source: str, native_ids: Sequence[str]) -> dict[str, Origin]:
    """Which of these source ids are held already, also as deleted posts."""
    o = schema.origins
    held: dict[str, Origin] = {}
    for start in range(0, len(native_ids), _CHUNK):
        rows = tx.execute(
            select(o.c.native_id, o.c.post_id, o.c.fingerprint).where(
                o.c.account_id == account_id,
                o.c.source == source,
                o.c.native_id.in_(native_ids[start : start + _CHUNK]),
            )
        )
        held.update({row.native_id: Origin(row.native_id, row.post_id, row.fingerprint) for row in rows})
    return held


def live_origins_since(
    tx: Tx, account_id: int, source: str, kinds: Iterable[PostKind], since: datetime | None, limit: int
) -> list[Origin]:
    """Live posts of these kinds published at or after `since`, newest first, with their source ids."""
    o = schema.origins
    query = (
        select(o.c.native_id, o.c.post_id, o.c.fingerprint)
        .join(_p, _p.c.id == o.c.post_id)
        .where(
            o.c.account_id == account_id,
            o.c.source == source,
            _p.c.deleted_at.is_(None),
            _p.c.kind.in_(list(kinds)),
        )
    )
    if since is not None:
        query = query.where(_p.c.published >= since)
    rows = tx.execute(query.order_by(_p.c.published.desc(), _p.c.id.desc()).limit(limit))
    return [Origin(row.native_id, row.post_id, row.fingerprint) for row in rows]


def add_origin(tx: Tx, account_id: int, source: str, native_id: str, post_id: int, fingerprint: str) -> None:
    tx.execute(
        insert(schema.origins).values(
            account_id=account_id,
            source=source,
            native_id=native_id,
            post_id=post_id,
            fingerprint=fingerprint,
            seen_at=tx.now,
        )
    )


def set_fingerprint(tx: Tx, account_id: int, source: str, native_id: str, fingerprint: str) -> None:
    o = schema.origins
    tx.execute(
        update(o)
        .where(o.c.account_id == account_id, o.c.source == source, o.c.native_id == native_id)
        .values(fingerprint=fingerprint, seen_at=tx.now)
    )


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def add(tx: Tx, account_id: int, content: PostContent, attachments: Sequence[NewAttachment], *, silent: bool) -> int:
    """Store a new post; returns its permanent id."""
    post_id: int = tx.execute(
        insert(_p)
        .values(account_id=account_id, silent=silent, created_at=tx.now, **columns(tx, content))
        .returning(_p.c.id)
    ).scalar_one()
    add_attachments(tx, post_id, attachments)
    add_tags(tx, account_id, post_id, content.tags)
    tx.execute(
        update(schema.accounts)
        .where(schema.accounts.c.id == account_id)
        .values(posts_count=schema.accounts.c.posts_count + 1)
    )
    return post_id


def revise(
    tx: Tx,
    account_id: int,
    post_id: int,
    content: PostContent,
    attachments: Sequence[NewAttachment],
    *,
    updated: datetime,
) -> None:
    """Replace what a post says, keeping its address, figures and what it said before."""
    before = tx.execute(select(_p.c.text).where(_p.c.id == post_id)).scalar_one()
    tx.execute(insert(schema.post_edits).values(post_id=post_id, text=before, at=updated))
    tx.execute(update(_p).where(_p.c.id == post_id).values(updated=updated, **columns(tx, content)))
    tx.execute(delete(schema.attachments).where(schema.attachments.c.post_id == post_id))
    tx.execute(delete(schema.post_tags).where(schema.post_tags.c.post_id == post_id))
    add_attachments(tx, post_id, attachments)
    add_tags(tx, account_id, post_id, content.tags)


def set_poll(tx: Tx, post_id: int, poll: SourcePoll) -> bool:
    """Refresh a poll's counts; True if they changed."""
    dumped = dump_poll(poll)
    changed = tx.execute(update(_p).where(_p.c.id == post_id, _p.c.poll.is_distinct_from(dumped)).values(poll=dumped))
    return bool(changed.rowcount)


def announce(tx: Tx, post_id: int, uri: str, author: str) -> None:
    """Learn that the original of a repost is in the Fediverse, and whose it is."""
    tx.execute(update(_p).where(_p.c.id == post_id).values(announced_uri=uri, announced_author=author))


def edits(tx: Tx, post_id: int) -> list[tuple[datetime, str]]:
    """(time, what the post said before), the latest edit first."""
    e = schema.post_edits
    rows = tx.execute(select(e.c.at, e.c.text).where(e.c.post_id == post_id).order_by(e.c.id.desc()))
    return [(row.at, row.text) for row in rows]


def set_original_url(tx: Tx, post_id: int, url: str) -> None:
    """Learn a post's address at its source (a download has none)."""
    tx.execute(update(_p).where(_p.c.id == post_id, _p.c.original_url.is_(None)).values(original_url=url))


def bury(tx: Tx, account_id: int, post_id: int) -> bool:
    """Delete a post for good: its row stays, emptied, so that its address answers 410. False if it was gone."""
    buried = tx.execute(
        update(_p)
        .where(_p.c.id == post_id, _p.c.account_id == account_id, _p.c.deleted_at.is_(None))
        .values(
            deleted_at=tx.now,
            text="",
            link=None,
            long_text=None,
            location=None,
            poll=None,
            spoilers=None,
            topic=None,
            quoted_url=None,
            parent_url=None,
        )
    )
    if not buried.rowcount:
        return False
    tx.execute(delete(schema.attachments).where(schema.attachments.c.post_id == post_id))
    tx.execute(delete(schema.post_tags).where(schema.post_tags.c.post_id == post_id))
    tx.execute(delete(schema.post_edits).where(schema.post_edits.c.post_id == post_id))
    tx.execute(delete(schema.pins).where(schema.pins.c.post_id == post_id))
    tx.execute(
        update(schema.accounts)
        .where(schema.accounts.c.id == account_id)
        .values(posts_count=schema.accounts.c.posts_count - 1)
    )
    return True


def pin(tx: Tx, account_id: int, post_id: int) -> None:
    """Put a post on top of the profile."""
    p = schema.pins
    held = tx.execute(select(p.c.post_id).where(p.c.account_id == account_id, p.c.post_id == post_id)).first()
    if held is None:
        tx.execute(insert(p).values(account_id=account_id, post_id=post_id, pinned_at=tx.now))


def unpin(tx: Tx, account_id: int, post_id: int) -> None:
    p = schema.pins
    tx.execute(delete(p).where(p.c.account_id == account_id, p.c.post_id == post_id))


def add_attachments(tx: Tx, post_id: int, attachments: Sequence[NewAttachment]) -> None:
    """Write the attachments of a post that has none."""
    if attachments:
        tx.execute(
            insert(schema.attachments),
            [
                {
                    "post_id": post_id,
                    "position": position,
                    "kind": item.kind,
                    "alt": item.alt,
                    "source_key": item.source_key,
                    "sha256": item.sha256,
                    "missing": item.missing,
                }
                for position, item in enumerate(attachments)
            ],
        )


def add_tags(tx: Tx, account_id: int, post_id: int, tags: Iterable[str]) -> None:
    """Write hashtags that a post does not have yet, as written, without '#'."""
    names = {name.casefold(): name for tag in tags if (name := hashtag_name(tag))}
    if names:
        tx.execute(
            insert(schema.post_tags),
            [
                {"post_id": post_id, "account_id": account_id, "tag": folded[:128], "shown": shown[:128]}
                for folded, shown in names.items()
            ],
        )


# ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class MediaRow:
    """A cleaned file in the media store."""

    sha256: str
    media_type: str
    size: int
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    blurhash: str | None = None


def add_media(tx: Tx, row: MediaRow) -> None:
    """Remember a stored file (idempotent)."""
    m = schema.media
    if tx.execute(select(m.c.sha256).where(m.c.sha256 == row.sha256)).first() is None:
        tx.execute(
            insert(m).values(
                sha256=row.sha256,
                media_type=row.media_type,
                size=row.size,
                width=row.width,
                height=row.height,
                duration=row.duration,
                blurhash=row.blurhash,
                created_at=tx.now,
            )
        )


def media_row(tx: Tx, sha256: str) -> MediaRow | None:
    m = schema.media
    row = tx.execute(select(m).where(m.c.sha256 == sha256)).first()
    if row is None:
        return None
    return MediaRow(row.sha256, row.media_type, row.size, row.width, row.height, row.duration, row.blurhash)
