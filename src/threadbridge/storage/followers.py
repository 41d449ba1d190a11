"""Who follows our accounts.

Rule: an end is a mark on the row, never its removal; the figure on the account is kept in the transaction that
changes the rows it counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import insert, select, update

from threadbridge.domain.people import Follower, Peer
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

_CHUNK = 500


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


def end(tx: Tx, account_id: int, peer_uri: str, *, cause: str) -> bool:
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


def everyone(tx: Tx, account_id: int) -> Iterator[Follower]:
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
