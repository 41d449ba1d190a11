"""What is remembered of hosts: parked ones, their pace, their software; the host of each follower's inbox

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ENDED_BADLY = sa.text("state IN ('refused','gone','given_up')")
PRESENT = sa.text("ended_at IS NULL")


def upgrade() -> None:
    with op.batch_alter_table("hosts", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("last_failed_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("parked_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("probed_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("roused_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("troubles", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("quota", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("quota_until", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("software", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("software_version", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("software_asked_at", sa.BigInteger(), nullable=True))
        batch_op.create_index(
            "ix_hosts_parked",
            ["parked_at"],
            unique=False,
            sqlite_where=sa.text("parked_at IS NOT NULL"),
            postgresql_where=sa.text("parked_at IS NOT NULL"),
        )
    with op.batch_alter_table("followers", schema=None, recreate="never") as batch_op:
        batch_op.add_column(
            sa.Column("inbox_host", sa.String(length=255), server_default=sa.text("''"), nullable=False)
        )
        batch_op.create_index(
            "ix_followers_host",
            ["inbox_host", "account_id"],
            unique=False,
            sqlite_where=PRESENT,
            postgresql_where=PRESENT,
        )
    with op.batch_alter_table("deliveries", schema=None, recreate="never") as batch_op:
        batch_op.create_index(
            "ix_deliveries_ended_badly",
            ["host", "ended_at"],
            unique=False,
            sqlite_where=ENDED_BADLY,
            postgresql_where=ENDED_BADLY,
        )
    _fill()


def _fill() -> None:
    """The authority of each inbox address: what stands between the scheme and the first `/`, `?` or `#`."""
    if op.get_bind().dialect.name == "postgresql":
        authority = "lower(substring(inbox from '^[^:]*://([^/?#]*)'))"
        op.execute(f"UPDATE followers SET inbox_host = coalesce(left({authority}, 255), '')")  # noqa: S608 (no input)
        return
    after_scheme = "substr(inbox, instr(inbox, '://') + 3)"
    marked = f"replace(replace({after_scheme}, '?', '/'), '#', '/') || '/'"
    authority = f"lower(substr({marked}, 1, instr({marked}, '/') - 1))"
    op.execute(f"UPDATE followers SET inbox_host = substr({authority}, 1, 255)")  # noqa: S608 (no input)
