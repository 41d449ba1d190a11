"""Public keys as Multikeys (FEP-521a): multibase (base58btc) over multicodec.

Rule: the strict reading only. One key has one spelling; what is not that spelling, or a kind of key that nobody here
verifies with, is None, and an actor that publishes such a key is read as if it had not.
"""

from __future__ import annotations

import base64
import textwrap
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from threadbridge.errors import Invalid

# RSA keys of 4096 bits take some 720 characters; decoding base58 costs the square of the length.
MULTIBASE_MAX = 1000

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}

_ED25519 = b"\xed\x01"
_ED25519_SIZE = 32
# SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4) up to the 32 bytes of the key itself.
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
_RSA = b"\x85\x24"


def base58btc(data: bytes) -> str:
    """`data` in multibase: `z` and base58 in the alphabet of Bitcoin."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, rest = divmod(number, 58)
        digits.append(_ALPHABET[rest])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "z" + _ALPHABET[0] * zeros + "".join(reversed(digits))


def from_base58btc(text: str) -> bytes | None:
    """The bytes of such a text; None for anything else. Every text that is read has one value, and no other text
    has the same."""
    if not text.startswith("z") or len(text) > MULTIBASE_MAX:
        return None
    number = 0
    for character in text[1:]:
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number * 58 + value
    zeros = len(text) - 1 - len(text[1:].lstrip(_ALPHABET[0]))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


@lru_cache(maxsize=4096)
def multibase_of(public_pem: str) -> str:
    """`publicKeyMultibase` of a public key of ours, RSA or Ed25519, from its PEM; raises Invalid."""
    try:
        key = load_pem_public_key(public_pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid("The public key cannot be read") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return base58btc(_ED25519 + key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    if isinstance(key, rsa.RSAPublicKey):
        return base58btc(_RSA + key.public_bytes(Encoding.DER, PublicFormat.PKCS1))
    raise Invalid("Only RSA and Ed25519 keys are published as a Multikey")


def pem_of(multibase: str) -> str | None:
    """The PEM of a stranger's Multikey, for `keys.verifying_key`, which measures it: SPKI for Ed25519, PKCS#1 for
    RSA. None for everything that is neither."""
    data = from_base58btc(multibase)
    if data is None:
        return None
    if data.startswith(_ED25519) and len(data) == len(_ED25519) + _ED25519_SIZE:
        return _pem("PUBLIC KEY", _ED25519_SPKI + data[len(_ED25519) :])
    if data.startswith(_RSA):
        return _pem("RSA PUBLIC KEY", data[len(_RSA) :])
    return None


def _pem(label: str, der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
