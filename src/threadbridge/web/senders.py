"""Who sent a request: from its signature to a `Verified`.

Rule: a key is kept for a while, asked for once more when a signature does not fit it, and never more often than a
stranger can be allowed to make us ask: what was not there, took too long or is no key that we use is remembered as
such. What somebody brings of another is paid for by the one who brings it, and never from what a server is asked
about its own senders. A signature that has had its effect has it once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

import structlog
from starlette.requests import Request

from threadbridge.activitypub.text import host_of
from threadbridge.domain.people import Peer
from threadbridge.errors import (
    Forbidden,
    Invalid,
    NetworkError,
    OwnTrouble,
    SignatureRefused,
    ThreadbridgeError,
    TooMany,
    Unavailable,
)
from threadbridge.federation import admission
from threadbridge.net.peers import BROUGHT_PER_MINUTE
from threadbridge.net.restraint import BudgetSpent
from threadbridge.services import Services, utc_now
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import VerifyingKey, verifying_key
from threadbridge.signatures.proofs import ProofClaim
from threadbridge.signatures.schemes import Claim, Verified
from threadbridge.storage import peers
from threadbridge.storage.store import Store
from threadbridge.telemetry import metrics
from threadbridge.web.throttle import Throttle
from threadbridge.web.turned_away import TurnedAwayCounter

log = structlog.get_logger(__name__)

# Misskey and Takahē give up after five seconds; then they send again, and count us as failing.
ASK_THE_OPERATOR = "If that should be a mistake, ask the operator of this server; /about says who that is."
"""What somebody can do who is turned away."""
FETCH_SECONDS = 4.0
KEY_FRESH_SECONDS = 300.0
KEY_FRESH_UNSTORED_SECONDS = 3600.0
"""Keys of those who only read are in no database: asking for them every five minutes would be much."""
KEYS_KEPT = 10_000
RETRY_SECONDS = 30.0
UNUSABLE_SECONDS = 300.0
SPENT_SECONDS = (schemes.PAST + schemes.FUTURE).total_seconds()
SPENT_KEPT = 50_000


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
    """The keys of those who speak to us, fetched, kept and checked. One for all doors."""

    def __init__(self, services: Services) -> None:
        self._store: Store = services.store
        self._peers = services.peers
        self.brought = services.peers.apart(BROUGHT_PER_MINUTE)
        """For asking about what others bring of somebody: it takes nothing from asking for the keys of senders."""
        self._base = services.ids.base
        self.throttle = Throttle(services.config)
        self.turned_away = TurnedAwayCounter(services.store)
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._keys_of: dict[str, set[str]] = {}
        self._unusable: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._spent: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    async def proven(self, request: Request, body: bytes) -> tuple[Verified, Known, Claim]:
        """The proof of who sent a request, its maker, and what was claimed. Each refusal is one line of the log.
        Raises SignatureRefused, TooMany."""
        claim: Claim | None = None
        address = self.throttle.address(request)
        try:
            claim = schemes.read_claim(as_received(request, body), base_url=self._base, now=utc_now())
            with metrics.verifying():
                verified, known = await self._verify(claim, address=address)
        except ThreadbridgeError as error:
            if not isinstance(error, TooMany | Unavailable | OwnTrouble):
                self.throttle.refused(address)
            log.info(
                "request refused",
                method=request.method,
                path=request.url.path[:200],
                reason=error.public,
                detail=error.detail,
                key_id=claim.key_id[:500] if claim else None,
            )
            raise
        try:
            self.throttle.check_server(host_of(verified.actor))
        except TooMany as error:
            self.turned_away.note("server", error.public, actor=verified.actor)
            raise
        return verified, known, claim

    async def vouched(self, claim: ProofClaim, carrier: str) -> tuple[Verified, Known]:
        """The proof that the claim of a document holds that somebody of the host `carrier` brings, and its maker.
        Raises SignatureRefused, TooMany, Forbidden."""
        return await self._verify(claim, carrier=carrier)

    async def _verify(
        self, claim: Claim | ProofClaim, *, address: str | None = None, carrier: str | None = None
    ) -> tuple[Verified, Known]:
        """A key that is not at hand is fetched only as long as the `address` that a request came from is not limited,
        or the server that brings what somebody else said."""
        known = await self._key(claim.key_id, address, carrier)
        try:
            return schemes.verify(claim, known.key, owner=known.peer.uri, asserts=known.peer.asserts_with_key), known
        except SignatureRefused as refused:
            lately = known.retried is not None and time.monotonic() - known.retried < RETRY_SECONDS
            if not refused.refetch or lately:
                raise
        # The key may have changed since we met: asked for once more, then this is final for a while. A stranger who
        # signs badly in somebody's name costs that server one request in half a minute.
        known.retried = time.monotonic()
        known = await self._fetched_key(claim.key_id, address, carrier)
        known.retried = time.monotonic()
        return schemes.verify(claim, known.key, owner=known.peer.uri, asserts=known.peer.asserts_with_key), known

    def check_carrier(self, host: str) -> None:
        """Raises TooMany when too much was refused of what this server's people brought of others."""
        try:
            self.throttle.check_carrier(host)
        except TooMany as error:
            self.turned_away.note("carrier", error.public, host=host)
            raise

    def spend_carrier(self, host: str) -> None:
        """Another server is about to be asked because of what this one's people brought; raises TooMany beyond their
        share."""
        try:
            self.throttle.spend_carrier(host)
        except TooMany as error:
            self.turned_away.note("carrier", error.public, host=host)
            raise

    # ── said before ──────────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, claim: Claim) -> bool:
        """Whether exactly this signature has had its effect already: an activity is heard once by its id, but a
        forwarded one has none that we know of, and would have its origin asked again each time."""
        ends_at = self._spent.get((claim.key_id, claim.signature))
        return ends_at is not None and time.monotonic() < ends_at

    def spend(self, claim: Claim) -> None:
        """A proven claim has had its effect."""
        self._spent[claim.key_id, claim.signature] = time.monotonic() + SPENT_SECONDS
        while len(self._spent) > SPENT_KEPT:
            self._spent.popitem(last=False)

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def forget(self, key_id: str) -> None:
        """Meet the owner of a key anew, the next time, whichever of its keys it uses."""
        known = self._known.get(key_id)
        for each in self._keys_of.pop(known.peer.uri, set()) if known is not None else ():
            self._known.pop(each, None)

    async def _key(self, key_id: str, address: str | None, carrier: str | None) -> Known:
        known = self._known.get(key_id)
        if known is not None and known.until > time.monotonic():
            return known
        self._check_usable(key_id)
        peer = await self._store.read(peers.by_key, key_id)
        if peer is not None:
            return self._remember(key_id, peer, stored=True)
        return await self._fetched_key(key_id, address, carrier)

    async def _fetched_key(self, key_id: str, address: str | None, carrier: str | None) -> Known:
        self._check_usable(key_id)
        await self.check_admitted(key_id)
        if address is not None:
            try:
                self.throttle.check_address(address)
            except TooMany as error:
                self.turned_away.note("address", error.public, address=address)
                raise
        if carrier is not None:
            self.spend_carrier(carrier)
        asked = self._peers if carrier is None else self.brought
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                peer = await asked.by_key(key_id)
        except TimeoutError:
            raise SignatureRefused("The key could not be fetched in time", detail=key_id) from None
        except BudgetSpent as error:
            # Their server is asked no faster than it can bear; the sender keeps the activity and tries again.
            raise TooMany("Too many new people from one server at once", detail=error.detail) from None
        except OwnTrouble:
            # Nobody can be asked from here: the activity stays with whoever brings it (503).
            raise
        except (NetworkError, Invalid) as error:
            raise SignatureRefused("The key could not be fetched", detail=f"{key_id}: {error.public}") from None
        return self._remember(key_id, peer, stored=False)

    async def check_admitted(self, *uris: str) -> None:
        """Raises Forbidden when the operator does not let in whose ids these are; before anything is fetched."""
        reason = await self._store.read(admission.refusal_of, *uris)
        if reason is not None:
            self.turned_away.note("door", reason, subject=" ".join(uris))
            raise Forbidden("You are not let in here", detail=reason, hint=ASK_THE_OPERATOR)

    def _remember(self, key_id: str, peer: Peer, *, stored: bool) -> Known:
        try:
            key = verifying_key(peer.key_pem)
        except SignatureRefused as refused:
            # It was there, so nobody else remembers that asking for it again leads nowhere.
            self._unusable[key_id] = (time.monotonic() + UNUSABLE_SECONDS, refused.public)
            while len(self._unusable) > KEYS_KEPT:
                self._unusable.popitem(last=False)
            raise SignatureRefused(refused.public, detail=key_id) from None
        fresh = KEY_FRESH_SECONDS if stored else KEY_FRESH_UNSTORED_SECONDS
        known = Known(peer, key, time.monotonic() + fresh, stored)
        self._drop(key_id)
        self._known[key_id] = known
        self._keys_of.setdefault(peer.uri, set()).add(key_id)
        while len(self._known) > KEYS_KEPT:
            self._drop(next(iter(self._known)))
        return known

    def _drop(self, key_id: str) -> None:
        known = self._known.pop(key_id, None)
        if known is None:
            return
        theirs = self._keys_of.get(known.peer.uri, set())
        theirs.discard(key_id)
        if not theirs:
            self._keys_of.pop(known.peer.uri, None)

    def _check_usable(self, key_id: str) -> None:
        ends_at, reason = self._unusable.get(key_id, (0.0, ""))
        if time.monotonic() < ends_at:
            raise SignatureRefused(reason, detail=f"{key_id}: not asked for again for a while")


def as_received(request: Request, body: bytes) -> schemes.Request:
    """A request as its signature sees it: nothing decoded, nothing normalised."""
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    target = raw_path + b"?" + query if query else raw_path
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.scope["headers"]]
    return schemes.Request(request.method, target.decode("latin-1"), headers, body)
