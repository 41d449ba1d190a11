"""What comes back: headers, whole answers, and bodies read piece by piece under a limit.

Rule: a limit counts the bytes that arrive. Content-Length may only make a refusal come earlier, and a body in an
encoding that was not asked for is not read at all: that is how bombs are sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import httpcore2

from threadbridge.errors import BadAnswer

MAX_ERROR = 64 * 1024


class Headers(Mapping[str, str]):
    """Response headers, looked up in any case; a header that came several times is joined with commas."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, str] = {}
        for raw_name, raw_value in pairs:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
            self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `url` is the canonical address that finally gave it."""

    status: int
    headers: Headers
    body: bytes
    url: str


@dataclass(frozen=True, slots=True)
class Download:
    """What became of a download; `size` is the number of bytes written (0 unless the status is 200)."""

    status: int
    content_type: str
    size: int
    url: str


async def chunks(response: httpcore2.Response, headers: Headers, limit: int, where: str) -> AsyncGenerator[bytes]:
    """The body in pieces; raises BadAnswer over `limit` bytes. `where` names the address in error texts."""
    if is_encoded(headers):
        raise BadAnswer(f"{where} answered with an encoding nobody asked for", status=response.status)
    declared = headers.get("content-length", "")
    too_large = BadAnswer(f"{where} answered with more than {limit} bytes", status=response.status)
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > limit):
        raise too_large
    size = 0
    async for chunk in response.aiter_stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        yield chunk


async def whole(response: httpcore2.Response, headers: Headers, limit: int, where: str) -> bytes:
    """The whole body; that of an error, which explains itself in its first lines, is cut instead of refused."""
    body = bytearray()
    if response.status < 400:
        async for chunk in chunks(response, headers, limit, where):
            body += chunk
        return bytes(body)
    if is_encoded(headers):
        return b""
    async with aclosing(response.aiter_stream()) as pieces:
        async for chunk in pieces:
            body += chunk
            if len(body) >= MAX_ERROR:
                break
    return bytes(body[:MAX_ERROR])


def is_encoded(headers: Headers) -> bool:
    return headers.get("content-encoding", "identity").lower() not in ("", "identity")
