"""Whatever strangers send, other servers are asked for their keys no more often than they can bear; and somebody with
several keys, or a sibling who uses up ids, is heard all the same."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import Bridge, Served, Stranger, a_key, free_socket, running_bridge
from tests.stories.crowd import crowd

from threadbridge.web import senders


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path, worker=False) as running:
        yield running


def test_a_thousand_requests_with_one_dead_key_ask_for_it_once(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    nobody = f"{stranger.base}/users/nobody"
    body = orjson.dumps({**stranger.activity("Like", post), "actor": nobody})
    headers = stranger.signed(inbox, body, key_id=f"{nobody}#main-key")
    before = bridge.everything()
    with httpx2.Client(trust_env=False) as client:
        statuses = {client.post(inbox, content=body, headers=headers).status_code for _ in range(1000)}
    assert statuses == {401}
    assert stranger.fetched == ["/users/nobody"]
    assert bridge.everything() == before


def test_a_key_that_we_do_not_use_is_asked_for_once(bridge: Bridge, stranger: Stranger) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = weak.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    described = stranger.actor()
    stranger.actor = lambda: {**described, "publicKey": {**described["publicKey"], "publicKeyPem": pem}}  # type: ignore[method-assign]
    post = bridge.post(bridge.account())
    before = bridge.everything()
    answers = [stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Like", post)) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {401}
    assert "1024 bits" in answers[0].json()["error"]
    assert stranger.fetched == ["/users/bob"]
    assert bridge.everything() == before


def test_a_server_that_answers_too_late_is_asked_once(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "FETCH_SECONDS", 0.2)
    asked: list[float] = []

    async def late(request: Request) -> Response:
        asked.append(time.monotonic())
        await asyncio.sleep(0.5)
        return Response(status_code=500)

    sock = free_socket()
    sleepy = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, Starlette(routes=[Route("/{path:path}", late)]), sock)
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    before = bridge.everything()
    # The first ones give up before it answers; what it answers is remembered all the same.
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        assert sleepy.post(inbox, sleepy.activity("Like", post)).status_code == 401
    assert len(asked) == 1
    assert bridge.everything() == before
    served.stop()


def test_badly_signed_requests_ask_for_the_key_once_more(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    assert stranger.post(inbox, stranger.activity("Like", post)).status_code == 202
    before = bridge.everything()
    for _ in range(50):
        assert stranger.post(inbox, stranger.activity("Announce", post), key=a_key(2)).status_code == 401
    assert stranger.fetched == ["/users/bob"] * 2
    assert bridge.everything() == before
    assert stranger.post(inbox, stranger.activity("Announce", post)).status_code == 202


@pytest.mark.parametrize("kind", ["Delete", "Update"])
def test_news_about_somebody_we_never_met_ask_nobody(bridge: Bridge, stranger: Stranger, kind: str) -> None:
    before = bridge.everything()
    about = stranger.uri if kind == "Delete" else stranger.actor()
    # Whoever signs it, and whether they do: it concerns nobody here.
    assert stranger.post(f"{bridge.base}/ap/inbox", stranger.activity(kind, about), key=a_key(2)).status_code == 202
    assert stranger.fetched == []
    assert bridge.everything() == before


def test_news_about_somebody_we_know_must_be_signed(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    assert stranger.post(inbox, stranger.activity("Like", post)).status_code == 202
    before = bridge.everything()
    for activity in (
        stranger.activity("Delete", stranger.uri),
        stranger.activity("Update", {**stranger.actor(), "name": "Forged"}),
    ):
        assert stranger.post(inbox, activity, key=a_key(2)).status_code == 401
    assert bridge.everything() == before


def test_the_same_request_again_has_no_effect_and_asks_nobody(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    note = stranger.note(post)
    stranger.objects[note["id"]] = note
    with crowd(bridge.loop) as people:
        # Forwarded: believed as far as its origin confirms it, which is asked for the first of these only.
        body = orjson.dumps(stranger.activity("Create", note))
        headers = people.signed(inbox, body, key_id=f"{people.person('dora')}#main-key")
        for _ in range(10):
            answer = httpx2.post(inbox, content=body, headers=headers, trust_env=False)
            assert answer.status_code == 202
    assert stranger.fetched.count(note["id"].removeprefix(stranger.base)) == 1
    assert bridge.count("replies") == 1


def test_an_id_used_up_by_a_sibling_is_still_good(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    with crowd(bridge.loop) as people:
        like = {**people.activity("Like", post), "actor": people.person("anna")}
        burnt = people.says("mallory", inbox, "Like", post, id=like["id"])
        assert burnt.status_code == 202
        answer = people.post(inbox, like, key_id=f"{people.person('anna')}#main-key")
        assert answer.status_code == 202
        assert bridge.count("reactions") == 2
        assert bridge.count("reactions", peer_uri=people.person("anna")) == 1
        # Each of them once, whoever repeats it.
        again = {**people.activity("Like", post), "actor": people.person("anna"), "id": like["id"]}
        assert people.post(inbox, again, key_id=f"{people.person('anna')}#main-key").status_code == 202
        assert bridge.count("seen_activities") == 2


def test_every_key_that_an_actor_lists_is_good_and_no_other(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    described = stranger.actor()
    second = {"id": f"{stranger.uri}#second-key", "owner": stranger.uri, "publicKeyPem": a_key(2).public_pem}
    edwards = ed25519.Ed25519PrivateKey.generate()
    multikey = {
        "id": f"{stranger.uri}#ed25519-key",
        "type": "Multikey",
        "controller": stranger.uri,
        "publicKeyMultibase": multibase(edwards),
    }
    stranger.actor = lambda: {  # type: ignore[method-assign]
        **described,
        "publicKey": [described["publicKey"], second],
        "assertionMethod": [multikey],
    }
    for kind in ("Like", "Announce"):
        for key_id, key in ((stranger.key_id, a_key(1)), (second["id"], a_key(2))):
            answer = stranger.post(inbox, stranger.activity(kind, post), key_id=key_id, key=key)
            assert answer.status_code == 202, answer.text
        for speak in (cavage_by, message_by):
            answer = speak(edwards, multikey["id"], inbox, stranger.activity(kind, post))
            assert answer.status_code == 202, answer.text
    assert bridge.count("reactions") == 2
    # Met once: the document that was fetched for the first key names the others.
    assert stranger.fetched == ["/users/bob"]
    before = bridge.everything()
    for key_id, key in (
        (stranger.key_id, a_key(2)),
        (second["id"], a_key(1)),
        (f"{stranger.uri}#third-key", a_key(3)),
    ):
        answer = stranger.post(inbox, stranger.activity("Like", post), key_id=key_id, key=key)
        assert answer.status_code == 401, answer.text
    for speak in (cavage_by, message_by):
        answer = speak(ed25519.Ed25519PrivateKey.generate(), multikey["id"], inbox, stranger.activity("Like", post))
        assert answer.status_code == 401, answer.text
    assert bridge.everything() == before


def test_a_key_that_is_not_listed_any_more_is_refused(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    described = stranger.actor()
    second = {"id": f"{stranger.uri}#second-key", "owner": stranger.uri, "publicKeyPem": a_key(2).public_pem}
    both = {**described, "publicKey": [described["publicKey"], second]}
    stranger.actor = lambda: both  # type: ignore[method-assign]
    for key_id, key in ((stranger.key_id, a_key(1)), (second["id"], a_key(2))):
        assert stranger.post(inbox, stranger.activity("Like", post), key_id=key_id, key=key).status_code == 202
    stranger.actor = lambda: described  # type: ignore[method-assign]
    assert stranger.post(inbox, stranger.activity("Update", described)).status_code == 202
    before = bridge.everything()
    late = stranger.post(inbox, stranger.activity("Announce", post), key_id=second["id"], key=a_key(2))
    assert late.status_code == 401
    assert bridge.everything() == before


def multibase(key: ed25519.Ed25519PrivateKey) -> str:
    """The public half as a Multikey: multicodec 0xed01, in base58 with its letter."""
    raw = b"\xed\x01" + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    number, digits = int.from_bytes(raw, "big"), ""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    while number:
        number, rest = divmod(number, 58)
        digits = alphabet[rest] + digits
    return "z" + digits


def cavage_by(key: ed25519.Ed25519PrivateKey, key_id: str, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    """By draft-cavage with an Ed25519 key, under hs2019 as the draft has it."""
    body = orjson.dumps(activity)
    host, _, path = inbox.removeprefix("http://").partition("/")
    headers = {
        "host": host,
        "date": format_datetime(datetime.now(UTC), usegmt=True),
        "digest": "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode(),
        "content-type": "application/activity+json",
    }
    lines = [f"(request-target): post /{path}", *(f"{name}: {headers[name]}" for name in ("host", "date", "digest"))]
    made = base64.b64encode(key.sign("\n".join(lines).encode())).decode()
    headers["signature"] = (
        f'keyId="{key_id}",algorithm="hs2019",headers="(request-target) host date digest",signature="{made}"'
    )
    return httpx2.post(inbox, content=body, headers=headers, trust_env=False)


def message_by(key: ed25519.Ed25519PrivateKey, key_id: str, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    """By RFC 9421 with an Ed25519 key."""
    body = orjson.dumps(activity)
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    covered = f'("@method" "@target-uri" "content-digest");created={int(time.time())};keyid="{key_id}";alg="ed25519"'
    base = f'"@method": POST\n"@target-uri": {inbox}\n"content-digest": {digest}\n"@signature-params": {covered}'
    headers = {
        "content-digest": digest,
        "content-type": "application/activity+json",
        "signature-input": f"sig1={covered}",
        "signature": f"sig1=:{base64.b64encode(key.sign(base.encode())).decode()}:",
    }
    return httpx2.post(inbox, content=body, headers=headers, trust_env=False)
