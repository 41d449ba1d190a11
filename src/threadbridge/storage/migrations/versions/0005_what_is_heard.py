"""What is heard: requested follows, emoji reactions, mentions, moves, relays

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Columns are added outside of Alembic's batches: those would copy whole tables on SQLite and lose that numbers of
    # deleted rows are never used again.
    op.add_column(
        "accounts", sa.Column("approves_followers", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("peers", sa.Column("original", sa.String(length=2048), nullable=True))
    op.add_column("peers", sa.Column("moved_at", sa.BigInteger(), nullable=True))
    op.add_column("peers", sa.Column("missing_since", sa.BigInteger(), nullable=True))
    op.add_column("followers", sa.Column("carried_to", sa.String(length=2048), nullable=True))
    op.create_index(
        "ix_followers_carried",
        "followers",
        ["carried_to"],
        unique=False,
        sqlite_where=sa.text("carried_to IS NOT NULL"),
        postgresql_where=sa.text("carried_to IS NOT NULL"),
    )
    op.add_column("replies", sa.Column("copy_of", sa.Text(), nullable=True))
    op.add_column("replies", sa.Column("looked_at", sa.BigInteger(), nullable=True))
    op.add_column(
        "reactions", sa.Column("emoji", sa.String(length=128), server_default=sa.text("''"), nullable=False)
    )
    op.add_column("reactions", sa.Column("person", sa.String(length=2048), nullable=True))
    op.execute("UPDATE reactions SET person = peer_uri")
    with op.batch_alter_table("reactions", schema=None, table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.alter_column("person", existing_type=sa.String(length=2048), nullable=False)
        batch_op.drop_constraint("uq_reactions_post_id_kind_peer_uri", type_="unique")
        batch_op.create_unique_constraint(
            "uq_reactions_post_id_kind_peer_uri_emoji", ["post_id", "kind", "peer_uri", "emoji"]
        )
        batch_op.create_index("ix_reactions_person", ["post_id", "kind", "person"], unique=False)
    op.create_table(
        "follow_requests",
        sa.Column("id", _Number, autoincrement=True, nullable=False),
        sa.Column("account_id", _Number, nullable=False),
        sa.Column("peer_uri", sa.String(length=2048), nullable=False),
        sa.Column("follow_uri", sa.String(length=2048), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_follow_requests_account_id")),
        sa.ForeignKeyConstraint(["peer_uri"], ["peers.uri"], name=op.f("fk_follow_requests_peer_uri")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_follow_requests")),
        sa.UniqueConstraint("account_id", "peer_uri", name=op.f("uq_follow_requests_account_id_peer_uri")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("follow_requests", schema=None) as batch_op:
        batch_op.create_index("ix_follow_requests_waiting", ["account_id", "ended_at", "id"], unique=False)
        batch_op.create_index("ix_follow_requests_peer", ["peer_uri"], unique=False)
    op.create_table(
        "mentions",
        sa.Column("id", _Number, autoincrement=True, nullable=False),
        sa.Column("account_id", _Number, nullable=False),
        sa.Column("uri", sa.String(length=2048), nullable=False),
        sa.Column("peer_uri", sa.String(length=2048), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=False),
        sa.Column("in_reply_to", sa.String(length=2048), nullable=True),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=True),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("original", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("hidden", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_mentions_account_id")),
        sa.ForeignKeyConstraint(["peer_uri"], ["peers.uri"], name=op.f("fk_mentions_peer_uri")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mentions")),
        sa.UniqueConstraint("uri", "account_id", name=op.f("uq_mentions_uri_account_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("mentions", schema=None) as batch_op:
        batch_op.create_index("ix_mentions_account", ["account_id", "id"], unique=False)
        batch_op.create_index("ix_mentions_parent", ["in_reply_to"], unique=False)
        batch_op.create_index("ix_mentions_peer", ["peer_uri"], unique=False)
    op.create_table(
        "relays",
        sa.Column("id", _Number, autoincrement=True, nullable=False),
        sa.Column("address", sa.String(length=2048), nullable=False),
        sa.Column("inbox", sa.Text(), nullable=False),
        sa.Column("actor_uri", sa.String(length=2048), nullable=True),
        sa.Column("follow_uri", sa.String(length=2048), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relays")),
        sa.UniqueConstraint("address", name=op.f("uq_relays_address")),
        sqlite_autoincrement=True,
    )
