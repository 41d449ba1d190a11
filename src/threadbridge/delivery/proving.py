"""Integrity proofs on what we say (FEP-8b32).

Rule: the proof of a document is made where its bytes are first needed outside (taken for delivery, built for serving)
and is the same each time: the time in it comes from the document, and the key of an account is made once. So nothing
signed is stored, no door needs a private key to accept something, and ETags hold.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from threading import Lock

import orjson

from threadbridge.activitypub import document as documents
from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.errors import NotFound
from threadbridge.signatures import proofs
from threadbridge.signatures.keys import ProofKey, proof_key
from threadbridge.storage import keys
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import Vault

DELIVERED_MAX = 64 * 1024
"""Misskey refuses a larger request. A proof is worth less than the post under it."""
_KEPT = 4096


class Prover:
    """Makes proofs, with parsed keys kept. Thread-safe."""

    def __init__(self, vault: Vault, ids: Ids) -> None:
        self._vault = vault
        self._ids = ids
        self._keys: OrderedDict[int | None, tuple[ProofKey, datetime]] = OrderedDict()
        self._lock = Lock()

    def proved(self, tx: Tx, account_id: int | None, body: bytes, said_at: datetime | None = None) -> bytes:
        """`body`, a document of an account (or of the instance actor), with its proof.

        The proof is dated `said_at`, else by the document's own `updated` or `published`, and never before its key
        was made. Unchanged: collections, which are lists of what is proved by itself; what would become too large to
        be delivered; and everything of an account that has no key for it.
        """
        made = orjson.loads(body)
        if not outgoing.stands_alone(made):
            return body
        found = self._key(tx, account_id)
        if found is None:
            return body
        key, since = found
        moment = said_at or documents.dated(made) or since
        secured = outgoing.encode(proofs.prove(made, key, max(moment, since)))
        return body if len(body) <= DELIVERED_MAX < len(secured) else secured

    def _key(self, tx: Tx, account_id: int | None) -> tuple[ProofKey, datetime] | None:
        with self._lock:
            found = self._keys.get(account_id)
            if found is not None:
                self._keys.move_to_end(account_id)
                return found
        try:
            own, pem = keys.private_key(tx, self._vault, account_id, "ed25519")
        except NotFound:
            return None
        me = self._ids.instance if account_id is None else self._ids.actor(account_id)
        found = proof_key(f"{me}#{own.fragment}", pem), own.created_at
        with self._lock:
            self._keys[account_id] = found
            while len(self._keys) > _KEPT:
                self._keys.popitem(last=False)
        return found
