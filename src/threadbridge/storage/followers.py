"""Who follows our accounts.

Rule: an end is a mark on the row, never its removal; the figure on the account is kept in the transaction that
changes the rows it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Integer, bindparam, or_, select, update

from threadbridge.activitypub.text import host_of
from threadbridge.domain.people import Follower, Peer
from threadbridge.storage import hosts, schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_CHUNK = 500
PUT_ASIDE = "suspended"
"""The cause of a follow's end while a rule suspends somebody: it comes back with the end of the rule (`parking`)."""

_FOLLOWED = Prepared(
    lambda _: select(schema.followers.c.id, schema.followers.c.ended_at).where(
        schema.followers.c.account_id == bindparam("account"), schema.followers.c.peer_uri == bindparam("peer")
    )
)
_NEW_FOLLOWER = Prepared(
    lambda insert: insert(schema.followers).returning(schema.followers.c.id),
    ["account_id", "peer_uri", "follow_uri", "inbox", "inbox_host", "since"],
)
_IS_THERE = Prepared(
    lambda _: (
        update(schema.peers)
        .where(schema.peers.c.uri == bindparam("peer"), schema.peers.c.gone_at.is_not(None))
        .values(gone_at=None)
    )
)
_COUNT = Prepared(
    lambda _: (
        update(schema.accounts)
        .where(schema.accounts.c.id == bindparam("account"))
        .values(followers_count=schema.accounts.c.followers_count + bindparam("by", type_=Integer()))
    )
)


def follow(tx: Tx, account_id: int, peer_: Peer, follow_uri: str) -> int:
    """Make (or renew) a follower; returns the row's number. Repeated follows count once."""
    f = schema.followers
    inbox = peer_.shared_inbox or peer_.inbox
    host = _host(inbox)
    if (home := host_of(peer_.uri)) != host:
        # Their copies go to another server than the one that they live on (wordpress.com): both are remembered.
        hosts.known(tx, home)
    before = _FOLLOWED.first(tx, account=account_id, peer=peer_.uri)
    if before is None:
        number: int = _NEW_FOLLOWER.first(
            tx, account_id=account_id, peer_uri=peer_.uri, follow_uri=follow_uri, inbox=inbox, inbox_host=host,
            since=tx.now,
        ).id  # fmt: skip
    else:
        number = before.id
        since = {"since": tx.now} if before.ended_at else {}
        tx.execute(
            update(f)
            .where(f.c.id == number)
            .values(
                follow_uri=follow_uri,
                inbox=inbox,
                inbox_host=host,
                ended_at=None,
                ended_by=None,
                carried_to=None,
                **since,
            )
        )
    # Whoever follows is there (again), whatever we were told before.
    _IS_THERE.run(tx, peer=peer_.uri)
    if before is None or before.ended_at:
        _count_followers(tx, account_id, +1)
    return number


def end(tx: Tx, account_id: int, peer_uri: str, *, cause: str) -> bool:
    """End a follow, also one that a rule has put aside; False if there was none."""
    f = schema.followers
    theirs = (f.c.account_id == account_id, f.c.peer_uri == peer_uri)
    ended = tx.execute(update(f).where(*theirs, f.c.ended_at.is_(None)).values(ended_at=tx.now, ended_by=cause))
    if not ended.rowcount:
        # What is put aside counts no more; whoever leaves meanwhile does not come back with the end of the rule.
        if cause == PUT_ASIDE:
            return False
        aside = update(f).where(*theirs, f.c.ended_by == PUT_ASIDE)
        return bool(tx.execute(aside.values(ended_at=tx.now, ended_by=cause)).rowcount)
    _count_followers(tx, account_id, -1)
    return True


def move_inbox(tx: Tx, peer_: Peer) -> None:
    """An actor's inbox changed: its copies go to the new one from now on."""
    f = schema.followers
    inbox = peer_.shared_inbox or peer_.inbox
    tx.execute(update(f).where(f.c.peer_uri == peer_.uri).values(inbox=inbox, inbox_host=_host(inbox)))


def _host(inbox: str) -> str:
    return host_of(inbox)[:255]


_FOLLOWS = Prepared(
    lambda _: select(schema.followers.c.follow_uri).where(
        schema.followers.c.account_id == bindparam("account"),
        schema.followers.c.peer_uri == bindparam("peer"),
        schema.followers.c.ended_at.is_(None),
    )
)


