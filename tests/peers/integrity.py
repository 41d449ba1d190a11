"""Integrity proofs as Mastodon 4.7 and Fedify read them (FEP-8b32), written from the specifications and not from our
code: canonical JSON made here, keys read from the actor's document here.

What both accept is the intersection: Fedify signs and verifies the proof's options with the document's `@context`;
Mastodon wants the proof's `@context` to be a beginning of the document's, which must be a list, and takes away only
`proof` before it verifies, so an LD signature beside it spoils both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
FEDIFY_PRELOADED = {
    "https://www.w3.org/ns/activitystreams",
    "https://w3id.org/security/v1",
    "https://w3id.org/security/data-integrity/v1",
    "https://www.w3.org/ns/did/v1",
    "https://w3id.org/security/multikey/v1",
}


def base58(text: str) -> bytes:
    assert text[0] == "z"
    number = 0
    for character in text[1:]:
        number = number * 58 + ALPHABET.index(character)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def canonical(value: Any) -> bytes:
    """JCS for what our documents hold: names in ASCII, no numbers but small ones."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def author_by_proof(document: dict[str, Any], fetch: Callable[[str], dict[str, Any]]) -> str:
    """The actor who proves to have said `document`; AssertionError when it does not hold."""
    assert "signature" not in document, "Mastodon would verify the proof over it"
    assert isinstance(document["@context"], list)
    for context in document["@context"]:
        assert isinstance(context, dict) or context in FEDIFY_PRELOADED, f"Fedify would fetch {context}"
    proof = document["proof"]
    assert proof["@context"] == document["@context"]
    assert (proof["type"], proof["cryptosuite"]) == ("DataIntegrityProof", "eddsa-jcs-2022")
    assert proof["proofPurpose"] == "assertionMethod"
    assert datetime.fromisoformat(proof["created"]).tzinfo
    method = proof["verificationMethod"]
    said_by = document.get("actor") or document.get("attributedTo") or document["id"]
    actor = fetch(method.partition("#")[0])
    assert {"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"} <= {
        name for name in actor["@context"] if isinstance(name, str)
    }, "assertionMethod means nothing to Fedify"
    (key,) = [held for held in actor["assertionMethod"] if held["id"] == method]
    assert (key["type"], key["controller"]) == ("Multikey", actor["id"])
    assert actor["id"] == said_by, "proved by somebody else"
    raw = base58(key["publicKeyMultibase"])
    assert raw[:2] == b"\xed\x01"
    options = {name: value for name, value in proof.items() if name != "proofValue"}
    unsecured = {name: value for name, value in document.items() if name != "proof"}
    digest = hashlib.sha256(canonical(options)).digest() + hashlib.sha256(canonical(unsecured)).digest()
    try:
        Ed25519PublicKey.from_public_bytes(raw[2:]).verify(base58(proof["proofValue"]), digest)
    except InvalidSignature:
        raise AssertionError("the proof does not hold") from None
    return str(said_by)
