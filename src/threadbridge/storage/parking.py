"""What a rule cuts, put aside: followers and who asks to follow, reactions, votes, replies and what let them through,
mentions, quotes, deliveries.

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
"""The marks: in `followers.ended_by` and `follow_requests.outcome`, `parked` of `reactions`, `votes` and `approvals`,
`hidden` of `replies`, `mentions` and `quotes`."""

_d, _f, _p, _r, _a = schema.deliveries, schema.followers, schema.peers, schema.reactions, schema.replies
_m, _q, _v = schema.mentions, schema.quotes, schema.votes
_w, _o = schema.follow_requests, schema.approvals
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
        if subject.startswith("@"):
            # Whoever bears the handle now, and whose it was when a rule was made about it.
            whose = select(schema.blocks.c.actor_uri).where(schema.blocks.c.subject == subject)
            query = query.where(or_(func.lower(_p.c.handle) == subject.removeprefix("@"), _p.c.uri.in_(whose)))
        else:
            query = query.where(_p.c.uri == subject)
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


def requests(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Who of these people waits for an owner's yes, and whose waiting is put aside."""
    there = or_(_w.c.ended_at.is_(None), _w.c.outcome == SUSPENDED)
    rows = tx.execute(
        select(_w.c.id, _w.c.account_id, _w.c.peer_uri, _w.c.outcome).where(_w.c.peer_uri.in_(uris), there)
    )
    return [Tie(row.id, row.account_id, row.peer_uri, row.outcome) for row in rows]


def votes(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """Votes of these people, those that are put aside too."""
    columns = (_v.c.id, _v.c.account_id, _v.c.peer_uri, _v.c.parked, _v.c.post_id)
    rows = tx.execute(select(*columns).where(_v.c.peer_uri.in_(uris)))
    return [Tie(row.id, row.account_id, row.peer_uri, row.parked, post_id=row.post_id) for row in rows]


def approvals(tx: Tx, uris: Sequence[str]) -> list[Tie]:
    """What lets answers of these people through and has not ended, also while it is put aside; `kind` is the mark of
    the answer itself."""
    columns = (_o.c.id, _o.c.account_id, _o.c.peer_uri, _o.c.parked, _o.c.post_id, _o.c.uri, _a.c.hidden)
    held = select(*columns).join(_a, _a.c.uri == _o.c.uri, isouter=True)
    rows = tx.execute(held.where(_o.c.peer_uri.in_(uris), _o.c.ended_at.is_(None)))
    return [
        Tie(r.id, r.account_id, r.peer_uri, r.parked, post_id=r.post_id, kind=r.hidden or "", uri=r.uri) for r in rows
    ]


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


def mark_request(tx: Tx, tie: Tie, mark: str | None) -> None:
    """Nobody is asked about somebody suspended; they wait again when `mark` is None."""
    values = {"outcome": mark, "ended_at": tx.now if mark else None}
    tx.execute(update(_w).where(_w.c.id == tie.id).values(**values))


def mark_vote(tx: Tx, tie: Tie, mark: str | None) -> None:
    """A vote does not count, or counts again when `mark` is None."""
    tx.execute(update(_v).where(_v.c.id == tie.id).values(parked=mark))
    touch(tx, tie.account_id, figures_only=True)


def mark_approval(tx: Tx, tie: Tie, mark: str | None) -> None:
    """What let an answer through is not there, or again when `mark` is None."""
    tx.execute(update(_o).where(_o.c.id == tie.id).values(parked=mark))
    # At once: what has its address looks whether it holds.
    touch(tx, tie.account_id)


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
    if SUSPENDED in (mark, tie.mark):
        # Its authorization goes, or comes back, with it.
        touch(tx, tie.account_id)


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


def recall(tx: Tx, hosts: Iterable[str], reason: str, account_id: int | None = None, *, limit: int = 2000) -> int:
    """End some of what waits for these hosts (from one account): it is not sent any more, but for what a deleted
    account has to say last. Returns how many; 0 when nothing is left."""
    gone = select(schema.accounts.c.id).where(schema.accounts.c.state == "gone")
    ended = 0
    for host in sorted(hosts):
        which = [schema.waiting, _d.c.host == host, _d.c.account_id.not_in(gone)]
        if account_id is not None:
            which.append(_d.c.account_id == account_id)
        some = select(_d.c.id).where(*which).limit(limit - ended)
        done = update(_d).where(_d.c.id.in_(some), schema.waiting)
        ended += tx.execute(done.values(state="refused", ended_at=tx.now, reason=reason, leased_until=None)).rowcount
        if ended >= limit:
            break
    return ended


# ── what a rule would cut ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Cut:
    """What one account has from one server: present followers, reactions; replies, mentions and quotes that are
    shown; votes that count; people who wait to follow."""

    account_id: int
    host: str
    followers: int
    reactions: int
    replies: int
    mentions: int
    quotes: int
    votes: int
    requests: int


def ties_by_host(tx: Tx) -> list[Cut]:
    """Everything present, by account and server."""
    found: dict[tuple[int, str], list[int]] = {}
    present = (
        (_f, _f.c.ended_at.is_(None)),
        (_r, _r.c.undone_at.is_(None)),
        (_a, _a.c.deleted_at.is_(None) & _a.c.hidden.is_(None)),
        (_m, _m.c.deleted_at.is_(None) & _m.c.hidden.is_(None)),
        (_q, _q.c.ended_at.is_(None) & _q.c.hidden.is_(None)),
        (_v, _v.c.parked.is_(None)),
        (_w, _w.c.ended_at.is_(None)),
    )
    for place, (table, there) in enumerate(present):
        rows = tx.execute(
            select(table.c.account_id, _p.c.host, func.count().label("n"))
            .join(_p, _p.c.uri == table.c.peer_uri)
            .where(there)
            .group_by(table.c.account_id, _p.c.host)
        )
        for row in rows:
            found.setdefault((row.account_id, row.host), [0] * len(present))[place] = row.n
    return [Cut(account_id, host, *numbers) for (account_id, host), numbers in sorted(found.items())]


def hosts_met(tx: Tx) -> list[str]:
    """Every server of which we know somebody."""
    return [row.host for row in tx.execute(select(_p.c.host).where(_p.c.gone_at.is_(None)).distinct())]
