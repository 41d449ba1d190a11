"""What every verifier needs of draft-cavage signatures, written from the draft and not from the product: the signing
string, and RSA with PKCS#1 v1.5. How a header is taken apart and what it must cover is each peer's own matter."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.peers.captured import Captured


def check_rsa(request: Captured, target: str, names: list[str], signature: str, pem: str) -> None:
    """The signature is over exactly these headers of this request, by this key ("" leaves out the arithmetic)."""
    lines = []
    for name in names:
        value = f"{request.method.lower()} {target}" if name == "(request-target)" else request.header(name)
        assert value is not None, f"{name} is signed and not there"
        lines.append(f"{name}: {value}")
    raw = base64.b64decode(signature, validate=True)
    if pem:
        _verified(pem, raw, "\n".join(lines).encode())


@lru_cache(maxsize=4096)
def _verified(pem: str, raw: bytes, data: bytes) -> None:
    """Remembered, since all peers ask the same; a refusal is an exception and is not."""
    _public(pem).verify(raw, data, padding.PKCS1v15(), hashes.SHA256())


@lru_cache(maxsize=256)
def _public(pem: str) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def check_rfc9421(request: Captured, base: str, key_of: Callable[[str], str]) -> str:
    """The profile of the Fediverse: one signature over method, target and digest, `created` and `keyid` (Mastodon
    4.5 and later); returns the keyid. `base` is the scheme and authority that the sender saw."""
    label, _, given = (request.header("signature-input") or "").partition("=")
    found = re.fullmatch(r"\(([^)]*)\)((?:;[a-z]+=(?:\"[^\"]*\"|\d+))*)", given)
    assert found, "one signature, in the plainest form"
    names = [name.strip('"') for name in found[1].split()]
    parameters = dict(re.findall(r';([a-z]+)=("[^"]*"|\d+)', found[2]))
    assert {"@method", "@target-uri"} <= set(names)
    assert abs(request.at.timestamp() - int(parameters["created"])) <= 300
    derived = {
        "@method": request.method,
        "@target-uri": f"{base}{request.target}",
        "@authority": base.partition("://")[2],
    }
    if request.method == "POST":
        assert "content-digest" in names
        sha = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        assert request.header("content-digest") == f"sha-256=:{sha}:"
    lines = []
    for name in names:
        value = derived.get(name) if name.startswith("@") else request.header(name)
        assert value is not None, f"{name} is signed and not there"
        lines.append(f'"{name}": {value}')
    lines.append(f'"@signature-params": {given}')
    theirs = (request.header("signature") or "").partition("=")
    assert theirs[0] == label
    raw = base64.b64decode(theirs[2].strip(":"), validate=True)
    key_id: str = parameters["keyid"].strip('"')
    if pem := key_of(key_id):
        _verified(pem, raw, "\n".join(lines).encode())
    return key_id


def check_digest(request: Captured) -> None:
    """`Digest: SHA-256=…` in capitals, of the bytes that arrived."""
    digest = request.header("digest")
    assert digest is not None, "no Digest"
    name, _, value = digest.partition("=")
    assert name == "SHA-256", digest
    assert value == base64.b64encode(hashlib.sha256(request.body).digest()).decode()


def age(request: Captured) -> float:
    """Seconds between Date and arrival."""
    text = request.header("date")
    assert text is not None, "no Date"
    date: datetime = parsedate_to_datetime(text)
    return (request.at - date).total_seconds()


def path_of(target: str) -> str:
    return target.partition("?")[0]
