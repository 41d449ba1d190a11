"""What every verifier needs of draft-cavage signatures, written from the draft and not from the product: the signing
string, and RSA with PKCS#1 v1.5. How a header is taken apart and what it must cover is each peer's own matter."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from email.utils import parsedate_to_datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.peers.populated import Captured


def check_rsa(request: Captured, target: str, names: list[str], signature: str, pem: str) -> None:
    """The signature is over exactly these headers of this request, by this key."""
    lines = []
    for name in names:
        value = f"{request.method.lower()} {target}" if name == "(request-target)" else request.header(name)
        assert value is not None, f"{name} is signed and not there"
        lines.append(f"{name}: {value}")
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    raw = base64.b64decode(signature, validate=True)
    key.verify(raw, "\n".join(lines).encode(), padding.PKCS1v15(), hashes.SHA256())


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
