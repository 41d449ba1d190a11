"""The inbox door: from raw bytes to a `Verified`, and then one transaction.

Rule: nothing is stored or fetched before everything has been refused that can be refused without it. The network part
(the sender's key, the origin of a forwarded object) is over before the transaction begins; 202 is said after the
commit, so that whatever we lose, the sender still has. Nothing that a stranger sends is answered with 5xx.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import Activity, Create, Delete, IncomingNote, Update
from threadbridge.activitypub.text import host_of
from threadbridge.errors import (
    Forbidden,
    Invalid,
    TimedOut,
    TooLarge,
)
from threadbridge.federation import inbox
from threadbridge.federation.heard import Heard, Outcome, PreparedNote, prepare
from threadbridge.federation.react import our_post
from threadbridge.net.peers import peer_of
from threadbridge.services import Services, utc_now
from threadbridge.signatures import schemes
from threadbridge.signatures.schemes import Verified
from threadbridge.storage import peers, replies
from threadbridge.storage.store import Store, Tx
from threadbridge.web import documents
from threadbridge.web.senders import FETCH_SECONDS, Known, Senders

log = structlog.get_logger(__name__)

BODY_MAX = 1_000_000
BODY_SECONDS = 20.0
HOSTS_KEPT = 10_000
HOST_NEWS_SECONDS = 15.0
_CLEAN_INLINE = 4_000
_JSON_TYPES = ("application/activity+json", "application/ld+json", "application/json")


class Inbox:
    """Receives activities for every account of this server."""

    def __init__(self, services: Services) -> None:
        self._store: Store = services.store
        self._ids: Ids = services.ids
        self._peers = services.peers
        self._senders = Senders(services)
        self._hosts: OrderedDict[str, float] = OrderedDict()

    async def personal(self, request: Request) -> Response:
        """POST to an account's own inbox: 404 and 410 when there is no such account (any more)."""
        await self._store.read(documents.living, request.path_params["account"])
        return await self.receive(request)

    async def receive(self, request: Request) -> Response:
        """POST to any inbox. 202 when it was accepted, whether it had an effect or not."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _JSON_TYPES:
            raise Invalid("An inbox takes application/activity+json")
        body = await _read(request)
        activity = incoming.read(document.decode(body))
        if await self._is_farewell_of_a_stranger(activity):
            return Response(status_code=202)
        claim = schemes.read_claim(_as_received(request, body), base_url=self._ids.base, now=utc_now())
        verified, known = await self._senders.verify(claim)
        if verified.actor == activity.actor:
            outcome = await self._own_words(verified, activity, known, body)
        else:
            outcome = await self._forwarded(activity)
        log.debug("heard", kind=inbox.kind_of(activity), actor=activity.actor, outcome=str(outcome))
        return Response(status_code=202)

    # ── who speaks ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _is_farewell_of_a_stranger(self, activity: Activity) -> bool:
        """Every deletion of an account anywhere is sent to everybody; asking for the key of an unknown one would only
        ever find 410 (Mastodon answers 202 in the same way)."""
        if not isinstance(activity, Delete) or activity.object != activity.actor:
            return False
        return not await self._store.read(peers.known, activity.actor)

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _own_words(self, verified: Verified, activity: Activity, known: Known, body: bytes) -> Outcome:
        note: PreparedNote | None = None
        if isinstance(activity, Create | Update):
            if activity.note is not None:
                note = await _prepared(activity.note, body)
            elif activity.object_kind is None and activity.object_id != activity.actor:
                note = await self._at_origin(activity.object_id)
        peer, news = known.peer, not known.stored
        if isinstance(activity, Update) and activity.profile is not None:
            peer, news = peer_of(incoming.read_actor(activity.profile)), True
            self._senders.forget(verified.key_id)
        heard = Heard(self._ids, peer, note, peer_is_news=news, host_is_news=self._is_news(host_of(peer.inbox)))
        outcome = await self._store.transact(inbox.receive, verified, activity, heard)
        known.stored = True
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

    async def _forwarded(self, activity: Activity) -> Outcome:
        """Somebody passes on what another one said (Mastodon forwards answers to the followers of the post). Believed
        only as far as its own origin confirms it, and asked only when it concerns us."""
        if not await self._store.read(_concerns_us, self._ids, activity):
            raise Forbidden("The activity is signed by somebody else")
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                if isinstance(activity, Delete):
                    if not await self._peers.is_gone(activity.object):
                        raise Forbidden("The object is still there")
                    note = None
                else:
                    if not isinstance(activity, Create | Update):
                        raise Forbidden("The activity is signed by somebody else")
                    note = await self._at_origin(activity.object_id)
                peer = await self._peers.actor(activity.actor)
        except TimeoutError:
            raise TimedOut("The origin did not answer in time") from None
        return await self._store.transact(inbox.receive_fetched, activity, Heard(self._ids, peer, note))

    async def _at_origin(self, uri: str) -> PreparedNote | None:
        fetched = await self._peers.object(uri)
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
        return replies.target(tx, activity.object_id) is not None
    return isinstance(activity, Delete) and replies.target(tx, activity.object) is not None


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
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > BODY_MAX:
                    raise TooLarge("The body is too large", detail=f"at most {BODY_MAX} bytes are read")
                chunks.append(chunk)
    except (TimeoutError, ClientDisconnect):
        raise Invalid("The body did not arrive") from None
    return b"".join(chunks)


def _as_received(request: Request, body: bytes) -> schemes.Request:
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    target = raw_path + b"?" + query if query else raw_path
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.scope["headers"]]
    return schemes.Request(request.method, target.decode("latin-1"), headers, body)


def routes(services: Services) -> list[Route]:
    """The personal inboxes, the shared one, and the instance actor's."""
    door = Inbox(services)
    return [
        Route("/ap/inbox", door.receive, methods=["POST"]),
        Route("/actor/inbox", door.receive, methods=["POST"]),
        Route("/ap/users/{account:number}/inbox", door.personal, methods=["POST"]),
    ]
