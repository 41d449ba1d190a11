"""What an account has gathered, row by row, for its owner's archive: people, posts, what was said to it, choices.

Rule: a column leaves the house because it is named here, never by itself, so that a new one with a secret in it stays
inside; a test compares what is named with the tables. Rows come as plain mappings in the order in which they were
made, a page at a time, so that an account of any size is read with constant memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, func, select
from sqlalchemy import Row as Found

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_PAGE = 500
_s = schema
_posts = schema.posts

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Some rows of one table, with the columns that are given away. `person`: who is behind `peer_uri` is added as
    `address`, `name` and `profile`."""

    table: Table
    columns: str
    those: ColumnElement[bool] | None = None
    person: bool = True

    def query(self, account_id: int) -> Select[Any]:
        """Rows, with their number as `row`."""
        t, p = self.table, schema.peers
        wanted = select(t.c.id.label("row"), *(t.c[name] for name in self.columns.split()))
        if self.person:
            wanted = wanted.add_columns(p.c.handle.label("address"), p.c.name, p.c.url.label("profile"))
            wanted = wanted.select_from(t.outerjoin(p, p.c.uri == t.c.peer_uri))
        return self.narrowed(wanted.where(t.c.account_id == account_id))

    def narrowed(self, query: Select[Any]) -> Select[Any]:
        return query if self.those is None else query.where(self.those)


_TEXT = "uri peer_uri url html published updated public original received_at hidden"
_KINDS = {
    # What a rule has put aside comes back with the rule's end, so it is the owner's all the same.
    "followers": _Kind(
        _s.followers, "peer_uri follow_uri inbox since ended_at ended_by carried_to",
        _s.followers.c.ended_at.is_(None) | (_s.followers.c.ended_by == "suspended"),
    ),
    "requests": _Kind(_s.follow_requests, "peer_uri follow_uri asked_at ended_at outcome"),
    "reactions": _Kind(
        _s.reactions, "post_id peer_uri kind activity_uri at emoji person parked",
        _s.reactions.c.undone_at.is_(None) | _s.reactions.c.parked.is_not(None),
    ),
    "replies": _Kind(_s.replies, f"{_TEXT} post_id shown copy_of", _s.replies.c.deleted_at.is_(None)),
    "mentions": _Kind(_s.mentions, f"{_TEXT} in_reply_to", _s.mentions.c.deleted_at.is_(None)),
    "quotes": _Kind(
        _s.quotes, "id post_id uri peer_uri request_uri state url html public at hidden",
        _s.quotes.c.ended_at.is_(None),
    ),
    "votes": _Kind(_s.votes, "post_id peer_uri choice at parked"),
    "approvals": _Kind(_s.approvals, "id post_id uri peer_uri at ended_at parked"),
    "blocks": _Kind(
        _s.blocks, "kind subject actor_uri severity reject_media reject_reports obfuscate comment created_at",
        person=False,
    ),
    "decisions": _Kind(_s.decisions, "kind reason subject host at", person=False),
    # Never those that came in: an owner does not learn who complained.
    "reports": _Kind(
        _s.reports, "uri subject host objects content times created_at last_at resolved_at resolution",
        _s.reports.c.direction == "out", person=False,
    ),
}  # fmt: skip
_POST = (
    "id kind text language published updated original_url parent_id thread_id parent_url quoted_id quoted_url "
    "repost_url topic link long_text location poll sensitive spoilers silent created_at likes_count shares_count "
    "replies_count quotes_count audience reply_rule quote_rule announced_uri announced_author"
)


def _as_mapping(row: Found[Any]) -> dict[str, Any]:
    # Names come as SQLAlchemy's own kind of text, which no JSON writer takes for a key.
    return {str(name): value for name, value in row._mapping.items()}


KINDS = tuple(_KINDS)
"""'followers', 'requests', 'reactions', 'replies', …: what `rows` and `count` know."""


def rows(tx: Tx, kind: str, account_id: int) -> Iterator[Row]:
    """Every row of one of `KINDS`."""
    query, number = _KINDS[kind].query(account_id), _KINDS[kind].table.c.id
    last = 0
    while True:
        page = tx.execute(query.where(number > last).order_by(number).limit(_PAGE)).all()
        for row in page:
            held = _as_mapping(row)
            last = held.pop("row")
            yield held
        if len(page) < _PAGE:
            return


