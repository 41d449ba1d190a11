"""Many machines: how PostgreSQL keeps the tables of the queue

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# What is leased changes no indexed column: with room on its page the new version of the row stays there, and no index
# learns of it. Dead rows are cleared after a number of them, not after a fifth of a table of ten million rows.
# docs/decisions/0022 has the figures.
_STORAGE = {
    "deliveries": (
        "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 20000, "
        "autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02, "
        "autovacuum_vacuum_cost_limit = 1000"
    ),
    "jobs": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000",
    "hosts": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000",
    "accounts": "fillfactor = 80",
}


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, storage in _STORAGE.items():
        op.execute(f"ALTER TABLE {table} SET ({storage})")
