"""Documents for other servers: actors, posts and their collections, under their ids; and the same documents under the
human addresses when ActivityPub is asked for there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import ActorCollection, PostCollection
from threadbridge.domain.accounts import AccountState
from threadbridge.services import Services
from threadbridge.storage import accounts
from threadbridge.storage.store import Tx
from threadbridge.web import documents
from threadbridge.web.documents import TombstoneFound
from threadbridge.web.hot import HotDocuments, Ready, vary
from threadbridge.web.responses import EVERYWHERE, ReadyResponse, send_ready
from threadbridge.web.secure import Readers

ACTOR_AGE = 180
COLLECTION_AGE = 180
# Pleroma and Akkoma fetch `featured` again and again; Mastodon caches it this long itself.
FEATURED_AGE = 600
FIGURES_AGE = 0
# As short as Mastodon's own: who takes a quote back expects it to be gone.
STAMP_AGE = 30
PAGE_SECONDS = 5.0

Build = Callable[..., bytes]


class ActivityPub:
    """Answers with ready documents; `hot` keeps them. `readers` decides who may read what belongs to an account."""

    def __init__(self, services: Services, hot: HotDocuments, readers: Readers) -> None:
        self._readers = readers
        self._store = services.store
        self._ids = services.ids
        self._hot = hot
        self._prover = services.prover

    async def serve(
        self, request: Request, account_id: int | None, max_age: int, build: Build, *args: Any, **options: Any
    ) -> Response:
        """The document for this request's target, built by `build(tx, ids, …)` when it is not ready."""
        target = request_target(request)
        signed = self._readers.secure and account_id is not None
        if signed and account_id is not None:
            if build is documents.actor and self._readers.anonymous(request):
                # Kept under names that no request has: no shortcut by target finds them.
                build, target = documents.actor_stub, target + b"\n stub"
            else:
                await self._readers.admit(request, account_id)
                target += b"\n signed"

        async def built() -> Ready:
            numbers = frozenset() if account_id is None else frozenset({account_id})
            status = 200
            try:
                body = await self._store.read(self._call, account_id, build, args, options)
            except TombstoneFound as found:
                body, status = outgoing.encode(found.document), 410
            return Ready.of(
                body,
                outgoing.ACTIVITY_JSON,
                max_age=max_age,
                status=status,
                account_ids=numbers,
                lives=None if numbers else 60.0,
                signed=signed,
            )

        return ReadyResponse(await self._hot.get_or_build(target, built))

    def _call(
        self, tx: Tx, account_id: int | None, build: Build, args: tuple[Any, ...], options: dict[str, Any]
    ) -> bytes:
        return self._prover.proved(tx, account_id, build(tx, self._ids, *args, **options))


def request_target(request: Request) -> bytes:
    """Path and query as received, which is also the key of the ready document."""
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return raw_path + b"?" + query if query else raw_path


def routes(services: Services, hot: HotDocuments, readers: Readers) -> list[Route]:
    """Every route that answers with ActivityPub under an id."""
    ap = ActivityPub(services, hot, readers)

    async def instance(request: Request) -> Response:
        return await ap.serve(request, None, 600, documents.instance_actor)

    async def instance_outbox(request: Request) -> Response:
        return await ap.serve(request, None, 600, _empty_outbox)

    async def actor(request: Request) -> Response:
        number = request.path_params["account"]
        return await page_of(request) or await ap.serve(request, number, ACTOR_AGE, documents.actor, number)

    async def page_of(request: Request) -> Response | None:
        """Where a person with a browser is sent who follows an id; nobody else ever is."""
        accept = ",".join(request.headers.getlist("accept"))
        if "text/html" not in accept or wants_activity(accept):
            return None
        number, post_id = request.path_params["account"], request.path_params.get("post")
        account = await services.store.read(accounts.by_id, number)
        if account is None or account.state is AccountState.GONE:
            return None
        ids = services.ids
        page = ids.profile(account.handle) if post_id is None else ids.page(account.handle, post_id)
        # Kept by no cache: one that overlooks Vary would send servers there, too.
        return RedirectResponse(page, 302, {"Vary": "Accept", "Cache-Control": "no-store"})

    async def outbox(request: Request) -> Response:
        number = request.path_params["account"]
        if "page" not in request.query_params:
            return await ap.serve(request, number, COLLECTION_AGE, documents.outbox, number)
        before = documents.parse_cursor(request.query_params.get("before"))
        after = documents.parse_cursor(request.query_params.get("after"))
        return await ap.serve(request, number, 60, documents.outbox_page, number, before, after)

    def people(name: ActorCollection) -> Callable[[Request], Any]:
        async def collection(request: Request) -> Response:
            number = request.path_params["account"]
            page = "page" in request.query_params
            return await ap.serve(request, number, FIGURES_AGE, documents.people_collection, number, name, page=page)

        return collection

    async def featured(request: Request) -> Response:
        number = request.path_params["account"]
        return await ap.serve(request, number, FEATURED_AGE, documents.featured, number)

    async def tags(request: Request) -> Response:
        number = request.path_params["account"]
        return await ap.serve(request, number, FEATURED_AGE, documents.featured_tags, number)

    async def post(request: Request) -> Response:
        number, post_id = request.path_params["account"], request.path_params["post"]
        return await page_of(request) or await ap.serve(request, number, FIGURES_AGE, documents.note, number, post_id)

    async def create(request: Request) -> Response:
        number, post_id = request.path_params["account"], request.path_params["post"]
        return await ap.serve(request, number, FIGURES_AGE, documents.create, number, post_id)

    def about_post(name: PostCollection) -> Callable[[Request], Any]:
        async def collection(request: Request) -> Response:
            number, post_id = request.path_params["account"], request.path_params["post"]
            page, after = "page" in request.query_params, request.query_params.get("after")
            return await ap.serve(
                request, number, FIGURES_AGE, documents.post_collection, number, post_id, name, page=page, after=after
            )

        return collection

    def stamp(build: Build) -> Callable[[Request], Any]:
        async def authorization(request: Request) -> Response:
            number, stamp_id = request.path_params["account"], request.path_params["stamp"]
            return await ap.serve(request, number, STAMP_AGE, build, number, stamp_id)

        return authorization

    at, post_at = "/ap/users/{account:number}", "/ap/users/{account:number}/posts/{post:number}"
    return [
        Route("/actor", instance, methods=["GET"]),
        Route("/actor/outbox", instance_outbox, methods=["GET"]),
        Route(at, actor, methods=["GET"]),
        Route(f"{at}/outbox", outbox, methods=["GET"]),
        Route(f"{at}/followers", people("followers"), methods=["GET"]),
        Route(f"{at}/following", people("following"), methods=["GET"]),
        Route(f"{at}/collections/featured", featured, methods=["GET"]),
        Route(f"{at}/collections/tags", tags, methods=["GET"]),
        Route(f"{at}/quotes/{{stamp:number}}", stamp(documents.quote_stamp), methods=["GET"]),
        Route(f"{at}/approvals/{{stamp:number}}", stamp(documents.reply_stamp), methods=["GET"]),
        Route(post_at, post, methods=["GET"]),
        Route(f"{post_at}/context", about_post("context"), methods=["GET"]),
        Route(f"{post_at}/activity", create, methods=["GET"]),
        Route(f"{post_at}/replies", about_post("replies"), methods=["GET"]),
        Route(f"{post_at}/likes", about_post("likes"), methods=["GET"]),
        Route(f"{post_at}/shares", about_post("shares"), methods=["GET"]),
    ]


