"""Two thousand requests, each a genuine one with something changed on the way, at the inbox itself: each is refused,
and nothing is stored or queued."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import pytest
from tests.ground.test_signatures_mutations import CHANGES, says_the_same
from tests.rig import Bridge, Served, Stranger, free_socket, running_bridge
from tests.stories.neighbours import NOTES, kept

from threadbridge.errors import ThreadbridgeError
from threadbridge.signatures.keys import signing_key
from threadbridge.signatures.schemes import Request, Scheme, read_claim, sign
from threadbridge.web.app import create_app

EACH = 1_000
SCHEMES: tuple[Scheme, ...] = ("cavage", "rfc9421")


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("mutated")
    with running_bridge(folder, worker=False) as running:
        yield running


@pytest.fixture(scope="module")
def bob(bridge: Bridge) -> Iterator[Stranger]:
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def genuine(speaker: Stranger, scheme: Scheme, inbox: str, activity: dict[str, Any], at: datetime) -> Request:
    body = orjson.dumps(activity)
    headers = sign(
        scheme, signing_key(speaker.key_id, speaker.key.private_pem), method="POST", url=inbox, body=body, date=at,
        content_type="application/activity+json",
    )  # fmt: skip
    path = urlsplit(inbox).path
    return Request("POST", path, [(name.lower(), value) for name, value in headers.items()], body)


async def answered(app: Any, request: Request) -> int:
    """The status with which the whole web side answers these very bytes. (A server in front of it refuses many of
    them before.)"""
    path, _, query = request.raw_target.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode("latin-1"), "query_string": query.encode("latin-1"),
        "root_path": "", "state": {}, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers],
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    (status,) = statuses
    return status


def asks_elsewhere(request: Request, bridge: Bridge, bob: Stranger) -> bool:
    """Whether the key that is named would be looked for on the network, at servers that are not ours."""
    try:
        claim = read_claim(request, base_url=bridge.base, now=datetime.now(UTC))
    except ThreadbridgeError:
        return False
    return not claim.key_id.startswith(f"{bob.base}/")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_mutated_request_has_an_effect(bridge: Bridge, bob: Stranger, scheme: Scheme) -> None:
    account = bridge.account(f"alice_{scheme}")
    actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
    inbox = f"{actor}/inbox"
    app, now = create_app(bridge.services), datetime.now(UTC)
    first = genuine(bob, scheme, inbox, bob.activity("Like", post), now)
    assert bridge.loop.run(answered(app, first)) == 202, "the genuine twin"
    like = genuine(bob, scheme, inbox, bob.activity("Announce", post), now)
    twin = genuine(bob, scheme, inbox, bob.activity("Follow", actor), now - timedelta(minutes=7))
    before = kept(bridge)
    random_ = random.Random(scheme)
    tried: Counter[str] = Counter()
    while sum(tried.values()) < EACH:
        change = random_.choice(CHANGES)
        request = change(like, twin, random_)
        # An application is not told whether there was a "?" with nothing behind it.
        seen = dataclasses.replace(request, raw_target=request.raw_target.removesuffix("?"))
        if says_the_same(seen, like) or asks_elsewhere(request, bridge, bob):
            continue
        tried[change.__name__] += 1
        status = bridge.loop.run(answered(app, request))
        if request.method in ("GET", "HEAD") and status == 200:
            # No request to the inbox any more, but to read what is there.
            assert not request.raw_target.startswith(urlsplit(inbox).path)
            continue
        assert 400 <= status < 500, (change.__name__, request)
    assert min(tried.values()) > 10, tried
    after = kept(bridge)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= set(NOTES), changed
    # And the genuine one has its effect still.
    assert bridge.loop.run(answered(app, like)) == 202
    assert kept(bridge)["reactions"] != before["reactions"]
