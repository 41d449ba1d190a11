"""Every table, with what its rows mean.

Rule: what an outside system calls something stays outside; columns carry the house's nouns. Times are stored as
whole microseconds since 1970 (UTC), so that SQLite and PostgreSQL compare them alike. Rows about relationships and
deliveries are marked as ended; deliveries go into roll-ups after thirty days, the rest is never removed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    literal_column,
    text,
)
from sqlalchemy.engine import Dialect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """A UTC time as whole microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=int(value))


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives a row an alias-free, never-reused number only for INTEGER PRIMARY KEY AUTOINCREMENT.
_Id = BigInteger().with_variant(Integer(), "sqlite")


def _table(name: str, *args: Any, **options: Any) -> Table:
    return Table(name, metadata, *args, sqlite_autoincrement=True, **options)


def _id() -> Column[int]:
    return Column("id", _Id, primary_key=True, autoincrement=True)


def _account(**options: Any) -> Column[int]:
    return Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False, **options)


def _index_of_waiting(name: str, *columns: str) -> Index:
    condition = text("state = 'waiting'")
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


# ── the place itself ─────────────────────────────────────────────────────────────────────────────────────────────

facts = _table("facts", Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))
"""Single values that belong to the data: `base_url`."""

# ── owners' accounts ─────────────────────────────────────────────────────────────────────────────────────────────

