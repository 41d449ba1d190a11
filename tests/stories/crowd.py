"""A server with any number of people, whose inboxes answer as a script says and write down what came when."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import BackgroundLoop, Bridge, Served, Stranger, eventually, free_socket

from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account
from threadbridge.storage import accounts, posts, schema
from threadbridge.storage.store import Tx


@dataclass(frozen=True)
class Reply:
    """What an inbox answers, and after how long."""

    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    body: bytes = b""


@dataclass(frozen=True)
class Arrival:
    """A request to an inbox: when, where, what, and how it was answered."""

    at: float
    path: str
    headers: dict[str, str]
    activity: dict[str, Any]
    status: int

    @property
    def kind(self) -> str:
        return str(self.activity["type"])

    @property
    def rfc9421(self) -> bool:
        return "signature-input" in self.headers


@dataclass
class Crowd(Stranger):
    """Everybody of `/users/<any name>` lives here and has the same key. `script` answers each delivery."""

    script: Callable[[Arrival], Reply] = lambda _: Reply()
    arrivals: list[Arrival] = field(default_factory=list)
    profile_status: int = 200
    shared: bool = True

    def person(self, name: str) -> str:
        return f"{self.base}/users/{name}"

    def described(self, name: str) -> dict[str, Any]:
        uri = self.person(name)
        key = {"id": f"{uri}#main-key", "owner": uri, "publicKeyPem": self.key.public_pem}
        described = {
            **self.actor(), "id": uri, "preferredUsername": name, "name": name, "inbox": f"{uri}/inbox",
            "outbox": f"{uri}/outbox", "url": f"{self.base}/@{name}", "publicKey": key,
        }  # fmt: skip
        if not self.shared:
            del described["endpoints"]
        return described

    def says(self, name: str, inbox: str, kind: str, object_: Any, **more: Any) -> httpx2.Response:
        """One of the people says something; returns the answer."""
        activity = {**self.activity(kind, object_, **more), "actor": self.person(name)}
        return self.post(inbox, activity, key_id=f"{self.person(name)}#main-key")

    def create_app(self) -> Starlette:
        async def person(request: Request) -> Response:
            self.fetched.append(request.url.path)
            if self.profile_status != 200:
                return Response(status_code=self.profile_status)
            described = orjson.dumps(self.described(request.path_params["name"]))
            return Response(described, media_type="application/activity+json")

        async def inbox(request: Request) -> Response:
            body = await request.body()
            asked = Arrival(time.monotonic(), request.url.path, dict(request.headers), orjson.loads(body), 0)
            reply = self.script(asked)
            self.requests.append((asked.headers, body))
            self.arrivals.append(Arrival(asked.at, asked.path, asked.headers, asked.activity, reply.status))
            if reply.seconds:
                await asyncio.sleep(reply.seconds)
            if 200 <= reply.status < 300:
                self.received.append(asked.activity)
            return Response(reply.body, status_code=reply.status, headers=reply.headers)

        return Starlette(
            routes=[
                Route("/users/{name}", person),
                Route("/users/{name}/inbox", inbox, methods=["POST"]),
                Route("/inbox", inbox, methods=["POST"]),
            ]
        )

    def deliveries(self, *kinds: str) -> list[Arrival]:
        """What came, Accepts apart, or of the given kinds only."""
        return [a for a in list(self.arrivals) if (a.kind in kinds if kinds else a.kind != "Accept")]


@contextmanager
def crowd(loop: BackgroundLoop, sock: socket.socket | None = None, **given: Any) -> Iterator[Crowd]:
    """A crowd on a loopback port."""
    sock = sock or free_socket()
    people = Crowd(f"http://127.0.0.1:{sock.getsockname()[1]}", **given)
    served = Served(loop, people.create_app(), sock)
    try:
        yield people
    finally:
        served.stop()


def follow(bridge: Bridge, account: Account, people: Crowd, *names: str) -> None:
    """These people follow, and have heard that they may."""
    actor = bridge.ground.ids.actor(account.id)
    before = len(people.of_kind("Accept"))
    for name in names:
        assert people.says(name, f"{bridge.base}/ap/inbox", "Follow", actor).status_code == 202
    eventually(lambda: len(people.of_kind("Accept")) >= before + len(names))


def publish(bridge: Bridge, account: Account, text: str = "Hello") -> int:
    """A new post, said to everybody; returns its number."""
    post_id = int(bridge.post(account, text).rsplit("/", 1)[1])

    def say(tx: Tx) -> None:
        tx.execute(schema.posts.update().where(schema.posts.c.id == post_id).values(silent=False))
        outbox.publish(tx, bridge.ground.ids, account, post_id)

    bridge.ground.store.transact_now(say)
    return post_id


def revise(bridge: Bridge, account: Account, post_id: int, text: str) -> None:
    """The post says something else now."""

    def say(tx: Tx) -> None:
        tx.execute(schema.posts.update().where(schema.posts.c.id == post_id).values(text=text, updated=tx.now))
        accounts.touch(tx, account.id)
        outbox.revise(tx, bridge.ground.ids, account, post_id)

    bridge.ground.store.transact_now(say)


def retract(bridge: Bridge, account: Account, post_id: int) -> None:
    """The post is gone."""

    def say(tx: Tx) -> None:
        assert posts.bury(tx, account.id, post_id)
        accounts.touch(tx, account.id)
        outbox.retract(tx, bridge.ground.ids, account, post_id)

    bridge.ground.store.transact_now(say)


def ledger_rows(bridge: Bridge, **where: Any) -> list[Any]:
    """Rows of the ledger, oldest first."""

    def read(tx: Tx) -> list[Any]:
        d = schema.deliveries
        query = d.select().order_by(d.c.id)
        for column, value in where.items():
            query = query.where(d.c[column] == value)
        return list(tx.execute(query))

    return bridge.ground.store.read_now(read)


def drained(bridge: Bridge, seconds: float = 10.0) -> None:
    """Wait until nothing is left to address or to deliver."""

    def done() -> bool:
        # In this order: addressing writes the deliveries and ends its job in one transaction.
        return not bridge.count("jobs", kind="fan_out") and not bridge.count("deliveries", state="waiting")

    eventually(done, seconds)
