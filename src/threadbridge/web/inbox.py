"""The inbox door: from raw bytes to a `Verified`, and then one transaction.

Rule: nothing is stored or fetched before everything has been refused that can be refused without it. The network part
(the sender's key, the origin of a forwarded object) is over before the transaction begins; 202 is said after the
commit, so that whatever we lose, the sender still has. Nothing that a stranger sends is answered with 5xx.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import Activity, Create, Delete, IncomingNote, Update
from threadbridge.activitypub.text import host_of
from threadbridge.errors import (
    Forbidden,
    Invalid,
    NetworkError,
    OwnTrouble,
    SignatureRefused,
    TimedOut,
    TooLarge,
    TooMany,
)
from threadbridge.federation import inbox
from threadbridge.federation.heard import Done, Dropped, Heard, Outcome, PreparedNote, TurnedAway, prepare
from threadbridge.federation.react import our_post
from threadbridge.net.peers import peer_of
from threadbridge.net.restraint import BudgetSpent
from threadbridge.services import Services, utc_now
from threadbridge.signatures import proofs
from threadbridge.signatures.schemes import Verified
from threadbridge.storage import mentions, peers, quotes, relays, replies
from threadbridge.storage.store import Store, Tx
from threadbridge.telemetry import metrics, traces
from threadbridge.web import documents
from threadbridge.web.senders import ASK_THE_OPERATOR, FETCH_SECONDS, Known, Senders

log = structlog.get_logger(__name__)

BODY_MAX = 1_000_000
BODY_SECONDS = 20.0
HOSTS_KEPT = 10_000
HOST_NEWS_SECONDS = 15.0
_CLEAN_INLINE = 4_000
_OUTCOMES = {Done: "done", Dropped: "no_effect", TurnedAway: "turned_away"}
_JSON_TYPES = ("application/activity+json", "application/ld+json", "application/json")


class Inbox:
    """Receives activities for every account of this server."""

    def __init__(self, services: Services, senders: Senders) -> None:
        self._store: Store = services.store
        self._ids: Ids = services.ids
        self._peers = services.peers
        self._senders = senders
        self._hosts: OrderedDict[str, float] = OrderedDict()

    async def personal(self, request: Request) -> Response:
        """POST to an account's own inbox: 404 and 410 when there is no such account (any more)."""
        await self._store.read(documents.living, request.path_params["account"])
        return await self.receive(request)

    async def receive(self, request: Request) -> Response:
        """POST to any inbox. 202 when it was accepted, whether it had an effect or not."""
        with traces.span("inbox"):
            verb, outcome = "unreadable", "refused"
            try:
                body, said, activity = await self._read_from(request)
                verb = inbox.kind_of(activity)
                outcome = await self._hear(request, body, said, activity)
            finally:
                metrics.activity(verb, outcome)
        return Response(status_code=202)

    async def _hear(self, request: Request, body: bytes, said: dict[str, Any], activity: Activity) -> str:
        """Let what was read have its effect; returns what became of it, in one word."""
        if await self._is_farewell_of_a_stranger(activity):
            return "of_a_stranger"
        verified, known, claim = await self._senders.proven(request, body)
        if self._senders.heard(claim):
            return "heard_before"
        if verified.actor == activity.actor:
            outcome = await self._own_words(verified, known, activity=activity, body=body)
        else:
            outcome = await self._brought(verified.actor, said, activity=activity, body=body)
        self._senders.spend(claim)
        if isinstance(outcome, TurnedAway):
            log.info("turned away", door=inbox.kind_of(activity), reason=outcome.reason, actor=activity.actor,
                     activity=activity.id, silently=outcome.silently)  # fmt: skip
            if not outcome.silently:
                raise Forbidden("You are not let in here", detail=outcome.reason, hint=ASK_THE_OPERATOR)
        told = log.info if isinstance(outcome, Done) else log.debug
        told("heard", kind=inbox.kind_of(activity), actor=activity.actor, activity=activity.id, outcome=str(outcome))
        return _OUTCOMES[type(outcome)]

    async def _read_from(self, request: Request) -> tuple[bytes, dict[str, Any], Activity]:
        """What was sent, read. What cannot be read, and what bears no signature, counts against the address that it
        comes from; an address that has done this too often is not listened to without a signature."""
        throttle = self._senders.throttle
        address = throttle.address(request)
        try:
            if "signature" not in request.headers:
                throttle.check_address(address)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in _JSON_TYPES:
                raise Invalid("An inbox takes application/activity+json")
            body = await _read(request)
            said = document.decode(body)
            return body, said, incoming.read(said)
        except TooMany as error:
            self._senders.turned_away.note("address", error.public, address=address)
            raise
        except Invalid:
            throttle.refused(address)
            raise

    # ── who speaks ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _is_farewell_of_a_stranger(self, activity: Activity) -> bool:
        """Every deletion, and every change, of an account anywhere is sent to everybody; asking for the key of one
        that we never met would find 410, or news about nobody (Mastodon answers 202 in the same way)."""
        if isinstance(activity, Delete):
            about = activity.object
        elif isinstance(activity, Update):
            about = activity.object_id
        else:
            return False
        if about != activity.actor:
            return False
        return not await self._store.read(peers.known, activity.actor)

    async def _brought(self, carrier: str, said: dict[str, Any], *, activity: Activity, body: bytes) -> Outcome:
        """What somebody brings of another one. What it costs other servers, and what is refused of it, counts against
        the server of the one who brings it."""
        host = host_of(carrier)
        self._senders.check_carrier(host)
        try:
            # Before anything is fetched for either: who brings it, and who is said to have said it.
            await self._senders.check_admitted(carrier, activity.actor)
            if vouched := await self._vouched(said, activity, host):
                return await self._own_words(*vouched, activity=activity, body=body, carrier=host)
            return await self._forwarded(activity, carrier)
        except BudgetSpent as error:
            reason = "Too much is brought of one server at once"
            self._senders.turned_away.note("carrier", reason, actor=activity.actor)
            raise TooMany(reason, detail=error.public) from None
        except OwnTrouble:
            raise
        except (Forbidden, NetworkError):
            self._senders.throttle.carrier_refused(host)
            raise

    async def _vouched(self, said: dict[str, Any], activity: Activity, carrier: str) -> tuple[Verified, Known] | None:
        """Who said what another one brings, when it has an integrity proof that holds (FEP-8b32); None when it has
        not, or does not concern us. A key is asked for only where the activity could have an effect."""
        try:
            claim = proofs.read_proof(said, now=utc_now())
            if claim is None or not await self._store.read(_may_matter, self._ids, activity):
                return None
            return await self._senders.vouched(claim, carrier)
        except SignatureRefused as refused:
            log.info("an integrity proof was not believed", actor=activity.actor, reason=str(refused))
            return None

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _own_words(
        self, verified: Verified, known: Known, *, activity: Activity, body: bytes, carrier: str | None = None
    ) -> Outcome:
        """What the actor says itself. With the host of a `carrier` somebody else brings it: then its own server has
        not spoken to us."""
        note: PreparedNote | None = None
        if isinstance(activity, Create | Update):
            if activity.note is not None:
                note = await _prepared(activity.note, body)
            elif activity.object_kind is None and activity.object_id != activity.actor:
                await self._senders.check_admitted(activity.object_id)
                note = await self._at_origin(activity.object_id, carrier)
        elif isinstance(activity, incoming.Request) and activity.note is not None:
            note = await _prepared(activity.note, body)
        peer, news = known.peer, not known.stored
        if isinstance(activity, Update) and activity.profile is not None:
            peer, news = peer_of(incoming.read_actor(activity.profile)), True
            self._senders.forget(verified.key_id)
        awake = carrier is None and self._is_news(host_of(peer.shared_inbox or peer.inbox))
        heard = Heard(self._ids, peer, note, peer_is_news=news, host_is_news=awake)
        outcome = await self._store.transact(inbox.receive, verified, activity, heard)
        known.stored = known.stored or isinstance(outcome, Done)
        if isinstance(activity, Delete) and activity.object == activity.actor:
            # If they come back, they are met anew.
            self._senders.forget(verified.key_id)
        return outcome

    def _is_news(self, host: str) -> bool:
        """Whether a host is heard from for the first time in a while (if it sleeps, it has to be woken)."""
        now = time.monotonic()
        if now - self._hosts.get(host, float("-inf")) < HOST_NEWS_SECONDS:
            return False
        self._hosts[host] = now
        while len(self._hosts) > HOSTS_KEPT:
            self._hosts.popitem(last=False)
        return True

    async def _forwarded(self, activity: Activity, carrier: str) -> Outcome:
        """Somebody passes on what another one said (Mastodon forwards answers to the followers of the post). Believed
        only as far as its own origin confirms it, and asked only when it concerns us."""
        if not await self._store.read(_concerns_us, self._ids, activity):
            if await self._store.read(relays.is_accepted, carrier):
                # A relay does what it is for; that it is of no use here is no fault of its.
                return await self._store.transact(inbox.passed_on, activity)
            raise Forbidden("The activity is signed by somebody else")
        if not isinstance(activity, Create | Update | Delete):
            raise Forbidden("The activity is signed by somebody else")
        host, note = host_of(carrier), None
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                if isinstance(activity, Delete):
                    self._senders.spend_carrier(host)
                    if not await self._senders.brought.is_gone(activity.object):
                        raise Forbidden("The object is still there")
                else:
                    note = await self._at_origin(activity.object_id, host)
                peer = await self._senders.brought.actor(activity.actor)
        except TimeoutError:
            raise TimedOut("The origin did not answer in time") from None
        return await self._store.transact(inbox.receive_fetched, activity, Heard(self._ids, peer, note))

    async def _at_origin(self, uri: str, carrier: str | None) -> PreparedNote | None:
        """A post as its own server tells it. Somebody else's is paid for by the host of the `carrier`."""
        if carrier is not None:
            self._senders.spend_carrier(carrier)
        fetched = await (self._peers if carrier is None else self._senders.brought).object(uri)
        try:
            read = incoming.read_note(fetched)
        except Invalid:
            return None
        return await _prepared(read, orjson.dumps(fetched))


