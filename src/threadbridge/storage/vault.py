"""Secrets at rest: sealing them, and making new ones.

Rule: private keys and tokens are in the database only sealed (AES-256-GCM), with the table, row and purpose as
associated data, so that a sealed value moved to another row does not open. The sealing key is a file outside the
database, so that a stolen backup signs nothing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from threadbridge.errors import BadConfiguration

_NONCE = 12


class Vault:
    """Seals and opens small secrets with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._key = key

    def seal(self, secret: bytes, *, purpose: str) -> bytes:
        """Nonce and ciphertext; `purpose` must be given again to open it."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, purpose.encode())

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """The secret; raises BadConfiguration when the key file is not the one it was sealed with."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose.encode())
        except (InvalidTag, ValueError):
            raise BadConfiguration(
                "A stored secret cannot be opened with this secret key",
                detail=purpose,
                hint="Restore the secret key file (THREADBRIDGE_SECRET_KEY_FILE) that belongs to this database.",
            ) from None

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for another purpose (signing links), bound to this vault."""
        return hashlib.blake2b(self._key, digest_size=32, person=purpose.encode()[:16]).digest()


def open_vault(path: Path, *, make: bool = True) -> Vault:
    """The vault whose key lies in `path`. With `make` the file is made, readable by its owner only, when there is
    none; without it (the database holds secrets already) that is a BadConfiguration."""
    try:
        if not path.exists():
            if not make:
                raise BadConfiguration(
                    f"The secret key file {path} is missing",
                    hint="Restore the one that belongs to this database, or name it with "
                    "THREADBRIDGE_SECRET_KEY_FILE.",
                )
            _make_key_file(path)
        key = base64.b64decode(path.read_bytes(), validate=False)
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"The secret key file {path} cannot be used", detail=str(error)) from None
    if len(key) != 32:
        raise BadConfiguration(f"The secret key file {path} is damaged", detail="it must hold 32 bytes in base64")
    return Vault(key)


def _make_key_file(path: Path) -> None:
    """Whole or not there at all, however many processes start at once and whenever one of them is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".secret-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh key pair as PEM (SPKI and PKCS#8)."""

    public_pem: str
    private_pem: bytes


def new_rsa_key() -> NewKey:
    """RSA-2048, which every server of the Fediverse verifies. Takes 50-200 ms of processor time."""
    return _new_key(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def new_ed25519_key() -> NewKey:
    """Ed25519, for integrity proofs. Takes microseconds."""
    return _new_key(ed25519.Ed25519PrivateKey.generate())


def _new_key(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> NewKey:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return NewKey(public.decode("ascii"), private)


def new_token() -> str:
    """256 random bits for links and sessions, URL-safe."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token, so that a stolen database opens no door."""
    return hashlib.sha256(token.encode()).hexdigest()
