"""A proxy before a healthy server that makes it a bad neighbour, and a good one again when it is told to.

latency      a while passes before anything goes through
black hole   takes the connection and everything that is said, and never answers
reset        answers with a reset in the middle of the request
drip         the answer comes a byte at a time, for ever
slice        requests and answers go through in pieces of a few bytes
cut          the answer ends in the middle of its headers
garbage      answers with bytes that are neither TLS nor HTTP
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from tests.rig import BackgroundLoop, free_socket

KINDS = ("latency", "black hole", "reset", "drip", "slice", "cut", "garbage")


class Toxic:
    """Listens on a port of every 127.x.y.z and passes on to `behind`."""

    def __init__(self, kind: str, behind: int, port: int, *, seconds: float = 0.3) -> None:
        self.kind: str | None = kind
        self.port = port
        self.taken = 0
        self._behind, self._seconds = behind, seconds
        self._chance = random.Random(port)
        self._tasks: set[asyncio.Task[object]] = set()

    def heal(self) -> None:
        """A good neighbour from now on; whoever hangs is let go. Call it in the loop."""
        self.kind = None
        for task in self._tasks:
            task.cancel()

    async def stop(self, server: asyncio.Server) -> None:
        server.close()
        self.heal()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "0.0.0.0", self.port, backlog=1024)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.taken += 1
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._treat(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _treat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = self.kind
        if kind == "black hole":
            while await reader.read(65_536):
                pass
        elif kind == "reset":
            await reader.read(20)
            linger = struct.pack("ii", 1, 0)  # a close that sends RST
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif kind == "drip":
            await reader.read(65_536)
            async for piece in _slowly(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000):
                writer.write(piece)
                await writer.drain()
        elif kind == "cut":
            await reader.read(65_536)
            writer.write(b"HTTP/1.1 202 Acc")
            await writer.drain()
        elif kind == "garbage":
            await reader.read(65_536)
            writer.write(self._chance.randbytes(300))
            await writer.drain()
        else:
            await self._pass_on(reader, writer, kind)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str | None) -> None:
        if kind == "latency":
            await asyncio.sleep(self._seconds)
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        size = 7 if kind == "slice" else 65_536
        try:
            async with asyncio.TaskGroup() as both:
                onward = both.create_task(_pump(reader, back, size))
                await _pump(there, writer, size)
                onward.cancel()
        finally:
            back.close()


async def _slowly(data: bytes) -> AsyncIterator[bytes]:
    for place in range(len(data)):
        await asyncio.sleep(0.1)
        yield data[place : place + 1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    with suppress(OSError):
        while data := await reader.read(size):
            writer.write(data)
            await writer.drain()


@contextmanager
def toxics(loop: BackgroundLoop, behind: int) -> Iterator[dict[str, Toxic]]:
    """One of each kind, before the server at the port `behind`."""
    made: dict[str, Toxic] = {}
    servers = []
    for kind in KINDS:
        with free_socket() as sock:
            port = sock.getsockname()[1]
        made[kind] = Toxic(kind, behind, port)
        servers.append(loop.run(made[kind].serve()))
    try:
        yield made
    finally:
        for one, server in zip(made.values(), servers, strict=True):
            loop.run(one.stop(server))
