"""People on other servers: who they are, who follows, who liked, boosted or answered.

Rule: an end is a mark on the row, never its removal; figures on accounts and posts are kept in the transaction that
changes the rows they count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, Update, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from threadbridge.domain.people import Follower, Peer, Reaction, ReactionKind, Reply
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

_CHUNK = 500

# ── peers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def save_peer(tx: Tx, peer: Peer, host: str) -> None:
    """Remember, or renew, what an actor's own server says of it."""
    values = {
        "uri": peer.uri,
        "host": host,
        "kind": peer.kind,
        "handle": peer.handle,
        "name": peer.name,
        "url": peer.url,
        "inbox": peer.inbox,
        "shared_inbox": peer.shared_inbox,
        "key_id": peer.key_id,
        "key_pem": peer.key_pem,
        "moved_to": peer.moved_to,
        "fetched_at": tx.now,
    }
    renewed = {key: value for key, value in values.items() if key != "uri"}
    p = schema.peers
    # A key passes from one actor of a server to another when an account is made anew there. It cannot be both's.
    tx.execute(
        update(p)
        .where(p.c.key_id == peer.key_id, p.c.uri != peer.uri)
        .values(key_id=func.substr(p.c.uri, 1, 2000) + " had one")
    )
    tx.execute(
        tx.insert(schema.peers)
        .values(**values)
        .on_conflict_do_update(index_elements=["uri"], set_={**renewed, "gone_at": None})
    )


def peer(tx: Tx, uri: str) -> Peer | None:
    """The actor with this id, if we have met."""
    return _found_peer(tx, schema.peers.c.uri == uri)


def peer_by_key(tx: Tx, key_id: str) -> Peer | None:
    """The actor whose key has this id, if we have met."""
    return _found_peer(tx, schema.peers.c.key_id == key_id)


def _found_peer(tx: Tx, condition: Any) -> Peer | None:
    row = tx.execute(select(schema.peers).where(condition, schema.peers.c.gone_at.is_(None))).first()
    if row is None:
        return None
    return Peer(
        uri=row.uri,
        inbox=row.inbox,
        shared_inbox=row.shared_inbox,
        handle=row.handle,
        name=row.name,
        url=row.url,
        key_id=row.key_id,
        key_pem=row.key_pem,
        kind=row.kind,
        moved_to=row.moved_to,
    )


def known(tx: Tx, uri: str) -> bool:
    """Whether an actor that is not gone is on record: a Delete of anybody else needs no signature check."""
    p = schema.peers
    return tx.execute(select(p.c.uri).where(p.c.uri == uri, p.c.gone_at.is_(None))).first() is not None


def bury_peer(tx: Tx, uri: str) -> None:
    """An actor was deleted over there: all it did here ends with it."""
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == uri).values(gone_at=tx.now, name="", handle=""))
    f, r, a = schema.followers, schema.reactions, schema.replies
    for row in tx.execute(select(f.c.account_id).where(f.c.peer_uri == uri, f.c.ended_at.is_(None))).all():
        end_follow(tx, row.account_id, uri, cause="deleted")
    rows = tx.execute(select(r.c.post_id, r.c.kind).where(r.c.peer_uri == uri, r.c.undone_at.is_(None))).all()
    for row in rows:
        undo_reaction(tx, row.post_id, row.kind, uri)
    for row in tx.execute(select(a.c.uri).where(a.c.peer_uri == uri, a.c.deleted_at.is_(None))).all():
        delete_reply(tx, row.uri, uri)


# ── followers ────────────────────────────────────────────────────────────────────────────────────────────────────


def follow(tx: Tx, account_id: int, peer_: Peer, follow_uri: str) -> int:
    """Make (or renew) a follower; returns the row's number. Repeated follows count once."""
    f = schema.followers
    inbox = peer_.shared_inbox or peer_.inbox
    before = tx.execute(
        select(f.c.id, f.c.ended_at).where(f.c.account_id == account_id, f.c.peer_uri == peer_.uri)
    ).first()
    if before is None:
        number: int = tx.execute(
            insert(f)
            .values(account_id=account_id, peer_uri=peer_.uri, follow_uri=follow_uri, inbox=inbox, since=tx.now)
            .returning(f.c.id)
        ).scalar_one()
    else:
        number = before.id
        since = {"since": tx.now} if before.ended_at else {}
        tx.execute(
            update(f)
            .where(f.c.id == number)
            .values(follow_uri=follow_uri, inbox=inbox, ended_at=None, ended_by=None, **since)
        )
    # Whoever follows is there (again), whatever we were told before.
    p = schema.peers
    tx.execute(update(p).where(p.c.uri == peer_.uri, p.c.gone_at.is_not(None)).values(gone_at=None))
    if before is None or before.ended_at:
        _count_followers(tx, account_id, +1)
    return number


