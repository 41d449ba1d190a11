"""Documents for other servers: actors, posts and their collections, under their ids; and the same documents under the
human addresses when ActivityPub is asked for there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import ActorCollection, PostCollection
from threadbridge.services import Services
from threadbridge.storage.store import Tx
from threadbridge.web import documents
from threadbridge.web.documents import TombstoneFound
from threadbridge.web.hot import HotDocuments, Ready
from threadbridge.web.responses import ReadyResponse

ACTOR_AGE = 180
COLLECTION_AGE = 180
# Pleroma and Akkoma fetch `featured` again and again; Mastodon caches it this long itself.
FEATURED_AGE = 600
FIGURES_AGE = 0

Build = Callable[..., bytes]


class ActivityPub:
    """Answers with ready documents; `hot` keeps them."""

    def __init__(self, services: Services, hot: HotDocuments) -> None:
        self._store = services.store
        self._ids = services.ids
        self._hot = hot

    async def serve(
        self, request: Request, account_id: int | None, max_age: int, build: Build, *args: Any, **options: Any
    ) -> Response:
        """The document for this request's target, built by `build(tx, ids, …)` when it is not ready."""
        target = request_target(request)

        async def built() -> Ready:
            numbers = frozenset() if account_id is None else frozenset({account_id})
            status = 200
            try:
                body = await self._store.read(self._call, build, args, options)
            except TombstoneFound as found:
                body, status = outgoing.encode(found.document), 410
            return Ready.of(
                body,
                outgoing.ACTIVITY_JSON,
                max_age=max_age,
                status=status,
                account_ids=numbers,
                lives=None if numbers else 60.0,
            )

        return ReadyResponse(await self._hot.get_or_build(target, built))

    def _call(self, tx: Tx, build: Build, args: tuple[Any, ...], options: dict[str, Any]) -> bytes:
        return build(tx, self._ids, *args, **options)


def request_target(request: Request) -> bytes:
    """Path and query as received, which is also the key of the ready document."""
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return raw_path + b"?" + query if query else raw_path


def routes(services: Services, hot: HotDocuments) -> list[Route]:
    """Every route that answers with ActivityPub under an id."""
    ap = ActivityPub(services, hot)

    async def instance(request: Request) -> Response:
        return await ap.serve(request, None, 600, documents.instance_actor)

    async def instance_outbox(request: Request) -> Response:
        return await ap.serve(request, None, 600, _empty_outbox)

    async def actor(request: Request) -> Response:
        number = request.path_params["account"]
        return await ap.serve(request, number, ACTOR_AGE, documents.actor, number)

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
        return await ap.serve(request, number, FIGURES_AGE, documents.note, number, post_id)

    async def create(request: Request) -> Response:
        number, post_id = request.path_params["account"], request.path_params["post"]
        return await ap.serve(request, number, FIGURES_AGE, documents.create, number, post_id)

    def about_post(name: PostCollection) -> Callable[[Request], Any]:
        async def collection(request: Request) -> Response:
            number, post_id = request.path_params["account"], request.path_params["post"]
            page = "page" in request.query_params
            return await ap.serve(
                request, number, FIGURES_AGE, documents.post_collection, number, post_id, name, page=page
            )

        return collection

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
        Route(post_at, post, methods=["GET"]),
        Route(f"{post_at}/activity", create, methods=["GET"]),
        Route(f"{post_at}/replies", about_post("replies"), methods=["GET"]),
        Route(f"{post_at}/likes", about_post("likes"), methods=["GET"]),
        Route(f"{post_at}/shares", about_post("shares"), methods=["GET"]),
    ]


def _empty_outbox(_tx: Tx, ids: Any) -> bytes:
    uri = f"{ids.instance}/outbox"
    return outgoing.encode(outgoing.ordered_collection(uri, 0))


def wants_activity(accept: str) -> bool:
    """Whether an Accept header asks for ActivityPub rather than for a page (Mastodon names both and prefers ours)."""
    for part in accept.lower().split(","):
        kind, _, parameters = part.strip().partition(";")
        refused = any(
            p.strip().replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for p in parameters.split(";")
        )
        if refused:
            continue
        if kind.strip() in ("application/activity+json", "application/ld+json"):
            return True
        if kind.strip() in ("text/html", "application/xhtml+xml", "*/*"):
            return False
    return False


class Negotiated:
    """A page under a human address that answers with the ActivityPub document when that is asked for."""

    def __init__(self, page: ASGIApp, services: Services, hot: HotDocuments) -> None:
        self._page = page
        self._ap = ActivityPub(services, hot)
        self._store = services.store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method in ("GET", "HEAD") and wants_activity(",".join(request.headers.getlist("accept"))):
            response = await self._document(request)
            await response(scope, receive, send)
        else:
            await self._page(scope, receive, send)

    async def _document(self, request: Request) -> Response:
        account = await self._store.read(documents.living_by_handle, request.path_params["handle"])
        post_id = request.path_params.get("post")
        # Not kept under this address: the page is, and one target has one ready answer.
        build: Build = documents.actor if post_id is None else documents.note
        args = (account.id,) if post_id is None else (account.id, post_id)
        try:
            body = await self._store.read(self._ap._call, build, args, {})
        except TombstoneFound as found:
            return ReadyResponse(
                Ready.of(outgoing.encode(found.document), outgoing.ACTIVITY_JSON, max_age=180, status=410)
            )
        return ReadyResponse(Ready.of(body, outgoing.ACTIVITY_JSON, max_age=60))
