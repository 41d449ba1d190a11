"""People on other servers who speak to the bridge in the benchmarks: many actors on many hosts, each with its own
key id, met before (their keys are in the database, not in the memory of the process). Every request is signed before
the clock starts, so that signing is not what is measured."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.rig import AS, PUBLIC, a_key

from threadbridge.domain.people import Peer
from threadbridge.signatures.keys import SigningKey, signing_key
from threadbridge.storage import peers
from threadbridge.storage.store import Tx

KEYS = 32
"""Different RSA keys; making one takes longer than everything else here, so people share them."""
HOSTS = 250


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an inbox on a host of their own or shared with a few others."""

    uri: str
    host: str
    key_number: int

    @property
    def key_id(self) -> str:
        return f"{self.uri}#main-key"

    def key(self) -> SigningKey:
        return signing_key(self.key_id, a_key(self.key_number).private_pem)


def people(count: int, port: int) -> list[Person]:
    """`count` people on up to 250 hosts, whose inboxes are on loopback at `port`."""
    made = []
    for number in range(count):
        host = f"127.0.1.{number % HOSTS + 1}:{port}"
        made.append(Person(f"http://{host}/users/{number}", host, number % KEYS))
    return made


def met(tx: Tx, known: list[Person]) -> None:
    """The bridge has met these people before."""
    for number, one in enumerate(known):
        peer = Peer(
            uri=one.uri,
            inbox=f"{one.uri}/inbox",
            shared_inbox=None,
            handle=f"u{number}@{one.host}",
            name="",
            url=None,
            key_id=one.key_id,
            key_pem=a_key(one.key_number).public_pem,
        )
        peers.save(tx, peer, one.host)


def activity(person: Person, kind: str, number: int, about: Any) -> dict[str, Any]:
    return {
        "@context": [AS, "https://w3id.org/security/v1"],
        "id": f"{person.uri}/{kind}/{number}",
        "type": kind,
        "actor": person.uri,
        "to": [PUBLIC],
        "object": about,
    }


def answer(person: Person, number: int, post: str) -> dict[str, Any]:
    """A Note of ordinary size, in the manner of Mastodon."""
    uri = f"{person.uri}/statuses/{number}"
    text = "I rowed past there last summer, the light on the water was exactly like this. " * 3
    return {
        "id": uri,
        "type": "Note",
        "summary": None,
        "inReplyTo": post,
        "published": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "url": uri,
        "attributedTo": person.uri,
        "to": [PUBLIC],
        "cc": [f"{person.uri}/followers"],
        "sensitive": False,
        "content": f"<p>{text}</p>",
        "contentMap": {"en": f"<p>{text}</p>"},
        "attachment": [],
        "tag": [],
    }


def posted(person: Person, base: str, document: Mapping[str, Any], inbox: str = "/ap/inbox") -> bytes:
    """A whole HTTP request to an inbox, by default the shared one, signed now (draft-cavage, RSA-2048)."""
    body = orjson.dumps(document)
    host = base.split("://", 1)[1]
    headers = {
        "host": host,
        "date": format_datetime(datetime.now(UTC), usegmt=True),
        "digest": "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode(),
        "content-type": "application/activity+json",
    }
    lines = {"(request-target)": f"post {inbox}", **headers}
    text = "\n".join(f"{name}: {value}" for name, value in lines.items())
    made = base64.b64encode(person.key().sign(text.encode())).decode()
    headers["signature"] = (
        f'keyId="{person.key_id}",algorithm="rsa-sha256",headers="{" ".join(lines)}",signature="{made}"'
    )
    headers["user-agent"] = "http.rb/5.1.1 (Mastodon/4.3.2; +https://remote.example/)"
    headers["accept-encoding"] = "gzip"
    written = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {inbox} HTTP/1.1\r\n{written}content-length: {len(body)}\r\n\r\n".encode() + body


def an_ed25519_pem() -> tuple[ed25519.Ed25519PrivateKey, str]:
    """A new Ed25519 key and its public PEM."""
    private = ed25519.Ed25519PrivateKey.generate()
    return private, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