def end_follow(tx: Tx, account_id: int, peer_uri: str, *, cause: str) -> bool:
    """End a follow; False if there was none."""
    f = schema.followers
    ended = tx.execute(
        update(f)
        .where(f.c.account_id == account_id, f.c.peer_uri == peer_uri, f.c.ended_at.is_(None))
        .values(ended_at=tx.now, ended_by=cause)
    )
    if not ended.rowcount:
        return False
    _count_followers(tx, account_id, -1)
    return True


def move_inbox(tx: Tx, peer_: Peer) -> None:
    """An actor's inbox changed: its copies go to the new one from now on."""
    f = schema.followers
    tx.execute(update(f).where(f.c.peer_uri == peer_.uri).values(inbox=peer_.shared_inbox or peer_.inbox))


def account_followed_by(tx: Tx, follow_uri: str, peer_uri: str) -> int | None:
    """Which account a Follow with this id, by this actor, is about (an Undo may name the id only)."""
    f = schema.followers
    return tx.execute(
        select(f.c.account_id).where(f.c.follow_uri == follow_uri, f.c.peer_uri == peer_uri).limit(1)
    ).scalar_one_or_none()


def _count_followers(tx: Tx, account_id: int, by: int) -> None:
    a = schema.accounts
    tx.execute(update(a).where(a.c.id == account_id).values(followers_count=a.c.followers_count + by))
    touch(tx, account_id, figures_only=True)


def reach(tx: Tx, account_id: int, *, after_id: int = 0, limit: int = _CHUNK) -> list[tuple[int, str]]:
    """(row number, inbox) of present followers, in order of rows, for the fan-out."""
    f = schema.followers
    rows = tx.execute(
        select(f.c.id, f.c.inbox)
        .where(f.c.account_id == account_id, f.c.ended_at.is_(None), f.c.id > after_id)
        .order_by(f.c.id)
        .limit(limit)
    )
    return [(row.id, row.inbox) for row in rows]


def followers_page(
    tx: Tx, account_id: int, *, limit: int, before_id: int | None = None
) -> list[tuple[int, Follower]]:
    """Present followers, latest first, with the row number to go on from."""
    f, p = schema.followers, schema.peers
    query = (
        select(f.c.id, f.c.peer_uri, f.c.since, p.c.handle, p.c.name, p.c.url)
        .join(p, p.c.uri == f.c.peer_uri)
        .where(f.c.account_id == account_id, f.c.ended_at.is_(None))
    )
    if before_id is not None:
        query = query.where(f.c.id < before_id)
    rows = tx.execute(query.order_by(f.c.id.desc()).limit(limit))
    return [(row.id, Follower(row.peer_uri, row.handle, row.name, row.url, row.since)) for row in rows]


def all_followers(tx: Tx, account_id: int) -> Iterator[Follower]:
    """Every present follower, oldest first, in constant memory (exports)."""
    f, p = schema.followers, schema.peers
    last = 0
    while True:
        rows = tx.execute(
            select(f.c.id, f.c.peer_uri, f.c.since, p.c.handle, p.c.name, p.c.url)
            .join(p, p.c.uri == f.c.peer_uri)
            .where(f.c.account_id == account_id, f.c.ended_at.is_(None), f.c.id > last)
            .order_by(f.c.id)
            .limit(_CHUNK)
        ).all()
        for row in rows:
            yield Follower(row.peer_uri, row.handle, row.name, row.url, row.since)
        if len(rows) < _CHUNK:
            return
        last = rows[-1].id


# ── likes and boosts ─────────────────────────────────────────────────────────────────────────────────────────────

_COUNTS = {"like": schema.posts.c.likes_count, "announce": schema.posts.c.shares_count}


