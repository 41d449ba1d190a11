"""Everything that any test makes the product say, judged by every strict reader when the test is over.

`tests/rig.py` puts `requests_to` before each server that a test runs and `answers_of` before the product's own;
`tests/conftest.py` asks for the judgement after each test. So no shape reaches a real server that only its own test
has looked at.

The readers want https and hosts without ports, as the Fediverse has them. The tests run on loopback, so addresses are
translated before anything is read (never before a signature is verified): http://127.0.0.1:4000 becomes
https://s4000.example.

Rule: nothing of `src` is imported here. What the product calls right is not asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx2
from cryptography.exceptions import InvalidSignature
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.peers import akkoma, gotosocial, lemmy, mastodon, misskey, pixelfed, signed, takahe, threads
from tests.peers.captured import Captured

PEERS: list[ModuleType] = [mastodon, gotosocial, misskey, akkoma, takahe, lemmy, pixelfed, threads]
REFUSED = (AssertionError, KeyError, TypeError, ValueError, AttributeError, IndexError, InvalidSignature)
OURS = "threadbridge/"
AP_TYPES = ("application/activity+json", "application/ld+json")
ACTORS = {"Application", "Group", "Organization", "Person", "Service"}
NOTES = {"Note", "Question"}
COLLECTIONS = {"Collection", "OrderedCollection", "CollectionPage", "OrderedCollectionPage"}
STAMPS = {"QuoteAuthorization", "ReplyAuthorization", "LikeAuthorization", "AnnounceAuthorization"}
_LOOPBACK = re.compile(rb"http://127\.0\.0\.1:(\d+)")
_AUTHORITY = re.compile(rb"127\.0\.0\.1(?::|%3A)(\d+)")


@dataclass
class Record:
    """What was said since the last judgement. Filled by the servers' threads."""

    requests: list[tuple[str, Captured]] = field(default_factory=list)
    """(our own User-Agent's) requests, with the authority that they went to."""
    documents: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    """{digest: (target, content type, body)} of answers with 200."""
    lock: threading.Lock = field(default_factory=threading.Lock)


_record = Record()
_judged: set[str] = set()
_keys: dict[str, str] = {}
_asked: list[Callable[[], Mapping[str, str]]] = []


def keys_from(ask: Callable[[], Mapping[str, str]]) -> Callable[[], None]:
    """Name somebody who knows public keys, {keyId: PEM}; returns what to call when he is about to go."""
    _asked.append(ask)

    def leave() -> None:
        _keys.update(ask())
        _asked.remove(ask)

    return leave


# ── listening ────────────────────────────────────────────────────────────────────────────────────────────────────


def requests_to(app: ASGIApp) -> ASGIApp:
    """The same application; what the product sends to it in ActivityPub is kept."""

    async def listened(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(n.decode().lower(), v.decode("latin-1")) for n, v in scope.get("headers", [])]
        said = dict(headers)
        if scope["type"] != "http" or not said.get("user-agent", "").startswith(OURS) or not _of_activitypub(said):
            await app(scope, receive, send)
            return
        chunks: list[bytes] = []
        at = datetime.now(UTC)
        query = scope["query_string"].decode()
        target = scope["raw_path"].decode() + (f"?{query}" if query else "")

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                chunks.append(message.get("body", b""))
                if not message.get("more_body", False):
                    keep()
            return message

        def keep() -> None:
            request = Captured(scope["method"], target, headers, b"".join(chunks), at)
            with _record.lock:
                _record.requests.append((said.get("host", ""), request))

        if scope["method"] == "GET":
            keep()
            await app(scope, receive, send)
        else:
            await app(scope, heard, send)

    return listened


def _of_activitypub(headers: Mapping[str, str]) -> bool:
    return any(kind in headers.get("content-type", "") + headers.get("accept", "") for kind in AP_TYPES)


def answers_of(app: ASGIApp) -> ASGIApp:
    """The same application; the documents that it serves are kept."""

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await app(scope, receive, send)
            return
        kind = ""
        chunks: list[bytes] = []

        async def told(message: Message) -> None:
            nonlocal kind
            if message["type"] == "http.response.start":
                found = dict(message["headers"]).get(b"content-type", b"").decode("latin-1")
                if message["status"] == 200 and "json" in found:
                    kind = found
            elif kind:
                chunks.append(message.get("body", b""))
                if not message.get("more_body", False):
                    query = scope["query_string"].decode()
                    keep(scope["raw_path"].decode() + (f"?{query}" if query else ""), b"".join(chunks))
            await send(message)

        def keep(target: str, body: bytes) -> None:
            digest = hashlib.sha256(f"{target}\n{kind}\n".encode() + body).hexdigest()
            with _record.lock:
                _record.documents[digest] = (target, kind, body)

        await app(scope, receive, told)

    return watched


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────


def forget() -> None:
    """Begin anew: what was said until now is nobody's concern."""
    with _record.lock:
        _record.requests.clear()
        _record.documents.clear()


