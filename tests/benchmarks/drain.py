"""One post to a hundred thousand inboxes on a thousand hosts: until all are addressed, until all have it, and the
most memory that the bridge has had by then. Measured once, since it takes minutes."""

from __future__ import annotations

import time
import urllib.request
from functools import cache

from sqlalchemy import select
from tests.benchmarks import load
from tests.benchmarks.scene import Figure, populated
from tests.benchmarks.sink import address

from threadbridge.delivery import outbox
from threadbridge.storage import schema, scratch
from threadbridge.storage.scratch import Invented
from threadbridge.storage.store import Tx

INBOXES, HOSTS = 100_000, 1_000
_CHUNK = 5_000
_PATIENCE = 1_800


@cache
def measure() -> list[Figure]:
    port = load.free_port()
    with (
        populated(1) as scene,
        load.process(["-m", "tests.benchmarks.sink", str(port)], port, core=None),
        scene.ground() as ground,
    ):
        for start in range(0, INBOXES, _CHUNK):
            chunk = [_invented(number, port) for number in range(start, min(start + _CHUNK, INBOXES))]
            ground.store.transact_now(scratch.follow, scene.account.id, chunk)
        before = ground.store.read_now(scratch.size)

        def publish(tx: Tx) -> None:
            outbox.publish(tx, ground.ids, scene.account, 1)

        with scene.serving(core=None) as running:
            started = time.perf_counter()
            ground.store.transact_now(publish)
            addressed = 0.0
            while (arrived := _arrived(port)) < INBOXES:
                time.sleep(0.1)
                lasted = time.perf_counter() - started
                if not addressed and ground.store.read_now(_addressed):
                    addressed = lasted
                if lasted > _PATIENCE:
                    raise RuntimeError(f"{arrived} of {INBOXES} have arrived")
            drained = time.perf_counter() - started
            peak, cpu = running.peak(), running.cpu_seconds()
        grown = ground.store.read_now(scratch.size) - before
    return [
        (f"{INBOXES:,} inboxes addressed after", addressed, "s", None),
        (f"{INBOXES:,} inboxes drained after", drained, "s", None),
        ("CPU of each of them", cpu / INBOXES * 1e6, "µs", None),
        ("memory at most meanwhile", peak, "MB", None),
        ("growth of the database for each", grown / INBOXES, "bytes", None),
    ]


def _invented(number: int, port: int) -> Invented:
    authority = f"{address(number % HOSTS)}:{port}"
    uri = f"http://{authority}/users/{number}"
    return Invented(uri, f"{uri}/inbox", authority)


def _addressed(tx: Tx) -> bool:
    a = schema.activities
    return tx.execute(select(a.c.id).where(a.c.fanned_out_at.is_not(None)).limit(1)).first() is not None


def _arrived(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return int(answer.read())
