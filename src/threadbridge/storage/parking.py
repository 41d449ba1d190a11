"""What a rule cuts, put aside: followers, reactions, replies, mentions, quotes, deliveries.

Rule: nothing is lost by a rule. What it ends bears a mark that only the rule's end takes away, so that everything
comes back as it was; what somebody ended themselves (or was deleted) never does. Figures are kept in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update

from threadbridge.storage import followers, quotes, schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

SUSPENDED = "suspended"
LIMITED = "limited"
"""The marks: in `followers.ended_by`, `reactions.parked`, and `hidden` of `replies`, `mentions` and `quotes`."""

_d, _f, _p, _r, _a = schema.deliveries, schema.followers, schema.peers, schema.reactions, schema.replies
_m, _q = schema.mentions, schema.quotes
_FIGURES = {"like": schema.posts.c.likes_count, "announce": schema.posts.c.shares_count}


@dataclass(frozen=True, slots=True)
class Met:
    """Somebody elsewhere whom we have met."""

    uri: str
    host: str
    handle: str


@dataclass(frozen=True, slots=True)
class Tie:
    """A follower, a reaction or a text (reply, mention, quote): `mark` is the present one (None: it counts and is
    shown)."""

    id: int
    account_id: int
    peer_uri: str
    mark: str | None
    post_id: int = 0
    kind: str = ""
    uri: str = ""
    html: str = ""
    shown: bool = False


# ── whom a rule may be about ─────────────────────────────────────────────────────────────────────────────────────


def met(tx: Tx, kind: str, subject: str, *, after: str = "", limit: int = 200) -> list[Met]:
    """People elsewhere whom a rule about `subject` may concern, by id; everybody when it is about everywhere."""
    query = select(_p.c.uri, _p.c.host, _p.c.handle).where(_p.c.uri > after, _p.c.gone_at.is_(None))
    if kind == "actor":
        handle = func.lower(_p.c.handle) == subject.removeprefix("@")
        query = query.where(or_(_p.c.uri == subject, handle) if subject.startswith("@") else _p.c.uri == subject)
    elif subject != "*":
        query = query.where(_under(_p.c.host, subject))
    return [Met(row.uri, row.host, row.handle) for row in tx.execute(query.order_by(_p.c.uri).limit(limit))]


def _under(host: ColumnElement[str], domain: str) -> ColumnElement[bool]:
    """Whether a host column is a domain or below it, at whatever port."""
    return or_(
        host == domain,
        host.startswith(f"{domain}:", autoescape=True),
        host.endswith(f".{domain}", autoescape=True),
        host.contains(f".{domain}:", autoescape=True),
    )


# ── what ties them to us ─────────────────────────────────────────────────────────────────────────────────────────


def follows(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Present and parked followers among these people."""
    rows = tx.execute(
        select(_f.c.id, _f.c.account_id, _f.c.peer_uri, _f.c.ended_at).where(
            _f.c.peer_uri.in_(uris), or_(_f.c.ended_at.is_(None), _f.c.ended_by == SUSPENDED)
        )
    )
    return [Tie(row.id, row.account_id, row.peer_uri, SUSPENDED if row.ended_at else None) for row in rows]


