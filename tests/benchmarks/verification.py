"""What believing one request costs, without a server: reading the document, reading the claim, checking the signature
with a parsed key. One thread of one core."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.benchmarks import senders
from tests.benchmarks.limits import VERIFY, per_second
from tests.benchmarks.scene import Figure
from tests.rig import a_key

from threadbridge.activitypub import document, incoming
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import verifying_key

BASE = "https://bridge.example"


def measure() -> list[Figure]:
    person = senders.Person("https://remote.example/users/ann", "remote.example", 0)
    said = senders.activity(person, "Create", 1, senders.answer(person, 1, f"{BASE}/ap/users/1/posts/1"))
    head, _, body = senders.posted(person, BASE, said).partition(b"\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:]]
    request = schemes.Request("POST", "/ap/inbox", [(name, value) for name, value in lines], body)
    now = datetime.now(UTC)
    claim = schemes.read_claim(request, base_url=BASE, now=now)
    key = verifying_key(a_key(0).public_pem)
    private, pem = senders.an_ed25519_pem()
    signature, short = private.sign(b"x" * 300), verifying_key(pem)

    def believe() -> None:
        read = incoming.read(document.decode(body))
        verified = schemes.verify(schemes.read_claim(request, base_url=BASE, now=now), key, owner=person.uri)
        assert verified.actor == read.actor

    return [
        ("a Create read into types", per_second(lambda: incoming.read(document.decode(body))), "/s", None),
        (
            "a claim read (read_claim)",
            per_second(lambda: schemes.read_claim(request, base_url=BASE, now=now)),
            "/s",
            None,
        ),
        (
            "a claim verified, RSA-2048",
            per_second(lambda: schemes.verify(claim, key, owner=person.uri)),
            "/s",
            VERIFY,
        ),
        ("a signature verified, Ed25519", per_second(lambda: short.verify(signature, b"x" * 300)), "/s", None),
        ("a Create believed, all of it", per_second(believe), "/s", VERIFY),
    ]
