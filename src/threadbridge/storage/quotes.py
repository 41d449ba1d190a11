"""Posts that quote ours, and posts of ours that quote somebody elsewhere.

Rule: the number of a quote is in the address of its authorization, so a row is never removed and its number never
used again; the figure on the post is counted anew in the transaction that changes a row.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, Select, and_, func, insert, or_, select, update

from threadbridge.domain.people import Quote, QuoteState
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

_q, _g, _p = schema.quotes, schema.quotings, schema.posts
COUNTED = ("unasked", "accepted")
_shown = _q.c.ended_at.is_(None) & _q.c.hidden.is_(None)
QuotingState = Literal["asked", "accepted", "refused", "revoked"]


# ── who quotes us ────────────────────────────────────────────────────────────────────────────────────────────────


def _quotes() -> Select[Any]:
    peer = schema.peers
    return select(_q, peer.c.handle, peer.c.name, peer.c.url.label("author_url")).outerjoin(
        peer, peer.c.uri == _q.c.peer_uri
    )


def _quote(row: Row[Any]) -> Quote:
    return Quote(
        id=row.id,
        account_id=row.account_id,
        post_id=row.post_id,
        uri=row.uri,
        peer_uri=row.peer_uri,
        by_post_id=row.by_post_id,
        request_uri=row.request_uri,
        state=row.state,
        handle=row.handle or "",
        name=row.name or "",
        author_url=row.author_url,
        url=row.url,
        html=row.html,
        public=row.public,
        at=row.at,
        ended_at=row.ended_at,
    )


def _found(tx: Tx, *conditions: Any) -> Quote | None:
    row = tx.execute(_quotes().where(*conditions)).first()
    return _quote(row) if row else None


def by_id(tx: Tx, account_id: int, number: int) -> Quote | None:
    """A quote of a post of this account, whatever became of it."""
    return _found(tx, _q.c.id == number, _q.c.account_id == account_id)


def by_uri(tx: Tx, uri: str) -> Quote | None:
    """The quote that this quoting post makes, whatever became of it."""
    return _found(tx, _q.c.uri == uri)


def by_request(tx: Tx, request_uri: str, peer_uri: str) -> Quote | None:
    """The quote for which somebody asked with this QuoteRequest."""
    return _found(tx, _q.c.request_uri == request_uri, _q.c.peer_uri == peer_uri)


def record(
    tx: Tx,
    account_id: int,
    post_id: int,
    *,
    uri: str,
    state: QuoteState,
    peer_uri: str | None = None,
    by_post_id: int | None = None,
    request_uri: str | None = None,
    url: str | None = None,
    html: str = "",
    public: bool = True,
) -> int:
    """Write down a quoting post that is not known yet; returns the number of its authorization."""
    number: int = tx.execute(
        insert(_q)
        .values(
            account_id=account_id,
            post_id=post_id,
            uri=uri,
            peer_uri=peer_uri,
            by_post_id=by_post_id,
            request_uri=request_uri,
            state=state,
            url=url,
            html=html,
            public=public,
            at=tx.now,
        )
        .returning(_q.c.id)
    ).scalar_one()
    recount(tx, account_id, post_id)
    return number


def change(tx: Tx, quote: Quote, **values: Any) -> None:
    """Change columns of a quote: its state, the request that asked for it, its text."""
    tx.execute(update(_q).where(_q.c.id == quote.id).values(**values))
    recount(tx, quote.account_id, quote.post_id)


def end(tx: Tx, quote: Quote) -> bool:
    """The quoting post is gone, or quotes us no more: its text goes. False if that was so already."""
    if quote.ended_at is not None:
        return False
    change(tx, quote, ended_at=tx.now, html="", url=None)
    return True


def end_of_peer(tx: Tx, peer_uri: str) -> None:
    """Somebody is gone, and all their quotes."""
    for row in tx.execute(_quotes().where(_q.c.peer_uri == peer_uri, _q.c.ended_at.is_(None))).all():
        end(tx, _quote(row))


def undecided_from(tx: Tx, host: str, since: datetime) -> int:
    """How many posts of a server's people wait for an owner, or quote since a time without having asked."""
    people = schema.peers
    undecided = or_(_q.c.state == "waiting", and_(_q.c.state == "unasked", _q.c.at > since))
    mine = select(func.count()).select_from(_q.join(people, people.c.uri == _q.c.peer_uri))
    return int(tx.execute(mine.where(people.c.host == host, undecided, _q.c.ended_at.is_(None))).scalar_one())


def recount(tx: Tx, account_id: int, post_id: int) -> None:
    """Count anew who quotes a post."""
    counted = (
        select(func.count())
        .select_from(_q)
        .where(_q.c.post_id == post_id, _q.c.state.in_(COUNTED), _shown, _q.c.public)
    )
    tx.execute(update(_p).where(_p.c.id == post_id).values(quotes_count=counted.scalar_subquery()))
    touch(tx, account_id, figures_only=True)


