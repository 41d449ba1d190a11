"""A thousand inboxes in one process: answers 202 to every POST and counts them; GET tells how many."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class _Sink(asyncio.Protocol):
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            place = head.find(b"content-length: ")
            body = int(head[place + 16 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._buffer) < end + 4 + body:
                return
            del self._buffer[: end + 4 + body]
            if head.startswith(b"post"):
                _Sink.count += 1
                self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            else:
                text = str(_Sink.count).encode()
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "0.0.0.0", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
