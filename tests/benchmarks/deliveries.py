"""One post to a thousand followers on a thousand hosts: from the commit of the post to the last answer."""

from __future__ import annotations

import time
import urllib.request

from tests.benchmarks import load
from tests.benchmarks.limits import SIGN
from tests.benchmarks.scene import add_followers, populated

from threadbridge.delivery import outbox
from threadbridge.storage import ledger
from threadbridge.storage.store import Tx

INBOXES = 1000
POSTS = 3


def measure() -> list[tuple[str, float, str, str | None]]:
    port = load.free_port()
    with populated(POSTS + 1) as scene, load.process(["-m", "tests.benchmarks.sink", str(port)], port, core=1):
        inboxes = [f"http://127.0.{n // 250 + 1}.{n % 250 + 1}:{port}/inbox" for n in range(INBOXES)]
        with scene.ground() as ground:
            ground.store.transact_now(add_followers, scene.account.id, inboxes)
            with scene.serving():
                first = _one(ground, scene.account, 1, port, INBOXES)
                again = [_one(ground, scene.account, n, port, INBOXES * n) for n in range(2, POSTS + 1)]
            settled = ground.store.read_now(ledger.totals)
    assert settled.get("delivered", 0) >= INBOXES * POSTS * 0.9, settled
    return [
        ("deliveries, hosts never met", first, "/s", SIGN),
        ("deliveries, connections kept", max(again), "/s", SIGN),
    ]


def _one(ground: object, account: object, post_id: int, port: int, wanted: int) -> float:
    def publish(tx: Tx) -> None:
        outbox.publish(tx, ground.ids, account, post_id)  # type: ignore[attr-defined, arg-type]  # as given

    started = time.perf_counter()
    ground.store.transact_now(publish)  # type: ignore[attr-defined]  # as given
    deadline = started + 120
    while _count(port) < wanted and time.perf_counter() < deadline:
        time.sleep(0.02)
    return INBOXES / (time.perf_counter() - started)


def _count(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return int(answer.read())
