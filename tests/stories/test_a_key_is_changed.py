"""An account's key is changed without anybody losing touch, and taken back by itself where it is refused."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge

from threadbridge.cli.keys import _status
from threadbridge.delivery import outbox, retry
from threadbridge.domain.accounts import Account
from threadbridge.errors import Conflict
from threadbridge.federation import rotation
from threadbridge.storage import keys, rotations


@dataclass
class Keeper(Stranger):
    """Keeps the key of whoever it follows, and believes in another one only when an Update says so that is signed
    with the one it has: GoToSocial's way. It verifies before it answers."""

    kept: str = ""
    believed: list[dict[str, Any]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    refused: int = 0
    down: bool = False

    def key_for(self, key_id: str) -> str:
        return self.kept

    def learn(self, pem: str) -> None:
        self.kept = pem

    def create_app(self) -> Starlette:
        async def inbox(request: Request) -> Response:
            body = await request.body()
            if self.down:
                return Response(status_code=503)
            if "signature-input" in request.headers:
                return Response(status_code=401)  # GoToSocial reads no RFC 9421
            header = request.headers["signature"]
            given = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', header))
            lines = {**request.headers, "(request-target)": f"post {request.url.path}"}
            text = "\n".join(f"{name}: {lines[name]}" for name in given["headers"].split())
            key = load_pem_public_key((await asyncio.to_thread(self.key_for, given["keyId"])).encode())
            assert isinstance(key, rsa.RSAPublicKey)
            try:
                signature = base64.b64decode(given["signature"])
                key.verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                self.refused += 1
                return Response(status_code=401)
            said = orjson.loads(body)
            self.used.append(given["keyId"].partition("#")[2])
            self.believed.append(said)
            if said["type"] == "Update" and said["object"].get("id") == said["actor"]:
                self.learn(said["object"]["publicKey"]["publicKeyPem"])
            return Response(status_code=202)

        async def actor(request: Request) -> Response:
            return Response(orjson.dumps(self.actor()), media_type="application/activity+json")

        return Starlette(
            routes=[
                Route("/users/{name}", actor),
                Route("/users/{name}/inbox", inbox, methods=["POST"]),
                Route("/inbox", inbox, methods=["POST"]),
            ]
        )

    def texts(self) -> list[str]:
        return [said["object"]["content"] for said in self.believed if said["type"] == "Create"]


class Stubborn(Keeper):
    """Never believes in another key, whatever it is told."""

    def learn(self, pem: str) -> None:
        pass


class Fetcher(Stubborn):
    """Verifies with the key that the actor's document has under that id at this moment: Fedify's way."""

    def key_for(self, key_id: str) -> str:
        actor = httpx2.get(key_id, headers={"Accept": "application/activity+json"}, trust_env=False).json()
        return str(actor["publicKey"]["publicKeyPem"] if actor["publicKey"]["id"] == key_id else self.kept)


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr(rotation, "PAUSE", timedelta(seconds=0.2))
    monkeypatch.setattr(rotation, "LOOK_EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr(rotation, "WATCH_EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr(retry, "SCHEDULE", (timedelta(seconds=0.3),))
    monkeypatch.setattr(retry, "BREAKER_FIRST", timedelta(seconds=0.5))
    monkeypatch.setattr(retry, "BREAKER_MAX", timedelta(seconds=0.5))
    monkeypatch.setattr(rotations, "KEPT", timedelta(seconds=3600))
    with running_bridge(tmp_path) as running:
        yield running


@contextmanager
def people(bridge: Bridge, account: Account, *kinds: type[Keeper]) -> Iterator[list[Keeper]]:
    """Followers on servers of their own, each of which has the account's key."""
    with ExitStack() as stack:
        found = []
        for number, kind in enumerate(kinds):
            sock = free_socket()
            somebody = kind(f"http://127.0.0.1:{sock.getsockname()[1]}", name=f"p{number}", key=a_key(1))
            somebody.kept = bridge.ground.store.read_now(keys.public_key, account.id)
            served = Served(bridge.loop, somebody.create_app(), sock)
            stack.callback(served.stop)
            follow = somebody.activity("Follow", bridge.ground.ids.actor(account.id))
            assert somebody.post(f"{bridge.base}/ap/inbox", follow).status_code == 202
            found.append(somebody)
        eventually(lambda: all(somebody.believed for somebody in found))
        eventually(lambda: bridge.count("deliveries", state="waiting") == 0)
        yield found


def rotate(bridge: Bridge, account: Account, number: int = 5) -> None:
    bridge.ground.store.transact_now(rotation.begin, bridge.ground.vault, account, a_key(number))


def status(bridge: Bridge) -> dict[str, Any]:
    return bridge.ground.store.read_now(_status, "alice")


def becomes(bridge: Bridge, state: str) -> str:
    eventually(lambda: status(bridge)["state"] == state, 20)
    return str(status(bridge)["words"])


def say(bridge: Bridge, account: Account, text: str, hearers: list[Keeper]) -> None:
    number = int(bridge.post(account, text).rsplit("/", 1)[1])
    bridge.ground.store.transact_now(outbox.publish, bridge.ground.ids, account, number)
    eventually(lambda: all(f"<p>{text}</p>" in somebody.texts() for somebody in hearers))


def published(bridge: Bridge, account: Account) -> tuple[str, set[str]]:
    """(fragment of `publicKey`, fragments beside it)."""
    actor = bridge.get(f"/ap/users/{account.id}").json()
    fragments = {held["id"].partition("#")[2] for held in actor["assertionMethod"]}
    return actor["publicKey"]["id"].partition("#")[2], fragments


def test_everybody_follows_along(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "CANARIES", 2)
    account = bridge.account()
    with people(bridge, account, Keeper, Keeper, Keeper, Keeper) as hearers:
        *_, late = hearers
        late.down = True
        # Whoever was reached last is asked first, so the one that is down is not among them.
        say(bridge, account, "before", hearers[:3])
        eventually(
            lambda: (
                bridge.ground.store.read_now(rotations.canaries, account.id, 9)
                and late.base not in str(bridge.ground.store.read_now(rotations.canaries, account.id, 9))
            )
        )
        rotate(bridge, account)
        with pytest.raises(Conflict, match="being changed already"):
            rotate(bridge, account, 6)
        words = becomes(bridge, "spreading")
        assert "taken by" in words
        assert "the old key is published until" in words
        eventually(lambda: published(bridge, account) == ("main-key-2", {"ed25519-key", "main-key"}))
        eventually(lambda: [h.kept == a_key(5).public_pem for h in hearers] == [True, True, True, False])
        say(bridge, account, "after", hearers[:3])
        for somebody in hearers[:3]:
            # The news came with the old key; from then on everything with the new one.
            news = [said["type"] == "Update" for said in somebody.believed].index(True)
            assert set(somebody.used[: news + 1]) == {"main-key"}
            assert set(somebody.used[news + 1 :]) == {"main-key-2"}
            assert somebody.refused == 0
        # Days later the last one is back. It knows the old key only, and hears the news with that one.
        late.down = False
        eventually(lambda: {"<p>before</p>", "<p>after</p>"} <= set(late.texts()), 20)
        eventually(lambda: late.kept == a_key(5).public_pem)
        # When everybody has heard, and some days have passed, the old key is forgotten.
        assert status(bridge)["state"] == "spreading"
        monkeypatch.setattr(rotations, "KEPT", timedelta(0))
        words = becomes(bridge, "done")
        assert "the old key is forgotten" in words
        eventually(lambda: published(bridge, account) == ("main-key-2", {"ed25519-key"}))
        late.down = False
        say(bridge, account, "much later", hearers)
        reasons = bridge.ground.store.read_now(
            lambda tx: [
                row.reason for row in tx.connection.exec_driver_sql("SELECT reason FROM decisions ORDER BY id")
            ]
        )
        assert len(reasons) == 2  # the owner can read what was decided
        # The next one has another id again: an id names one key for ever.
        rotate(bridge, account, 6)
        eventually(lambda: published(bridge, account)[0] == "main-key-3")
        becomes(bridge, "done")
        say(bridge, account, "and again", hearers)


def test_a_new_key_that_is_refused_is_taken_back(bridge: Bridge) -> None:
    account = bridge.account()
    with people(bridge, account, Keeper, Stubborn) as (keeper, stubborn):
        old = keeper.kept
        rotate(bridge, account)
        words = becomes(bridge, "rolled_back")
        assert stubborn.base.removeprefix("http://") in words
        assert "the old key is in force" in words
        # The one who had believed in it was told, with the new key, that the old one is back.
        assert keeper.kept == stubborn.kept == old
        assert "main-key-2" in keeper.used
        assert set(stubborn.used) == {"main-key"}
        assert published(bridge, account) == ("main-key", {"ed25519-key"})
        say(bridge, account, "still here", [keeper, stubborn])
        states = {key.fragment: key.state for key in bridge.ground.store.read_now(keys.every, account.id)}
        assert states == {"main-key": "current", "ed25519-key": "current", "main-key-2": "retired"}


def test_one_of_three_that_looks_into_our_document_is_no_refusal(bridge: Bridge) -> None:
    account = bridge.account()
    with people(bridge, account, Keeper, Keeper, Fetcher) as hearers:
        rotate(bridge, account)
        words = becomes(bridge, "spreading")
        assert f"refused by {hearers[2].base.removeprefix('http://')}" in words
        say(bridge, account, "after", hearers)
        assert [somebody.used[-1] for somebody in hearers] == ["main-key-2"] * 3


def test_who_knows_the_old_key_and_was_not_told_is_told(bridge: Bridge) -> None:
    """Somebody who looked at the profile long ago and follows only now."""
    account = bridge.account()
    with people(bridge, account, Keeper) as hearers:
        rotate(bridge, account)
        becomes(bridge, "spreading")
        eventually(lambda: published(bridge, account)[0] == "main-key-2")
        # Whoever follows before everybody is addressed is told with them.
        eventually(lambda: not bridge.count("jobs", kind="fan_out"))
        with ExitStack() as stack:
            sock = free_socket()
            newcomer = Keeper(f"http://127.0.0.1:{sock.getsockname()[1]}", name="new", key=a_key(1))
            newcomer.kept = a_key().public_pem
            stack.callback(Served(bridge.loop, newcomer.create_app(), sock).stop)
            newcomer.post(f"{bridge.base}/ap/inbox", newcomer.activity("Follow", bridge.ground.ids.actor(account.id)))
            eventually(lambda: newcomer.kept == a_key(5).public_pem)
            assert [said["type"] for said in newcomer.believed] == ["Accept", "Update"]
            say(bridge, account, "welcome", [*hearers, newcomer])
            assert newcomer.used == ["main-key", "main-key", "main-key-2"]


def test_it_survives_the_end_of_the_process_and_is_called_off_by_hand(bridge: Bridge) -> None:
    account = bridge.account()
    with people(bridge, account, Keeper) as (keeper,):
        old = keeper.kept
        bridge.stop_worker()
        rotate(bridge, account)
        assert "about to be told" in status(bridge)["words"]
        for _ in range(4):
            bridge.start_worker()
            bridge.stop_worker()
        bridge.start_worker()
        becomes(bridge, "spreading")
        eventually(lambda: keeper.kept == a_key(5).public_pem)
        bridge.ground.store.transact_now(rotation.roll_back, account)
        assert "called off by the operator" in becomes(bridge, "rolled_back")
        assert keeper.kept == old
        say(bridge, account, "as before", [keeper])
        with pytest.raises(Conflict, match="could be taken back"):
            bridge.ground.store.transact_now(rotation.roll_back, account)


def test_without_followers_there_is_nobody_to_ask(bridge: Bridge) -> None:
    account = bridge.account()
    rotate(bridge, account)
    assert "no follower's server to try it with" in becomes(bridge, "spreading")
    eventually(lambda: published(bridge, account) == ("main-key-2", {"ed25519-key", "main-key"}))
    with people(bridge, account, Keeper) as (keeper,):
        assert set(keeper.used) == {"main-key-2"}


def test_a_strangers_new_key_is_believed_only_from_the_old_one(bridge: Bridge) -> None:
    account = bridge.account()
    post, inbox = bridge.post(account), f"{bridge.base}/ap/inbox"
    with people(bridge, account, Keeper) as (bob,):
        (before, rows) = bridge.everything(), bridge.ground.store.read_now(_peer_keys)
        stranger_key, mallory_key = a_key(3), a_key(4)
        described = bob.actor()
        described["publicKey"] = {**described["publicKey"], "publicKeyPem": mallory_key.public_pem}
        forged = bob.activity("Update", described)
        # Signed with the key that it brings, under the old id and under one of its own.
        assert bob.post(inbox, forged, key=mallory_key).status_code == 401
        elsewhere = {**described, "publicKey": {**described["publicKey"], "id": f"{bob.uri}#second"}}
        answer = bob.post(inbox, bob.activity("Update", elsewhere), key=mallory_key, key_id=f"{bob.uri}#second")
        assert answer.status_code == 401
        assert bridge.everything() == before
        assert bridge.ground.store.read_now(_peer_keys) == rows
        assert bob.post(inbox, bob.activity("Like", post), key=mallory_key).status_code == 401
        # The true one, signed with the old key, under a new id.
        moved = {**bob.actor(), "publicKey": {**bob.actor()["publicKey"], "id": f"{bob.uri}#second",
                                              "publicKeyPem": stranger_key.public_pem}}  # fmt: skip
        assert bob.post(inbox, bob.activity("Update", moved)).status_code == 202
        like = bob.activity("Like", post)
        assert bob.post(inbox, like, key=stranger_key, key_id=f"{bob.uri}#second").status_code == 202
        assert bridge.count("reactions", undone_at=None) == 1


def _peer_keys(tx: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in tx.connection.exec_driver_sql("SELECT * FROM peer_keys ORDER BY key_id")]
