"""Ways of looking at what waits: indexes that the ledger and the people tables need, and what hosts asked for

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("asked_until", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_index("ix_deliveries_waiting")
        batch_op.drop_index("ix_deliveries_order")
        batch_op.drop_index("ix_deliveries_post")
        batch_op.create_index("ix_deliveries_post", ["post_id", "state", "activity_id"], unique=False)
        for name, columns in (
            ("ix_deliveries_order", ["order_key", "inbox", "id"]),
            ("ix_deliveries_due", ["due_at"]),
            ("ix_deliveries_turn", ["account_id", "lane", "due_at", "host"]),
            ("ix_deliveries_host", ["host", "due_at"]),
        ):
            batch_op.create_index(
                name,
                columns,
                unique=False,
                sqlite_where=sa.text("state = 'waiting'"),
                postgresql_where=sa.text("state = 'waiting'"),
            )

    with op.batch_alter_table("activities", schema=None) as batch_op:
        batch_op.create_index(
            "ix_activities_unaddressed",
            ["order_key", "id"],
            unique=False,
            sqlite_where=sa.text("fanned_out_at IS NULL"),
            postgresql_where=sa.text("fanned_out_at IS NULL"),
        )

    for table in ("followers", "reactions", "replies"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.create_index(f"ix_{table}_peer", ["peer_uri"], unique=False)