# Built once, like `_hearing` below: these run for every reaction, and building them costs more than running them.
_REACTED = select(schema.reactions.c.id, schema.reactions.c.undone_at).where(
    schema.reactions.c.post_id == bindparam("post"),
    schema.reactions.c.kind == bindparam("what"),
    schema.reactions.c.peer_uri == bindparam("peer"),
)
_NEW_REACTION = insert(schema.reactions)
_COUNT_REACTION: dict[str, Update] = {
    kind: update(schema.posts)
    .where(schema.posts.c.id == bindparam("post"))
    .values({column: column + bindparam("by", type_=column.type)})
    for kind, column in _COUNTS.items()
}


def react(tx: Tx, account_id: int, post_id: int, peer_uri: str, kind: ReactionKind, activity_uri: str) -> bool:
    """Count a like or boost, once per person; False if it is counted already."""
    r = schema.reactions
    before = tx.execute(_REACTED, {"post": post_id, "what": kind, "peer": peer_uri}).first()
    if before is not None and before.undone_at is None:
        return False
    if before is None:
        row = {"account_id": account_id, "post_id": post_id, "peer_uri": peer_uri, "kind": kind}
        tx.execute(_NEW_REACTION, {**row, "activity_uri": activity_uri, "at": tx.now})
    else:
        tx.execute(update(r).where(r.c.id == before.id).values(activity_uri=activity_uri, at=tx.now, undone_at=None))
    _count_reaction(tx, account_id, post_id, kind, +1)
    return True


def undo_reaction(tx: Tx, post_id: int, kind: ReactionKind, peer_uri: str) -> bool:
    """Take back a like or boost; False if there is none."""
    r = schema.reactions
    account_id = tx.execute(
        update(r)
        .where(r.c.post_id == post_id, r.c.kind == kind, r.c.peer_uri == peer_uri, r.c.undone_at.is_(None))
        .values(undone_at=tx.now)
        .returning(r.c.account_id)
    ).scalar_one_or_none()
    if account_id is None:
        return False
    _count_reaction(tx, account_id, post_id, kind, -1)
    return True


def reaction_by_activity(tx: Tx, activity_uri: str, peer_uri: str) -> tuple[int, ReactionKind] | None:
    """(post id, kind) of the like or boost that this activity made."""
    r = schema.reactions
    row = tx.execute(
        select(r.c.post_id, r.c.kind).where(r.c.activity_uri == activity_uri, r.c.peer_uri == peer_uri)
    ).first()
    return (row.post_id, row.kind) if row else None


def _count_reaction(tx: Tx, account_id: int, post_id: int, kind: ReactionKind, by: int) -> None:
    tx.execute(_COUNT_REACTION[kind], {"post": post_id, "by": by})
    touch(tx, account_id, figures_only=True)


def _reactions() -> Select[Any]:
    r, p = schema.reactions, schema.peers
    return select(r, p.c.handle, p.c.name, p.c.url).join(p, p.c.uri == r.c.peer_uri).where(r.c.undone_at.is_(None))


def _reaction(row: Row[Any]) -> Reaction:
    return Reaction(
        kind=row.kind,
        post_id=row.post_id,
        peer_uri=row.peer_uri,
        handle=row.handle,
        name=row.name,
        url=row.url,
        activity_uri=row.activity_uri,
        at=row.at,
    )


def reactions_page(
    tx: Tx, account_id: int, *, limit: int, before_id: int | None = None, kind: ReactionKind | None = None
) -> list[tuple[int, Reaction]]:
    """Likes and boosts of all of an account's posts, latest first, with the row number to go on from."""
    r = schema.reactions
    query = _reactions().where(r.c.account_id == account_id)
    if before_id is not None:
        query = query.where(r.c.id < before_id)
    if kind is not None:
        query = query.where(r.c.kind == kind)
    return [(row.id, _reaction(row)) for row in tx.execute(query.order_by(r.c.id.desc()).limit(limit))]


