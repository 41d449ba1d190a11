"""What was asked for again while it was done; the signature that documents are asked for with

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("asked_again", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("asked_arguments", sa.Text(), nullable=True))
    with op.batch_alter_table("hosts", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("get_manner", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("get_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("get_asked", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("get_evidence", sa.Text(), nullable=True))
