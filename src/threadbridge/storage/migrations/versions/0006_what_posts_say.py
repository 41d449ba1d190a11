"""What posts say: quotes, votes, policies, history

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _number(name: str, *, autoincrement: bool = False, nullable: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    if autoincrement:
        return sa.Column(name, kind, autoincrement=True, nullable=False)
    return sa.Column(name, kind, nullable=nullable)


def _uri(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=2048), nullable=nullable)


def _refers(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [to], name=op.f(f"fk_{table}_{column}"))


def upgrade() -> None:
    # Not in a batch: SQLite would make the table anew, without the promise that a number is never used twice.
    op.add_column("posts", sa.Column("audience", sa.String(length=32), nullable=True))
    op.add_column("posts", sa.Column("reply_rule", sa.String(length=16), nullable=True))
    op.add_column("posts", sa.Column("quote_rule", sa.String(length=16), nullable=True))
    op.add_column("posts", sa.Column("announced_uri", sa.String(length=2048), nullable=True))
    op.add_column("posts", sa.Column("announced_author", sa.String(length=2048), nullable=True))
    op.add_column("posts", sa.Column("quotes_count", sa.Integer(), server_default=sa.text("0"), nullable=False))
    with op.batch_alter_table("origins", schema=None) as batch_op:
        batch_op.create_index("ix_origins_native", ["source", "native_id"], unique=False)
    with op.batch_alter_table("connections", schema=None) as batch_op:
        batch_op.add_column(sa.Column("username", sa.String(length=128), nullable=True))

    op.create_table(
        "post_rules",
        _number("account_id", nullable=False),
        sa.Column("replies", sa.String(length=16), nullable=False),
        sa.Column("quotes", sa.String(length=16), nullable=False),
        sa.Column("spoiler_words", sa.String(length=200), nullable=False),
        sa.Column("link_cards", sa.Boolean(), nullable=False),
        sa.Column("own_pages", sa.Boolean(), nullable=False),
        _refers("post_rules", "account_id", "accounts.id"),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_post_rules")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "quotes",
        _number("id", autoincrement=True, nullable=False),
        _number("account_id", nullable=False),
        _number("post_id", nullable=False),
        _uri("uri"),
        _uri("peer_uri", nullable=True),
        _number("by_post_id", nullable=True),
        _uri("request_uri", nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("hidden", sa.String(length=16), nullable=True),
        _refers("quotes", "account_id", "accounts.id"),
        _refers("quotes", "post_id", "posts.id"),
        _refers("quotes", "peer_uri", "peers.uri"),
        _refers("quotes", "by_post_id", "posts.id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotes")),
        sa.UniqueConstraint("uri", name=op.f("uq_quotes_uri")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("quotes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quotes_by_post_id"), ["by_post_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_quotes_request_uri"), ["request_uri"], unique=False)
        batch_op.create_index("ix_quotes_post", ["post_id", "id"], unique=False)
        batch_op.create_index("ix_quotes_account", ["account_id", "id"], unique=False)
        batch_op.create_index("ix_quotes_peer", ["peer_uri"], unique=False)
    op.create_table(
        "quotings",
        _number("post_id", nullable=False),
        _uri("uri"),
        _uri("author"),
        sa.Column("url", sa.Text(), nullable=False),
        _uri("request_uri"),
        sa.Column("state", sa.String(length=16), nullable=False),
        _uri("stamp", nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        _refers("quotings", "post_id", "posts.id"),
        sa.PrimaryKeyConstraint("post_id", name=op.f("pk_quotings")),
        sa.UniqueConstraint("request_uri", name=op.f("uq_quotings_request_uri")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("quotings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quotings_stamp"), ["stamp"], unique=False)
    op.create_table(
        "votes",
        _number("id", autoincrement=True, nullable=False),
        _number("account_id", nullable=False),
        _number("post_id", nullable=False),
        _uri("peer_uri"),
        sa.Column("choice", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("parked", sa.String(length=16), nullable=True),
        _refers("votes", "account_id", "accounts.id"),
        _refers("votes", "post_id", "posts.id"),
        _refers("votes", "peer_uri", "peers.uri"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_votes")),
        sa.UniqueConstraint("post_id", "peer_uri", name=op.f("uq_votes_post_id_peer_uri")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("votes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_votes_peer_uri"), ["peer_uri"], unique=False)
    op.create_table(
        "approvals",
        _number("id", autoincrement=True, nullable=False),
        _number("account_id", nullable=False),
        _number("post_id", nullable=False),
        _uri("uri"),
        _uri("peer_uri"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("parked", sa.String(length=16), nullable=True),
        _refers("approvals", "account_id", "accounts.id"),
        _refers("approvals", "post_id", "posts.id"),
        _refers("approvals", "peer_uri", "peers.uri"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
        sa.UniqueConstraint("uri", name=op.f("uq_approvals_uri")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_approvals_peer_uri"), ["peer_uri"], unique=False)
