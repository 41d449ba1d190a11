"""HTTP by hand: requests that no client would send, over a plain socket."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back before the other side was silent; `status` is 0 when it hung up without a word."""

    status: int
    head: bytes
    body: bytes


def talk(base: str, *parts: bytes, seconds: float = 5.0) -> Answer:
    """Send the parts and read one answer: to its declared end, to the end of the connection, or until time is up."""
    where = urlsplit(base)
    with socket.create_connection((where.hostname, where.port), timeout=seconds) as sock:
        with contextlib.suppress(OSError):  # hung up on before everything was said: the answer may be there
            for part in parts:
                sock.sendall(part)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while not complete(received):
                chunk = sock.recv(65536)
                if not chunk:
                    break
                received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
    return Answer(status, head, body)


def complete(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if end and line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False
