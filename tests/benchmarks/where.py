"""Where the time of a delivery goes: the CPU time of a worker's threads, and what its event loop was doing.

What signs and what speaks to the database have threads of their own, so the system's own account of them is exact.
The event loop is looked at every two milliseconds: what stands innermost, the HTTP client or our own code, had them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter
from types import FrameType

import structlog
from tests.benchmarks import load
from tests.benchmarks.scene import Figure, add_followers, populated
from tests.benchmarks.sink import address

from threadbridge import server
from threadbridge.delivery import outbox
from threadbridge.services import Ground, open_services
from threadbridge.storage.store import Tx
from threadbridge.worker import Worker

INBOXES, POSTS = 1000, 4
_NETWORK = ("aiohttp", "yarl", "multidict", "/net/", "aiohappyeyeballs", "uvloop", "ssl.py")
_EVERY = 0.002


def measure() -> list[Figure]:
    """Microseconds of CPU per warm delivery: signing, database, network, the rest of Python."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    port = load.free_port()
    with (
        populated(POSTS + 1) as scene,
        load.process(["-m", "tests.benchmarks.sink", str(port)], port, core=None),
        scene.ground() as ground,
    ):
        inboxes = [f"http://{address(n)}:{port}/inbox" for n in range(INBOXES)]
        ground.store.transact_now(add_followers, scene.account.id, inboxes)
        spent = server.in_loop(_work(ground, scene.account, port))
    names = {"sign": "signing", "database": "database", "network": "network", "python": "our own Python"}
    return [(f"of it {words}", spent[name], "µs", None) for name, words in names.items()]


async def _work(ground: Ground, account: object, port: int) -> dict[str, float]:
    server.raise_file_limit()
    sys.setswitchinterval(server.SWITCH_SECONDS)
    services = open_services(ground)
    worker = Worker(services)
    working = asyncio.create_task(worker.run())
    await _published(ground, account, 1, port)  # the hosts are met, the statements compiled
    loop = _Sampler(threading.get_ident())
    before = _by_thread()
    loop.start()
    for post in range(2, POSTS + 1):
        await _published(ground, account, post, port)
    loop.stop()
    after = _by_thread()
    worker.stop()
    await working
    await services.aclose()
    spent = {name: (seconds - before.get(name, 0.0)) / INBOXES / (POSTS - 1) * 1e6 for name, seconds in after.items()}
    network = loop.seen["network"] / max(1, loop.seen["network"] + loop.seen["python"])
    main = spent.get("main", 0.0)
    return {
        "sign": spent.get("signer", 0.0),
        "database": spent.get("store", 0.0),
        "network": main * network,
        "python": main * (1 - network),
    }


async def _published(ground: Ground, account: object, post_id: int, port: int) -> None:
    def publish(tx: Tx) -> None:
        outbox.publish(tx, ground.ids, account, post_id)  # type: ignore[arg-type]  # as the scene made it

    await ground.store.transact(publish)
    async with asyncio.timeout(120):
        while await _count(port) < INBOXES * post_id:
            await asyncio.sleep(0.05)


async def _count(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    count = int(await reader.readexactly(int(head.rpartition(b": ")[2])))
    writer.close()
    return count


def _by_thread() -> dict[str, float]:
    """CPU seconds of this process's threads, by what they are for."""
    spent: dict[str, float] = {}
    for thread in threading.enumerate():
        kind = next((kind for kind in ("signer", "store") if thread.name.startswith(kind)), "other")
        if thread is threading.main_thread():
            kind = "main"
        spent[kind] = spent.get(kind, 0.0) + load.Running(0).cpu_seconds(f"/proc/self/task/{thread.native_id}/stat")
    return spent


class _Sampler:
    """Looks at what one thread does, while it does something."""

    def __init__(self, ident: int) -> None:
        self._ident = ident
        self._running = True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._running = False
        self._thread.join()

    def _look(self) -> None:
        while self._running:
            time.sleep(_EVERY)
            frame: FrameType | None = sys._current_frames().get(self._ident)
            if frame is not None and (
                "uvloop" in frame.f_code.co_filename or "runners.py" in frame.f_code.co_filename
            ):
                continue  # waiting for something to happen
            while frame is not None:
                file = frame.f_code.co_filename
                if any(part in file for part in _NETWORK):
                    self.seen["network"] += 1
                    break
                if "/threadbridge/" in file or "asyncio" in file:
                    self.seen["python"] += 1
                    break
                frame = frame.f_back
