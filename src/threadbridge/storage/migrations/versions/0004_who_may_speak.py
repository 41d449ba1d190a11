"""Who may speak here: blocks, lists, reports, decisions

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.create_index("ix_decisions_account", ["account_id", "id"], unique=False)
        batch_op.create_index("ix_decisions_at", ["at"], unique=False)

    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "block_lists",
        sa.Column("id", number, nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("severity_cap", sa.String(length=16), nullable=False),
        sa.Column("entries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=True),
        sa.Column("taken_at", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("url", name="uq_block_lists_url"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "blocks",
        sa.Column("id", number, nullable=False),
        sa.Column("account_id", number, nullable=True),
        sa.Column("list_id", number, nullable=True),
        sa.Column("held_by", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=2048), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("reject_media", sa.Boolean(), nullable=False),
        sa.Column("reject_reports", sa.Boolean(), nullable=False),
        sa.Column("obfuscate", sa.Boolean(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("actor_uri", sa.String(length=2048), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_blocks_account_id"),
        sa.ForeignKeyConstraint(["list_id"], ["block_lists.id"], name="fk_blocks_list_id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("held_by", "kind", "subject", name="uq_blocks_held_by_kind_subject"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("blocks", schema=None) as batch_op:
        batch_op.create_index("ix_blocks_actor", ["actor_uri"], unique=False)
        batch_op.create_index("ix_blocks_subject", ["subject"], unique=False)
        batch_op.create_index("ix_blocks_kind", ["kind", "account_id"], unique=False)
    op.create_table(
        "reports",
        sa.Column("id", number, nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("account_id", number, nullable=True),
        sa.Column("uri", sa.String(length=2048), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("by", sa.String(length=2048), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=2048), nullable=False),
        sa.Column("objects", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_reports_account_id"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.create_index("ix_reports_digest", ["digest", "resolved_at"], unique=False)
        batch_op.create_index("ix_reports_open", ["resolved_at", "id"], unique=False)
    # Outside of Alembic's batches: those would copy the tables on SQLite.
    op.add_column("reactions", sa.Column("parked", sa.String(length=16), nullable=True))
    op.add_column("replies", sa.Column("hidden", sa.String(length=16), nullable=True))
    op.add_column("replies", sa.Column("shown", sa.Boolean(), server_default=sa.false(), nullable=False))
