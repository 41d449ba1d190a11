"""Object integrity proofs (FEP-8b32) with the cryptosuite `eddsa-jcs-2022`: who said a document, whoever brings it.

    hash  = SHA-256(JCS(proof without proofValue)) || SHA-256(JCS(document without proof))
    value = Ed25519(hash), in base58btc

Rule: one proof, at the top level, by a key that the author publishes for this purpose; a document that anything else
could be read into is refused before a key is asked for. Our own proofs are the same whenever they are made: the time
in them comes as an argument, and Ed25519 has no randomness, so that a document keeps its bytes and its ETag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import rfc8785

from threadbridge.errors import Invalid, SignatureRefused
from threadbridge.signatures.keys import ProofKey, origin
from threadbridge.signatures.multikey import base58btc, from_base58btc

CONTEXT = "https://w3id.org/security/data-integrity/v1"
"""What Fedify emits, and ships with its reader; of the newer `v2` it has no copy."""

PAST = timedelta(days=14)
"""How old a proof may be. What was said is remembered for thirty days, so that nobody plays it again later (a Like
that was taken back since): a proof has to be worthless before it is forgotten."""
FUTURE = timedelta(minutes=5)

_SIGNATURE_SIZE = 64
# JSON-LD that turns a document inside out for one reader and not for another (CVE-2026-46349).
_REARRANGING = frozenset({"@graph", "@included", "@reverse", "@nest"})
# What narrows where or for whom a proof is good; nobody in the Fediverse sets them, so nobody here reads them.
_NARROWING = frozenset({"domain", "challenge"})


@dataclass(frozen=True, slots=True)
class ProofClaim:
    """What a document's proof says: everything about it is in order, only the key has not spoken yet.

    `key_id` is the verification method; `actor` the one as whose word the document is given; `signing_strings` are
    the readings under which the signature may hold (two when the proof leaves out its `@context`, which Fedify signs
    as if it were the document's, and others as missing).
    """

    key_id: str
    actor: str
    signing_strings: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)


def prove(document: Mapping[str, Any], key: ProofKey, created: datetime) -> dict[str, Any]:
    """`document` with a proof by `key`, made at `created` (aware; whole seconds are kept).

    The document's `@context` becomes a list that names this proof's vocabulary, and the proof repeats it: Mastodon
    compares the two as lists. A document that has a proof or an LD signature already is Invalid: Mastodon takes away
    `proof` alone before it verifies, so one of the two would never hold.
    """
    if "proof" in document or "signature" in document:
        raise Invalid("The document is signed already")
    given = document.get("@context")
    contexts = list(given) if isinstance(given, list) else [given]
    if CONTEXT not in contexts:
        # Behind the leading addresses and before definitions of our own.
        addresses = sum(1 for item in contexts if isinstance(item, str))
        contexts.insert(addresses, CONTEXT)
    secured = {**document, "@context": contexts}
    proof = {
        "@context": contexts,
        "type": "DataIntegrityProof",
        "cryptosuite": "eddsa-jcs-2022",
        "verificationMethod": key.key_id,
        "proofPurpose": "assertionMethod",
        "created": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    proof["proofValue"] = base58btc(key.sign(_hashed(proof, secured)))
    return {**secured, "proof": proof}


def read_proof(document: Mapping[str, Any], *, now: datetime | None) -> ProofClaim | None:
    """What the proof of a decoded document claims, after all checks that need no key; None when there is no proof.

    `now` None is for what is kept, not sent (a certificate): its age says nothing against it.

    Raises Invalid for a document that uses JSON-LD's ways of rearranging itself, anywhere; SignatureRefused for a
    proof that is not one, or not for here and now.
    """
    proof = document.get("proof")
    if proof is None:
        return None
    _check_plain(document)
    if isinstance(proof, list) and len(proof) == 1:
        proof = proof[0]
    if not isinstance(proof, dict):
        raise SignatureRefused("The document must have one integrity proof")
    if "signature" in document:
        raise SignatureRefused("The document has an LD signature beside its integrity proof")
    if proof.get("type") != "DataIntegrityProof" or proof.get("cryptosuite") != "eddsa-jcs-2022":
        raise SignatureRefused(
            "The integrity proof is of a kind that is not verified here",
            detail=repr((proof.get("type"), proof.get("cryptosuite")))[:200],
        )
    if proof.get("proofPurpose") != "assertionMethod":
        raise SignatureRefused("The integrity proof was not made to assert something")
    if _NARROWING & proof.keys():
        raise SignatureRefused("The integrity proof is meant for one reader only")
    method, actor = proof.get("verificationMethod"), document.get("actor")
    if not isinstance(method, str) or not isinstance(actor, str):
        raise SignatureRefused("The integrity proof does not name its key, or the document its actor")
    if origin(method) is None or origin(method) != origin(actor):
        raise SignatureRefused("The key of the integrity proof is not on the actor's server", detail=method[:200])
    if now is not None:
        _check_times(proof, now)
    value = proof.get("proofValue")
    signature = from_base58btc(value) if isinstance(value, str) else None
    if signature is None or len(signature) != _SIGNATURE_SIZE:
        raise SignatureRefused("The integrity proof has no value that could be a signature")
    return ProofClaim(method, actor, _readings(document, proof), signature)


def _readings(document: Mapping[str, Any], proof: Mapping[str, Any]) -> tuple[bytes, ...]:
    contexts = document.get("@context")
    listed = contexts if isinstance(contexts, list) else [contexts]
    if "@context" not in proof:
        return _hashed(proof, document), _hashed({**proof, "@context": contexts}, document)
    own = proof["@context"]
    if own == contexts:
        return (_hashed(proof, document),)
    # Somebody on the way may have added vocabulary of his own behind; the proof speaks of what was there before
    # (Data Integrity EdDSA Cryptosuites, section 3.3.2).
    known = own if isinstance(own, list) else [own]
    if listed[: len(known)] != known:
        raise SignatureRefused("The integrity proof was made for another @context")
    return (_hashed(proof, {**document, "@context": own}),)


def _hashed(proof: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
    """What is signed. Raises SignatureRefused for what has no canonical form."""
    options = {name: value for name, value in proof.items() if name != "proofValue"}
    unsecured = {name: value for name, value in document.items() if name != "proof"}
    try:
        return hashlib.sha256(rfc8785.dumps(options)).digest() + hashlib.sha256(rfc8785.dumps(unsecured)).digest()
    except (rfc8785.CanonicalizationError, RecursionError):
        raise SignatureRefused("The document has no canonical form") from None


def digest(value: Any) -> str:
    """SHA-256 (hex) over the canonical form of a JSON value (RFC 8785). Raises SignatureRefused if it has none."""
    try:
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except (rfc8785.CanonicalizationError, RecursionError):
        raise SignatureRefused("The value has no canonical form") from None


def _check_plain(document: Mapping[str, Any]) -> None:
    """No rearranging keyword anywhere: neither as a name, nor, inside a context, as what a name stands for."""
    waiting: list[tuple[Any, bool]] = [(document, False)]
    while waiting:
        value, in_context = waiting.pop()
        if isinstance(value, Mapping):
            for name, member in value.items():
                if name in _REARRANGING:
                    raise Invalid(f"The document uses {name}; a proof over it could mean two things")
                waiting.append((member, in_context or name == "@context"))
        elif isinstance(value, list):
            waiting.extend((item, in_context) for item in value)
        elif in_context and isinstance(value, str) and value in _REARRANGING:
            raise Invalid(f"The document gives {value} another name; a proof over it could mean two things")


def _check_times(proof: Mapping[str, Any], now: datetime) -> None:
    created = _moment(proof.get("created"), "created")
    if not -FUTURE <= now - created <= PAST:
        raise SignatureRefused("The integrity proof is too old, or made in the future", detail=str(created))
    if "expires" in proof and _moment(proof["expires"], "expires") < now:
        raise SignatureRefused("The integrity proof has expired")


def _moment(value: Any, name: str) -> datetime:
    """An XML Schema dateTime with a zone, as Data Integrity demands."""
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) and len(value) <= 40 and "T" in value else None
        if read is not None and read.tzinfo is not None:
            return read.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise SignatureRefused(f"The integrity proof does not say properly when it was made: {name}")