accounts = _table(
    "accounts",
    _id(),
    Column("handle", String(64), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("bio", Text, nullable=False),
    Column("source_url", Text),
    Column("avatar", String(64)),
    Column("state", String(16), nullable=False),
    Column("discoverable", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("joined_at", Moment),
    Column("followers_count", Integer, nullable=False, server_default=text("0")),
    Column("posts_count", Integer, nullable=False, server_default=text("0")),
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    Column("changed_at", Moment, nullable=False, index=True),
    Column("approves_followers", Boolean, nullable=False, server_default=false()),
    Column("header", String(64)),
    Column("header_alt", Text, nullable=False, server_default=text("''")),
    Column("avatar_alt", Text, nullable=False, server_default=text("''")),
    Column("indexable", Boolean, nullable=False, server_default=text("true")),
    Column("bridge_line", Text),
    Column("credit_domains", Text, nullable=False, server_default=text("''")),
    Column("featured_count", Integer, nullable=False, server_default=text("5")),
    Column("domain", String(255)),
    Column("announced", String(64)),
    Column("announced_at", Moment),
    Column("hold_minutes", Integer, nullable=False, server_default=text("0")),
)
"""One row per bridged account; `id` is in every public address and is never used twice. `bridge_line` is the owner's
wording of the line that says what this is (NULL: ours; empty: a field says it), `domain` the own domain that both
sides agreed to, `announced` the hash of the actor document that followers were told last, `hold_minutes` how long new
posts wait before they leave, so that the owner may think again."""

profile_fields = _table(
    "profile_fields",
    _account(primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("verified_at", Moment),
    Column("checked_at", Moment),
    Column("trouble", Text),
)
"""What the owner put on the profile. A value that is an address is `verified_at` a time when the page there linked
back with rel=me; `trouble` says why it is not."""

aliases = _table(
    "aliases",
    _account(primary_key=True),
    Column("uri", String(2048), primary_key=True),
    Column("handle", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("added_at", Moment, nullable=False),
)
"""Other actors that the owner says are the same person; from there followers may be brought here."""

account_domains = _table(
    "account_domains",
    _account(primary_key=True),
    Column("domain", String(255), nullable=False),
    Column("set_at", Moment, nullable=False),
    Column("state", String(16), nullable=False),
    Column("confirmed_at", Moment),
    Column("checked_at", Moment),
    Column("broken_since", Moment),
    Column("findings", Text, nullable=False, server_default=text("'[]'")),
    CheckConstraint("state IN ('asked','confirmed','broken')", name="state"),
)
"""The own domain an owner wants to be found under, and what the last look at it found (JSON)."""

former_handles = _table(
    "former_handles",
    Column("handle", String(64), primary_key=True),
    _account(index=True),
    Column("left_at", Moment, nullable=False),
)
"""Handles that accounts had before: found by WebFinger still, and never given to anybody else."""

farewells = _table(
    "farewells",
    _account(primary_key=True),
    Column("asked_at", Moment, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("state_before", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("activity_id", _Id, ForeignKey("activities.id")),
    Column("told_at", Moment),
    Column("erased_at", Moment),
    CheckConstraint("phase IN ('cooling','telling','keeping','erasing','done')", name="phase"),
)
"""Deletions of accounts: asked for, told to everybody (`activity_id` is the Delete), the key kept for a while, texts
and media erased. The account's row, its posts' rows and its handles stay for ever, emptied."""

account_states = _table(
    "account_states",
    _id(),
    _account(index=True),
    Column("state", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
"""Every change of an account's state, with its cause."""

consents = _table(
    "consents",
    _id(),
    _account(index=True),
    Column("kind", String(32), nullable=False),
    Column("wording", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
"""What was agreed to, how it was shown to be the owner's wish, and when."""

account_keys = _table(
    "account_keys",
    _id(),
    Column("account_id", _Id, ForeignKey("accounts.id")),
    Column("kind", String(8), nullable=False),
    Column("fragment", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("public_pem", Text, nullable=False),
    Column("sealed_private", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("account_id", "fragment"),
)
"""Signing keys; `account_id` NULL is the instance actor. `kind` is 'rsa' (requests) or 'ed25519' (proofs); one of
each kind is 'current', another may be 'next' or 'old' while keys change over, and is 'retired' afterwards.
`fragment` ends the id under which the key is published, and is never used again. The private half is sealed (see
vault)."""

key_rotations = _table(
    "key_rotations",
    _id(),
    _account(index=True),
    Column("state", String(16), nullable=False),
    Column("old_key_id", _Id, ForeignKey("account_keys.id"), nullable=False),
    Column("new_key_id", _Id, ForeignKey("account_keys.id"), nullable=False),
    Column("update_id", _Id, ForeignKey("activities.id")),
    Column("probe_id", _Id, ForeignKey("activities.id")),
    Column("restore_id", _Id, ForeignKey("activities.id")),
    Column("reason", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
)
"""Changes of an account's RSA key: 'trying' at a few hosts, 'spreading' to all, 'done'; or 'restoring' the old key
where the new one had been told, then 'rolled_back'. `update_id` told the new key, `probe_id` was signed with it,
`restore_id` took it back; `reason` says in words how it stands."""

pins = _table(
    "pins",
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("post_id", _Id, ForeignKey("posts.id"), primary_key=True),
    Column("pinned_at", Moment, nullable=False),
)
"""Posts that the owner put on top of the profile (`featured`)."""

# ── what the sources say ─────────────────────────────────────────────────────────────────────────────────────────

connections = _table(
    "connections",
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("source", String(32), nullable=False),
    Column("native_id", String(128), nullable=False),
    Column("graph_url", Text, nullable=False),
    Column("sealed_token", LargeBinary, nullable=False),
    Column("connected_at", Moment, nullable=False),
    Column("history_done_at", Moment),
    Column("last_read_at", Moment),
    Column("last_new_at", Moment),
    Column("profile_read_at", Moment),
    Column("speaks_since", Moment),
    Column("username", String(128)),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("trouble", String(32)),
    Column("trouble_text", Text),
    UniqueConstraint("source", "native_id"),
)
"""A live connection to a source. `trouble` is NULL or a word of `bridge.cadence.TROUBLES`; posts older than
`speaks_since` (set when the connection is made and when a pause ends) are kept silently."""

origins = _table(
    "origins",
    _id(),
    _account(),
    Column("source", String(32), nullable=False),
    Column("native_id", String(160), nullable=False),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False, index=True),
    Column("fingerprint", String(64), nullable=False),
    Column("seen_at", Moment, nullable=False),
    UniqueConstraint("account_id", "source", "native_id"),
    Index("ix_origins_native", "source", "native_id"),
)
"""Which source post a post of ours is. A post read from the API and found again in a download has two rows."""

contacts = _table(
    "contacts",
    _id(),
    _account(),
    Column("relation", String(16), nullable=False),
    Column("username", String(128), nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text),
    Column("at", Moment),
    UniqueConstraint("account_id", "relation", "username"),
)
"""Followers ('follower') and followed people ('following') at the source, as a download lists them."""

# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────

posts = _table(
    "posts",
    _id(),
    _account(),
    Column("kind", String(8), nullable=False),
    Column("text", Text, nullable=False),
    Column("language", String(16)),
    Column("published", Moment, nullable=False),
    Column("updated", Moment),
    Column("original_url", Text),
    Column("parent_id", _Id, ForeignKey("posts.id"), index=True),
    Column("thread_id", _Id, ForeignKey("posts.id")),
    Column("parent_url", Text),
    Column("quoted_id", _Id, ForeignKey("posts.id")),
    Column("quoted_url", Text),
    Column("repost_url", Text),
    Column("topic", Text),
    Column("link", Text),
    Column("long_text", Text),
    Column("location", Text),
    Column("poll", Text),
    Column("sensitive", Boolean, nullable=False),
    Column("spoilers", Text),
    Column("silent", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("deleted_at", Moment),
    Column("likes_count", Integer, nullable=False, server_default=text("0")),
    Column("shares_count", Integer, nullable=False, server_default=text("0")),
    Column("replies_count", Integer, nullable=False, server_default=text("0")),
    Column("audience", String(32)),
    Column("reply_rule", String(16)),
    Column("quote_rule", String(16)),
    Column("announced_uri", String(2048)),
    Column("announced_author", String(2048)),
    Column("quotes_count", Integer, nullable=False, server_default=text("0")),
    Index("ix_posts_timeline", "account_id", "published", "id"),
)
"""Posts of our accounts. `thread_id` is the first post of the owner's own thread, NULL for that post itself. A
deleted post keeps its row (texts emptied) so that its address answers 410 for ever."""

post_tags = _table(
    "post_tags",
    Column("post_id", _Id, ForeignKey("posts.id"), primary_key=True),
    Column("tag", String(128), primary_key=True),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("shown", String(128), nullable=False),
    Index("ix_post_tags_tag", "tag", "post_id"),
    Index("ix_post_tags_account", "account_id", "tag"),
)
"""Hashtags of live posts; `tag` is case-folded, `shown` as written."""

post_edits = _table(
    "post_edits",
    _id(),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
"""What an edited post said before; `at` is when the newer form was seen."""

media = _table(
    "media",
    Column("sha256", String(64), primary_key=True),
    Column("media_type", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("duration", Float),
    Column("blurhash", String(64)),
    Column("created_at", Moment, nullable=False),
)
"""Cleaned media by the hash of the bytes that are served; the file lies under data_dir/media."""

attachments = _table(
    "attachments",
    Column("post_id", _Id, ForeignKey("posts.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("alt", Text, nullable=False),
    Column("source_key", Text, nullable=False),
    Column("sha256", String(64), ForeignKey("media.sha256"), index=True),
    Column("missing", Text),
)
"""Media of posts in order. Without `sha256`, `missing` says why the bytes are not here."""

# ── people elsewhere ─────────────────────────────────────────────────────────────────────────────────────────────

peers = _table(
    "peers",
    Column("uri", String(2048), primary_key=True),
    Column("host", String(255), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("handle", String(512), nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text),
    Column("inbox", Text, nullable=False),
    Column("shared_inbox", Text),
    Column("moved_to", Text),
    Column("fetched_at", Moment, nullable=False),
    Column("gone_at", Moment),
    Column("original", String(2048)),
    Column("moved_at", Moment),
    Column("missing_since", Moment),
)
"""Remote actors whose key we have verified something with. `original` is whom a bridge says that it stands for
(FEP-fffd); `moved_at` is when a Move of theirs was confirmed; `missing_since` when their document was first not
found, while that lasts."""

peer_keys = _table(
    "peer_keys",
    Column("key_id", String(2048), primary_key=True),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False, index=True),
    Column("kind", String(8), nullable=False),
    Column("public_pem", Text, nullable=False),
    Column("asserts", Boolean, nullable=False),
    Column("fetched_at", Moment, nullable=False),
)
"""The keys of remote actors, as their documents list them: 'rsa' or 'ed25519'. One with `asserts` (FEP-521a) is good
for integrity proofs. A key id belongs to one actor."""

followers = _table(
    "followers",
    _id(),
    _account(),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False),
    Column("follow_uri", String(2048), nullable=False),
    Column("inbox", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("ended_by", String(32)),
    Column("carried_to", String(2048)),
    Column("inbox_host", String(255), nullable=False, server_default=text("''")),
    UniqueConstraint("account_id", "peer_uri"),
    Index("ix_followers_reach", "account_id", "ended_at", "id"),
    Index(
        "ix_followers_host",
        "inbox_host",
        "account_id",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("ix_followers_peer", "peer_uri"),
    Index(
        "ix_followers_carried",
        "carried_to",
        sqlite_where=text("carried_to IS NOT NULL"),
        postgresql_where=text("carried_to IS NOT NULL"),
    ),
)
"""Who follows; `inbox` is where their copy goes (the shared inbox if they have one), `inbox_host` the host (name and
port) of that address, which may be another than that of their id. `carried_to` is the account to
which a follower has moved, whose own Follow is awaited."""

follow_requests = _table(
    "follow_requests",
    _id(),
    _account(),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False),
    Column("follow_uri", String(2048), nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("outcome", String(16)),
    UniqueConstraint("account_id", "peer_uri"),
    Index("ix_follow_requests_waiting", "account_id", "ended_at", "id"),
    Index("ix_follow_requests_peer", "peer_uri"),
)
"""Follows of an account that approves its followers by hand; `outcome` is NULL while they wait, then 'approved',
'rejected', 'withdrawn', or 'suspended' while a rule of ours keeps them from asking."""

reactions = _table(
    "reactions",
    _id(),
    _account(),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("activity_uri", String(2048), nullable=False, index=True),
    Column("at", Moment, nullable=False),
    Column("undone_at", Moment),
    Column("parked", String(16)),
    Column("emoji", String(128), nullable=False, server_default=text("''")),
    Column("person", String(2048), nullable=False),
    UniqueConstraint("post_id", "kind", "peer_uri", "emoji"),
    Index("ix_reactions_person", "post_id", "kind", "person"),
    Index("ix_reactions_account", "account_id", "id"),
    Index("ix_reactions_peer", "peer_uri"),
)
"""Likes and boosts of our posts: one per person, kind and emoji ('' for a plain one). `person` is the actor, or whom
a bridge says that it stands for; each person counts once while a row of theirs has no `undone_at`. `parked` says
that a rule of ours ended it ('suspended' or 'limited'): it comes back with the end of that rule."""

replies = _table(
    "replies",
    _id(),
    _account(),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False),
    Column("uri", String(2048), nullable=False, unique=True),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False),
    Column("url", Text),
    Column("html", Text, nullable=False),
    Column("published", Moment, nullable=False),
    Column("updated", Moment),
    Column("public", Boolean, nullable=False),
    Column("original", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("deleted_at", Moment),
    Column("hidden", String(16)),
    Column("shown", Boolean, nullable=False, server_default=false()),
    Column("copy_of", Text),
    Column("looked_at", Moment),
    Index("ix_replies_post", "post_id", "id"),
    Index("ix_replies_account", "account_id", "id"),
    Index("ix_replies_peer", "peer_uri"),
)
"""Answers from the Fediverse. `original` is the object as it came; both texts are emptied on deletion. `hidden` says
which rule of ours keeps it from the pages ('suspended' or 'limited'), and then it is not counted; `shown` that the
owner shows it although its author is limited. `copy_of` is the address of what a bridge says that this is a copy of;
`looked_at` is when the answers to it were last looked for."""

mentions = _table(
    "mentions",
    _id(),
    _account(),
    Column("uri", String(2048), nullable=False),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False),
    Column("url", Text),
    Column("html", Text, nullable=False),
    Column("in_reply_to", String(2048)),
    Column("published", Moment, nullable=False),
    Column("updated", Moment),
    Column("public", Boolean, nullable=False),
    Column("original", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("deleted_at", Moment),
    Column("hidden", String(16)),
    UniqueConstraint("uri", "account_id"),
    Index("ix_mentions_account", "account_id", "id"),
    Index("ix_mentions_parent", "in_reply_to"),
    Index("ix_mentions_peer", "peer_uri"),
)
"""Posts that name an account of ours and answer none of its posts, as far as we know. One that turns out to answer
one of them becomes a row of `replies`; both texts are emptied on deletion. `hidden` is 'suspended' while a rule of
ours keeps it from the owner's pages."""

relays = _table(
    "relays",
    _id(),
    Column("address", String(2048), nullable=False, unique=True),
    Column("inbox", Text, nullable=False),
    Column("actor_uri", String(2048)),
    Column("follow_uri", String(2048), nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
)
"""Relays that the operator subscribed to: `address` as given, `state` 'waiting', 'accepted', 'rejected' or 'removed'.
`actor_uri` is the relay's actor: followed itself (LitePub), or learnt from its Accept (Mastodon's way)."""

# ── what posts say about each other ──────────────────────────────────────────────────────────────────────────────

post_rules = _table(
    "post_rules",
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("replies", String(16), nullable=False),
    Column("quotes", String(16), nullable=False),
    Column("spoiler_words", String(200), nullable=False),
    Column("link_cards", Boolean, nullable=False),
    Column("own_pages", Boolean, nullable=False),
)
"""What an owner chose for all posts (`domain.rules`); no row for the usual."""

quotes = _table(
    "quotes",
    _id(),
    _account(),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False),
    Column("uri", String(2048), nullable=False, unique=True),
    Column("peer_uri", String(2048), ForeignKey("peers.uri")),
    Column("by_post_id", _Id, ForeignKey("posts.id"), index=True),
    Column("request_uri", String(2048), index=True),
    Column("state", String(16), nullable=False),
    Column("url", Text),
    Column("html", Text, nullable=False),
    Column("public", Boolean, nullable=False),
    Column("at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("hidden", String(16)),
    Index("ix_quotes_post", "post_id", "id"),
    Index("ix_quotes_account", "account_id", "id"),
    Index("ix_quotes_peer", "peer_uri"),
)
"""Posts that quote ours; the number of a row is in the address of its authorization, so rows are never removed.
`hidden` is as in `replies`: such a quote is not shown and not counted."""

quotings = _table(
    "quotings",
    Column("post_id", _Id, ForeignKey("posts.id"), primary_key=True),
    Column("uri", String(2048), nullable=False),
    Column("author", String(2048), nullable=False),
    Column("url", Text, nullable=False),
    Column("request_uri", String(2048), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("stamp", String(2048), index=True),
    Column("asked_at", Moment, nullable=False),
)
"""Posts of ours that quote somebody elsewhere, and whether they let us: 'asked', 'accepted', 'refused', 'revoked'."""

votes = _table(
    "votes",
    _id(),
    _account(),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False, index=True),
    Column("choice", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("parked", String(16)),
    UniqueConstraint("post_id", "peer_uri"),
)
"""Votes from the Fediverse on our polls, one per person; `choice` is the option's place, counted from 0. `parked` is
as in `reactions`: such a vote does not count."""

approvals = _table(
    "approvals",
    _id(),
    _account(),
    Column("post_id", _Id, ForeignKey("posts.id"), nullable=False),
    Column("uri", String(2048), nullable=False, unique=True),
    Column("peer_uri", String(2048), ForeignKey("peers.uri"), nullable=False, index=True),
    Column("at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("parked", String(16)),
)
"""Answers that were let through to a post which not everybody may answer; their authorization has the number, and is
not there while a rule of ours has it `parked` ('suspended')."""

seen_activities = _table(
    "seen_activities",
    Column("key", String(64), primary_key=True),
    Column("uri", String(2048), nullable=False),
    Column("peer_uri", String(2048), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("at", Moment, nullable=False, index=True),
)
"""Activity ids that have had their effect: each has it once per actor, however often and from wherever it arrives.
`key` is the SHA-256 of id and actor: the two together are longer than an index of PostgreSQL holds."""

dropped = _table(
    "dropped",
    Column("kind", String(64), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("times", BigInteger, nullable=False),
    Column("last_at", Moment, nullable=False),
)
"""What arrived, was well-formed and had no effect, counted by reason."""

decisions = _table(
    "decisions",
    _id(),
    Column("account_id", _Id, ForeignKey("accounts.id")),
    Column("kind", String(64), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("subject", Text, nullable=False),
    Column("host", String(255), nullable=False),
    Column("at", Moment, nullable=False, index=True),
    Index("ix_decisions_account", "account_id", "id"),
)
"""What this server refused or decided by itself, for the operator and, where `account_id` is set, for the owner whom
it concerns: `kind` is the verb or the door, `subject` the id of whom or what it is about. Kept for thirty days."""

block_lists = _table(
    "block_lists",
    _id(),
    Column("url", String(2048), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("severity_cap", String(16), nullable=False),
    Column("entries", Integer, nullable=False, server_default=text("0")),
    Column("etag", Text),
    Column("created_at", Moment, nullable=False),
    Column("asked_at", Moment),
    Column("taken_at", Moment),
    Column("trouble", Text),
)
"""Lists of blocked servers that the operator follows. `taken_at` is when its entries were last taken over, `trouble`
why the latest attempt changed nothing."""

blocks = _table(
    "blocks",
    _id(),
    Column("account_id", _Id, ForeignKey("accounts.id")),
    Column("list_id", _Id, ForeignKey("block_lists.id")),
    Column("held_by", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(2048), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("reject_media", Boolean, nullable=False),
    Column("reject_reports", Boolean, nullable=False),
    Column("obfuscate", Boolean, nullable=False),
    Column("comment", Text, nullable=False),
    Column("actor_uri", String(2048)),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("held_by", "kind", "subject"),
    Index("ix_blocks_actor", "actor_uri"),
    Index("ix_blocks_subject", "subject"),
    Index("ix_blocks_kind", "kind", "account_id"),
)
"""Rules about who may speak here. `held_by` is 'operator', 'setting' (allow-list mode), 'list:<id>' or
'owner:<account id>', so that each holder has one rule per subject; `kind` is 'actor', 'domain' or 'keyword',
`severity` 'allow', 'limit' or 'suspend'; `actor_uri` says whose handle the subject was when it was looked up. What
follows from them is decided in `domain.blocks`."""

reports = _table(
    "reports",
    _id(),
    Column("direction", String(8), nullable=False),
    Column("account_id", _Id, ForeignKey("accounts.id")),
    Column("uri", String(2048), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("by", String(2048), nullable=False),
    Column("host", String(255), nullable=False),
    Column("subject", String(2048), nullable=False),
    Column("objects", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("times", Integer, nullable=False, server_default=text("1")),
    Column("created_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("resolved_at", Moment),
    Column("resolution", Text),
    Index("ix_reports_digest", "digest", "resolved_at"),
    Index("ix_reports_open", "resolved_at", "id"),
)
"""Complaints (Flag): 'in' about our accounts, for the operator alone, and 'out' by an owner (`account_id`) or the
operator about somebody elsewhere. `objects` is a JSON list of ids; while one is open, the same again only raises
`times` (`digest` is equal)."""

# ── what goes out ────────────────────────────────────────────────────────────────────────────────────────────────

activities = _table(
    "activities",
    _id(),
    _account(index=True),
    Column("uri", String(2048), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("order_key", String(2048), nullable=False),
    Column("post_id", _Id, ForeignKey("posts.id"), index=True),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("fanned_out_at", Moment),
    Column("rolled_up_at", Moment),
    Column("digest", String(64)),
    Column("trail", String(32)),
    Index(
        "ix_activities_detailed",
        "id",
        sqlite_where=text("rolled_up_at IS NULL"),
        postgresql_where=text("rolled_up_at IS NULL"),
    ),
    Column("replaced_by", _Id),
    Index(
        "ix_activities_profile",
        "account_id",
        sqlite_where=text("kind = 'Update' AND post_id IS NULL AND replaced_by IS NULL"),
        postgresql_where=text("kind = 'Update' AND post_id IS NULL AND replaced_by IS NULL"),
    ),
    Index(
        "ix_activities_unaddressed",
        "order_key",
        "id",
        sqlite_where=text("fanned_out_at IS NULL"),
        postgresql_where=text("fanned_out_at IS NULL"),
    ),
)
"""Activities we said, as the exact bytes. `order_key` names the object whose activities must arrive in order,
`replaced_by` a later activity that makes this one pointless: what has not left of it does not leave (`superseding`).
`rolled_up_at` is when the last of its deliveries went into the roll-ups (`delivery_totals`, `post_holders`,
`account_holders`). Where the bytes were erased, `digest` is the SHA-256 of the object that they said. `trail` is the
id under which the log tells how it came to be said and what became of it."""

deliveries = _table(
    "deliveries",
    _id(),
    Column("activity_id", _Id, ForeignKey("activities.id"), nullable=False),
    _account(),
    Column("post_id", _Id),
    Column("inbox", Text, nullable=False),
    Column("host", String(255), nullable=False),
    Column("order_key", String(2048), nullable=False),
    Column("lane", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("leased_until", Moment),
    Column("lease", Integer, nullable=False, server_default=text("0")),
    Column("ended_at", Moment),
    Column("status", Integer),
    Column("reason", Text),
    UniqueConstraint("activity_id", "inbox"),
    CheckConstraint("state IN ('waiting','delivered','refused','gone','given_up','superseded')", name="state"),
    Index("ix_deliveries_post", "post_id", "state", "activity_id"),
    # Ways of looking at what waits; they hold nothing else, so the rows that have ended cost them nothing.
    _index_of_waiting("ix_deliveries_order", "order_key", "inbox", "id"),
    _index_of_waiting("ix_deliveries_due", "lane", "due_at"),
    _index_of_waiting("ix_deliveries_turn", "lane", "account_id", "due_at", "host"),
    _index_of_waiting("ix_deliveries_host", "host", "due_at"),
    Index(
        "ix_deliveries_ended_badly",
        "host",
        "ended_at",
        sqlite_where=text("state IN ('refused','gone','given_up')"),
        postgresql_where=text("state IN ('refused','gone','given_up')"),
    ),
)
"""The ledger: one row per activity and inbox, from waiting to its end, with the reason in words. Thirty days after
its end a row goes into the roll-ups below."""

waiting = deliveries.c.state == literal_column("'waiting'")
"""Written out, since a partial index serves only a condition that names its own: not one with a parameter."""

ended_badly = deliveries.c.state.in_([literal_column(f"'{state}'") for state in ("refused", "gone", "given_up")])
"""What did not arrive; written out for the same reason."""

delivery_totals = _table(
    "delivery_totals",
    Column("activity_id", _Id, ForeignKey("activities.id"), primary_key=True),
    Column("state", String(16), primary_key=True),
    Column("reason", String(200), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    sqlite_with_rowid=False,
)
"""Roll-ups of the ledger, kept for ever: how many deliveries of an activity ended in which way, the first and the
last of them when. `reason` is empty where there is none, or where there were too many different ones."""

inboxes = _table(
    "inboxes",
    _id(),
    Column("address", Text, nullable=False, unique=True),
    Column("host", String(255), nullable=False),
)
"""Addresses of inboxes, once each, by the numbers under which roll-ups name them."""

post_holders = _table(
    "post_holders",
    Column("post_id", _Id, ForeignKey("posts.id"), primary_key=True),
    Column("inbox_id", _Id, ForeignKey("inboxes.id"), primary_key=True),
    Column("outcome", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Roll-ups: to which inboxes anything about a post was ever addressed, and the best that became of it (`outcome`, by
its place in `rollups.OUTCOMES`). An Update or Delete goes there after ten years too."""

account_holders = _table(
    "account_holders",
    _account(primary_key=True),
    Column("inbox_id", _Id, ForeignKey("inboxes.id"), primary_key=True),
    sqlite_with_rowid=False,
)
"""Roll-ups: to which inboxes an account ever said anything, but for answers to one person (Accept, Reject)."""

certificates = _table(
    "certificates",
    _id(),
    _account(index=True),
    Column("post_id", _Id, ForeignKey("posts.id"), unique=True),
    Column("activity_id", _Id, ForeignKey("activities.id"), nullable=False, unique=True),
    Column("deleted_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("answers", LargeBinary),
)
"""Deletions of which the owner may have a certificate: of a post, or (`post_id` NULL) of an account. `activity_id` is
what told it. When its deliveries go into the roll-ups, what each host answered stays here (`answers`, packed)."""

held_posts = _table(
    "held_posts",
    _id(),
    _account(),
    Column("source", String(32), nullable=False),
    Column("native_id", String(160), nullable=False),
    Column("published", Moment, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("parent", String(160)),
    Column("fingerprint", String(64), nullable=False),
    Column("told", Text, nullable=False),
    Column("language", String(16)),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("held_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),
    UniqueConstraint("account_id", "source", "native_id"),
    CheckConstraint("state IN ('held','unshared')", name="state"),
    Index("ix_held_posts_due", "account_id", "state", "due_at"),
)
"""New posts that have not left: no row of `posts` and no number yet, so nothing that serves posts can show one.
`told` is what the source said (JSON). 'held' until `due_at`; 'unshared' ones never leave, for the `reason`. `parent`
is the source's id of what it continues."""

held_files = _table(
    "held_files",
    Column("held_id", _Id, ForeignKey("held_posts.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    _account(),
    Column("kind", String(8), nullable=False),
    Column("alt", Text, nullable=False),
    Column("source_key", Text, nullable=False),
    Column("sha256", String(64), ForeignKey("media.sha256")),
    Column("missing", Text),
    Index("ix_held_files_sha256", "sha256"),
)
"""Attachments of posts that have not left."""

hosts = _table(
    "hosts",
    Column("host", String(255), primary_key=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", Moment),
    Column("held_until", Moment),
    Column("asked_until", Moment),
    Column("scheme", String(16)),
    Column("scheme_at", Moment),
    Column("scheme_asked", Text),
    Column("scheme_evidence", Text),
    Column("get_manner", String(32)),
    Column("get_at", Moment),
    Column("get_asked", Text),
    Column("get_evidence", Text),
    Column("last_delivered_at", Moment),
    Column("last_heard_at", Moment),
    Column("last_trouble", Text),
    Column("last_failed_at", Moment),
    Column("parked_at", Moment),
    Column("probed_at", Moment),
    Column("roused_at", Moment),
    Column("troubles", Text),
    Column("quota", Integer),
    Column("quota_until", Moment),
    Column("software", String(64)),
    Column("software_version", String(64)),
    Column("software_asked_at", Moment),
    Index(
        "ix_hosts_parked",
        "parked_at",
        sqlite_where=text("parked_at IS NOT NULL"),
        postgresql_where=text("parked_at IS NOT NULL"),
    ),
)
"""One memory per inbox host (name and port): breaker, signature scheme, last success in each direction. Nothing is
sent before `held_until` (our breaker) nor before `asked_until` (their Retry-After). `scheme` is the kind of
signature it took at `scheme_at`, `scheme_asked` what its Accept-Signature wanted, `scheme_evidence` what was
refused before and what was accepted then, in words; `get_manner` and the rest the same of documents that we ask
for. `failing_since` is when it was first not reached after its last success; who is followed from there waits
since `parked_at`. `probed_at` is when we last looked whether it is back, `roused_at` when a word of its own last
made us look; `troubles` the last few different errors (JSON); `quota` how many requests it said that it still
takes until `quota_until`. What the row comes to is decided in `domain.hosts`."""

jobs = _table(
    "jobs",
    _id(),
    Column("kind", String(32), nullable=False),
    Column("key", String(128), nullable=False),
    Column("arguments", Text, nullable=False),
    Column("due_at", Moment, nullable=False, index=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("leased_until", Moment),
    Column("lease", Integer, nullable=False, server_default=text("0")),
    Column("created_at", Moment, nullable=False),
    Column("failed_at", Moment),
    Column("reason", Text),
    Column("asked_again", Moment),
    Column("asked_arguments", Text),
    Column("trail", String(32)),
    Column("lane", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("kind", "key"),
    Index("ix_jobs_turn", "lane", "due_at"),
)
"""Work written down in the transaction that made it necessary; the table of kinds is in `worker`. `asked_again` is
set while a job that is being done was asked for once more: when that is due, with `asked_arguments`. `trail` is the
id in the log of what made it necessary. Those in `lane` 1 give way to those in 0."""

figures = _table(
    "figures",
    Column("minute", Moment, primary_key=True),
    Column("process", String(16), primary_key=True),
    Column("subject", String(16), primary_key=True),
    Column("outcome", String(32), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
    sqlite_with_rowid=False,
)
"""What was done, minute by minute: deliveries that ended ('deliver'), reads of accounts ('read'). Each process has
rows of its own, so that none waits for another's; they are kept for a day."""

# ── doors ────────────────────────────────────────────────────────────────────────────────────────────────────────

sign_in_links = _table(
    "sign_in_links",
    Column("token_hash", String(64), primary_key=True),
    _account(),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
)
"""One-time links; only the hash of the token is kept."""

sessions = _table(
    "sessions",
    Column("token_hash", String(64), primary_key=True),
    _account(index=True),
    Column("form_token", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
"""Owners' browser sessions; revocable, since they are rows."""

exports = _table(
    "exports",
    _id(),
    _account(index=True),
    Column("state", String(16), nullable=False),
    Column("phase", String(64), nullable=False),
    Column("done", Integer, nullable=False, server_default=text("0")),
    Column("total", Integer, nullable=False, server_default=text("0")),
    Column("file", Text),
    Column("size", BigInteger),
    Column("sha256", String(64)),
    Column("reason", Text),
    Column("requested_at", Moment, nullable=False),
    Column("finished_at", Moment),
)
"""Archives asked for on the owner's page: 'waiting', 'building', 'ready' or 'failed' with its reason."""
