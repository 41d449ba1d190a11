"""What actors say: fields, aliases, domains, farewells

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Never copied into a new table: that would forget AUTOINCREMENT, and give numbers of deleted accounts again.
    with op.batch_alter_table("accounts", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("header", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("header_alt", sa.Text(), server_default=sa.text("''"), nullable=False))
        batch_op.add_column(sa.Column("avatar_alt", sa.Text(), server_default=sa.text("''"), nullable=False))
        batch_op.add_column(sa.Column("indexable", sa.Boolean(), server_default=sa.text("true"), nullable=False))
        batch_op.add_column(sa.Column("bridge_line", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("credit_domains", sa.Text(), server_default=sa.text("''"), nullable=False))
        batch_op.add_column(sa.Column("featured_count", sa.Integer(), server_default=sa.text("5"), nullable=False))
        batch_op.add_column(sa.Column("domain", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("announced", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("announced_at", sa.BigInteger(), nullable=True))
    # One switch said both until now.
    op.execute("UPDATE accounts SET indexable = discoverable")
    op.create_table(
        "profile_fields",
        sa.Column("account_id", _number(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("verified_at", sa.BigInteger(), nullable=True),
        sa.Column("checked_at", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_profile_fields_account_id")),
        sa.PrimaryKeyConstraint("account_id", "position", name=op.f("pk_profile_fields")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "aliases",
        sa.Column("account_id", _number(), nullable=False),
        sa.Column("uri", sa.String(length=2048), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_aliases_account_id")),
        sa.PrimaryKeyConstraint("account_id", "uri", name=op.f("pk_aliases")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "account_domains",
        sa.Column("account_id", _number(), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("checked_at", sa.BigInteger(), nullable=True),
        sa.Column("broken_since", sa.BigInteger(), nullable=True),
        sa.Column("findings", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.CheckConstraint("state IN ('asked','confirmed','broken')", name=op.f("ck_account_domains_state")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_account_domains_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account_domains")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "former_handles",
        sa.Column("handle", sa.String(length=64), nullable=False),
        sa.Column("account_id", _number(), nullable=False),
        sa.Column("left_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_former_handles_account_id")),
        sa.PrimaryKeyConstraint("handle", name=op.f("pk_former_handles")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("former_handles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_former_handles_account_id"), ["account_id"], unique=False)
    op.create_table(
        "farewells",
        sa.Column("account_id", _number(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("state_before", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("activity_id", _number(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=True),
        sa.Column("erased_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "phase IN ('cooling','telling','keeping','erasing','done')", name=op.f("ck_farewells_phase")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_farewells_account_id")),
        sa.ForeignKeyConstraint(["activity_id"], ["activities.id"], name=op.f("fk_farewells_activity_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_farewells")),
        sqlite_autoincrement=True,
    )
