"""Keys that sign and keys that verify, parsed once and kept; and the ids by which they are called.

Rule: the key decides the algorithm, never a header of the request. Keys of strangers are measured before they are
used: the work of one verification is bounded, and no weak key speaks for anybody.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from threadbridge.errors import Invalid, SignatureRefused

RsaForm = Literal["pkcs1-sha256", "pkcs1-sha512", "pss-sha512"]
"""What may be done with one RSA key: PKCS#1 v1.5 with SHA-256 is what everybody sends."""

URL_MAX = 2048
PEM_MAX = 8192
RSA_BITS = range(2048, 4097)
RSA_EXPONENT = 65537

_ID = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?#][^\\]*)?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Made once: making them takes a quarter of the time of a verification.
_PKCS1, _SHA256, _SHA512 = padding.PKCS1v15(), hashes.SHA256(), hashes.SHA512()


@lru_cache(maxsize=1024)
def origin(url: str) -> str | None:
    """`scheme://host:port`, lower case and always with the port, of an http(s) id; None for anything else.

    Key ids, actor ids and activity ids all go through this one reader, so that no two checks can disagree about
    whose address a string is. Refused: more than 2048 bytes (what an index of
    PostgreSQL holds is counted in bytes), user info, white space and control characters,
    back-slashes, hosts that are not ASCII (ids carry A-labels) or end with a dot, impossible ports.
    """
    match = _ID.fullmatch(url) if len(url.encode("utf-8", "surrogatepass")) <= URL_MAX else None
    # The one white space that is printable is the plain space.
    if match is None or ".." in match["host"] or not url.isprintable() or " " in url:
        return None
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    return f"{scheme}://{match['host'].lower()}:{port}" if 0 < port < 65536 else None


def strict_base64(text: str) -> bytes | None:
    """The bytes, when `text` is their one canonical base64 form (RFC 4648 section 3.5); None otherwise. Spare bits
    that decoders overlook would let one signature be written in sixteen ways."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode("ascii") == text else None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of ours, ready to sign; `key_id` is the URL under which peers find its public half."""

    key_id: str
    _key: rsa.RSAPrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes, *, form: Literal["pkcs1-sha256", "pss-sha512"] = "pkcs1-sha256") -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 over `data`, or RSASSA-PSS with SHA-512 where that is asked for. Releases
        the interpreter lock while it works."""
        if form == "pss-sha512":
            return self._key.sign(
                data, padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=64), hashes.SHA512()
            )
        return self._key.sign(data, _PKCS1, _SHA256)


@dataclass(frozen=True, slots=True)
class ProofKey:
    """An Ed25519 key of ours, ready to prove documents; `key_id` is the URL under which its public half is named."""

    key_id: str
    _key: ed25519.Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 (RFC 8032) over `data`: the same bytes, the same signature."""
        return self._key.sign(data)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """Somebody's public key. Made by `verifying_key`, which measures it first."""

    _key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey

    @property
    def kind(self) -> Literal["rsa", "ed25519"]:
        return "rsa" if isinstance(self._key, rsa.RSAPublicKey) else "ed25519"

    def verify(self, signature: bytes, data: bytes, *, form: RsaForm = "pkcs1-sha256") -> bool:
        """Whether `signature` was made over `data` with the private half. `form` chooses among what an RSA key can do
        and means nothing to an Ed25519 key."""
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, data)
            elif form == "pss-sha512":
                pss = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=64)
                self._key.verify(signature, data, pss, hashes.SHA512())
            else:
                self._key.verify(signature, data, _PKCS1, _SHA256 if form == "pkcs1-sha256" else _SHA512)
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=1024)
def signing_key(key_id: str, private_pem: bytes) -> SigningKey:
    """A key of ours from its PEM (PKCS#8 or PKCS#1, not encrypted); raises Invalid.

    The arithmetic validation of the key is skipped: it costs 31-63 ms, longer than a hundred signatures, and these
    are keys that we made ourselves and kept sealed and authenticated since.
    """
    if origin(key_id) is None or '"' in key_id or not key_id.isascii():
        raise Invalid("A key id must be an http(s) URL", detail=repr(key_id))
    try:
        key = load_pem_private_key(private_pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's own words are left out: they could quote what they failed to read.
        raise Invalid("The private key cannot be read", detail=key_id) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Invalid("The private key is not an RSA key", detail=key_id)
    return SigningKey(key_id, key)


@lru_cache(maxsize=1024)
def proof_key(key_id: str, private_pem: bytes) -> ProofKey:
    """An Ed25519 key of ours from its PEM (PKCS#8, not encrypted); raises Invalid."""
    try:
        key = load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid("The private key cannot be read", detail=key_id) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise Invalid("The private key is not an Ed25519 key", detail=key_id)
    return ProofKey(key_id, key)


@lru_cache(maxsize=4096)
def verifying_key(pem: str) -> VerifyingKey:
    """A stranger's key from its PEM (SPKI, or PKCS#1 as some send RSA keys); raises SignatureRefused with the reason.

    RSA keys have 2048 to 4096 bits and the exponent 65537: below that they can be forged, above it one request costs
    too much (a modulus of 16,384 bits takes 60 times as long to verify). Ed25519 keys have one size.
    """
    if len(pem) > PEM_MAX or not pem.isascii():
        raise SignatureRefused("The public key of the sender is not a PEM of reasonable size")
    try:
        key = load_pem_public_key(pem.strip().encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignatureRefused("The public key of the sender cannot be read") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return VerifyingKey(key)
    if not isinstance(key, rsa.RSAPublicKey):
        raise SignatureRefused("The public key of the sender is neither RSA nor Ed25519")
    if key.key_size not in RSA_BITS:
        raise SignatureRefused(f"The RSA key of the sender has {key.key_size} bits, 2048 to 4096 are accepted")
    if key.public_numbers().e != RSA_EXPONENT:
        raise SignatureRefused("The RSA key of the sender does not have the exponent 65537")
    return VerifyingKey(key)
