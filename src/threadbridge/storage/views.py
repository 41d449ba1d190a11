"""Reading for people: what the public pages and the owner's pages show that no other part of the house asks for.

Rule: nothing here decides anything. Pages are read by key, never by offset, so that the last page costs what the
first one costs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select

from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.people import Reply
from threadbridge.domain.posts import Post
from threadbridge.storage import accounts, posts, schema
from threadbridge.storage.posts import Cursor
from threadbridge.storage.store import Tx

_p = schema.posts

# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _older_than(place: Cursor) -> ColumnElement[bool]:
    return or_(_p.c.published < place.published, and_(_p.c.published == place.published, _p.c.id < place.id))


def _newer_than(place: Cursor) -> ColumnElement[bool]:
    return or_(_p.c.published > place.published, and_(_p.c.published == place.published, _p.c.id > place.id))


def tagged(tx: Tx, tag: str, *, limit: int, before: Cursor | None = None) -> list[Post]:
    """Live posts with a hashtag (without '#') of accounts that are not gone, newest first by their own time."""
    t, a = schema.post_tags, schema.accounts
    query = (
        select(_p)
        .join(t, t.c.post_id == _p.c.id)
        .join(a, a.c.id == _p.c.account_id)
        .where(t.c.tag == tag.casefold(), _p.c.deleted_at.is_(None), a.c.state != AccountState.GONE.value)
    )
    if before is not None:
        query = query.where(_older_than(before))
    rows = tx.execute(query.order_by(_p.c.published.desc(), _p.c.id.desc()).limit(limit)).all()
    return posts.with_attachments(tx, rows)


def thread_around(tx: Tx, post: Post, *, limit: int) -> tuple[list[Post], list[Post]]:
    """The owner's own thread: up to `limit` posts before this one and up to `limit` after it, each oldest first."""
    first = post.thread_id or post.id
    here = Cursor(post.published, post.id)
    thread = select(_p).where(
        or_(_p.c.thread_id == first, _p.c.id == first),
        _p.c.account_id == post.account_id,
        _p.c.deleted_at.is_(None),
        _p.c.id != post.id,
    )
    earlier = thread.where(_older_than(here)).order_by(_p.c.published.desc(), _p.c.id.desc()).limit(limit)
    later = thread.where(_newer_than(here)).order_by(_p.c.published, _p.c.id).limit(limit)
    return (
        posts.with_attachments(tx, tx.execute(earlier).all()[::-1]),
        posts.with_attachments(tx, tx.execute(later).all()),
    )


def by_ids(tx: Tx, post_ids: Collection[int]) -> dict[int, tuple[Post, Account]]:
    """{post id: (post, its account)} of live posts of accounts that are not gone (quoted posts, a page of likes)."""
    if not post_ids:
        return {}
    rows = tx.execute(select(_p).where(_p.c.id.in_(list(post_ids)), _p.c.deleted_at.is_(None))).all()
    owners = accounts_by_ids(tx, {row.account_id for row in rows})
    return {
        post.id: (post, owners[post.account_id])
        for post in posts.with_attachments(tx, rows)
        if post.account_id in owners
    }


def accounts_by_ids(tx: Tx, account_ids: Collection[int]) -> dict[int, Account]:
    """{account id: account}, without accounts that are gone."""
    found = (accounts.by_id(tx, account_id) for account_id in account_ids)
    return {account.id: account for account in found if account and account.state is not AccountState.GONE}


def answers_to(tx: Tx, post_id: int, *, limit: int, after_id: int = 0) -> list[tuple[int, Reply]]:
    """Public answers to one post in the order of their arrival, with the row number to go on from."""
    a, p = schema.replies, schema.peers
    rows = tx.execute(
        select(a, p.c.handle, p.c.name, p.c.url.label("author_url"))
        .join(p, p.c.uri == a.c.peer_uri)
        .where(a.c.post_id == post_id, a.c.id > after_id, a.c.public, a.c.deleted_at.is_(None), a.c.hidden.is_(None))
        .order_by(a.c.id)
        .limit(limit)
    )
    return [
        (
            row.id,
            Reply(
                uri=row.uri,
                post_id=row.post_id,
                peer_uri=row.peer_uri,
                handle=row.handle,
                name=row.name,
                author_url=row.author_url,
                url=row.url,
                html=row.html,
                published=row.published,
                updated=row.updated,
                public=row.public,
            ),
        )
        for row in rows
    ]


