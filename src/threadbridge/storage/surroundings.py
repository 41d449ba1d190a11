"""What a post's document needs beyond the post: gathered here for one post or for a page of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, or_, select

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import PostSurroundings
from threadbridge.activitypub.text import MentionTarget
from threadbridge.domain.posts import Post
from threadbridge.storage import replies, schema
from threadbridge.storage.store import Tx

_SHOWN = 50
_SOURCE_HOSTS = ("www.threads.com", "www.threads.net", "threads.com", "threads.net")


def of_post(tx: Tx, ids: Ids, post: Post) -> PostSurroundings:
    """Surroundings of one post."""
    return of_posts(tx, ids, [post])[post.id]


def of_posts(tx: Tx, ids: Ids, page: Sequence[Post]) -> dict[int, PostSurroundings]:
    """{post id: surroundings} for a page of posts, in a fixed number of queries."""
    numbers = [post.id for post in page]
    mentions = _mentioned(tx, ids, page)
    answers = replies.uris(tx, numbers, _SHOWN)
    continued: dict[int, list[int]] = {}
    p = schema.posts
    rows = tx.execute(
        select(p.c.id, p.c.parent_id)
        .where(p.c.parent_id.in_(numbers), p.c.deleted_at.is_(None))
        .order_by(p.c.published, p.c.id)
    )
    for row in rows:
        if len(continued.setdefault(row.parent_id, [])) < _SHOWN:
            continued[row.parent_id].append(row.id)
    parents = [post.parent_id for post in page if post.parent_id]
    buried = {row.id for row in tx.execute(select(p.c.id).where(p.c.id.in_(parents), p.c.deleted_at.is_not(None)))}
    quoted_ids = [post.quoted_id for post in page if post.quoted_id]
    owners = {
        row.id: row.account_id
        for row in tx.execute(select(p.c.id, p.c.account_id).where(p.c.id.in_(quoted_ids), p.c.deleted_at.is_(None)))
    }
    return {
        post.id: PostSurroundings(
            mentions=mentions,
            continuations=continued.get(post.id, ()),
            answers=answers.get(post.id, ()),
            thread_id=post.thread_id,
            quoted=(owners[post.quoted_id], post.quoted_id) if post.quoted_id and post.quoted_id in owners else None,
            parent_gone=post.parent_id in buried,
        )
        for post in page
    }


def _mentioned(tx: Tx, ids: Ids, page: Sequence[Post]) -> dict[str, MentionTarget]:
    names = {name for post in page for name in text.mentions_in(post.text)}
    if not names:
        return {}
    a = schema.accounts
    profiles = [f"https://{host}/@{name}" for name in names for host in _SOURCE_HOSTS]
    rows = tx.execute(
        select(a.c.id, a.c.handle, a.c.source_url).where(
            a.c.state != "gone", or_(a.c.handle.in_(names), func.lower(a.c.source_url).in_(profiles))
        )
    )
    # By the name at the source: the handle here may be another, and somebody else's name there.
    found = {}
    for row in rows:
        name = row.source_url.rstrip("/").rpartition("/")[2].lstrip("@").lower() if row.source_url else row.handle
        found[name] = MentionTarget(ids.actor(row.id), ids.profile(row.handle), ids.acct(row.handle))
    return found