def follow_uri(tx: Tx, account_id: int, peer_uri: str) -> str | None:
    """The id of the Follow by which somebody follows now; None if they do not."""
    row = _FOLLOWS.first(tx, account=account_id, peer=peer_uri)
    return None if row is None else str(row.follow_uri)


def follows_anybody(tx: Tx, peer_uri: str) -> bool:
    """Whether somebody follows any of our accounts."""
    f = schema.followers
    return (
        tx.execute(select(f.c.id).where(f.c.peer_uri == peer_uri, f.c.ended_at.is_(None)).limit(1)).first()
        is not None
    )


@dataclass(frozen=True, slots=True)
class AtInbox:
    """A present follower whose copies go to one inbox; `id` is the row's number."""

    id: int
    account_id: int
    peer_uri: str


def at_inbox(tx: Tx, inbox: str, *, after_id: int = 0, limit: int = _CHUNK) -> list[AtInbox]:
    """Present followers whose copies go to an inbox, in order of rows."""
    f = schema.followers
    rows = tx.execute(
        select(f.c.id, f.c.account_id, f.c.peer_uri)
        .where(f.c.inbox == inbox, f.c.ended_at.is_(None), f.c.id > after_id)
        .order_by(f.c.id)
        .limit(limit)
    )
    return [AtInbox(row.id, row.account_id, row.peer_uri) for row in rows]


def accounts_of(tx: Tx, peer_uri: str) -> list[int]:
    """Which of our accounts somebody follows."""
    f = schema.followers
    return list(tx.execute(select(f.c.account_id).where(f.c.peer_uri == peer_uri, f.c.ended_at.is_(None))).scalars())


def end_some_of(tx: Tx, peer_uri: str, *, cause: str, before: datetime, limit: int) -> int:
    """End up to `limit` follows, made before a time, of somebody who is gone; returns how many."""
    f = schema.followers
    which = (f.c.peer_uri == peer_uri, f.c.ended_at.is_(None), f.c.since <= before)
    accounts = list(tx.execute(select(f.c.account_id).where(*which).limit(limit)).scalars())
    for account_id in accounts:
        end(tx, account_id, peer_uri, cause=cause)
    return len(accounts)


def carry(tx: Tx, account_id: int, peer_uri: str, target: str) -> bool:
    """A follower has moved: their follow of an account points to where they live now, and goes on until their Follow
    comes from there. False if they do not follow it."""
    f = schema.followers
    present = (f.c.account_id == account_id, f.c.peer_uri == peer_uri, f.c.ended_at.is_(None))
    return bool(tx.execute(update(f).where(*present).values(carried_to=target)).rowcount)


def removed(tx: Tx, account_id: int, peer_uri: str) -> bool:
    """Whether the owner removed somebody from the followers, and they have not followed anew."""
    f = schema.followers
    sent_away = (f.c.account_id == account_id, f.c.peer_uri == peer_uri, f.c.ended_by == "removed")
    return tx.execute(select(f.c.id).where(*sent_away)).first() is not None


# What somebody did after having moved does not undo that they were let in; what the owner did does.
_STILL_WELCOME = ("unfollowed", "deleted", "gone")
_CARRIED = Prepared(
    lambda _: select(schema.followers.c.peer_uri).where(
        schema.followers.c.carried_to == bindparam("peer"),
        schema.followers.c.account_id == bindparam("account"),
        or_(
            schema.followers.c.ended_at.is_(None),
            *(schema.followers.c.ended_by == ended_by for ended_by in _STILL_WELCOME),
        ),
    )
)


def carried(tx: Tx, account_id: int, peer_uri: str) -> list[str]:
    """Under which former ids somebody who has moved here from there was let in by an account."""
    return [row.peer_uri for row in _CARRIED.all(tx, account=account_id, peer=peer_uri)]


def account_followed_by(tx: Tx, follow_uri: str, peer_uri: str) -> int | None:
    """Which account a Follow with this id, by this actor, is about (an Undo may name the id only)."""
    f = schema.followers
    return tx.execute(
        select(f.c.account_id).where(f.c.follow_uri == follow_uri, f.c.peer_uri == peer_uri).limit(1)
    ).scalar_one_or_none()


def _count_followers(tx: Tx, account_id: int, by: int) -> None:
    _COUNT.run(tx, account=account_id, by=by)
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


def page(tx: Tx, account_id: int, *, limit: int, before_id: int | None = None) -> list[tuple[int, Follower]]:
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
