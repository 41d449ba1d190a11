"""A person at the mock Threads network, the bridge that reads them, and a stranger elsewhere who follows.

`Threads` is the product's own sandbox behind a gate that counts what is asked and can answer in its place: error
bodies, lost permissions and dead CDNs, in the words that Graph uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from sqlalchemy import select
from tests.rig import BackgroundLoop, Bridge, Served, Stranger, eventually, free_socket, running_bridge
from tests.world.download_samples import picture

from threadbridge import connecting
from threadbridge.connecting import Connected
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Post
from threadbridge.sandbox.app import create_app
from threadbridge.sandbox.network import Draft, Entry, Item, Network, Person
from threadbridge.storage import accounts, connections, posts, schema
from threadbridge.storage.connections import Connection
from threadbridge.storage.store import Tx

T = TypeVar("T")
Answer = tuple[int, dict[str, str], bytes]
HANGING: Answer = (0, {}, b"")
"""No answer, until whoever asked goes away."""
Gate = Callable[[str, dict[str, str]], Answer | None]


def refusal(status: int, code: int, subcode: int | None = None, **headers: str) -> Answer:
    """An error body of Graph."""
    error: dict[str, Any] = {"message": "Refused", "type": "OAuthException", "code": code, "fbtrace_id": "A1"}
    if subcode is not None:
        error["error_subcode"] = subcode
    return status, headers, json.dumps({"error": error}).encode()


def listing(*rows: Any) -> Answer:
    """A list as Graph answers it, without a next page."""
    return 200, {}, json.dumps({"data": list(rows)}).encode()


@dataclass
class Threads:
    """The mock network with one person. All is done in its event loop, since a Network is not locked."""

    loop: BackgroundLoop
    network: Network
    base: str
    asked: list[str] = field(default_factory=list)
    """Paths of all requests, in order."""
    gate: Gate = lambda path, query: None
    person: Person = field(init=False)

    def __post_init__(self) -> None:
        self.person = self.do(lambda: self.network.join("mira", name="Mira", bio="Draws.", avatar=self._picture(99)))

    def do(self, work: Callable[[], T]) -> T:
        async def in_loop() -> T:
            return work()

        return self.loop.run(in_loop())

    def _picture(self, number: int) -> str:
        return self.network.store(picture("JPEG", size=(40 + number, 30)), "image/jpeg")

    def items(self, *alts: str) -> tuple[Item, ...]:
        """Pictures, each another one, with these alt texts."""
        return self.do(lambda: tuple(self.network.item(self._picture(n), alt=alt) for n, alt in enumerate(alts)))

    def post(self, text: str = "", *, at: datetime | None = None, by: Person | None = None, **draft: Any) -> Entry:
        return self.do(lambda: self.network.post(by or self.person, Draft(text=text, **draft), at=at))

    def history(self, count: int, *, days_ago: int = 30) -> list[Entry]:
        """Posts of a while ago, a minute apart, oldest first."""
        start = datetime.now(UTC) - timedelta(days=days_ago)
        return [self.post(f"history {n}", at=start + timedelta(minutes=n)) for n in range(count)]

    def edit(self, entry: Entry, **changes: str) -> None:
        self.do(lambda: self.network.edit(None, entry.id, **changes))

    def delete(self, entry: Entry) -> None:
        self.do(lambda: self.network.delete(None, entry.id))

    def reads(self) -> int:
        """How many times the newest posts were listed (the last thing that a read asks for, if nothing is new)."""
        return sum(path == "/v1.0/me/threads" for path in self.asked)

    def after_reads(self, count: int = 2) -> None:
        """Wait until `count` further reads have begun, so that at least one less is over."""
        until = self.reads() + count
        eventually(lambda: self.reads() >= until)

    def app(self) -> Any:
        sandbox = create_app(self.network, self.base)

        async def gated(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.asked.append(scope["path"])
                query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
                instead = self.gate(scope["path"], query)
                if instead is HANGING:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    return
                if instead is not None:
                    status, headers, body = instead
                    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
                    await send({"type": "http.response.start", "status": status, "headers": raw})
                    await send({"type": "http.response.body", "body": body})
                    return
            await sandbox(scope, receive, send)

        return gated


@dataclass
class Place:
    """The three of them."""

    bridge: Bridge
    threads: Threads
    stranger: Stranger

    def connect(self, *, handle: str | None = None, token: str | None = None, **more: Any) -> Connected:
        return self.bridge.loop.run(
            connecting.connect(
                self.bridge.services,
                token or self.threads.person.token,
                graph_url=self.threads.base,
                handle=handle,
                **more,
            )
        )

    def follow(self, account: Account) -> None:
        """The stranger follows."""
        actor = self.bridge.ground.ids.actor(account.id)
        assert self.stranger.post(f"{actor}/inbox", self.stranger.activity("Follow", actor)).status_code == 202

    def followed(self, count: int = 0) -> Account:
        """The usual beginning: `count` old posts, connected, followed, the worker reading."""
        self.threads.history(count)
        account = self.connect().account
        self.follow(account)
        return account

    def heard(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many activities of a kind at the stranger's, and return all of the kind."""
        eventually(lambda: len(self.stranger.of_kind(kind)) >= count)
        return self.stranger.of_kind(kind)

    def note_of(self, entry: Entry) -> dict[str, Any]:
        """What the stranger was told when a post was published."""
        found: dict[str, Any] = eventually(
            lambda: next((n for n in self._notes() if n["url"].endswith(entry.shortcode)), None)
        )
        return found

    def _notes(self) -> Iterator[dict[str, Any]]:
        return (activity["object"] for activity in self.stranger.of_kind("Create"))

    def texts(self) -> list[str]:
        """The contents of all Creates that the stranger got."""
        return [note["content"] for note in self._notes()]

    def account(self, handle: str = "mira") -> Account:
        return self.bridge.ground.store.read_now(accounts.named, handle)

    def connection(self) -> Connection:
        found = self.bridge.ground.store.read_now(connections.of_account, self.account().id)
        assert found is not None
        return found

    def due_in(self) -> float:
        """Seconds until the account is read again; waits until that is settled."""

        def due(tx: Tx) -> Any:
            j = schema.jobs
            return tx.execute(select(j.c.due_at, j.c.leased_until).where(j.c.kind == connections.READ)).first()

        row = eventually(
            lambda: (row := self.bridge.ground.store.read_now(due)) is not None and row.leased_until is None and row
        )
        seconds: float = (row.due_at - datetime.now(UTC)).total_seconds()
        return seconds

    def posts(self, handle: str = "mira") -> list[Post]:
        """Live posts, newest first."""

        def read(tx: Tx) -> list[Post]:
            return posts.newest(tx, accounts.named(tx, handle).id, limit=1000)

        return self.bridge.ground.store.read_now(read)

    def held(self, entry: Entry) -> Post | None:
        """A post as it is held, deleted or not."""

        def read(tx: Tx) -> Post | None:
            account = accounts.named(tx, "mira")
            origin = posts.origins(tx, account.id, "threads", [entry.id]).get(entry.id)
            return posts.by_id(tx, account.id, origin.post_id) if origin else None

        return self.bridge.ground.store.read_now(read)

    def said(self, kind: str) -> int:
        """How many activities of a kind were ever said, delivered or not."""
        return self.bridge.count("activities", kind=kind)


@contextmanager
def place(folder: Path, *, poll_seconds: float = 0.05, **settings: Any) -> Iterator[Place]:
    """A bridge, the mock network and a stranger, on loopback, in one event loop."""
    with running_bridge(folder / "data", poll_seconds=poll_seconds, **settings) as bridge:
        threads_socket, stranger_socket = free_socket(), free_socket()
        network = Network(secret=bytes(32), budget=1_000_000)
        threads = Threads(bridge.loop, network, f"http://127.0.0.1:{threads_socket.getsockname()[1]}")
        stranger = Stranger(f"http://127.0.0.1:{stranger_socket.getsockname()[1]}")
        served = [
            Served(bridge.loop, threads.app(), threads_socket),
            Served(bridge.loop, stranger.create_app(), stranger_socket),
        ]
        try:
            yield Place(bridge, threads, stranger)
        finally:
            for one in served:
                one.stop()