def _concerns_us(tx: Tx, ids: Ids, activity: Activity) -> bool:
    if isinstance(activity, Create):
        parent = activity.note.in_reply_to if activity.note else None
        return parent is not None and (
            our_post(tx, ids, parent) is not None or replies.target(tx, parent) is not None
        )
    if isinstance(activity, Update):
        return _held(tx, activity.object_id)
    return isinstance(activity, Delete) and _held(tx, activity.object)


def _held(tx: Tx, uri: str) -> bool:
    return replies.target(tx, uri) is not None or mentions.known(tx, uri) or quotes.by_uri(tx, uri) is not None


def _may_matter(tx: Tx, ids: Ids, activity: Activity) -> bool:
    """Whether an activity names anything of ours, or is by somebody we have met."""
    named = [getattr(activity, part.name) for part in fields(activity)]
    note = getattr(activity, "note", None)
    if note is not None:
        named += [note.in_reply_to, note.quotes, *note.to, *note.cc]
    if any(isinstance(value, str) and ids.is_ours(value) for value in named):
        return True
    return peers.known(tx, activity.actor) or _concerns_us(tx, ids, activity)


async def _prepared(note: IncomingNote, body: bytes) -> PreparedNote:
    original = _object_of(body)
    if len(note.html) < _CLEAN_INLINE:
        return prepare(note, original)
    return await asyncio.to_thread(prepare, note, original)


