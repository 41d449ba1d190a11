"""The forged twins again, signed by RFC 9421: each is refused with 4xx and changes nothing, the genuine one is taken;
and of hundreds of requests that were changed on the way, over a real socket, none has an effect."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.rig import Bridge, Served, Stranger, a_key, free_socket, running_bridge
from tests.stories.raw_http import talk
from tests.stories.test_forged_requests_change_nothing import KINDS

from threadbridge.storage.vault import NewKey

COVERED = ("@method", "@target-uri", "content-digest")


@dataclass
class Message:
    """One request, signed by hand from the text of RFC 9421; every part can be bent before or after."""

    url: str
    body: bytes
    key_id: str
    key: NewKey = field(default_factory=lambda: a_key(1))
    covered: tuple[str, ...] = COVERED
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    method: str = "POST"
    signed_url: str | None = None
    signed_body: bytes | None = None
    extra: str = ""
    label: str = "sig1"

    def headers(self) -> dict[str, str]:
        digest = base64.b64encode(
            hashlib.sha256(self.body if self.signed_body is None else self.signed_body).digest()
        )
        parts = urlsplit(self.signed_url or self.url)
        values = {
            "@method": self.method,
            "@target-uri": self.signed_url or self.url,
            "@authority": parts.netloc,
            "@path": parts.path,
            "@query": f"?{parts.query}",
            "content-digest": f"sha-256=:{digest.decode()}:",
        }
        names = " ".join(f'"{name}"' for name in self.covered)
        parameters = f'({names});created={int(self.at.timestamp())};keyid="{self.key_id}"{self.extra}'
        base = "".join(f'"{name}": {values[name]}\n' for name in self.covered)
        private = parsed(self.key.private_pem)
        made = private.sign(f'{base}"@signature-params": {parameters}'.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {
            "content-type": "application/activity+json",
            "content-digest": values["content-digest"],
            "signature-input": f"{self.label}={parameters}",
            "signature": f"{self.label}=:{base64.b64encode(made).decode()}:",
        }

    def send(self, **replaced: str | None) -> httpx2.Response:
        headers = {**self.headers(), **replaced}
        kept = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        return httpx2.post(self.url, content=self.body, headers=kept, trust_env=False)


@lru_cache
def parsed(pem: bytes) -> Any:
    return load_pem_private_key(pem, None)


Forge = Callable[[Message, Stranger], httpx2.Response]


def bent(**changes: Any) -> Forge:
    def forge(message: Message, _: Stranger) -> httpx2.Response:
        for name, value in changes.items():
            setattr(message, name, value() if callable(value) else value)
        return message.send()

    return forge


def replaced(**headers: str | None) -> Forge:
    return lambda message, _: message.send(**{name.replace("_", "-"): value for name, value in headers.items()})


def another_body(message: Message, _: Stranger) -> httpx2.Response:
    message.signed_body = message.body
    message.body = orjson.dumps({**orjson.loads(message.body), "summary": "changed on the way"})
    return message.send()


def somebody_elses_words(message: Message, stranger: Stranger) -> httpx2.Response:
    said = orjson.loads(message.body)
    message.body = orjson.dumps({**said, "actor": stranger.uri.replace("bob", "carol")})
    return message.send()


def another_inbox(message: Message, _: Stranger) -> httpx2.Response:
    message.signed_url = message.url + "x"
    return message.send()


def another_host(message: Message, _: Stranger) -> httpx2.Response:
    message.signed_url = "https://elsewhere.example" + urlsplit(message.url).path
    return message.send()


def unknown_key(message: Message, stranger: Stranger) -> httpx2.Response:
    message.key_id = f"{stranger.base}/users/nobody#main-key"
    return message.send()


def two_signatures(message: Message, _: Stranger) -> httpx2.Response:
    headers = message.headers()
    doubled = headers["signature-input"] + ", " + headers["signature-input"].replace("sig1", "sig2")
    return message.send(**{"signature-input": doubled})


def mixed_with_the_draft(message: Message, stranger: Stranger) -> httpx2.Response:
    """A good signature of the older dialect beside a broken one of this: the newer decides, no second is tried."""
    older = stranger.signed(message.url, message.body)
    return httpx2.post(
        message.url,
        content=message.body,
        headers={**older, "signature-input": message.headers()["signature-input"]},
        trust_env=False,
    )


FORGERIES: dict[str, Forge] = {
    "by another key": bent(key=lambda: a_key(2)),
    "another body": another_body,
    "without method": bent(covered=("@target-uri", "content-digest")),
    "without target": bent(covered=("@method", "content-digest")),
    "without digest": bent(covered=("@method", "@target-uri")),
    "authority without path": bent(covered=("@method", "@authority", "content-digest")),
    "nothing covered": bent(covered=()),
    "too old": bent(at=lambda: datetime.now(UTC) - timedelta(hours=2)),
    "from the future": bent(at=lambda: datetime.now(UTC) + timedelta(minutes=10)),
    "expired": bent(extra=f";expires={int(time.time()) - 60}"),
    "an algorithm that is none": bent(extra=';alg="hmac-sha256"'),
    "the algorithm of another key": bent(extra=';alg="ed25519"'),
    "for another inbox": another_inbox,
    "for another host": another_host,
    "another method": bent(method="PUT"),
    "without its input": replaced(signature_input=None),
    "without its signature": replaced(signature=None),
    "without the digest's header": replaced(content_digest=None),
    "a digest of another kind": replaced(content_digest="sha-512=:AAAA:"),
    "somebody else's words": somebody_elses_words,
    "unknown key": unknown_key,
    "two signatures": two_signatures,
    "two dialects": mixed_with_the_draft,
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Bridge, Stranger, str, str]]:
    """One bridge for the whole table, on either database; each request is checked to have changed nothing."""
    folder: Path = tmp_path_factory.mktemp("messages")
    url = request.getfixturevalue("postgres_url_of_module") if request.param == "postgresql" else None
    with running_bridge(folder, worker=False, database_url=url) as bridge:
        sock = free_socket()
        stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.create_app(), sock)
        account = bridge.account()
        yield bridge, stranger, bridge.ground.ids.actor(account.id), bridge.post(account)
        served.stop()


@pytest.mark.parametrize("forge", FORGERIES)
def test_refused_and_nothing_stored(scene: tuple[Bridge, Stranger, str, str], forge: str) -> None:
    bridge, stranger, actor, post = scene
    before = bridge.contents()
    for kind, make in KINDS.items():
        message = Message(f"{actor}/inbox", orjson.dumps(make(stranger, actor, post)), stranger.key_id)
        answer = FORGERIES[forge](message, stranger)
        assert answer.status_code in (400, 401, 403), (kind, answer.text)
        assert answer.json()["error"]
        if answer.status_code == 401:
            assert "@target-uri" in answer.headers["accept-signature"]
    assert bridge.contents() == before


def test_the_genuine_twins_are_accepted(tmp_path: Path) -> None:
    with running_bridge(tmp_path, worker=False) as bridge:
        sock = free_socket()
        stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.create_app(), sock)
        account = bridge.account()
        actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
        forms: tuple[dict[str, Any], ...] = ({}, {"covered": ("@method", "@authority", "@path", "content-digest")},
                 {"label": "theirs", "extra": ';alg="rsa-v1_5-sha256";nonce="n";tag="t"'})  # fmt: skip
        for number, (kind, make) in enumerate(KINDS.items(), start=1):
            form = forms[number % len(forms)]
            activity = orjson.dumps(make(stranger, actor, post))
            answer = Message(f"{actor}/inbox", activity, stranger.key_id, **form).send()
            assert answer.status_code == 202, (kind, answer.text)
            assert bridge.count("seen_activities") >= number
        served.stop()


def test_hundreds_of_changed_requests_over_a_socket_have_no_effect(scene: tuple[Bridge, Stranger, str, str]) -> None:
    bridge, stranger, actor, post = scene
    inbox = f"{actor}/inbox"
    random_ = random.Random(7)
    before = bridge.contents()
    statuses: Counter[int] = Counter()
    for _ in range(150):
        body = orjson.dumps(stranger.activity("Like", post))
        for headers in (stranger.signed(inbox, body), Message(inbox, body, stranger.key_id).headers()):
            raw, resting = written(inbox, headers, body)
            # One bit of something that the signature rests on, as it stands on the wire.
            position = random_.choice(resting)
            changed = raw[:position] + bytes([raw[position] ^ 1 << random_.randrange(7)]) + raw[position + 1 :]
            answer = talk(bridge.base, changed, seconds=3)
            assert answer.status == 0 or 400 <= answer.status < 500, (answer, changed)
            statuses[answer.status] += 1
    # What is no HTTP or no JSON any more is 400 before anybody looks at who said it.
    assert statuses[401] > 100, statuses
    assert set(statuses) <= {0, 400, 401, 404}, statuses
    assert bridge.contents() == before


def written(url: str, headers: dict[str, str], body: bytes) -> tuple[bytes, list[int]]:
    """A request as bytes, and the places that the signature rests on: the path, the values of what it covers, its own
    bytes, and the body."""
    parts = urlsplit(url)
    raw = f"POST {parts.path} HTTP/1.1\r\n".encode()
    resting = list(range(5, 5 + len(parts.path)))
    given = {"host": parts.netloc, "content-length": str(len(body)), "connection": "close", **headers}
    for name, value in given.items():
        raw += f"{name}: ".encode()
        if name in ("date", "digest", "content-digest") and (name != "date" or "signature-input" not in headers):
            resting += range(len(raw), len(raw) + len(value))
        elif name == "signature":
            # The base64 itself.
            start = value.index('signature="') + 11 if "signature=" in value else value.index(":") + 1
            resting += range(len(raw) + start, len(raw) + len(value) - 3)
        elif name == "signature-input":
            resting += range(len(raw) + value.index("created"), len(raw) + len(value))
        raw += f"{value}\r\n".encode()
    raw += b"\r\n"
    return raw + body, [*resting, *range(len(raw), len(raw) + len(body))]