def page(
    tx: Tx, account_id: int, *, limit: int, before_id: int | None = None, waiting_only: bool = False
) -> list[Quote]:
    """Quotes of all of an account's posts that have not ended, latest first; of those that are hidden only what waits
    for the owner, because its author is limited."""
    asked = _q.c.ended_at.is_(None) & (_q.c.hidden == "limited") & (_q.c.state == "waiting")
    query = _quotes().where(_q.c.account_id == account_id, _shown | asked)
    if before_id is not None:
        query = query.where(_q.c.id < before_id)
    if waiting_only:
        query = query.where(_q.c.state == "waiting")
    return [_quote(row) for row in tx.execute(query.order_by(_q.c.id.desc()).limit(limit))]


def of_post(tx: Tx, post_id: int, *, limit: int = 50) -> list[Quote]:
    """Quotes of one post that have not ended and are not hidden, oldest first."""
    query = _quotes().where(_q.c.post_id == post_id, _shown)
    return [_quote(row) for row in tx.execute(query.order_by(_q.c.id).limit(limit))]


def parked(tx: Tx, number: int) -> bool:
    """Whether a rule of ours has a quote suspended; then its authorization is not there."""
    return tx.execute(select(_q.c.id).where(_q.c.id == number, _q.c.hidden == "suspended")).first() is not None


def by_posts(tx: Tx, post_ids: Collection[int]) -> dict[int, Quote]:
    """{quoting post of ours: its quote of another account here}."""
    if not post_ids:
        return {}
    rows = tx.execute(_quotes().where(_q.c.by_post_id.in_(list(post_ids)), _q.c.ended_at.is_(None)))
    return {row.by_post_id: _quote(row) for row in rows}


def made_by(tx: Tx, post_id: int) -> list[Quote]:
    """Quotes that a post of ours makes of posts of other accounts here."""
    return [_quote(row) for row in tx.execute(_quotes().where(_q.c.by_post_id == post_id, _q.c.ended_at.is_(None)))]


# ── whom we quote ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Quoting:
    """A post of ours that quotes a post elsewhere: `uri` by `author`. `stamp` is the address of their authorization,
    checked at its origin, while `state` is 'accepted'."""

    post_id: int
    uri: str
    author: str
    url: str
    request_uri: str
    state: QuotingState
    stamp: str | None


def _quoting(row: Row[Any]) -> Quoting:
    return Quoting(row.post_id, row.uri, row.author, row.url, row.request_uri, row.state, row.stamp)


def asked(tx: Tx, post_id: int, *, uri: str, author: str, url: str, request_uri: str) -> bool:
    """Write down that an author was asked; False if that was so already."""
    made = tx.execute(
        tx.insert(_g)
        .values(
            post_id=post_id,
            uri=uri,
            author=author,
            url=url,
            request_uri=request_uri,
            state="asked",
            asked_at=tx.now,
        )
        .on_conflict_do_nothing()
        .returning(_g.c.post_id)
    )
    return made.first() is not None


def quoting(tx: Tx, *, request_uri: str | None = None, stamp: str | None = None) -> Quoting | None:
    """What we asked with this request, or what this authorization of others lets us quote."""
    wanted = _g.c.request_uri == request_uri if request_uri is not None else _g.c.stamp == stamp
    row = tx.execute(select(_g).where(wanted)).first()
    return _quoting(row) if row else None


def settle(tx: Tx, post_id: int, state: QuotingState, stamp: str | None = None) -> bool:
    """Write down what the author said; False if that is known already."""
    changed = tx.execute(
        update(_g)
        .where(_g.c.post_id == post_id, or_(_g.c.state != state, _g.c.stamp.is_distinct_from(stamp)))
        .values(state=state, stamp=stamp)
    )
    return bool(changed.rowcount)


def quotings(tx: Tx, post_ids: Collection[int]) -> dict[int, Quoting]:
    """{post of ours: whom it quotes elsewhere}."""
    if not post_ids:
        return {}
    rows = tx.execute(select(_g).where(_g.c.post_id.in_(list(post_ids))))
    return {row.post_id: _quoting(row) for row in rows}


# ── posts of accounts here, found by what the source calls them ──────────────────────────────────────────────────


def held_here(tx: Tx, source: str, native_id: str) -> int | None:
    """The post, of any account here that is not gone, that a source calls so."""
    o, a = schema.origins, schema.accounts
    return tx.execute(
        select(o.c.post_id)
        .join(_p, _p.c.id == o.c.post_id)
        .join(a, a.c.id == o.c.account_id)
        .where(o.c.source == source, o.c.native_id == native_id, _p.c.deleted_at.is_(None), a.c.state != "gone")
        .order_by(o.c.id)
        .limit(1)
    ).scalar_one_or_none()


def known_by_url(tx: Tx, url: str) -> tuple[str, str] | None:
    """(id, author) of a post elsewhere that we hold, an answer or a quote, found by its page."""
    for table in (schema.replies, _q):
        gone = table.c.deleted_at if table is schema.replies else table.c.ended_at
        row = tx.execute(
            select(table.c.uri, table.c.peer_uri).where(
                or_(table.c.uri == url, table.c.url == url), gone.is_(None), table.c.peer_uri.is_not(None)
            )
        ).first()
        if row is not None:
            return row.uri, row.peer_uri
    return None


def when_asked(tx: Tx, post_id: int) -> datetime | None:
    """When the author of what a post quotes was asked."""
    return tx.execute(select(_g.c.asked_at).where(_g.c.post_id == post_id)).scalar_one_or_none()
