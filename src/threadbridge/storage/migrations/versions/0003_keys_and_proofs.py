"""Keys and proofs

Revision ID: 0003
Revises: 0002
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _own_keys()
    _keys_of_peers()
    _what_hosts_take()
    _heard_once_per_actor()


def _what_hosts_take() -> None:
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scheme_asked", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("scheme_evidence", sa.Text(), nullable=True))


def _heard_once_per_actor() -> None:
    """An activity id is used up by the actor that used it, and by nobody else of the same server."""
    op.add_column("seen_activities", sa.Column("key", sa.String(length=64), nullable=True))
    seen = sa.table("seen_activities", sa.column("key"), sa.column("uri"), sa.column("peer_uri"))
    connection = op.get_bind()
    while rows := connection.execute(
        sa.select(seen.c.uri, seen.c.peer_uri).where(seen.c.key.is_(None)).limit(1000)
    ).all():
        connection.execute(
            sa.update(seen).where(seen.c.uri == sa.bindparam("of")).values(key=sa.bindparam("made")),
            [
                {"of": row.uri, "made": hashlib.sha256(f"{row.uri}\n{row.peer_uri}".encode()).hexdigest()}
                for row in rows
            ],
        )
    with op.batch_alter_table("seen_activities", schema=None) as batch_op:
        batch_op.drop_constraint("pk_seen_activities", type_="primary")
        batch_op.alter_column("key", existing_type=sa.String(length=64), nullable=False)
        batch_op.create_primary_key("pk_seen_activities", ["key"])


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _own_keys() -> None:
    with op.batch_alter_table("account_keys", schema=None) as batch_op:
        batch_op.drop_constraint("uq_account_keys_account_id", type_="unique")
        for name, size, known in (("kind", 8, "rsa"), ("fragment", 32, "main-key"), ("state", 16, "current")):
            batch_op.add_column(sa.Column(name, sa.String(length=size), nullable=False, server_default=known))
    with op.batch_alter_table("account_keys", schema=None) as batch_op:
        for name, size in (("kind", 8), ("fragment", 32), ("state", 16)):
            batch_op.alter_column(name, existing_type=sa.String(length=size), server_default=None)
        batch_op.create_unique_constraint("uq_account_keys_account_id_fragment", ["account_id", "fragment"])
    op.create_table(
        "key_rotations",
        sa.Column("id", _number(), nullable=False),
        sa.Column("account_id", _number(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("old_key_id", _number(), nullable=False),
        sa.Column("new_key_id", _number(), nullable=False),
        sa.Column("update_id", _number(), nullable=True),
        sa.Column("probe_id", _number(), nullable=True),
        sa.Column("restore_id", _number(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_key_rotations_account_id"),
        *(
            sa.ForeignKeyConstraint([column], [f"{table}.id"], name=f"fk_key_rotations_{column}")
            for column, table in (
                ("old_key_id", "account_keys"),
                ("new_key_id", "account_keys"),
                ("update_id", "activities"),
                ("probe_id", "activities"),
                ("restore_id", "activities"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name="pk_key_rotations"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("key_rotations", schema=None) as batch_op:
        batch_op.create_index("ix_key_rotations_account_id", ["account_id"], unique=False)


def _keys_of_peers() -> None:
    """An actor may publish several keys: they get a table of their own."""
    op.create_table(
        "peer_keys",
        sa.Column("key_id", sa.String(length=2048), nullable=False),
        sa.Column("peer_uri", sa.String(length=2048), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("public_pem", sa.Text(), nullable=False),
        sa.Column("asserts", sa.Boolean(), nullable=False),
        sa.Column("fetched_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["peer_uri"], ["peers.uri"], name="fk_peer_keys_peer_uri"),
        sa.PrimaryKeyConstraint("key_id", name="pk_peer_keys"),
    )
    # Names such as "https://… had one" stood for a key that had passed to another actor: those had none any more.
    op.execute(
        "INSERT INTO peer_keys (key_id, peer_uri, kind, public_pem, asserts, fetched_at) "
        "SELECT key_id, uri, 'rsa', key_pem, false, fetched_at FROM peers WHERE key_id NOT LIKE '% had one'"
    )
    with op.batch_alter_table("peer_keys", schema=None) as batch_op:
        batch_op.create_index("ix_peer_keys_peer_uri", ["peer_uri"], unique=False)
    with op.batch_alter_table("peers", schema=None) as batch_op:
        batch_op.drop_constraint("uq_peers_key_id", type_="unique")
        batch_op.drop_column("key_id")
        batch_op.drop_column("key_pem")