def judge() -> list[str]:
    """What the readers refuse of what was said since the last time, in words."""
    with _record.lock:
        requests, documents = list(_record.requests), dict(_record.documents)
        _record.requests.clear()
        _record.documents.clear()
    for ask in _asked:
        _keys.update(ask())
    complaints: list[str] = []
    for digest, (target, kind, body) in documents.items():
        if digest not in _judged:
            _judged.add(digest)
            complaints += _of_answer(target, kind, body)
    for authority, request in requests:
        complaints += _of_request(authority, request)
    return complaints


def translated(body: bytes) -> bytes:
    """The same text as if it had been said by servers with https and no ports."""
    return _AUTHORITY.sub(rb"s\1.example", _LOOPBACK.sub(rb"https://s\1.example", body))


def _asking(peers: list[ModuleType], what: str, check: Callable[[ModuleType], object]) -> list[str]:
    complaints = []
    for peer in peers:
        try:
            check(peer)
        except REFUSED as error:
            complaints.append(f"{peer.NAME} refuses {what}: {type(error).__name__} {error}")
    return complaints


def _of_answer(target: str, kind: str, body: bytes) -> list[str]:
    made = translated(body)
    try:
        document = json.loads(made)
    except ValueError as error:
        return [f"{target} is no JSON: {error}"]
    response = httpx2.Response(200, headers={"content-type": kind}, content=made)
    if kind.startswith("application/jrd+json") and "webfinger" in target:
        handle = str(document["subject"]).removeprefix("acct:")
        return _asking(PEERS, target, lambda peer: peer.check_webfinger(response, handle))
    if not kind.startswith(AP_TYPES) and not target.startswith(("/ap/", "/actor")):
        return []
    uri = str(document.get("id"))
    if target.startswith(("/ap/", "/actor")):
        # At the address of an id there is exactly that document.
        parts = urlsplit(uri)
        uri = f"{parts.scheme}://{parts.netloc}{target}"
    return _asking(PEERS, target, lambda peer: _read(peer, response, uri, document))


def _read(peer: ModuleType, response: httpx2.Response, uri: str, document: dict[str, Any]) -> None:
    """One served document in the hands of one reader."""
    kind = document["type"]
    if kind in ACTORS and "inbox" in document:
        peer.check_actor(response, uri)
    elif kind in NOTES or "content" in document:
        peer.check_note(peer.check_fetched(response, uri))
    elif kind in COLLECTIONS:
        peer.check_fetched(response, uri)
        check_collection(document)
        if kind == "OrderedCollection" and uri.endswith(("/followers", "/following")):
            peer.check_counts(document)
        if uri.endswith("/collections/featured"):
            peer.check_featured(document)
    elif kind in STAMPS:
        peer.check_fetched(response, uri)
        if hasattr(peer, "check_stamp") and kind == "QuoteAuthorization":
            peer.check_stamp(document)
    elif "actor" in document:
        peer.check_activity(peer.check_fetched(response, uri))
    else:
        peer.check_fetched(response, uri)


def check_collection(document: dict[str, Any]) -> None:
    """What all readers of collections need: the right word for the items, lists, numbers, pages that say of what."""
    kind = document["type"]
    items = "orderedItems" if kind.startswith("Ordered") else "items"
    assert ({"orderedItems", "items"} - {items}).isdisjoint(document), f"{kind} keeps its items elsewhere"
    assert isinstance(document.get(items, []), list)
    assert isinstance(document.get("totalItems", 0), int)
    assert document.get("totalItems", 0) >= 0
    if kind.endswith("Page"):
        assert isinstance(document[items], list), "a page without its list"
        assert isinstance(document["partOf"], str)
        assert document.get("next") != document["id"], "the pages do not end"
    first = document.get("first")
    if isinstance(first, dict):
        check_collection(first)
        assert first["partOf"] == document["id"]


def _of_request(authority: str, request: Captured) -> list[str]:
    what = f"{request.method} {request.target}"
    complaints = []
    if request.header("signature-input") is not None:
        # Only who does not take the older signature gets this one.
        base = f"http://{authority}"
        complaints += _asking([mastodon], what, lambda _: signed.check_rfc9421(request, base, _key))
    else:
        pem = _key(_key_id(request))
        complaints += _asking(PEERS, what, lambda peer: peer.check_request(request, pem, authority))
    if request.method != "POST":
        return complaints
    digest = hashlib.sha256(request.body).hexdigest()
    if digest in _judged:
        return complaints
    _judged.add(digest)
    if len(request.body) > 64 * 1024:
        complaints.append(f"misskey refuses {what}: {len(request.body)} bytes")
    activity = json.loads(translated(request.body))
    words = f"{activity['type']} {activity['id']}"
    return complaints + _asking(PEERS, words, lambda peer: peer.check_activity(activity))


def _key_id(request: Captured) -> str:
    return (request.header("signature") or "").partition('keyId="')[2].partition('"')[0]


def _key(key_id: str) -> str:
    """The PEM, or "" when nobody knows it (any more): then everything but the arithmetic is judged."""
    return _keys.get(key_id, "")