def _empty_outbox(_tx: Tx, ids: Any) -> bytes:
    uri = f"{ids.instance}/outbox"
    return outgoing.encode(outgoing.ordered_collection(uri, 0))


_DOCUMENT_TYPES = frozenset({"application/activity+json", "application/ld+json", "application/json"})
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/*", "*/*"})
_QUALITY = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)")


def wants_activity(accept: str) -> bool:
    """Whether an Accept header asks for ActivityPub rather than for a page. The better quality wins (Mastodon names
    both and wants ours more); between equals ActivityPub, since no browser ever names it."""
    document = page = 0.0
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        given = [match for match in map(_QUALITY.fullmatch, parameters) if match]
        quality = float(given[0][1]) if given else 1.0
        if kind in _DOCUMENT_TYPES:
            document = max(document, quality)
        elif kind in _PAGE_TYPES:
            page = max(page, quality)
    return document > 0 and document >= page


class Negotiated:
    """A page under a human address that answers with the ActivityPub document when that is asked for; for a post,
    with the way to it."""

    def __init__(self, page: ASGIApp, services: Services, hot: HotDocuments, readers: Readers) -> None:
        self._page = page
        self._readers = readers
        self._ap = ActivityPub(services, hot, readers)
        self._hot = hot
        self._ids = services.ids
        self._store = services.store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method in ("GET", "HEAD") and wants_activity(",".join(request.headers.getlist("accept"))):
            response = await self._document(request)
            await response(scope, receive, send)
        elif request.method in ("GET", "HEAD"):
            ready = await self._hot.get_or_build(request_target(request) + b" page", partial(self._built, request))
            await send_ready(ready, scope, send)
        else:
            await self._page(scope, receive, send)

    async def _built(self, request: Request) -> Ready:
        """The page as ready bytes: a link that travels is asked for by every server that it passes, within a minute
        (Mastodon's preview stampede)."""
        account = await self._store.read(documents.living_by_handle, request.path_params["handle"])
        unconditional = [(name, value) for name, value in request.scope["headers"] if name != b"if-none-match"]
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._page({**request.scope, "method": "GET", "headers": unconditional}, request.receive, keep)
        start, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
        headers = [*start["headers"], *EVERYWHERE]
        etag = next((value for name, value in headers if name == b"etag"), b"")
        unchanged = [(name, value) for name, value in headers if name not in (b"content-type", b"content-length")]
        ends_at = time.monotonic() + (PAGE_SECONDS if start["status"] == 200 else 0)
        return Ready(start["status"], body, headers, unchanged, etag, frozenset({account.id}), ends_at)

    async def _document(self, request: Request) -> Response:
        account = await self._store.read(documents.living_by_handle, request.path_params["handle"])
        await self._readers.admit(request, account.id)
        signed = self._readers.secure
        post_id = request.path_params.get("post")
        # Not kept under this address: the page is, and one target has one ready answer.
        try:
            if post_id is not None:
                # Sent on rather than answered here: a post's `url` is at its source, and GoToSocial takes a document
                # only under its id, its `url` or where a redirect ended (search for a pasted page address: 500).
                await self._store.read(documents.note, self._ids, account.id, post_id)
                sent_on = {
                    "Vary": vary(signed),
                    "Cache-Control": f"{'private' if signed else 'public'}, max-age=60",
                    "Access-Control-Allow-Origin": "*",
                }
                return RedirectResponse(self._ids.post(account.id, post_id), 302, sent_on)
            body = await self._store.read(self._ap._call, account.id, documents.actor, (account.id,), {})
        except TombstoneFound as found:
            return ReadyResponse(
                Ready.of(
                    outgoing.encode(found.document), outgoing.ACTIVITY_JSON, max_age=180, status=410, signed=signed
                )
            )
        return ReadyResponse(Ready.of(body, outgoing.ACTIVITY_JSON, max_age=60, signed=signed))