def count(tx: Tx, kind: str, account_id: int) -> int:
    """How many rows of a kind there are."""
    table = _KINDS[kind].table
    counted = select(func.count()).select_from(table).where(table.c.account_id == account_id)
    return int(tx.execute(_KINDS[kind].narrowed(counted)).scalar_one())


# ── posts, as they are held ──────────────────────────────────────────────────────────────────────────────────────


def of_posts(tx: Tx, post_ids: Sequence[int]) -> list[Row]:
    """The rows of these posts, in this order, each with `quoted_of` (the account of the post `quoted_id`), `tags`,
    `attachments`, `sources` (what its sources call it), `edits` (what it said before) and `quoting` (whom it quotes
    elsewhere, and whether they let it)."""
    numbers = list(post_ids)
    quoted = _posts.alias("quoted")
    found = tx.execute(
        select(*(_posts.c[name] for name in _POST.split()), quoted.c.account_id.label("quoted_of"))
        .select_from(_posts.outerjoin(quoted, quoted.c.id == _posts.c.quoted_id))
        .where(_posts.c.id.in_(numbers))
    )
    held = {row.id: _as_mapping(row) for row in found}
    around = {
        "attachments": _grouped(
            tx, _s.attachments, "position kind alt sha256 missing", numbers, _s.attachments.c.position
        ),
        "tags": _grouped(tx, _s.post_tags, "shown", numbers, _s.post_tags.c.tag),
        "sources": _grouped(tx, _s.origins, "source native_id seen_at", numbers, _s.origins.c.id),
        "edits": _grouped(tx, _s.post_edits, "text at", numbers, _s.post_edits.c.id),
        "quoting": _grouped(
            tx, _s.quotings, "uri author url request_uri state stamp asked_at", numbers, _s.quotings.c.post_id
        ),
    }
    for number, post in held.items():
        post |= {name: by_post.get(number, []) for name, by_post in around.items()}
    return [held[number] for number in numbers]


def _grouped(
    tx: Tx, table: Table, columns: str, post_ids: list[int], order: ColumnElement[Any]
) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = {}
    wanted = select(table.c.post_id.label("of_post"), *(table.c[name] for name in columns.split()))
    for row in tx.execute(wanted.where(table.c.post_id.in_(post_ids)).order_by(order)):
        held = _as_mapping(row)
        grouped.setdefault(held.pop("of_post"), []).append(held)
    return grouped


# ── the account itself ───────────────────────────────────────────────────────────────────────────────────────────

_ACCOUNT = (
    "handle name bio source_url state discoverable indexable approves_followers created_at joined_at changed_at "
    "followers_count posts_count header_alt avatar_alt bridge_line credit_domains featured_count domain avatar "
    "header hold_minutes"
)
_ABOUT: dict[str, tuple[Table, str, str]] = {
    "fields": (_s.profile_fields, "name value verified_at checked_at trouble", "position"),
    "aliases": (_s.aliases, "uri handle name added_at", "added_at"),
    "own_domain": (_s.account_domains, "domain set_at state confirmed_at checked_at broken_since findings", "set_at"),
    "former_handles": (_s.former_handles, "handle left_at", "left_at"),
    "pinned": (_s.pins, "post_id pinned_at", "pinned_at"),
    "rules": (_s.post_rules, "replies quotes spoiler_words link_cards own_pages", "account_id"),
    "held": (
        _s.held_posts,
        "source native_id published kind parent told language state reason held_at due_at",
        "held_at",
    ),
    "sources": (_s.connections, "source native_id username connected_at speaks_since", "connected_at"),
}


def of_account(tx: Tx, account_id: int) -> dict[str, Any]:
    """{`account`: its row, and lists of rows: `fields`, `aliases`, `own_domain`, `former_handles`, `pinned`, `rules`,
    `held` (posts that have not left), `sources`}."""
    a = schema.accounts
    row = tx.execute(select(*(a.c[name] for name in _ACCOUNT.split())).where(a.c.id == account_id)).one()
    said: dict[str, Any] = {"account": _as_mapping(row)}
    for name, (table, columns, order) in _ABOUT.items():
        wanted = select(*(table.c[column] for column in columns.split())).where(table.c.account_id == account_id)
        # A key of the table behind the order, so that rows of one moment always come alike.
        keys = [column for column in table.primary_key.columns if column.name != "account_id"]
        found = tx.execute(wanted.order_by(table.c[order], *keys))
        said[name] = [_as_mapping(each) for each in found]
    return said
