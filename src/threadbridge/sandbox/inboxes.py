"""A great many inboxes in one process, some of them ill: what a drill delivers to.

    python -m threadbridge.sandbox.inboxes '{"plain": 8200, "tls": 8201, "ills": {…}}'

Every address of 127.0.0.0/8 is a server of its own, known by the address that was connected to. It behaves as its
number among all servers says (`ills`); whatever it hears is written down with its time and judged at the end: was
anything told twice, before its time, or before what it changes. 127.0.0.1 itself answers the drill's questions.

Rule: it judges by what came over the socket alone, and knows nothing of the bridge.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Literal, cast

import orjson
import uvloop

Ill = Literal["dead", "silent", "slow", "429", "5xx", "gone", "bad-tls"]

ILLS: tuple[Ill, ...] = ("dead", "silent", "slow", "429", "5xx", "gone", "bad-tls")
SLOW_SECONDS = 2.0
ASKS_SECONDS = 4
"""The Retry-After of a server that asks to be left alone; afterwards it takes everything."""
FAILS_SECONDS = 5.0
"""How long a server with trouble (503) has it, from its first request."""
GRACE_SECONDS = 1.0
"""What was signed within a second after "too many requests" was said may have been under way."""
_PER_NET = 250


def address(number: int) -> str:
    """The address of the server with this number (from 0, below 15 million)."""
    return f"127.{number // _PER_NET**2 + 1}.{number // _PER_NET % _PER_NET + 1}.{number % _PER_NET + 1}"


def number_at(text: str) -> int | None:
    """The number of the server at an address; None for 127.0.0.1, and for everything that is no loopback."""
    parts = [int(part) for part in text.split(".")] if text.count(".") == 3 else []
    if len(parts) != 4 or parts[0] != 127 or parts[1] == 0:
        return None
    return ((parts[1] - 1) * _PER_NET + parts[2] - 1) * _PER_NET + parts[3] - 1


@dataclass(frozen=True, slots=True)
class Said:
    """What a body says, as far as a judge needs it. `about` is the post, or the activity itself."""

    id: str
    kind: str
    about: str


def read(body: bytes) -> Said:
    """What is said by a body of ours."""
    document = orjson.loads(body)
    about = document.get("object")
    if isinstance(about, dict):
        about = about.get("id")
    return Said(str(document.get("id")), str(document.get("type")), str(about))


@dataclass(slots=True)
class Server:
    """What one server has heard."""

    ill: Ill | None
    first_at: float | None = None
    asked_at: float | None = None
    """Since when it asks to be left alone, by the wall clock."""
    took: dict[tuple[str, str], float] = field(default_factory=dict)
    """(inbox, activity): when it was accepted first."""
    ended: set[tuple[str, str]] = field(default_factory=set)
    """(inbox, post): its Create was accepted, or refused for good."""


class Judge:
    """All servers, and what was found wrong."""

    def __init__(self, ills: dict[int, Ill]) -> None:
        self._ills = ills
        self._servers: dict[int, Server] = {}
        self._read: dict[bytes, Said] = {}
        self.accepted = 0
        self.answered: dict[int, int] = {}
        self.twice = self.too_early = self.before_create = 0
        self.examples: list[str] = []

    def hear(self, number: int, path: str, date: str, body: bytes) -> tuple[int, str, float]:
        """The answer to a POST: status, further headers, and after how many seconds it is given."""
        server = self._servers.setdefault(number, Server(self._ills.get(number)))
        said = self._read.get(body)
        if said is None:
            said = self._read[body] = read(body)
        now, wall = time.monotonic(), time.time()
        server.first_at = server.first_at or now
        if said.kind in ("Update", "Delete") and (path, said.about) not in server.ended:
            self.before_create += 1
            self._example(f"{said.kind} before its Create at {address(number)}{path}")
        if server.asked_at is not None and wall < server.asked_at + ASKS_SECONDS - 0.1:
            signed = _seconds(date)
            if signed is not None and signed > server.asked_at + GRACE_SECONDS:
                self.too_early += 1
                self._example(
                    f"{wall - server.asked_at:.1f} s after Retry-After: {ASKS_SECONDS} at {address(number)}"
                )
        status, headers, delay = self._answer(server, now, wall)
        self.answered[status] = self.answered.get(status, 0) + 1
        if status < 300:
            if (path, said.id) in server.took:
                self.twice += 1
                self._example(f"{said.kind} twice at {address(number)}{path}")
            server.took.setdefault((path, said.id), now + delay)
            self.accepted += 1
        if said.kind == "Create" and status in (202, 410):
            server.ended.add((path, said.about))
        return status, headers, delay

    def _answer(self, server: Server, now: float, wall: float) -> tuple[int, str, float]:
        assert server.first_at is not None
        match server.ill:
            case "slow":
                return 202, "", SLOW_SECONDS
            case "429" if server.asked_at is None or wall < server.asked_at + ASKS_SECONDS - 0.1:
                server.asked_at = server.asked_at or wall
                return 429, f"Retry-After: {ASKS_SECONDS}\r\n", 0
            case "5xx" if now < server.first_at + FAILS_SECONDS:
                return 503, "", 0
            case "gone":
                return 410, "", 0
        return 202, "", 0

    def _example(self, words: str) -> None:
        if len(self.examples) < 5:
            self.examples.append(words)

    def report(self, since: float) -> dict[str, Any]:
        """Everything, with times in seconds since `since` (monotonic)."""
        took: dict[str, list[float]] = {}
        for server in self._servers.values():
            took.setdefault(server.ill or "healthy", []).extend(at - since for at in server.took.values())
        return {
            "accepted": self.accepted,
            "answered": self.answered,
            "distinct": sum(len(server.took) for server in self._servers.values()),
            "twice": self.twice,
            "too_early": self.too_early,
            "before_create": self.before_create,
            "examples": self.examples,
            "took": {ill: sorted(times) for ill, times in took.items()},
        }


def _seconds(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Inbox(asyncio.Protocol):
    """One connection to one of the servers."""

    def __init__(self, judge: Judge, *, tls: bool) -> None:
        self._judge = judge
        self._tls = tls
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        host = str(transport.get_extra_info("sockname")[0])
        self._number = number_at(host)
        if self._number is None and host != "127.0.0.1":
            # The port is open to every address of this machine; nobody outside of it is listened to.
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._tls:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self._transport.close()
            return
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            line, _, rest = bytes(self._buffer[:end]).decode("latin-1").partition("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest.split("\r\n"))
            }
            length = end + 4 + int(headers.get("content-length", "0"))
            if len(self._buffer) < length:
                return
            body = bytes(self._buffer[end + 4 : length])
            del self._buffer[:length]
            method, _, target = line.partition(" ")
            self._serve(method, target.split(" ")[0], headers, body)

    def _serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        if self._number is None:
            self._tell(target)
        elif self._judge._ills.get(self._number) == "silent":
            return
        elif method != "POST":
            gone = self._judge._ills.get(self._number) == "gone"
            self._write(410 if gone else 404, "", b"")
        else:
            status, more, delay = self._judge.hear(self._number, target, headers.get("date", ""), body)
            if delay:
                asyncio.get_running_loop().call_later(delay, self._write, status, more, b"")
            else:
                self._write(status, more, b"")

    def _tell(self, target: str) -> None:
        judge = self._judge
        if target.startswith("/report/"):
            told = judge.report(float(target.removeprefix("/report/")))
        else:
            told = {"accepted": judge.accepted, "answered": judge.answered}
        self._write(200, "", json.dumps(told).encode())

    def _write(self, status: int, more: str, body: bytes) -> None:
        if not self._transport.is_closing():
            head = f"HTTP/1.1 {status} .\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode("latin-1") + body)


async def serve(plan: dict[str, Any]) -> None:
    """Answer on the ports of `plan` until killed; says "ready" on standard output."""
    loop = asyncio.get_running_loop()
    judge = Judge({int(number): ill for number, ill in plan["ills"].items()})
    for port, tls in ((plan["plain"], False), (plan["tls"], True)):
        await loop.create_server(partial(Inbox, judge, tls=tls), "0.0.0.0", port, backlog=4096)  # noqa: S104
    sys.stdout.write(f"ready {datetime.now(UTC).isoformat()}\n")
    sys.stdout.flush()
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
