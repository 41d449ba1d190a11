"""Limits on what comes in really answer 429 on the inbox, and never to a server that proves who it is and behaves;
one request in makes at most one request out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge
from tests.stories.neighbours import kept, send, strangers

from threadbridge import services
from threadbridge.config import fixed, load
from threadbridge.errors import BadConfiguration
from threadbridge.net.peers import BROUGHT_PER_MINUTE
from threadbridge.signatures.keys import proof_key
from threadbridge.signatures.proofs import prove
from threadbridge.storage.vault import NewKey, new_ed25519_key
from threadbridge.web.throttle import CARRIED_PER_MINUTE, Buckets, address_of

JSON = {"content-type": "application/activity+json"}
NETWORKS = fixed(trusted_proxies="10.0.0.0/8, ::1/128").trusted_proxies


@contextmanager
def strict(folder: Path, **settings: Any) -> Iterator[Bridge]:
    with running_bridge(folder, worker=False, **{"refusals_per_minute": 10, **settings}) as bridge:
        yield bridge


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with strict(tmp_path_factory.mktemp("floods")) as running:
        yield running


def flood(bridge: Bridge, path: str, number: int, **headers: str) -> list[httpx2.Response]:
    """Requests without a signature."""
    with httpx2.Client(trust_env=False) as client:
        return [client.post(bridge.base + path, content=b"{}", headers={**JSON, **headers}) for _ in range(number)]


@pytest.mark.parametrize("which", ["shared", "instance", "personal"])
def test_unsigned_requests_of_one_address_are_limited_and_signed_ones_are_not(bridge: Bridge, which: str) -> None:
    account = bridge.account(which)
    post = bridge.post(account)
    path = {"shared": "/ap/inbox", "instance": "/actor/inbox", "personal": f"/ap/users/{account.id}/inbox"}[which]
    with strangers(bridge, "bob", "new") as (bob, new):
        via = {"x-forwarded-for": f"203.0.113.{account.id}"}
        # The peer is met before; it comes through the same address as the flood, as behind one proxy.
        assert send(bob, bridge.base + path, bob.activity("Like", post), **via).status_code == 202
        before = kept(bridge)
        answers = flood(bridge, path, 14, **via)
        assert [answer.status_code for answer in answers[:10]] == [400] * 10
        assert {answer.status_code for answer in answers[10:]} == {429}
        assert int(answers[-1].headers["retry-after"]) > 0
        assert kept(bridge) == before
        for _ in range(30):
            assert send(bob, bridge.base + path, bob.activity("Announce", post), **via).status_code == 202
        # Somebody whom nobody knows has to wait, and nobody is asked about them meanwhile …
        refused = send(new, bridge.base + path, new.activity("Like", post), **via)
        assert (refused.status_code, new.fetched) == (429, [])
        # … unless they come from elsewhere.
        assert send(new, bridge.base + path, new.activity("Like", post)).status_code == 202
    eventually(lambda: bridge.count("dropped", kind="address"))


def test_loopback_is_limited_too_and_a_name_in_a_header_does_not_help(tmp_path: Path) -> None:
    with strict(tmp_path, trusted_proxies="10.0.0.0/8") as direct:
        answers = [
            answer.status_code
            for number in range(13)
            for answer in flood(direct, "/ap/inbox", 1, **{"x-forwarded-for": f"198.51.100.{number}"})
        ]
        assert answers == [400] * 10 + [429] * 3


def test_bad_signatures_count_and_make_us_ask_little(tmp_path: Path) -> None:
    with strict(tmp_path) as bridge, strangers(bridge, "victim") as (victim,):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        answers = []
        for number in range(30):
            key_id = f"{victim.base}/users/nobody{number}#main-key"
            said = {**victim.activity("Like", post), "actor": key_id.partition("#")[0]}
            answers.append(send(victim, inbox, said, key_id=key_id).status_code)
        assert answers[:10] == [401] * 10
        assert set(answers[10:]) == {429}
        assert len(victim.fetched) <= 10


def test_one_server_is_limited_after_its_signature_and_no_other(tmp_path: Path) -> None:
    with (
        strict(tmp_path, requests_per_minute_per_server=20) as bridge,
        strangers(bridge, "busy", "calm") as (busy, calm),
    ):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        answers = [send(busy, inbox, busy.activity("Like", post)) for _ in range(24)]
        assert [answer.status_code for answer in answers[:20]] == [202] * 20
        assert 429 in {answer.status_code for answer in answers[20:]}
        assert "retry-after" in answers[-1].headers
        # In somebody else's name nobody's share can be used up.
        for _ in range(25):
            assert send(calm, inbox, calm.activity("Like", post), key=a_key(5)).status_code in (401, 429)
        assert send(calm, inbox, calm.activity("Like", post), **{"x-forwarded-for": "192.0.2.1"}).status_code == 202


@dataclass
class Town(Stranger):
    """A server with as many people as it is asked for, each with a key of their own (Ed25519: quickly made)."""

    keys: dict[str, NewKey] = field(default_factory=dict)

    def create_app(self) -> Starlette:
        async def actor(request: Request) -> Response:
            self.fetched.append(request.url.path)
            resident = self.resident(request.path_params["name"])
            return Response(orjson.dumps(resident.actor()), media_type="application/activity+json")

        return Starlette(routes=[Route("/users/{name}", actor)])

    def resident(self, name: str) -> Resident:
        return Resident(self.base, name=name, key=self.keys.setdefault(name, new_ed25519_key()))


class Resident(Stranger):
    def signed(self, url: str, body: bytes, **bent: Any) -> dict[str, str]:
        lines = super().signed(url, body, key=a_key(), key_id=self.key_id, **bent)
        text = "\n".join(
            [f"(request-target): post {urlsplit(url).path}", *(f"{name}: {lines[name]}" for name in COVERED)]
        )
        private = load_pem_private_key(self.key.private_pem, None)
        assert isinstance(private, Ed25519PrivateKey)
        made = base64.b64encode(private.sign(text.encode())).decode()
        names = " ".join(["(request-target)", *COVERED])
        lines["signature"] = f'keyId="{self.key_id}",algorithm="hs2019",headers="{names}",signature="{made}"'
        return lines


COVERED = ("host", "date", "digest")


def test_a_big_server_that_behaves_is_never_limited(tmp_path: Path) -> None:
    """As it is set by default: hundreds of people of one server whom nobody here knows, each with a key of their own,
    from one address, as fast as they can."""
    with running_bridge(tmp_path, worker=False, refusals_per_minute=120) as bridge:
        sock = free_socket()
        town = Town(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, town.create_app(), sock)
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"

        def one(number: int) -> int:
            resident = town.resident(f"r{number % 300}")
            return send(resident, inbox, resident.activity("Like" if number < 300 else "Announce", post)).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(one, range(600))) == {202}
        served.stop()
        assert bridge.count("reactions", kind="like") == bridge.count("reactions", kind="announce") == 300
        # One fetch for each of them.
        assert len(town.fetched) == len(set(town.fetched)) == 300


def proved(said: dict[str, Any], method: str) -> dict[str, Any]:
    """With a proof by a key that nobody has listed."""
    return prove(said, proof_key(method, new_ed25519_key().private_pem), datetime.now(UTC))


def test_what_some_bring_of_a_server_does_not_shut_its_newcomers_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of proofs, and origins, are paid for by whoever brings them, and by a share of the origin's that its own
    people do not need."""
    monkeypatch.setattr(services, "PEER_REQUESTS_PER_MINUTE", 40)
    with (
        running_bridge(tmp_path, worker=False) as bridge,
        strangers(bridge, "mallory", "trudy", "eve", "victim") as (*carriers, victim),
    ):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        before = kept(bridge)
        asked = []
        for carrier in carriers:
            answers = []
            for number in range(30):
                said = {**victim.activity("Like", post), "actor": f"{victim.base}/users/{carrier.name}{number}"}
                brought = proved(said, f"{said['actor']}#key")
                answers.append(send(carrier, inbox, brought).status_code)
            assert 429 in answers
            assert set(answers) <= {403, 429}
            asked.append(len(victim.fetched))
        # Each of them has a share, and all together another one.
        assert asked[0] <= CARRIED_PER_MINUTE + 1
        assert asked[-1] <= BROUGHT_PER_MINUTE
        assert kept(bridge) == before
        eventually(lambda: bridge.count("dropped", kind="carrier"))
        # Whoever speaks for themselves, there or here, is heard.
        assert send(victim, inbox, victim.activity("Like", post)).status_code == 202
        assert send(carriers[0], inbox, carriers[0].activity("Like", post)).status_code == 202


