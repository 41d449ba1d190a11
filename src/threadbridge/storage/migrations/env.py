"""Alembic's entrance: runs the migrations on the connection that `storage.migrate` hands over."""

from typing import Literal

from alembic import context

from threadbridge.storage.schema import Moment, metadata


def render(kind: str, thing: object, _context: object) -> str | Literal[False]:
    """Column types as plain SQL types, so that a migration does not change when our classes do."""
    return "sa.BigInteger()" if kind == "type" and isinstance(thing, Moment) else False


connection = context.config.attributes["connection"]
# SQLite cannot alter most columns in place; batch mode copies the table, inside the same transaction.
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    render_item=render,
    transaction_per_migration=False,
)
context.run_migrations()