def pinned_ids(tx: Tx, account_id: int) -> set[int]:
    """Which posts the owner pinned."""
    pins = schema.pins
    return set(tx.execute(select(pins.c.post_id).where(pins.c.account_id == account_id)).scalars())


# ── an account at a glance ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Figures:
    """What came back from the Fediverse to an account: as many as its lists show, also those to deleted posts."""

    likes: int
    shares: int
    replies: int


def figures(tx: Tx, account_id: int) -> Figures:
    """Counted where the lists are read (`reactions.page`, `replies.page`), or the two would contradict each other."""
    r, a = schema.reactions, schema.replies
    reacted = tx.execute(
        select(r.c.kind, func.count().label("n"))
        .where(r.c.account_id == account_id, r.c.undone_at.is_(None))
        .group_by(r.c.kind)
    )
    of_kind = {row.kind: int(row.n) for row in reacted}
    answered = select(func.count()).where(
        a.c.account_id == account_id, a.c.deleted_at.is_(None), a.c.hidden.is_(None)
    )
    return Figures(of_kind.get("like", 0), of_kind.get("announce", 0), int(tx.execute(answered).scalar_one()))


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of an account's state."""

    state: AccountState
    cause: str
    at: datetime


def state_changes(tx: Tx, account_id: int, *, limit: int) -> list[StateChange]:
    """Changes of an account's state, latest first."""
    s = schema.account_states
    rows = tx.execute(select(s).where(s.c.account_id == account_id).order_by(s.c.id.desc()).limit(limit))
    return [StateChange(AccountState(row.state), row.cause, row.at) for row in rows]


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────


def awaiting_fan_out(tx: Tx, post_ids: Sequence[int]) -> set[int]:
    """Posts with an activity whose deliveries are not all written yet."""
    a = schema.activities
    rows = tx.execute(select(a.c.post_id).where(a.c.post_id.in_(list(post_ids)), a.c.fanned_out_at.is_(None)))
    return set(rows.scalars())


@dataclass(frozen=True, slots=True)
class Trouble:
    """A delivery that did not arrive, or not yet. `at` is when it ended, or when it is tried again."""

    id: int
    kind: str
    post_id: int | None
    host: str
    state: str
    attempts: int
    reason: str | None
    at: datetime


def troubles(tx: Tx, account_id: int, *, limit: int, before_id: int | None = None) -> list[Trouble]:
    """Deliveries that failed, or failed at least once and wait; latest first."""
    d, a = schema.deliveries, schema.activities
    query: Select[Any] = (
        select(d, a.c.kind)
        .join(a, a.c.id == d.c.activity_id)
        .where(
            d.c.account_id == account_id,
            or_(d.c.state.in_(["refused", "gone", "given_up"]), and_(d.c.state == "waiting", d.c.attempts > 0)),
        )
    )
    if before_id is not None:
        query = query.where(d.c.id < before_id)
    rows = tx.execute(query.order_by(d.c.id.desc()).limit(limit))
    return [
        Trouble(
            id=row.id,
            kind=row.kind,
            post_id=row.post_id,
            host=row.host,
            state=row.state,
            attempts=row.attempts,
            reason=row.reason,
            at=row.ended_at or row.due_at,
        )
        for row in rows
    ]


# ── signing in ───────────────────────────────────────────────────────────────────────────────────────────────────


def account_of_link(tx: Tx, link_hash: str) -> Account | None:
    """Whose one-time link this is, while it can be used; looking does not use it up."""
    links = schema.sign_in_links
    account_id = tx.execute(
        select(links.c.account_id).where(
            links.c.token_hash == link_hash, links.c.used_at.is_(None), links.c.expires_at > tx.now
        )
    ).scalar_one_or_none()
    account = accounts.by_id(tx, account_id) if account_id is not None else None
    return account if account and account.state is not AccountState.GONE else None


def session_seen_at(tx: Tx, session_hash: str) -> datetime | None:
    """When a session was last written down as used."""
    s = schema.sessions
    return tx.execute(select(s.c.seen_at).where(s.c.token_hash == session_hash)).scalar_one_or_none()


def end_all_sessions(tx: Tx, account_id: int) -> None:
    """Sign an owner out everywhere; unused one-time links end too."""
    s, links = schema.sessions, schema.sign_in_links
    tx.execute(delete(s).where(s.c.account_id == account_id))
    tx.execute(delete(links).where(links.c.account_id == account_id, links.c.used_at.is_(None)))