def all_reactions(tx: Tx, account_id: int) -> Iterator[Reaction]:
    """Every counted like and boost, oldest first, in constant memory (exports)."""
    r = schema.reactions
    last = 0
    while True:
        rows = tx.execute(
            _reactions().where(r.c.account_id == account_id, r.c.id > last).order_by(r.c.id).limit(_CHUNK)
        ).all()
        for row in rows:
            yield _reaction(row)
        if len(rows) < _CHUNK:
            return
        last = rows[-1].id


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def add_reply(tx: Tx, account_id: int, reply: Reply, original: str) -> bool:
    """Keep an answer; False if its id is known (also as deleted: a deleted id is never used again)."""
    a = schema.replies
    if tx.execute(select(a.c.id).where(a.c.uri == reply.uri)).first() is not None:
        return False
    tx.execute(
        insert(a).values(
            account_id=account_id,
            post_id=reply.post_id,
            uri=reply.uri,
            peer_uri=reply.peer_uri,
            url=reply.url,
            html=reply.html,
            published=reply.published,
            updated=reply.updated,
            public=reply.public,
            original=original,
            received_at=tx.now,
        )
    )
    _count_reply(tx, account_id, reply.post_id, +1)
    return True


def edit_reply(tx: Tx, uri: str, peer_uri: str, *, html: str, updated: datetime, public: bool, original: str) -> bool:
    """Replace the text of an answer by its own author; False if there is none, or a newer form is held."""
    a = schema.replies
    row = tx.execute(
        select(a.c.id, a.c.account_id, a.c.updated).where(
            a.c.uri == uri, a.c.peer_uri == peer_uri, a.c.deleted_at.is_(None)
        )
    ).first()
    if row is None or (row.updated is not None and row.updated >= updated):
        return False
    tx.execute(update(a).where(a.c.id == row.id).values(html=html, updated=updated, public=public, original=original))
    touch(tx, row.account_id, figures_only=True)
    return True


def delete_reply(tx: Tx, uri: str, peer_uri: str) -> bool:
    """Delete an answer by its own author; its texts go, its id stays taken."""
    a = schema.replies
    row = tx.execute(
        update(a)
        .where(a.c.uri == uri, a.c.peer_uri == peer_uri, a.c.deleted_at.is_(None))
        .values(deleted_at=tx.now, html="", original="")
        .returning(a.c.account_id, a.c.post_id)
    ).first()
    if row is None:
        return False
    _count_reply(tx, row.account_id, row.post_id, -1)
    return True


def reply_known(tx: Tx, uri: str) -> bool:
    """Whether an object id is one of the answers held here, deleted or not."""
    a = schema.replies
    return tx.execute(select(a.c.id).where(a.c.uri == uri)).first() is not None


def reply_target(tx: Tx, uri: str) -> tuple[int, int] | None:
    """(account id, post id) under which an answer stands, so that an answer to it finds its place too."""
    a = schema.replies
    row = tx.execute(select(a.c.account_id, a.c.post_id).where(a.c.uri == uri, a.c.deleted_at.is_(None))).first()
    return (row.account_id, row.post_id) if row else None


def _count_reply(tx: Tx, account_id: int, post_id: int, by: int) -> None:
    p = schema.posts
    tx.execute(update(p).where(p.c.id == post_id).values(replies_count=p.c.replies_count + by))
    touch(tx, account_id, figures_only=True)


def _replies() -> Select[Any]:
    a, p = schema.replies, schema.peers
    return (
        select(a, p.c.handle, p.c.name, p.c.url.label("author_url"))
        .join(p, p.c.uri == a.c.peer_uri)
        .where(a.c.deleted_at.is_(None))
    )


def _reply(row: Row[Any]) -> Reply:
    return Reply(
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
    )


def replies_to(tx: Tx, post_id: int, *, limit: int = 100, public_only: bool = True) -> list[Reply]:
    """Answers to one post, oldest first."""
    a = schema.replies
    query = _replies().where(a.c.post_id == post_id)
    if public_only:
        query = query.where(a.c.public)
    return [_reply(row) for row in tx.execute(query.order_by(a.c.published, a.c.id).limit(limit))]


def reply_uris(tx: Tx, post_ids: Sequence[int], limit: int = 50) -> dict[int, list[str]]:
    """{post id: ids of its public answers, oldest first}."""
    a = schema.replies
    place = func.row_number().over(partition_by=a.c.post_id, order_by=(a.c.published, a.c.id)).label("place")
    ranked = (
        select(a.c.post_id, a.c.uri, place)
        .where(a.c.post_id.in_(post_ids), a.c.public, a.c.deleted_at.is_(None))
        .subquery()
    )
    held: dict[int, list[str]] = {}
    for row in tx.execute(select(ranked).where(ranked.c.place <= limit).order_by(ranked.c.post_id, ranked.c.place)):
        held.setdefault(row.post_id, []).append(row.uri)
    return held


