"""Lanes, what is superseded

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_STATES = "state IN ('waiting','delivered','refused','gone','given_up','superseded')"
_OF_WAITING = (
    ("ix_deliveries_order", ["order_key", "inbox", "id"]),
    ("ix_deliveries_due", ["lane", "due_at"]),
    ("ix_deliveries_turn", ["lane", "account_id", "due_at", "host"]),
    ("ix_deliveries_host", ["host", "due_at"]),
)


def upgrade() -> None:
    op.add_column(
        "activities", sa.Column("replaced_by", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True)
    )
    op.create_index(
        "ix_activities_profile",
        "activities",
        ["account_id"],
        unique=False,
        sqlite_where=sa.text("kind = 'Update' AND post_id IS NULL AND replaced_by IS NULL"),
        postgresql_where=sa.text("kind = 'Update' AND post_id IS NULL AND replaced_by IS NULL"),
    )
    op.add_column("jobs", sa.Column("lane", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index("ix_jobs_turn", "jobs", ["lane", "due_at"], unique=False)
    for name, _ in _OF_WAITING:
        op.drop_index(name, table_name="deliveries")
    if op.get_bind().dialect.name == "sqlite":
        # SQLite knows no other way to change a CHECK than to copy the table; numbers are still never used again.
        with op.batch_alter_table(
            "deliveries",
            schema=None,
            recreate="always",
            table_kwargs={"sqlite_autoincrement": True},
        ) as batch_op:
            batch_op.drop_constraint(op.f("ck_deliveries_state"), type_="check")
            batch_op.create_check_constraint(op.f("ck_deliveries_state"), _STATES)
    else:
        op.drop_constraint(op.f("ck_deliveries_state"), "deliveries", type_="check")
        op.create_check_constraint(op.f("ck_deliveries_state"), "deliveries", _STATES)
    for name, columns in _OF_WAITING:
        op.create_index(
            name,
            "deliveries",
            columns,
            unique=False,
            sqlite_where=sa.text("state = 'waiting'"),
            postgresql_where=sa.text("state = 'waiting'"),
        )
