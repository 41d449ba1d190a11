"""Our signatures and those of apsig, an independent implementation in Python, verify each other. (Of RFC 9421 its
verifier knows three components, and not the target: that dialect is compared in both directions with
http-message-signatures.)"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache

import pytest
from apsig.draft import Signer, Verifier
from apsig.rfc9421 import RFC9421Signer
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from threadbridge.errors import SignatureRefused
from threadbridge.signatures.keys import signing_key, verifying_key
from threadbridge.signatures.schemes import Request, read_claim, sign, verify

BASE = "https://m.example"
ACTOR = "https://remote.example/users/bob"
KEY_ID = f"{ACTOR}#main-key"
BODY = b'{"type":"Follow"}'
KIND = "application/activity+json"


@cache
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem() -> str:
    return private().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def ours(method: str, url: str, body: bytes | None) -> dict[str, str]:
    pem = private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return sign(
        "cavage",
        signing_key(KEY_ID, pem),
        method=method,
        url=url,
        body=body,
        date=datetime.now(UTC),
        content_type=KIND,
    )


def believed(method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
    pairs = [(name.lower(), str(value)) for name, value in headers.items()]
    try:
        claim = read_claim(Request(method, target, pairs, body), base_url=BASE, now=datetime.now(UTC))
        return verify(claim, verifying_key(public_pem()), owner=ACTOR).actor == ACTOR
    except SignatureRefused:
        return False


@pytest.mark.parametrize(("method", "body"), [("POST", BODY), ("GET", None)])
def test_they_verify_our_draft_signatures(method: str, body: bytes | None) -> None:
    url = f"{BASE}/inbox"
    headers = ours(method, url, body)
    assert Verifier(public_pem(), method, url, headers, body).verify(raise_on_fail=True) == KEY_ID
    assert Verifier(public_pem(), method, f"{url}x", headers, body).verify() is None
    if body:
        assert Verifier(public_pem(), method, url, headers, body + b" ").verify() is None


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [("POST", "/inbox", BODY), ("GET", "/actor", b""), ("GET", "/outbox?page=true", b"")],
)
def test_we_verify_their_draft_signatures(method: str, target: str, body: bytes) -> None:
    """They leave the query out of what they sign, as many do."""
    headers = Signer({"Content-Type": KIND}, private(), method, BASE + target, KEY_ID, body).sign()
    # The old form of the same in Authorization is not looked at; given once it does no harm.
    assert believed(method, target, headers, body)
    assert not believed(method, "/elsewhere", headers, body)
    assert not believed(method, target, headers, body + b" ")
    assert not believed(method, target, {**headers, "host": "other.example"}, body)


def test_their_draft_signature_that_covers_less_is_refused_although_it_is_valid() -> None:
    for covered in (["(request-target)", "host", "date"], ["(request-target)", "digest", "date"]):
        signer = Signer({"Content-Type": KIND}, private(), "POST", f"{BASE}/inbox", KEY_ID, BODY, covered)
        headers = signer.sign()
        assert Verifier(public_pem(), "POST", f"{BASE}/inbox", headers, BODY).verify() == KEY_ID
        assert not believed("POST", "/inbox", headers, BODY)


def test_their_message_signature_is_refused_as_it_comes_and_taken_with_the_digest() -> None:
    """By default theirs covers neither the body nor the query: valid, and proof of nothing. Told to cover the digest,
    it is believed."""
    signer = RFC9421Signer(private(), KEY_ID)
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"
    given = {"Host": "m.example", "Content-Type": KIND, "Content-Digest": digest}
    assert not believed("POST", "/inbox", signer.sign("POST", "/inbox", "m.example", given, BODY), BODY)
    signer.sign_headers = [*signer.sign_headers, "content-digest"]
    headers = signer.sign("POST", "/inbox", "m.example", given, BODY)
    headers["content-digest"] = digest
    assert believed("POST", "/inbox", headers, BODY)
    assert not believed("POST", "/inbox", headers, BODY + b" ")
    assert not believed("POST", "/inbox?a=b", headers, BODY)
    assert not believed("PUT", "/inbox", headers, BODY)
