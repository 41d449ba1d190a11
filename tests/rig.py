"""The rig on which the stories run: real servers on loopback, driven from plain test functions.

Nothing is mocked: a `Bridge` is the product's own server and worker in a background event loop, over real sockets; a
`Stranger` is somebody on another server, who signs with a key of their own and can also lie.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.peers import judgement

from threadbridge import server
from threadbridge.config import fixed
from threadbridge.domain.accounts import Account
from threadbridge.services import Ground, Services, open_ground, open_services
from threadbridge.storage import accounts, migrate, posts, schema
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import NewKey, new_rsa_key
from threadbridge.web.app import Front, create_app
from threadbridge.worker import Worker

T = TypeVar("T")

AS = "https://www.w3.org/ns/activitystreams"
PUBLIC = f"{AS}#Public"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class BackgroundLoop:
    """An event loop in a thread, for servers that tests talk to."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 30) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def free_socket() -> socket.socket:
    return server.listen("127.0.0.1", 0)


class Served:
    """An ASGI application on a loopback port. What the product says in it or to it is kept for the judgement of
    `tests/peers/judgement.py`."""

    def __init__(self, loop: BackgroundLoop, app: Any, sock: socket.socket) -> None:
        self._loop = loop
        app = judgement.answers_of(app) if isinstance(app, Front) else judgement.requests_to(app)
        self._server = server.http_server(app)
        self._task = asyncio.run_coroutine_threadsafe(self._server.serve(sockets=[sock]), loop.loop)
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            assert not self._task.done(), self._task.result()
            time.sleep(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        self._task.result(10)


# A key costs a tenth of a second: the stories share a few.
_KEYS: list[NewKey] = []


def a_key(number: int = 0) -> NewKey:
    while len(_KEYS) <= number:
        _KEYS.append(new_rsa_key())
    return _KEYS[number]


@lru_cache
def _parsed(pem: bytes) -> rsa.RSAPrivateKey:
    private = serialization.load_pem_private_key(pem, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private


BY_ITSELF = frozenset({"jobs", "connections", "figures", "sessions"})
"""Tables whose rows change without anybody's doing."""


@dataclass
class Bridge:
    """The product, running. `worker` can be stopped and started on its own."""

    loop: BackgroundLoop
    ground: Ground
    services: Services
    base: str
    _served: Served | None = None
    _worker: Worker | None = None
    _working: Any = None

    @property
    def authority(self) -> str:
        return urlsplit(self.base).netloc

    def start_worker(self) -> None:
        self._worker = Worker(self.services)
        self._working = asyncio.run_coroutine_threadsafe(self._worker.run(), self.loop.loop)
        eventually(lambda: self.count("jobs", kind="prune"))

    def stop_worker(self) -> None:
        if self._worker is not None:
            self.loop.loop.call_soon_threadsafe(self._worker.stop)
            self._working.result(10)
            self._worker = None

    def account(self, handle: str = "alice", **given: Any) -> Account:
        """A new account, as an import would make it."""
        wanted = {"name": handle.title(), "bio": "", "source_url": None, "joined_at": None, **given}
        return self.ground.store.transact_now(
            accounts.create,
            self.ground.vault,
            a_key(),
            handle=handle,
            consent_kind="download",
            consent_wording="test",
            **wanted,
        )

    def post(self, account: Account, text: str = "Hello", *, published: datetime | None = None, **given: Any) -> str:
        """A silent post; returns its id in the Fediverse."""
        content = PostContent(
            kind=given.pop("kind", "post"),
            text=text,
            language=given.pop("language", "en"),
            published=published or datetime(2026, 1, 1, 12, tzinfo=UTC),
            **given,
        )

        def add(tx: Tx) -> int:
            number = posts.add(tx, account.id, content, [], silent=True)
            accounts.touch(tx, account.id)
            return number

        return self.ground.ids.post(account.id, self.ground.store.transact_now(add))

    def count(self, table: str, **where: Any) -> int:
        """Rows of a table."""

        def count_rows(tx: Tx) -> int:
            t = schema.metadata.tables[table]
            query = select(func.count()).select_from(t)
            for column, value in where.items():
                query = query.where(t.c[column] == value)
            return int(tx.execute(query).scalar_one())

        return self.ground.store.read_now(count_rows)

    def everything(self) -> dict[str, int]:
        """{table: rows}: what a refused request must leave as it was. Without the figures of the minute, which go on
        by themselves."""

        def count_all(tx: Tx) -> dict[str, int]:
            return {
                name: int(tx.execute(select(func.count()).select_from(table)).scalar_one())
                for name, table in schema.metadata.tables.items()
                if name != "figures"
            }

        return self.ground.store.read_now(count_all)

    def contents(self) -> dict[str, tuple[int, str]]:
        """The same as `everything`, with a hash of what the rows say, but for times and for what goes on by itself:
        a refused request that changed a row would leave their number as it was."""

        def read(tx: Tx) -> dict[str, tuple[int, str]]:
            found = {}
            for name, table in schema.metadata.tables.items():
                columns = [column for column in table.columns if not isinstance(column.type, schema.Moment)]
                rows = sorted(repr(tuple(row)) for row in tx.execute(select(*columns)))
                found[name] = len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()
            return {name: what for name, what in found.items() if name not in BY_ITSELF}

        return self.ground.store.read_now(read)

    def get(self, path: str, accept: str = "application/activity+json", **headers: str) -> httpx2.Response:
        url = path if path.startswith("http") else self.base + path
        return httpx2.get(url, headers={"Accept": accept, **headers}, trust_env=False, timeout=30)


@lru_cache
def _newest_form() -> bytes:
    """An SQLite database in the newest form, made once: migrating for each test would take fifty times as long."""
    with tempfile.TemporaryDirectory(prefix="threadbridge-pattern-") as folder:
        file = Path(folder) / "pattern.sqlite3"
        store = Store.open(f"sqlite:///{file}")
        migrate.to_newest(store)
        store.close()
        return file.read_bytes()


@lru_cache
def _first_start() -> dict[str, bytes]:
    """What a first start leaves in the data folder: the database, with the server's own keys, and what seals them."""
    with tempfile.TemporaryDirectory(prefix="threadbridge-pattern-") as folder:
        open_ground(fixed(data_dir=Path(folder)), needs_base_url=False).close()
        return {name: (Path(folder) / name).read_bytes() for name in ("threadbridge.sqlite3", "secret.key")}


def new_sqlite(file: Path) -> None:
    """Put a database in the newest form where there is none."""
    _put(file, _newest_form())


def _put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(0o600)


@contextmanager
def running_bridge(
    folder: Path, *, worker: bool = True, database_url: str | None = None, **settings: Any
) -> Iterator[Bridge]:
    """A bridge with server and worker on a free loopback port."""
    sock = free_socket()
    base = f"http://127.0.0.1:{sock.getsockname()[1]}"
    config = fixed(
        data_dir=folder,
        database_url=database_url,
        allowed_private_networks=LOOPBACK,
        **{"base_url": base, "poll_seconds": 0.2, "refusals_per_minute": 1_000_000, **settings},
    )
    if database_url is None and not any(folder.glob("*")):
        for name, content in _first_start().items():
            _put(folder / name, content)
    loop = BackgroundLoop()
    ground = open_ground(config)
    services = loop.run(_opened(ground))
    bridge = Bridge(loop, ground, services, base)
    leave = judgement.keys_from(partial(public_keys, ground))
    try:
        served = Served(loop, create_app(services), sock)
        if worker:
            bridge.start_worker()
        try:
            yield bridge
        finally:
            bridge.stop_worker()
            served.stop()
            loop.run(services.aclose())
    finally:
        leave()
        ground.close()
        loop.close()


def public_keys(ground: Ground) -> dict[str, str]:
    """{keyId: PEM} of everybody here, as the judgement needs them: tests may have ended the accounts by then."""

    def read(tx: Tx) -> dict[str, str]:
        table, ids = schema.account_keys, ground.ids
        rows = tx.execute(select(table.c.account_id, table.c.fragment, table.c.public_pem, table.c.kind)).all()
        owned = [(ids.instance if r.account_id is None else ids.actor(r.account_id), r) for r in rows]
        return {f"{owner}#{row.fragment}": row.public_pem for owner, row in owned if row.kind == "rsa"}

    return ground.store.read_now(read)


async def _opened(ground: Ground) -> Services:
    return open_services(ground)


@dataclass
class Stranger:
    """Somebody on a server of their own: an actor document, an inbox that keeps what arrives, and a signature made
    here from the draft's text, not by the product."""

    base: str
    name: str = "bob"
    key: NewKey = field(default_factory=lambda: a_key(1))
    received: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict)
    gone: bool = False
    answer: Callable[[int], int] = lambda _: 202
    fetched: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"{self.base}/users/{self.name}"

    @property
    def key_id(self) -> str:
        return f"{self.uri}#main-key"

    def actor(self) -> dict[str, Any]:
        return {
            "@context": [AS, "https://w3id.org/security/v1"],
            "id": self.uri,
            "type": "Person",
            "preferredUsername": self.name,
            "name": self.name.title(),
            "inbox": f"{self.uri}/inbox",
            "outbox": f"{self.uri}/outbox",
            "url": f"{self.base}/@{self.name}",
            "endpoints": {"sharedInbox": f"{self.base}/inbox"},
            "publicKey": {"id": self.key_id, "owner": self.uri, "publicKeyPem": self.key.public_pem},
        }

    # ── speaking ─────────────────────────────────────────────────────────────────────────────────────────────────

    def activity(self, kind: str, object_: Any, **more: Any) -> dict[str, Any]:
        number = time.monotonic_ns()
        return {"@context": AS, "id": f"{self.base}/activities/{number}", "type": kind, "actor": self.uri,
                "object": object_, **more}  # fmt: skip

    def note(self, in_reply_to: str | None, content: str = "<p>Hi!</p>", **more: Any) -> dict[str, Any]:
        number = time.monotonic_ns()
        return {"id": f"{self.base}/notes/{number}", "type": "Note", "attributedTo": self.uri, "content": content,
                "inReplyTo": in_reply_to, "published": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "to": [PUBLIC], "cc": [], **more}  # fmt: skip

    def signed(
        self,
        url: str,
        body: bytes,
        *,
        key: NewKey | None = None,
        key_id: str | None = None,
        at: datetime | None = None,
        covered: tuple[str, ...] = ("(request-target)", "host", "date", "digest"),
        method: str = "post",
        **replaced: str,
    ) -> dict[str, str]:
        """Headers of a request signed by draft-cavage-http-signatures-12; each part can be bent."""
        parts = urlsplit(url)
        headers = {
            "host": parts.netloc,
            "date": format_datetime(at or datetime.now(UTC), usegmt=True),
            "digest": "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode(),
            "content-type": "application/activity+json",
        }
        lines = {**headers, "(request-target)": f"{method} {parts.path}"}
        text = "\n".join(f"{name}: {lines[name]}" for name in covered)
        private = _parsed((key or self.key).private_pem)
        signature = private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        headers["signature"] = (
            f'keyId="{key_id or self.key_id}",algorithm="rsa-sha256",headers="{" ".join(covered)}",'
            f'signature="{base64.b64encode(signature).decode()}"'
        )
        return {**headers, **replaced}

    def post(self, inbox: str, activity: dict[str, Any], **bent: Any) -> httpx2.Response:
        body = orjson.dumps(activity)
        signed = self.signed(inbox, body, **bent)
        return httpx2.post(inbox, content=body, headers=signed, trust_env=False, timeout=30)

    # ── listening ────────────────────────────────────────────────────────────────────────────────────────────────

    def create_app(self) -> Starlette:
        async def actor(request: Request) -> Response:
            self.fetched.append(request.url.path)
            if self.gone:
                return Response(status_code=410)
            if request.path_params["name"] != self.name:
                return Response(status_code=404)
            return Response(orjson.dumps(self.actor()), media_type="application/activity+json")

        async def thing(request: Request) -> Response:
            uri = f"{self.base}{request.url.path}"
            self.fetched.append(request.url.path)
            if uri not in self.objects:
                return Response(status_code=404)
            return Response(
                orjson.dumps({"@context": AS, **self.objects[uri]}), media_type="application/activity+json"
            )

        async def inbox(request: Request) -> Response:
            body = await request.body()
            status = self.answer(len(self.requests))
            self.requests.append((dict(request.headers), body))
            if 200 <= status < 300:
                self.received.append(orjson.loads(body))
            return Response(status_code=status)

        return Starlette(
            routes=[
                Route("/users/{name}", actor),
                Route("/users/{name}/inbox", inbox, methods=["POST"]),
                Route("/inbox", inbox, methods=["POST"]),
                Route("/{path:path}", thing),
            ]
        )

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [activity for activity in self.received if activity["type"] == kind]


def eventually(check: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until `check()` is true, and return what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