def reactions(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Present and parked reactions of these people."""
    rows = tx.execute(
        select(_r.c.id, _r.c.account_id, _r.c.peer_uri, _r.c.parked, _r.c.post_id, _r.c.kind).where(
            _r.c.peer_uri.in_(uris), or_(_r.c.undone_at.is_(None), _r.c.parked.is_not(None))
        )
    )
    return [Tie(r.id, r.account_id, r.peer_uri, r.parked, post_id=r.post_id, kind=r.kind) for r in rows]


def replies(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Replies of these people that are not deleted."""
    return _replies(tx, _a.c.peer_uri.in_(uris))


def replies_after(tx: Tx, after_id: int, limit: int = 200) -> list[Tie]:
    """Every reply that is not deleted, in order of rows."""
    return _replies(tx, _a.c.id > after_id, limit)


def reply(tx: Tx, uri: str) -> list[Tie]:
    """The reply with this id, if it is not deleted."""
    return _replies(tx, _a.c.uri == uri)


def _replies(tx: Tx, which: ColumnElement[bool], limit: int | None = None) -> list[Tie]:
    columns = (_a.c.id, _a.c.account_id, _a.c.peer_uri, _a.c.hidden, _a.c.post_id, _a.c.uri, _a.c.html, _a.c.shown)
    query = select(*columns).where(which, _a.c.deleted_at.is_(None)).order_by(_a.c.id).limit(limit)
    return [
        Tie(r.id, r.account_id, r.peer_uri, r.hidden, post_id=r.post_id, uri=r.uri, html=r.html, shown=r.shown)
        for r in tx.execute(query)
    ]


def mentions(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Mentions by these people that are not deleted."""
    return _mentions(tx, _m.c.peer_uri.in_(uris))


def mentions_after(tx: Tx, after_id: int, limit: int = 200) -> list[Tie]:
    """Every mention that is not deleted, in order of rows."""
    return _mentions(tx, _m.c.id > after_id, limit)


def _mentions(tx: Tx, which: ColumnElement[bool], limit: int | None = None) -> list[Tie]:
    query = select(_m.c.id, _m.c.account_id, _m.c.peer_uri, _m.c.hidden, _m.c.uri, _m.c.html)
    rows = tx.execute(query.where(which, _m.c.deleted_at.is_(None)).order_by(_m.c.id).limit(limit))
    return [Tie(r.id, r.account_id, r.peer_uri, r.hidden, uri=r.uri, html=r.html) for r in rows]


def quotes_of(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Quotes by these people that have not ended."""
    return _quotes(tx, _q.c.peer_uri.in_(uris))


def quotes_after(tx: Tx, after_id: int, limit: int = 200) -> list[Tie]:
    """Every quote by somebody elsewhere that has not ended, in order of rows."""
    return _quotes(tx, (_q.c.id > after_id) & _q.c.peer_uri.is_not(None), limit)


def _quotes(tx: Tx, which: ColumnElement[bool], limit: int | None = None) -> list[Tie]:
    query = select(_q.c.id, _q.c.account_id, _q.c.peer_uri, _q.c.hidden, _q.c.post_id, _q.c.uri, _q.c.html)
    rows = tx.execute(query.where(which, _q.c.ended_at.is_(None)).order_by(_q.c.id).limit(limit))
    return [
        Tie(r.id, r.account_id, r.peer_uri, r.hidden, post_id=r.post_id, uri=r.uri, html=r.html)
        for r in rows
    ]  # fmt: skip


# ── parking them, and back ───────────────────────────────────────────────────────────────────────────────────────


def park_follow(tx: Tx, tie: Tie) -> None:
    """A follower gets nothing while the rule holds."""
    followers.end(tx, tie.account_id, tie.peer_uri, cause=SUSPENDED)


def take_back_follow(tx: Tx, tie: Tie) -> None:
    """A parked follower is one again, since when they were."""
    back = update(_f).where(_f.c.id == tie.id, _f.c.ended_by == SUSPENDED)
    if tx.execute(back.values(ended_at=None, ended_by=None)).rowcount:
        a = schema.accounts
        tx.execute(update(a).where(a.c.id == tie.account_id).values(followers_count=a.c.followers_count + 1))
        touch(tx, tie.account_id, figures_only=True)


def mark_reaction(tx: Tx, tie: Tie, mark: str | None) -> None:
    """Put a reaction aside, or back when `mark` is None."""
    values: dict[str, Any] = {"parked": mark}
    if mark is None:
        values["undone_at"] = None
    elif tie.mark is None:
        values["undone_at"] = tx.now
    tx.execute(update(_r).where(_r.c.id == tie.id).values(**values))
    figure = _FIGURES.get(tie.kind)
    if figure is not None and (mark is None or tie.mark is None):
        # Counted anew rather than by one more or less: a person may have several rows here and counts once.
        present = (
            select(func.count(_r.c.person.distinct()))
            .where(_r.c.post_id == tie.post_id, _r.c.kind == tie.kind, _r.c.undone_at.is_(None))
            .scalar_subquery()
        )
        tx.execute(update(schema.posts).where(schema.posts.c.id == tie.post_id).values({figure: present}))
        touch(tx, tie.account_id, figures_only=True)


def mark_reply(tx: Tx, tie: Tie, mark: str | None) -> None:
    """Hide a reply, or show it again when `mark` is None."""
    tx.execute(update(_a).where(_a.c.id == tie.id).values(hidden=mark))
    by = (mark is None) - (tie.mark is None)
    if by:
        posts = schema.posts
        tx.execute(update(posts).where(posts.c.id == tie.post_id).values(replies_count=posts.c.replies_count + by))
    touch(tx, tie.account_id, figures_only=True)


def mark_mention(tx: Tx, tie: Tie, mark: str | None) -> None:
    """Hide a mention from the owner, or show it again when `mark` is None."""
    tx.execute(update(_m).where(_m.c.id == tie.id).values(hidden=mark))


def mark_quote(tx: Tx, tie: Tie, mark: str | None) -> None:
    """Hide a quote, or show it again when `mark` is None."""
    tx.execute(update(_q).where(_q.c.id == tie.id).values(hidden=mark))
    quotes.recount(tx, tie.account_id, tie.post_id)


def show(tx: Tx, account_id: int, uri: str) -> bool:
    """The owner shows a reply although its author is limited; False if there is none that they may show."""
    for tie in reply(tx, uri):
        if tie.account_id == account_id and tie.mark == LIMITED:
            tx.execute(update(_a).where(_a.c.id == tie.id).values(shown=True))
            mark_reply(tx, tie, None)
            return True
    return False


@dataclass(frozen=True, slots=True)
class HiddenReply:
    """A reply that a rule keeps from the pages, for its owner to look at."""

    uri: str
    url: str | None
    html: str
    peer_uri: str
    handle: str
    name: str
    hidden: str
    row: int


def hidden_replies(tx: Tx, account_id: int, *, limit: int, before_id: int | None = None) -> list[HiddenReply]:
    """What rules keep from an account's pages, latest first."""
    query = (
        select(_a.c.id, _a.c.uri, _a.c.url, _a.c.html, _a.c.peer_uri, _a.c.hidden, _p.c.handle, _p.c.name)
        .join(_p, _p.c.uri == _a.c.peer_uri)
        .where(_a.c.account_id == account_id, _a.c.hidden.is_not(None), _a.c.deleted_at.is_(None))
    )
    if before_id is not None:
        query = query.where(_a.c.id < before_id)
    rows = tx.execute(query.order_by(_a.c.id.desc()).limit(limit))
    return [
        HiddenReply(r.uri, r.url, r.html, r.peer_uri, r.handle, r.name, r.hidden, r.id)
        for r in rows
    ]  # fmt: skip


def follow_said(tx: Tx, tie: Tie) -> str:
    """The id of the Follow behind a follower, present or parked."""
    return str(tx.execute(select(_f.c.follow_uri).where(_f.c.id == tie.id)).scalar_one())


# ── what waits to be sent ────────────────────────────────────────────────────────────────────────────────────────


def waiting_hosts(tx: Tx, account_id: int | None = None) -> list[str]:
    """Every host for which something waits (of one account)."""
    query = select(_d.c.host).where(schema.waiting).distinct()
    if account_id is not None:
        query = query.where(_d.c.account_id == account_id)
    return [row.host for row in tx.execute(query)]


def recall(tx: Tx, hosts: Iterable[str], reason: str, account_id: int | None = None) -> int:
    """End what waits for these hosts (from one account): it is not sent any more. Returns how many."""
    ended = 0
    for host in hosts:
        which = [schema.waiting, _d.c.host == host]
        if account_id is not None:
            which.append(_d.c.account_id == account_id)
        done = update(_d).where(*which).values(state="refused", ended_at=tx.now, reason=reason, leased_until=None)
        ended += tx.execute(done).rowcount
    return ended


# ── what a rule would cut ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Cut:
    """What one account has from one server: present followers, reactions, replies that are shown."""

    account_id: int
    host: str
    followers: int
    reactions: int
    replies: int


def ties_by_host(tx: Tx) -> list[Cut]:
    """Everything present, by account and server."""
    found: dict[tuple[int, str], list[int]] = {}
    for place, (table, present) in enumerate(
        ((_f, _f.c.ended_at.is_(None)), (_r, _r.c.undone_at.is_(None)),
         (_a, _a.c.deleted_at.is_(None) & _a.c.hidden.is_(None)))
    ):  # fmt: skip
        rows = tx.execute(
            select(table.c.account_id, _p.c.host, func.count().label("n"))
            .join(_p, _p.c.uri == table.c.peer_uri)
            .where(present)
            .group_by(table.c.account_id, _p.c.host)
        )
        for row in rows:
            found.setdefault((row.account_id, row.host), [0, 0, 0])[place] = row.n
    return [Cut(account_id, host, *numbers) for (account_id, host), numbers in sorted(found.items())]


def hosts_met(tx: Tx) -> list[str]:
    """Every server of which we know somebody."""
    return [row.host for row in tx.execute(select(_p.c.host).where(_p.c.gone_at.is_(None)).distinct())]