def test_what_is_brought_and_refused_counts_against_the_one_who_brings_it(tmp_path: Path) -> None:
    with strict(tmp_path) as bridge, strangers(bridge, "mallory", "victim") as (mallory, victim):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        answers = [send(mallory, inbox, victim.activity("Like", post)).status_code for _ in range(14)]
        assert answers == [403] * 10 + [429] * 4
        assert send(mallory, inbox, mallory.activity("Like", post)).status_code == 202
        # Another one's good word, by somebody who has not brought nonsense.
        note = victim.note(post)
        victim.objects[note["id"]] = note
        assert send(mallory, inbox, victim.activity("Create", note)).status_code == 429
        assert bridge.count("replies") == 0
        assert send(victim, inbox, victim.activity("Create", note)).status_code == 202


def test_one_request_in_is_at_most_one_out(tmp_path: Path) -> None:
    """Whatever a stranger sends, the server that it names is asked no more often than we were."""
    with (
        running_bridge(tmp_path, worker=False) as bridge,
        strangers(bridge, "mallory", "victim") as (mallory, victim),
    ):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        assert send(mallory, inbox, mallory.activity("Like", post)).status_code == 202
        sent = 0
        for number in range(20):
            author = {"actor": f"{victim.base}/users/n{number}"}
            note = {**victim.note(post), "id": f"{victim.base}/notes/{number}", "attributedTo": author["actor"]}
            for activity in (
                {**victim.activity("Create", note), **author},
                {**victim.activity("Create", note["id"]), **author},
                {**victim.activity("Like", post), **author},
                proved({**victim.activity("Like", post), **author}, f"{author['actor']}#key{number}"),
                proved({**victim.activity("Create", note), **author}, f"{victim.base}/keys/{number}"),
            ):
                assert send(mallory, inbox, activity).status_code in (400, 401, 403, 429)
                sent += 1
            key_id = f"{victim.base}/users/k{number}#main-key"
            assert send(mallory, inbox, mallory.activity("Like", post), key_id=key_id).status_code in (401, 403)
            sent += 1
        assert 0 < len(victim.fetched) <= sent
        # The same again is not asked for again.
        asked = len(victim.fetched)
        for number in range(20):
            key_id = f"{victim.base}/users/k{number}#main-key"
            assert send(mallory, inbox, mallory.activity("Like", post), key_id=key_id).status_code in (401, 403)
        assert len(victim.fetched) == asked


