"""Every table, with what its rows mean.

Rule: what an outside system calls something stays outside; columns carry the house's nouns. Times are stored as
whole microseconds since 1970 (UTC), so that SQLite and PostgreSQL compare them alike. Rows about relationships and
deliveries are marked as ended, never removed: they are the ledger.
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
)
"""One row per bridged account; `id` is in every public address and is never used twice."""

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
    Column("account_id", _Id, ForeignKey("accounts.id"), unique=True),
    Column("public_pem", Text, nullable=False),
    Column("sealed_private", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
)
"""RSA keys; `account_id` NULL is the instance actor. The private half is sealed (see vault)."""

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
    Column("key_id", String(2048), nullable=False, unique=True),
    Column("key_pem", Text, nullable=False),
    Column("moved_to", Text),
    Column("fetched_at", Moment, nullable=False),
    Column("gone_at", Moment),
)
"""Remote actors whose key we have verified something with."""

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
    UniqueConstraint("account_id", "peer_uri"),
    Index("ix_followers_reach", "account_id", "ended_at", "id"),
    Index("ix_followers_peer", "peer_uri"),
)
"""Who follows; `inbox` is where their copy goes (the shared inbox if they have one)."""

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
    UniqueConstraint("post_id", "kind", "peer_uri"),
    Index("ix_reactions_account", "account_id", "id"),
    Index("ix_reactions_peer", "peer_uri"),
)
"""Likes and boosts of our posts: one per person and kind; counted while `undone_at` is NULL."""

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
    Index("ix_replies_post", "post_id", "id"),
    Index("ix_replies_account", "account_id", "id"),
    Index("ix_replies_peer", "peer_uri"),
)
"""Answers from the Fediverse. `original` is the object as it came; both texts are emptied on deletion."""

seen_activities = _table(
    "seen_activities",
    Column("uri", String(2048), primary_key=True),
    Column("peer_uri", String(2048), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("at", Moment, nullable=False, index=True),
)
"""Activity ids that have had their effect: each has it once, however often and from wherever it arrives."""

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
    Index(
        "ix_activities_unaddressed",
        "order_key",
        "id",
        sqlite_where=text("fanned_out_at IS NULL"),
        postgresql_where=text("fanned_out_at IS NULL"),
    ),
)
"""Activities we said, as the exact bytes. `order_key` names the object whose activities must arrive in order."""

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
    CheckConstraint("state IN ('waiting','delivered','refused','gone','given_up')", name="state"),
    Index("ix_deliveries_post", "post_id", "state", "activity_id"),
    # Ways of looking at what waits; they hold nothing else, so the rows that have ended cost them nothing.
    _index_of_waiting("ix_deliveries_order", "order_key", "inbox", "id"),
    _index_of_waiting("ix_deliveries_due", "due_at"),
    _index_of_waiting("ix_deliveries_turn", "account_id", "lane", "due_at", "host"),
    _index_of_waiting("ix_deliveries_host", "host", "due_at"),
)
"""The ledger: one row per activity and inbox, from waiting to its end, with the reason in words."""

waiting = deliveries.c.state == literal_column("'waiting'")
"""Written out, since a partial index serves only a condition that names its own: not one with a parameter."""

hosts = _table(
    "hosts",
    Column("host", String(255), primary_key=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", Moment),
    Column("held_until", Moment),
    Column("asked_until", Moment),
    Column("scheme", String(16)),
    Column("scheme_at", Moment),
    Column("last_delivered_at", Moment),
    Column("last_heard_at", Moment),
    Column("last_trouble", Text),
)
"""One memory per inbox host (name and port): breaker, signature scheme, last success in each direction. Nothing is
sent before `held_until` (our breaker) nor before `asked_until` (their Retry-After)."""

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
    UniqueConstraint("kind", "key"),
)
"""Work written down in the transaction that made it necessary; the table of kinds is in `worker`."""

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
