"""A bridge in processes of its own, and beside them, on the same database, the test: it publishes and looks."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.rig import LOOPBACK, BackgroundLoop, Bridge, eventually
from tests.stories.command_line import CommandLine, Running, answers

from threadbridge.config import fixed
from threadbridge.services import open_ground
from threadbridge.storage import accounts


class Beside(Bridge):
    """The rig's bridge without a server or worker in this process: those are `shell`'s."""

    shell: CommandLine

    def start(self) -> Running:
        """`threadbridge serve`, ready."""
        running = self.shell.start("serve")
        eventually(lambda: answers(f"{self.base}/readyz") or not running.alive, 30)
        assert running.alive, running.err
        return running

    def whole(self) -> None:
        """SQLite finds nothing wrong with its file."""
        assert self.ground.store.read_now(accounts.damage) is None


def kill(running: Running) -> None:
    """As the power does it."""
    running.send(signal.SIGKILL)
    assert running.done().status == -signal.SIGKILL


@contextmanager
def beside(folder: Path, **settings: str) -> Iterator[Beside]:
    """The place; nothing runs yet. Settings as the command line has them."""
    shell = CommandLine(folder / "a home", settings)
    config = fixed(
        base_url=shell.base,
        data_dir=shell.data,
        database_url=settings.get("DATABASE_URL"),
        allowed_private_networks=LOOPBACK,
    )
    loop = BackgroundLoop()
    ground = open_ground(config)
    unused: Any = None
    here = Beside(loop, ground, unused, shell.base)
    here.shell = shell
    try:
        yield here
    finally:
        ground.close()
        loop.close()


def waiting(here: Bridge) -> int:
    """What is left to address, to deliver or to do."""
    return here.count("jobs", kind="fan_out") + here.count("deliveries", state="waiting")


def seconds_until_drained(here: Bridge, at_most: float) -> float:
    """Wait until nothing is left, and return how long that took."""
    started = time.monotonic()
    eventually(lambda: waiting(here) == 0, at_most)
    return time.monotonic() - started
