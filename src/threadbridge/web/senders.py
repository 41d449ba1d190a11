"""Who sent a request: from a signature's claim to a `Verified`.

Rule: a key is kept for a while, asked for once more when a signature does not fit it, and never more often than a
stranger can be allowed to make us ask.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from threadbridge.domain.people import Peer
from threadbridge.errors import Invalid, NetworkError, SignatureRefused, TooMany
from threadbridge.net.restraint import BudgetSpent
from threadbridge.services import Services
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import VerifyingKey, verifying_key
from threadbridge.signatures.schemes import Claim, Verified
from threadbridge.storage import peers
from threadbridge.storage.store import Store

# Misskey and Takahē give up after five seconds; then they send again, and count us as failing.
FETCH_SECONDS = 4.0
KEY_FRESH_SECONDS = 300.0
KEYS_KEPT = 10_000
RETRY_SECONDS = 30.0


@dataclass(slots=True)
class Known:
    """A sender whose key is at hand; `stored` when the database has it."""

    peer: Peer
    key: VerifyingKey
    until: float
    stored: bool = False
    retried: float | None = None
    """Monotonic time of the last fetch that a bad signature caused."""


class Senders:
    """The keys of those who speak to us, fetched, kept and checked."""

    def __init__(self, services: Services) -> None:
        self._store: Store = services.store
        self._peers = services.peers
        self._known: OrderedDict[str, Known] = OrderedDict()

    def forget(self, key_id: str) -> None:
        """Meet the owner of a key anew, the next time."""
        self._known.pop(key_id, None)

    async def verify(self, claim: Claim) -> tuple[Verified, Known]:
        """The proof that a claim holds, and its maker; raises SignatureRefused, TooMany."""
        known = await self._key(claim.key_id)
        try:
            return schemes.verify(claim, known.key, owner=known.peer.uri), known
        except SignatureRefused as refused:
            lately = known.retried is not None and time.monotonic() - known.retried < RETRY_SECONDS
            if not refused.refetch or lately:
                raise
        # The key may have changed since we met: asked for once more, then this is final for a while. A stranger who
        # signs badly in somebody's name costs that server one request in half a minute.
        known = await self._fetched_key(claim.key_id)
        known.retried = time.monotonic()
        return schemes.verify(claim, known.key, owner=known.peer.uri), known

    async def _key(self, key_id: str) -> Known:
        known = self._known.get(key_id)
        if known is not None and known.until > time.monotonic():
            return known
        peer = await self._store.read(peers.by_key, key_id)
        if peer is not None:
            return self._remember(key_id, peer, stored=True)
        return await self._fetched_key(key_id)

    async def _fetched_key(self, key_id: str) -> Known:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                peer = await self._peers.by_key(key_id)
        except TimeoutError:
            raise SignatureRefused("The key could not be fetched in time", detail=key_id) from None
        except BudgetSpent as error:
            # Their server is asked no faster than it can bear; the sender keeps the activity and tries again.
            raise TooMany("Too many new people from one server at once", detail=error.detail) from None
        except (NetworkError, Invalid) as error:
            raise SignatureRefused("The key could not be fetched", detail=f"{key_id}: {error.public}") from None
        return self._remember(key_id, peer, stored=False)

    def _remember(self, key_id: str, peer: Peer, *, stored: bool) -> Known:
        ends = time.monotonic() + KEY_FRESH_SECONDS
        known = Known(peer, verifying_key(peer.key_pem), ends, stored)
        self._known[key_id] = known
        while len(self._known) > KEYS_KEPT:
            self._known.popitem(last=False)
        return known