def _object_of(body: bytes) -> str:
    """The object of an activity (or the object itself) as JSON text."""
    held = orjson.loads(body)
    inner = held.get("object")
    return orjson.dumps(inner if isinstance(inner, dict) else held).decode()


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > BODY_MAX:
        raise TooLarge("The body is too large", detail=f"at most {BODY_MAX} bytes are read")
    chunks: list[bytes] = []
    size = 0
    try:
        # Most bodies have come whole (`server` says so) before anybody looks, and need no timer.
        async with asyncio.timeout(BODY_SECONDS) if not request.scope["state"].get("whole") else nullcontext():
            async for chunk in request.stream():
                size += len(chunk)
                if size > BODY_MAX:
                    raise TooLarge("The body is too large", detail=f"at most {BODY_MAX} bytes are read")
                chunks.append(chunk)
    except (TimeoutError, ClientDisconnect):
        raise Invalid("The body did not arrive") from None
    return b"".join(chunks)


class _Door:
    """An endpoint that is an ASGI application, which spares the layers that Starlette puts around a function: `Front`
    answers errors."""

    def __init__(self, handle: Callable[[Request], Awaitable[Response]]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handle(Request(scope, receive, send))
        await response(scope, receive, send)


def routes(services: Services, senders: Senders) -> list[Route]:
    """The personal inboxes, the shared one, and the instance actor's."""
    door = Inbox(services, senders)
    return [
        Route("/ap/inbox", _Door(door.receive), methods=["POST"]),
        Route("/actor/inbox", _Door(door.receive), methods=["POST"]),
        Route("/ap/users/{account:number}/inbox", _Door(door.personal), methods=["POST"]),
    ]
