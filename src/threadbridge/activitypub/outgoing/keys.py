"""What an actor document says of its keys.

Rule: the RSA key that signs requests stands in `publicKey`, one object and never a list (Misskey refuses an actor
whose `publicKey` has no `id` of its own); every other key is a Multikey in `assertionMethod` (FEP-521a). No key
stands in both.
"""

from __future__ import annotations

from threadbridge.activitypub.outgoing.wording import SECURITY, Document
from threadbridge.domain.keys import PublishedKeys
from threadbridge.signatures.multikey import multibase_of

MULTIKEY_CONTEXTS = ("https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1")
"""The first defines `assertionMethod`, the second the key. Fedify emits these two and reads nothing without both."""


def with_keys(document: Document, keys: PublishedKeys) -> Document:
    """An actor document, or an Update with one inside, with its keys and the vocabulary for them."""
    actor: Document = document["object"] if isinstance(document.get("object"), dict) else document
    me = actor["id"]
    actor["publicKey"] = {
        "id": f"{me}#{keys.requests.fragment}",
        "owner": me,
        "publicKeyPem": keys.requests.public_pem,
    }
    others = [key for key in (keys.proofs, *keys.beside) if key is not None]
    if not others:
        return document
    actor["assertionMethod"] = [
        {
            "id": f"{me}#{key.fragment}",
            "type": "Multikey",
            "controller": me,
            "publicKeyMultibase": multibase_of(key.public_pem),
        }
        for key in others
    ]
    given = document["@context"]
    contexts = list(given) if isinstance(given, list) else [given]
    place = contexts.index(SECURITY) + 1 if SECURITY in contexts else 1
    contexts[place:place] = [name for name in MULTIKEY_CONTEXTS if name not in contexts]
    document["@context"] = contexts
    return document
