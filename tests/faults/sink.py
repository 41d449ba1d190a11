"""Many servers at one port of 127.x.y.z, which have each effect once, as good servers do, and remember every request.

Rule: the judge is strict. What arrives a second time under the same id must be the same bytes and has no effect; what
arrives under a new id must make sense after what came before it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
from tests.rig import AS, BackgroundLoop, Stranger, free_socket

Script = Callable[[str, dict[str, Any]], int]


@dataclass(frozen=True)
class Came:
    """One request to an inbox: when (monotonic seconds), at which host (with its port), what, how it was answered."""

    at: float
    host: str
    path: str
    uri: str
    kind: str
    about: str
    status: int


@dataclass
class Server:
    """What one of the servers knows."""

    seen: dict[str, int] = field(default_factory=dict)
    """{activity id: hash of its bytes}."""
    objects: dict[str, str] = field(default_factory=dict)
    """{object id: 'there', 'only heard of' or 'deleted'}."""


class Sink:
    """Everybody at 127.<n>.<n>.<n> on one port. `script` says with which status a delivery is answered."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.came: list[Came] = []
        self.wrong: list[str] = []
        """Effects that happened twice, in the wrong order, or to what was deleted."""
        self.servers: defaultdict[str, Server] = defaultdict(Server)
        self.fetched: list[str] = []
        self.script: Script = lambda host, activity: 202
        self.speaker = Stranger(f"http://127.1.0.1:{port}")
        self._lock = threading.Lock()

    def host(self, number: int) -> str:
        return f"127.0.{number // 250 + 1}.{number % 250 + 1}:{self.port}"

    def heard(self, host: str, path: str, body: bytes) -> int:
        """A delivery; returns the status of the answer."""
        activity = orjson.loads(body)
        status = self.script(host, activity)
        object_ = activity["object"]
        about = object_ if isinstance(object_, str) else object_["id"]
        came = Came(time.monotonic(), host, path, activity["id"], activity["type"], about, status)
        with self._lock:
            self.came.append(came)
            if 200 <= status < 300:
                self._effect(came, hash(body))
        return status

    def _effect(self, came: Came, digest: int) -> None:
        server = self.servers[came.host]
        if came.uri in server.seen:
            if server.seen[came.uri] != digest:
                self.wrong.append(f"{came.host}: {came.uri} came again and was another")
            return
        server.seen[came.uri] = digest
        state = server.objects.get(came.about)
        if came.kind == "Create":
            if state is not None:
                self.wrong.append(f"{came.host}: a Create of {came.about}, which was {state}")
            server.objects[came.about] = "there"
        elif came.kind == "Update":
            # Who follows since then hears of changes of what was said before; its Create must not come afterwards.
            if state == "deleted":
                self.wrong.append(f"{came.host}: an Update of {came.about}, which was deleted")
            server.objects.setdefault(came.about, "only heard of")
        elif came.kind == "Delete":
            # Also of what never came: whether it did, nobody knows after a kill. What comes then must not stand up.
            if state == "deleted":
                self.wrong.append(f"{came.host}: a second Delete of {came.about}")
            server.objects[came.about] = "deleted"

    # ── what came ────────────────────────────────────────────────────────────────────────────────────────────────

    def taken(self, *kinds: str) -> Counter[tuple[str, str]]:
        """{(host, activity id): how often it arrived and was taken}."""
        with self._lock:
            return Counter(
                (c.host, c.uri) for c in self.came if 200 <= c.status < 300 and (not kinds or c.kind in kinds)
            )

    def effects(self) -> int:
        with self._lock:
            return sum(len(server.seen) for server in self.servers.values())

    def duplicates(self) -> int:
        return sum(times - 1 for times in self.taken().values())

    def overtaken(self) -> list[str]:
        """Objects of which a Create arrived somewhere after their Delete, be it only on the wire."""
        deleted: dict[tuple[str, str], float] = {}
        found = []
        for one in list(self.came):
            if one.kind == "Delete" and one.status < 300:
                deleted.setdefault((one.host, one.about), one.at)
            elif one.kind == "Create" and (one.host, one.about) in deleted:
                found.append(f"{one.host}: {one.about}")
        return found

    # ── people, so that somebody can follow ──────────────────────────────────────────────────────────────────────

    def person(self, name: str) -> str:
        return f"{self.speaker.base}/users/{name}"

    def described(self, name: str) -> dict[str, Any]:
        uri = self.person(name)
        return {
            **self.speaker.actor(), "id": uri, "preferredUsername": name, "inbox": f"{uri}/inbox",
            "outbox": f"{uri}/outbox",
            "publicKey": {"id": f"{uri}#main-key", "owner": uri, "publicKeyPem": self.speaker.key.public_pem},
        }  # fmt: skip

    def follows(self, name: str, inbox: str, actor: str) -> int:
        """Somebody follows; returns the status."""
        uri = self.person(name)
        activity = {"@context": AS, "id": f"{uri}/follows", "type": "Follow", "actor": uri, "object": actor}
        return int(self.speaker.post(inbox, activity, key_id=f"{uri}#main-key").status_code)


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
            headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)}
            size = int(headers.get(b"content-length", b"0"))
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            self._answer(first.split(b" "), headers[b"host"].decode(), body)

    def _answer(self, first: list[bytes], host: str, body: bytes) -> None:
        path = urlsplit(first[1].decode()).path
        if first[0] == b"POST":
            status = self._sink.heard(host, path, body)
            self._transport.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            return
        self._sink.fetched.append(f"{host}{path}")
        document = orjson.dumps(self._sink.described(path.rpartition("/")[2]))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/activity+json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(document) + document)


@contextmanager
def sink(loop: BackgroundLoop) -> Iterator[Sink]:
    """It listens."""
    with free_socket() as sock:
        made = Sink(sock.getsockname()[1])

    async def listen() -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: _Connection(made), "0.0.0.0", made.port, backlog=2048
        )

    server = loop.run(listen())
    try:
        yield made
    finally:
        loop.loop.call_soon_threadsafe(server.close)
