"""What a post's document needs beyond the post: gathered here for one post or for a page of them; and the collections
around a post that have more than one page.

Rule: a fixed number of queries whatever the number of posts, and lists cut by the database, never after it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, union_all

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import PostSurroundings, QuotedPost
from threadbridge.activitypub.text import MentionTarget
from threadbridge.domain.posts import Post
from threadbridge.domain.source import THREADS_HOSTS
from threadbridge.storage import quotes, rules, schema, votes
from threadbridge.storage.store import Tx

_SHOWN = 50
_p, _a = schema.posts, schema.replies


def of_post(tx: Tx, ids: Ids, post: Post) -> PostSurroundings:
    """Surroundings of one post."""
    return of_posts(tx, ids, [post])[post.id]


def of_posts(tx: Tx, ids: Ids, page: Sequence[Post]) -> dict[int, PostSurroundings]:
    """{post id: surroundings} for a page of posts, in a fixed number of queries."""
    numbers = [post.id for post in page]
    mentions = _mentioned(tx, ids, page)
    continued = _first_of_each(tx, _continuations(numbers), numbers)
    answered = _first_of_each(tx, _answers(numbers), numbers)
    parents = [post.parent_id for post in page if post.parent_id]
    buried = {row.id for row in tx.execute(select(_p.c.id).where(_p.c.id.in_(parents), _p.c.deleted_at.is_not(None)))}
    quoted = _quoted(tx, ids, page)
    voted = votes.counts(tx, [post.id for post in page if post.poll])
    chosen = rules.of_accounts(tx, {post.account_id for post in page})
    nothing: tuple[int, list[tuple[int, str]]] = (0, [])
    found: dict[int, PostSurroundings] = {}
    for post in page:
        parts, own = continued.get(post.id, nothing)
        answers, foreign = answered.get(post.id, nothing)
        found[post.id] = PostSurroundings(
            mentions=mentions,
            continuations=[number for number, _ in own],
            # Those that would stand behind the first page of the owner's own are left for the pages.
            answers=foreign if parts <= _SHOWN else (),
            replies_total=parts + answers,
            thread_id=post.thread_id,
            quote=quoted.get(post.id),
            parent_gone=post.parent_id in buried,
            votes=voted.get(post.id, {}),
            rules=chosen[post.account_id],
        )
    return found


def _continuations(numbers: Collection[int]) -> Select[Any]:
    return select(_p.c.parent_id.label("post"), _p.c.id, literal("").label("uri")).where(
        _p.c.parent_id.in_(list(numbers)), _p.c.deleted_at.is_(None)
    )


def _answers(numbers: Collection[int]) -> Select[Any]:
    return select(_a.c.post_id.label("post"), _a.c.id, _a.c.uri).where(
        _a.c.post_id.in_(list(numbers)), _a.c.public, _a.c.deleted_at.is_(None), _a.c.hidden.is_(None)
    )


def _first_of_each(
    tx: Tx, rows: Select[Any], numbers: Collection[int]
) -> dict[int, tuple[int, list[tuple[int, str]]]]:
    """{post id: (how many there are, the first of them)}."""
    if not numbers:
        return {}
    listed = rows.subquery()
    ranked = select(
        listed,
        func.row_number().over(partition_by=listed.c.post, order_by=listed.c.id).label("place"),
        func.count().over(partition_by=listed.c.post).label("total"),
    ).subquery()
    held: dict[int, tuple[int, list[tuple[int, str]]]] = {}
    query = select(ranked).where(ranked.c.place <= _SHOWN).order_by(ranked.c.post, ranked.c.place)
    for row in tx.execute(query):
        held.setdefault(row.post, (row.total, []))[1].append((row.id, row.uri))
    return held


def _quoted(tx: Tx, ids: Ids, page: Sequence[Post]) -> dict[int, QuotedPost]:
    """{post id: what it quotes in the Fediverse, and may}: an own post; a post of another account here whose owner
    lets it; a post elsewhere whose author has said so."""
    wanted = {post.quoted_id for post in page if post.quoted_id}
    a = schema.accounts
    here = {
        row.id: row
        for row in tx.execute(
            select(_p.c.id, _p.c.account_id, a.c.handle)
            .join(a, a.c.id == _p.c.account_id)
            .where(_p.c.id.in_(wanted), _p.c.deleted_at.is_(None), a.c.state != "gone")
        )
    }
    numbers = [post.id for post in page if post.quoted_id or post.quoted_url]
    stamped = quotes.by_posts(tx, numbers)
    elsewhere = quotes.quotings(tx, numbers)
    found: dict[int, QuotedPost] = {}
    for post in page:
        row, other = here.get(post.quoted_id or 0), elsewhere.get(post.id)
        if row is not None:
            uri, url = ids.post(row.account_id, row.id), ids.page(row.handle, row.id)
            stamp = stamped.get(post.id)
            if row.account_id == post.account_id:
                found[post.id] = QuotedPost(uri, url)
            elif stamp is not None and stamp.stamped and stamp.post_id == row.id:
                found[post.id] = QuotedPost(uri, url, ids.quote_stamp(stamp.account_id, stamp.id))
        elif other is not None and other.state == "accepted" and other.stamp:
            found[post.id] = QuotedPost(other.uri, other.url, other.stamp)
    return found


def _mentioned(tx: Tx, ids: Ids, page: Sequence[Post]) -> dict[str, MentionTarget]:
    names = {name for post in page for name in text.mentions_in(f"{post.text}\n{post.long_text or ''}")}
    if not names:
        return {}
    a, c = schema.accounts, schema.connections
    profiles = [f"https://{host}/@{name}" for name in names for host in THREADS_HOSTS]
    rows = tx.execute(
        select(a.c.id, a.c.handle, a.c.domain, a.c.source_url, c.c.username)
        .outerjoin(c, c.c.account_id == a.c.id)
        .where(
            a.c.state != "gone",
            or_(
                a.c.handle.in_(names),
                func.lower(a.c.source_url).in_(profiles),
                func.lower(c.c.username).in_(names),
            ),
        )
    )
    # By the name at the source, as the connected account itself says it: the handle here may be another, and somebody
    # else's name there; and an address may be that of a name which was given up.
    found = {}
    for row in rows:
        page_name = row.source_url.rstrip("/").rpartition("/")[2].lstrip("@") if row.source_url else row.handle
        name = (row.username or page_name).lower()
        found[name] = MentionTarget(ids.actor(row.id), ids.profile(row.handle), ids.acct(row.handle, row.domain))
    return found


# ── collections in pages ─────────────────────────────────────────────────────────────────────────────────────────


def replies_after(tx: Tx, ids: Ids, post: Post, kind: str, number: int) -> tuple[list[str], str | None]:
    """Ids of what answers a post behind a place (`kind` 'p': the owner's own post, 'r': an answer from elsewhere; its
    number), and the place from which the next page goes on, or None at the end. The owner's own come first."""
    places: list[tuple[str, str]] = []
    if kind == "p":
        rows = _continuations([post.id]).where(_p.c.id > number).order_by(_p.c.id).limit(_SHOWN + 1)
        places += [(f"p{row.id}", ids.post(post.account_id, row.id)) for row in tx.execute(rows)]
        number = 0
    if len(places) <= _SHOWN:
        rows = _answers([post.id]).where(_a.c.id > number).order_by(_a.c.id).limit(_SHOWN + 1 - len(places))
        places += [(f"r{row.id}", row.uri) for row in tx.execute(rows)]
    shown = places[:_SHOWN]
    return [uri for _, uri in shown], shown[-1][0] if len(places) > _SHOWN else None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a conversation: a post (`foreign` False) or an answer from elsewhere, by its time and number."""

    at: datetime
    foreign: bool
    id: int


def conversation(
    tx: Tx, ids: Ids, account_id: int, root: int, after: Place | None
) -> tuple[int, list[str], Place | None]:
    """(how many there are, the ids behind `after` by time, the place of the last if more follow): the owner's own
    thread that begins with `root`, and the public answers to any of it."""
    in_thread = and_(_p.c.account_id == account_id, or_(_p.c.id == root, _p.c.thread_id == root))
    own = select(
        _p.c.published.label("at"), literal(0).label("foreign"), _p.c.id.label("id"), literal("").label("uri")
    ).where(in_thread, _p.c.deleted_at.is_(None))
    answers = (
        select(_a.c.published.label("at"), literal(1).label("foreign"), _a.c.id.label("id"), _a.c.uri.label("uri"))
        .join(_p, _p.c.id == _a.c.post_id)
        .where(in_thread, _a.c.public, _a.c.deleted_at.is_(None), _a.c.hidden.is_(None))
    )
    everything = union_all(own, answers).subquery()
    total = int(tx.execute(select(func.count()).select_from(everything)).scalar_one())
    query = select(everything)
    if after is not None:
        query = query.where(_behind(everything.c, after))
    rows = tx.execute(query.order_by(everything.c.at, everything.c.foreign, everything.c.id).limit(_SHOWN + 1)).all()
    shown = rows[:_SHOWN]
    items = [row.uri if row.foreign else ids.post(account_id, row.id) for row in shown]
    last = Place(shown[-1].at, bool(shown[-1].foreign), shown[-1].id) if len(rows) > _SHOWN else None
    return total, items, last


def _behind(columns: Any, place: Place) -> ColumnElement[bool]:
    foreign = int(place.foreign)
    return or_(
        columns.at > place.at,
        and_(columns.at == place.at, columns.foreign > foreign),
        and_(columns.at == place.at, columns.foreign == foreign, columns.id > place.id),
    )
