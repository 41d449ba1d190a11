"""Receipts, the time before posts leave, certificates

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Columns are added outside of Alembic's batches: those would copy whole tables on SQLite.
    op.add_column("accounts", sa.Column("hold_minutes", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("activities", sa.Column("rolled_up_at", sa.BigInteger(), nullable=True))
    op.add_column("activities", sa.Column("digest", sa.String(length=64), nullable=True))
    op.create_index(
        "ix_activities_detailed",
        "activities",
        ["id"],
        unique=False,
        sqlite_where=sa.text("rolled_up_at IS NULL"),
        postgresql_where=sa.text("rolled_up_at IS NULL"),
    )
    op.create_table(
        "delivery_totals",
        sa.Column("activity_id", _Number, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["activity_id"], ["activities.id"], name=op.f("fk_delivery_totals_activity_id")),
        sa.PrimaryKeyConstraint("activity_id", "state", "reason", name=op.f("pk_delivery_totals")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "inboxes",
        sa.Column("id", _Number, autoincrement=True, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inboxes")),
        sa.UniqueConstraint("address", name=op.f("uq_inboxes_address")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "post_holders",
        sa.Column("post_id", _Number, nullable=False),
        sa.Column("inbox_id", _Number, nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name=op.f("fk_post_holders_post_id")),
        sa.ForeignKeyConstraint(["inbox_id"], ["inboxes.id"], name=op.f("fk_post_holders_inbox_id")),
        sa.PrimaryKeyConstraint("post_id", "inbox_id", name=op.f("pk_post_holders")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "account_holders",
        sa.Column("account_id", _Number, nullable=False),
        sa.Column("inbox_id", _Number, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_account_holders_account_id")),
        sa.ForeignKeyConstraint(["inbox_id"], ["inboxes.id"], name=op.f("fk_account_holders_inbox_id")),
        sa.PrimaryKeyConstraint("account_id", "inbox_id", name=op.f("pk_account_holders")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "certificates",
        sa.Column("id", _Number, autoincrement=True, nullable=False),
        sa.Column("account_id", _Number, nullable=False),
        sa.Column("post_id", _Number, nullable=True),
        sa.Column("activity_id", _Number, nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("answers", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_certificates_account_id")),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name=op.f("fk_certificates_post_id")),
        sa.ForeignKeyConstraint(["activity_id"], ["activities.id"], name=op.f("fk_certificates_activity_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificates")),
        sa.UniqueConstraint("post_id", name=op.f("uq_certificates_post_id")),
        sa.UniqueConstraint("activity_id", name=op.f("uq_certificates_activity_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_certificates_account_id", "certificates", ["account_id"], unique=False)
    op.create_table(
        "held_posts",
        sa.Column("id", _Number, autoincrement=True, nullable=False),
        sa.Column("account_id", _Number, nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("native_id", sa.String(length=160), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("parent", sa.String(length=160), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("language", sa.String(length=16), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('held','unshared')", name=op.f("ck_held_posts_state")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_held_posts_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_posts")),
        sa.UniqueConstraint(
            "account_id", "source", "native_id", name=op.f("uq_held_posts_account_id_source_native_id")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_held_posts_due", "held_posts", ["account_id", "state", "due_at"], unique=False)
    op.create_table(
        "held_files",
        sa.Column("held_id", _Number, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("account_id", _Number, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("alt", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("missing", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["held_id"], ["held_posts.id"], name=op.f("fk_held_files_held_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_held_files_account_id")),
        sa.ForeignKeyConstraint(["sha256"], ["media.sha256"], name=op.f("fk_held_files_sha256")),
        sa.PrimaryKeyConstraint("held_id", "position", name=op.f("pk_held_files")),
    )
    op.create_index("ix_held_files_sha256", "held_files", ["sha256"], unique=False)
