"""A load generator that costs little itself: requests are sent as ready bytes, several ahead on each connection, and
answers are counted by their length."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1


def pin(core: int) -> None:
    """Keep this process on one core, where there are several."""
    with contextlib.suppress(AttributeError, OSError):
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {core})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Running:
    """A server process that was started here."""

    pid: int

    def cpu_seconds(self, account: str | None = None) -> float:
        """The CPU time that it (or what `account` of /proc is about) has used so far; 0 where that is not told."""
        with contextlib.suppress(OSError), open(account or f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def peak(self) -> float:
        """Most megabytes that it has had in memory so far (Linux's VmHWM); 0 where that is not told."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return 0.0


@contextlib.contextmanager
def process(
    arguments: Sequence[str], port: int, *, core: int | None = SERVER_CORE, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A server process on a core of its own, ready when its port answers."""
    running = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(pin, core) if core is not None else None,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{arguments} did not start")
            time.sleep(0.05)
        yield Running(running.pid)
    finally:
        running.terminate()
        running.wait(15)


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], ahead: int, first: int) -> None:
        self._requests = requests
        self._ahead = ahead
        self._next = first
        self.answered = 0
        self._length: int | None = None
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.statuses: set[bytes] = set()
        self.stop_at: int | None = None
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send(self._ahead)

    def _send(self, count: int) -> None:
        assert self.transport is not None
        out = []
        for _ in range(count):
            if self.stop_at is not None and self._next >= self.stop_at:
                break
            out.append(self._requests[self._next % len(self._requests)])
            self._next += 1
        if out:
            self.transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        got = 0
        while True:
            if self._length is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    break
                head = bytes(self._buffer[:end]).lower()
                self.statuses.add(head[9:12])
                place = head.find(b"content-length: ")
                body = int(head[place + 16 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
                self._length = end + 4 + body
            if len(self._buffer) < self._length:
                break
            del self._buffer[: self._length]
            self._length = None
            got += 1
        if got:
            self.answered += got
            self._send(got)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _rate(port: int, requests: Sequence[bytes], seconds: float, connections: int, ahead: int) -> float:
    loop = asyncio.get_running_loop()
    share = max(1, len(requests) // connections)
    made = []
    for number in range(connections):
        mine = requests[number * share : (number + 1) * share] if len(requests) >= connections else requests
        _, connection = await loop.create_connection(partial(_Connection, mine, ahead, 0), "127.0.0.1", port)
        made.append(connection)
    await asyncio.sleep(seconds * 0.2)
    before, started = sum(connection.answered for connection in made), time.perf_counter()
    await asyncio.sleep(seconds)
    answered, lasted = sum(connection.answered for connection in made) - before, time.perf_counter() - started
    for connection in made:
        assert connection.transport is not None
        connection.transport.abort()
        wrong = connection.statuses - {b"200", b"202"}
        if wrong:
            raise RuntimeError(f"the server answered {wrong}")
    return answered / lasted


def rate(
    port: int, requests: Sequence[bytes], *, seconds: float = 3.0, connections: int = 8, ahead: int = 4
) -> float:
    """Answers per second to `requests` (sent round and round)."""
    pin(LOAD_CORE)
    return asyncio.run(_rate(port, requests, seconds, connections, ahead))


def wrk(port: int, target: str, accept: str, *, seconds: int = 3, connections: int = 32) -> float | None:
    """Answers per second as wrk counts them, on the core of the load; None where wrk is not installed. Raises
    RuntimeError for an answer other than 2xx and 3xx."""
    program = shutil.which("wrk")
    if program is None:
        return None
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Accept: {accept}"]
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{target}"],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=partial(pin, LOAD_CORE),
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk met with trouble: {said}")
    return float(said.partition("Requests/sec:")[2].split()[0])


async def _all(port: int, requests: Sequence[bytes], connections: int, status: bytes) -> float:
    loop = asyncio.get_running_loop()
    share = -(-len(requests) // connections)
    made = []
    started = time.perf_counter()
    for number in range(connections):
        mine = requests[number * share : (number + 1) * share]
        if not mine:
            continue
        _, connection = await loop.create_connection(partial(_Connection, mine, 0, 0), "127.0.0.1", port)
        connection.stop_at = len(mine)
        connection._send(4)
        made.append((connection, len(mine)))
    while any(connection.answered < wanted for connection, wanted in made):
        if any(connection.done.done() and connection.answered < wanted for connection, wanted in made):
            raise RuntimeError("the server hung up")
        await asyncio.sleep(0.005)
    lasted = time.perf_counter() - started
    for connection, _ in made:
        assert connection.transport is not None
        connection.transport.abort()
        if wrong := connection.statuses - {status}:
            raise RuntimeError(f"the server answered {wrong}")
    return len(requests) / lasted


def once_each(port: int, requests: Sequence[bytes], *, connections: int = 32, status: bytes = b"202") -> float:
    """Send every request exactly once; answers per second, all of them with this status."""
    pin(LOAD_CORE)
    return asyncio.run(_all(port, requests, connections, status))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="threadbridge-bench-") as name:
        yield Path(name)