def replies_page(tx: Tx, account_id: int, *, limit: int, before_id: int | None = None) -> list[tuple[int, Reply]]:
    """Answers to all of an account's posts, latest first, with the row number to go on from."""
    a = schema.replies
    query = _replies().where(a.c.account_id == account_id)
    if before_id is not None:
        query = query.where(a.c.id < before_id)
    return [(row.id, _reply(row)) for row in tx.execute(query.order_by(a.c.id.desc()).limit(limit))]


def all_replies(tx: Tx, account_id: int) -> Iterator[tuple[Reply, str]]:
    """Every answer with the object as it came, oldest first, in constant memory (exports)."""
    a = schema.replies
    last = 0
    while True:
        rows = tx.execute(
            _replies().where(a.c.account_id == account_id, a.c.id > last).order_by(a.c.id).limit(_CHUNK)
        ).all()
        for row in rows:
            yield _reply(row), row.original
        if len(rows) < _CHUNK:
            return
        last = rows[-1].id


def conversers(tx: Tx, post_id: int) -> list[str]:
    """Inboxes of those who liked, boosted or answered a post: they hold copies and hear of its edit and deletion."""
    r, a, p = schema.reactions, schema.replies, schema.peers
    inbox = func.coalesce(p.c.shared_inbox, p.c.inbox)
    found = select(inbox).join(r, r.c.peer_uri == p.c.uri).where(r.c.post_id == post_id, p.c.gone_at.is_(None))
    answered = select(inbox).join(a, a.c.peer_uri == p.c.uri).where(a.c.post_id == post_id, p.c.gone_at.is_(None))
    return [row[0] for row in tx.execute(found.union(answered))]


# ── what has been heard ──────────────────────────────────────────────────────────────────────────────────────────


def first_hearing(tx: Tx, activity_uri: str, peer_uri: str, outcome: str) -> bool:
    """Write down that an activity arrived; False if it has been heard before. The unique key decides, so that two
    workers cannot both be first."""
    hearing = _hearing(tx.connection.dialect.name)
    row = {"uri": activity_uri, "peer_uri": peer_uri, "outcome": outcome, "at": tx.now}
    return tx.execute(hearing, row).first() is not None


@cache
def _hearing(dialect: str) -> ReturningInsert[Any]:
    seen = schema.seen_activities
    insert_ = postgresql.insert(seen) if dialect == "postgresql" else sqlite.insert(seen)
    return insert_.on_conflict_do_nothing().returning(seen.c.uri)


def heard_of(tx: Tx, uri: str, peer_uri: str) -> bool:
    """Whether this actor had an id written down as heard (its object deleted before it came)."""
    s = schema.seen_activities
    return tx.execute(select(s.c.uri).where(s.c.uri == uri, s.c.peer_uri == peer_uri)).first() is not None


def forget_heard(tx: Tx, before: datetime) -> int:
    """Forget ids heard before a time: a replayed request of that age is refused by its date."""
    s = schema.seen_activities
    return tx.execute(delete(s).where(s.c.at < before)).rowcount


def set_outcome(tx: Tx, activity_uri: str, outcome: str) -> None:
    s = schema.seen_activities
    tx.execute(update(s).where(s.c.uri == activity_uri).values(outcome=outcome))


def count_dropped(tx: Tx, kind: str, reason: str) -> None:
    """Count an activity that had no effect, with the reason."""
    d = schema.dropped
    tx.execute(
        tx.insert(d)
        .values(kind=kind[:64], reason=reason[:64], times=1, last_at=tx.now)
        .on_conflict_do_update(index_elements=["kind", "reason"], set_={"times": d.c.times + 1, "last_at": tx.now})
    )


def dropped(tx: Tx) -> list[tuple[str, str, int]]:
    """(kind, reason, count) of everything that was accepted and had no effect."""
    d = schema.dropped
    rows = tx.execute(select(d.c.kind, d.c.reason, d.c.times).order_by(d.c.kind, d.c.reason))
    return [(row.kind, row.reason, row.times) for row in rows]