# ── the buckets themselves ───────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_fills_again_and_memory_is_bounded() -> None:
    now = [0.0]
    buckets = Buckets(60, lambda: now[0], kept=100)
    assert [buckets.spend("a") for _ in range(61)] == [True] * 60 + [False]
    assert buckets.empty("a")
    assert not buckets.empty("b")
    now[0] = 1.0
    assert not buckets.empty("a")
    assert buckets.spend("a")
    assert not buckets.spend("a")
    for number in range(1000):
        buckets.spend(str(number))
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.1"], "203.0.113.1"),
        ("10.1.2.3", ["1.1.1.1, 203.0.113.1"], "203.0.113.1"),
        ("10.1.2.3", ["1.1.1.1", "203.0.113.1, 10.9.9.9"], "203.0.113.1"),
        ("10.1.2.3", ["nonsense"], "10.1.2.3"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("::ffff:10.1.2.3", ["203.0.113.1"], "203.0.113.1"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", [], "2001:db8:1:2::/64"),
        ("", ["203.0.113.1"], ""),
    ],
)
def test_whose_address_counts(peer: str, forwarded: list[str], expected: str) -> None:
    assert address_of(peer, forwarded, NETWORKS) == expected


def test_limits_of_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADBRIDGE_REFUSALS_PER_MINUTE", "0")
    with pytest.raises(BadConfiguration, match="REFUSALS_PER_MINUTE"):
        load()
