"""A throw-away database for a drill, and filling it in bulk.

Rule: nothing that is there is touched. On PostgreSQL a drill has a schema of its own, made and dropped with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import create_engine, func, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from threadbridge.errors import BadConfiguration
from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_d = schema.deliveries


@contextmanager
def postgresql(url: str) -> Iterator[str]:
    """The address of a new, empty schema in the PostgreSQL database at `url`; it is dropped at the end of the block.
    Raises BadConfiguration."""
    name = f"threadbridge_drill_{secrets.token_hex(4)}"
    try:
        server = make_url(url)
        if server.get_backend_name() != "postgresql":
            raise BadConfiguration(
                "--database takes the address of a PostgreSQL server",
                hint="Leave it out to drill with SQLite in a temporary folder.",
            )
        engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        if isinstance(error, ArgumentError):
            raise BadConfiguration("--database is no database address") from None
        raise BadConfiguration("No schema can be made in that database", detail=str(error).split("\n")[0]) from None
    try:
        inside = server.update_query_dict({"options": f"-csearch_path={name}"})
        yield inside.render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Invented:
    """A follower who does not exist: their id, their inbox (shared or own) and its host with the port."""

    uri: str
    inbox: str
    host: str


def follow(tx: Tx, account_id: int, some: Sequence[Invented]) -> None:
    """Make followers of people without keys, who will never say anything."""
    now = tx.now
    tx.execute(
        insert(schema.peers),
        [
            {"uri": one.uri, "host": one.host, "kind": "Person", "handle": one.uri, "name": "", "inbox": one.inbox,
             "fetched_at": now}
            for one in some
        ],
    )  # fmt: skip
    tx.execute(
        insert(schema.followers),
        [
            {"account_id": account_id, "peer_uri": one.uri, "follow_uri": f"{one.uri}/follow", "inbox": one.inbox,
             "inbox_host": one.host, "since": now}
            for one in some
        ],
    )  # fmt: skip
    accounts = schema.accounts
    tx.execute(
        update(accounts)
        .where(accounts.c.id == account_id)
        .values(followers_count=accounts.c.followers_count + len(some))
    )


def size(tx: Tx) -> int:
    """Bytes that the tables and indexes take, without what is free inside them (SQLite) or outside of this schema."""
    if tx.connection.dialect.name == "postgresql":
        sizes = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r'"
        return int(tx.execute(text(f"{sizes} AND relnamespace = current_schema()::regnamespace")).scalar_one())
    pages, free, page = (
        int(tx.execute(text(f"PRAGMA {name}")).scalar_one()) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * page


@dataclass(frozen=True, slots=True)
class Standing:
    """Deliveries that stand alike: how many, why, and (waiting ones) between when and when they are due."""

    state: str
    reason: str
    count: int
    first_due: datetime | None
    last_due: datetime | None


def standings(tx: Tx) -> list[Standing]:
    """Everything that was to be delivered, by state and reason, the most frequent first."""
    reason = func.coalesce(_d.c.reason, "")
    rows = tx.execute(
        select(
            _d.c.state, reason.label("reason"), func.count().label("n"), func.min(_d.c.due_at).label("first"),
            func.max(_d.c.due_at).label("last"),
        )
        .group_by(_d.c.state, reason)
        .order_by(func.count().desc())
    )  # fmt: skip
    return [
        Standing(
            row.state, row.reason, row.n,
            row.first if row.state == "waiting" else None, row.last if row.state == "waiting" else None,
        )
        for row in rows
    ]  # fmt: skip


def waiting_for(tx: Tx) -> dict[str, int]:
    """{host: how many deliveries wait for it}."""
    rows = tx.execute(select(_d.c.host, func.count().label("n")).where(schema.waiting).group_by(_d.c.host))
    return {row.host: row.n for row in rows}
