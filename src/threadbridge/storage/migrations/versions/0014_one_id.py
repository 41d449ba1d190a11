"""One id from post to receipt; what was done, minute by minute

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("activities", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("trail", sa.String(length=32), nullable=True))
    with op.batch_alter_table("jobs", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("trail", sa.String(length=32), nullable=True))
    op.create_table(
        "figures",
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("process", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "process", "subject", "outcome", name=op.f("pk_figures")),
        sqlite_with_rowid=False,
    )
