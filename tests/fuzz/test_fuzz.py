"""Nothing that a stranger can write breaks a reader: it is taken, or refused in words.

A few seconds each in the suite; `make fuzz` gives each reader minutes (FUZZ_SECONDS) and prints the seed with which
the same inputs come again (FUZZ_SEED). What is bounded is counted (sizes, requests made, rows written); the clock is
asked only for what would be hopeless.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.fuzz import corpus
from tests.rig import Bridge, Served, Stranger, free_socket, running_bridge

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.text import clean
from threadbridge.errors import Invalid, SignatureRefused, TooLarge
from threadbridge.signatures import schemes

BASE = "https://bridge.example"
HOPELESS = 2.0
"""Seconds for one input: far beyond what any takes, and far below what a stranger could do harm with."""


@pytest.fixture(scope="module")
def seconds() -> float:
    return float(os.environ.get("FUZZ_SECONDS", "3"))


@pytest.fixture
def rng(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> random.Random:
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    with capsys.disabled():
        if "FUZZ_SECONDS" in os.environ:
            print(f"\n{request.node.name}: FUZZ_SEED={seed}")
    # Shown by pytest with a failure, too.
    print(f"FUZZ_SEED={seed}")
    return random.Random(seed)


def inputs(seconds: float, make: Callable[[], Any]) -> Iterator[Any]:
    """Inputs until the time is over; each may take only so long."""
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        made = make()
        started = time.monotonic()
        yield made
        taken = time.monotonic() - started
        assert taken < HOPELESS, f"{taken:.1f} s for {made!r:.2000}"
        count += 1
    assert count > 20 * seconds, f"only {count} inputs: something is slow"


def host(uri: str) -> str:
    return urlsplit(uri).netloc.lower()


SAMPLES = corpus.activities("https://b.example/users/bob", f"{BASE}/ap/users/1/posts/1", f"{BASE}/ap/users/1")
BODIES = [corpus.encoded(sample) for sample in SAMPLES]


def test_the_samples_are_read_as_they_are() -> None:
    """Fuzzing begins from what is taken: else nothing behind the first check would ever be reached."""
    for body in BODIES:
        incoming.read(document.decode(body))


def test_the_parser(rng: random.Random, seconds: float) -> None:
    outcomes: Counter[str] = Counter()

    def make() -> bytes:
        if rng.random() < 0.5:
            return corpus.encoded(corpus.bent_value(rng.choice(SAMPLES), rng))
        return corpus.bent_bytes(rng.choice(BODIES), BODIES, rng)

    for body in inputs(seconds, make):
        try:
            read = incoming.read(document.decode(body))
        except (Invalid, TooLarge):
            outcomes["refused"] += 1
        else:
            outcomes[type(read).__name__] += 1
            # Nobody speaks for another server, however it is written.
            assert host(read.id) == host(read.actor)
            note = getattr(read, "note", None)
            if note is not None:
                assert host(note.id) == host(read.actor)
    assert outcomes["refused"]
    assert len(outcomes) > 5, outcomes


def test_the_signature_reader(rng: random.Random, seconds: float) -> None:
    now = datetime(2026, 10, 25, 20, 13, 20, tzinfo=UTC)
    outcomes: Counter[bool] = Counter()

    def make() -> schemes.Request:
        body = rng.choice((b"", BODIES[0]))
        sha = base64.b64encode(hashlib.sha256(body).digest()).decode()
        fields = {
            "host": "bridge.example", "date": "Sun, 25 Oct 2026 20:13:20 GMT", "digest": f"SHA-256={sha}",
            "signature": rng.choice(corpus.SIGNATURES), "content-type": "application/activity+json",
        }  # fmt: skip
        if rng.random() < 0.5:
            fields |= {
                "signature-input": rng.choice(corpus.INPUTS), "signature": "sig1=:c2lnbmF0dXJl:",
                "content-digest": f"sha-256=:{sha}:",
            }  # fmt: skip
        for _ in range(rng.randint(0, 3)):
            name = rng.choice(list(fields))
            fields[name] = corpus.bent_text(fields[name], corpus.HEADER_TOKENS, rng)
        pairs = list(fields.items())
        if rng.random() < 0.2:
            pairs.append(rng.choice(pairs))
        target = rng.choice(
            ("/ap/inbox", "/ap/inbox?x=1", "/ap/inbox", "/ü", "", "*", "/%00", "/a b", "https://h.example/")
        )
        return schemes.Request(rng.choice(("POST", "POST", "GET", "post", "")), target, pairs, body)

    for request in inputs(seconds, make):
        try:
            claim = schemes.read_claim(request, base_url=BASE, now=now)
        except SignatureRefused:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert urlsplit(claim.key_id).scheme in ("http", "https")
            # A few readings of one request, never one per parameter.
            assert len(claim.signing_strings) <= 2
            assert claim.key_id
    assert outcomes[False]
    assert outcomes[True]


class Shown(HTMLParser):
    """What a browser would be given: only harmless elements, addresses and attributes."""

    elements = frozenset({
        "p", "br", "span", "a", "del", "s", "pre", "blockquote", "code", "b", "strong", "u", "i", "em", "ul", "ol",
        "li", "ruby", "rt", "rp", "h1", "h2", "h3", "h4", "h5", "h6", "sub", "sup", "small", "hr",
    })  # fmt: skip
    attributes = frozenset(
        {"href", "class", "rel", "start", "value", "lang", "dir", "translate", "reversed", "title"}
    )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.elements, tag
        for name, value in attrs:
            assert name in self.attributes, (tag, name)
            if name == "href":
                assert urlsplit((value or "").strip()).scheme in ("http", "https"), value

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment stayed: {data!r}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration stayed: {decl!r}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction stayed: {data!r}")


def test_the_html_path(rng: random.Random, seconds: float) -> None:
    def make() -> str:
        text = corpus.bent_text(rng.choice(corpus.HTML), corpus.HTML_TOKENS, rng)
        return text * rng.choice((1, 1, 1, 5, 100)) if rng.random() < 0.2 else text

    for text in inputs(seconds, make):
        try:
            safe = clean(text)
        except TooLarge:
            assert len(text) > 10_000
            continue
        # Once more changes nothing that matters (a mutation that only the second reading undoes is the old trick).
        for given in (safe, clean(safe) if len(safe) < 60_000 else safe):
            shown = Shown(convert_charrefs=True)
            shown.feed(given)
            shown.close()
        # Escaping makes five of one character; links get a rel, open elements an end.
        assert len(safe) <= 60 * len(text) + 100


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path, worker=False) as running:
        yield running


def test_the_whole_inbox(
    bridge: Bridge, rng: random.Random, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over a real socket, signed by somebody who is who he says; what he says is bent, or the bytes are."""
    sock = free_socket()
    bob = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, bob.create_app(), sock)
    account = bridge.account()
    us = bridge.ground.ids.actor(account.id)
    post = bridge.post(account)
    samples = corpus.activities(bob.uri, post, us)
    bodies = [corpus.encoded(sample) for sample in samples]
    outcomes: Counter[int] = Counter()
    count = 0

    def make() -> tuple[bytes, dict[str, str]]:
        if rng.random() < 0.7:
            body = corpus.encoded(corpus.bent_value(rng.choice(samples), rng))
        else:
            body = corpus.bent_bytes(rng.choice(bodies), bodies, rng)
        headers = bob.signed(inbox, body)
        if rng.random() < 0.1:
            name = rng.choice(("signature", "digest", "date"))
            headers[name] = corpus.bent_text(headers[name], corpus.HEADER_TOKENS[:12], rng)
            headers[name] = "".join(c for c in headers[name] if " " <= c <= "~").strip()
        return body, headers

    inbox = f"{bridge.base}/ap/inbox"
    with httpx2.Client(trust_env=False) as client:
        for body, headers in inputs(seconds, make):
            answer = client.post(inbox, content=body, headers=headers)
            count += 1
            outcomes[answer.status_code] += 1
            assert answer.status_code in (202, 400, 401, 403, 404, 413), (answer.status_code, answer.text, body)
            assert len(answer.content) < 4096, "the answer repeats what was sent"
    served.stop()
    assert outcomes[202], outcomes
    assert outcomes[400], outcomes
    # Amplification: a request in costs at most one look somewhere else; and rows are written for what was taken only.
    assert len(bob.fetched) <= count + 5
    assert sum(bridge.everything().values()) <= 8 * outcomes[202] + 200
    assert "a request failed" not in capsys.readouterr().out
