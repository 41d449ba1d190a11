"""Bringing a database to the newest form.

Rule: a first start needs no separate step, and a start on a database that is up to date costs one small query.
Migrations only change the form of data; none of them says anything to anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text

from threadbridge.errors import BadConfiguration
from threadbridge.storage.store import Store, Tx

if TYPE_CHECKING:
    # Loaded when there is something to migrate: it takes longer than most commands do.
    from alembic.config import Config as AlembicConfig

_HERE = Path(__file__).parent / "migrations"


def to_newest(store: Store) -> bool:
    """Migrate if needed; True if anything was done. Raises BadConfiguration for a database of a newer program."""
    present = store.read_now(_revision)
    if present == _newest():
        return False
    if present is not None and present not in _revisions():
        raise BadConfiguration(
            f"The database is of a newer version (revision {present}) than this program",
            hint="Install the newer threadbridge again, or restore a backup.",
        )
    to_revision(store, "head")
    return True


def is_newest(tx: Tx) -> bool:
    """Whether the database has the form that this program expects."""
    return _revision(tx) == _newest()


def _newest() -> str:
    return max(_revisions())


@lru_cache(maxsize=1)
def _revisions() -> frozenset[str]:
    """Every revision of this program. The name of a migration begins with its own, and they are in order."""
    return frozenset(path.name.partition("_")[0] for path in (_HERE / "versions").glob("[0-9]*_*.py"))


def to_revision(store: Store, revision: str) -> None:
    """Migrate to a given revision (tests go to older ones first)."""
    from alembic import command

    with store.connected() as connection:
        config = _config()
        config.attributes["connection"] = connection
        with _tables_may_be_remade(store, connection), connection.begin():
            if store.dialect == "postgresql":
                # Two machines may start at the same moment, and what the first one does may take its time.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(7423001)"))
            command.upgrade(config, revision)
            if store.dialect == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise BadConfiguration(
                    "The database could not be brought to the newest form: rows would have lost what they belong to",
                    hint="Nothing was changed. Check the file with `PRAGMA integrity_check`, or restore a backup.",
                )


@contextmanager
def _tables_may_be_remade(store: Store, connection: Connection) -> Iterator[None]:
    """SQLite changes most of a table by making it anew, and while its foreign keys are on, dropping the old one fails
    as soon as a row elsewhere refers to it (lang_altertable.html, section 7, which demands that no transaction runs).
    """
    if store.dialect != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _revision(tx: Tx) -> str | None:
    if not inspect(tx.connection).has_table("alembic_version"):
        return None
    found: str | None = tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _config() -> AlembicConfig:
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    return config
