"""The keys of an account of ours, as far as others see them.

Rule: a fragment names one key for ever; keys that come after it get another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

KeyKind = Literal["rsa", "ed25519"]
KeyState = Literal["current", "next", "old", "retired"]

RSA_FRAGMENT = "main-key"
"""Of the first RSA key. Lemmy wants a fragment, and everybody else expects this one."""
PROOF_FRAGMENT = "ed25519-key"


@dataclass(frozen=True, slots=True)
class OwnKey:
    """One key: `fragment` is what stands behind the # in its id."""

    id: int
    kind: KeyKind
    state: KeyState
    fragment: str
    public_pem: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """What an actor document says of its keys: the one that signs requests, the one that proves documents, and those
    whose signatures are good beside them while keys change over."""

    requests: OwnKey
    proofs: OwnKey | None
    beside: tuple[OwnKey, ...] = ()
