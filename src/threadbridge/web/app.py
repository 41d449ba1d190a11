"""All routes together, what every answer carries, and the only map from errors to HTTP status codes.

From outside in: `Front` looks at the Host header, serves ready documents and catches errors; below it is Starlette's
router. Order of the map below: the first class that fits decides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import structlog
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threadbridge import errors
from threadbridge.errors import ThreadbridgeError
from threadbridge.federation import enforcement
from threadbridge.services import Services
from threadbridge.signatures import demands
from threadbridge.telemetry import metrics, trail
from threadbridge.web import actors, feeds, inbox, mediafiles, owner, pages, probes, status, wellknown
from threadbridge.web.actors import Negotiated
from threadbridge.web.hot import HotDocuments, Ready
from threadbridge.web.render import error_page
from threadbridge.web.responses import EVERYWHERE, json_error, send_ready
from threadbridge.web.secure import Readers
from threadbridge.web.senders import Senders
from threadbridge.web.standing import Watch

log = structlog.get_logger(__name__)

STATUS: tuple[tuple[type[ThreadbridgeError], int], ...] = (
    (errors.TooLarge, 413),
    (errors.Invalid, 400),
    (errors.Gone, 410),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.TooMany, 429),
    (errors.SignatureMalformed, 400),
    (errors.SignatureRefused, 401),
    (errors.SignInNeeded, 401),
    (errors.Forbidden, 403),
    (errors.MediaRefused, 415),
    (errors.OwnTrouble, 503),
    # What could not be confirmed elsewhere is refused, not our failure: nothing a stranger sends is a 5xx.
    (errors.NetworkError, 401),
    (errors.SourceError, 502),
    (errors.Unavailable, 503),
    (errors.BadConfiguration, 503),
)
RETRY_AFTER = "30"


class Number(Convertor[int]):
    """A permanent number in an address: no leading zeros, so that one thing has one address."""

    regex = "[1-9][0-9]{0,17}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", Number())


def status_of(error: ThreadbridgeError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def create_app(services: Services) -> Front:
    """The whole web side as one ASGI application."""
    hot = HotDocuments(services.store)
    senders = Senders(services)
    readers = Readers(services, senders)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await hot.start()
        await services.store.transact(enforcement.restrict_to_allowed, services.config.allow_list)
        yield
        await hot.stop()
        await senders.turned_away.stop()

    watch = Watch(services)
    human = [*feeds.routes(services), *pages.routes(services), *status.routes(services, watch)]
    for route in human:
        if route.path in ("/@{handle}", "/@{handle}/{post:number}"):
            route.app = Negotiated(route.app, services, hot, readers)
    # A bare router: Starlette's application would answer 500 to errors before they reach our map. "No trailing-slash
    # variants": the other spelling is simply not there.
    router = Router(
        routes=[
            *inbox.routes(services, senders),
            *probes.routes(services, watch, shared=True),
            *wellknown.routes(services, hot),
            *actors.routes(services, hot, readers),
            *mediafiles.routes(services),
            *owner.routes(services),
            *human,
        ],
        redirect_slashes=False,
        lifespan=lifespan,
    )
    return Front(router, services.ids.base, hot)


def create_probes(services: Services) -> Front:
    """What a worker without a web side answers: the probes alone."""
    router = Router(routes=[*probes.routes(services, Watch(services), shared=False)], redirect_slashes=False)
    return Front(router, services.ids.base, HotDocuments(services.store))


class Front:
    """The first to see a request and the last to touch an answer."""

    def __init__(self, app: ASGIApp, base_url: str, hot: HotDocuments) -> None:
        self._app = app
        self._hot = hot
        parts = urlsplit(base_url)
        default = 443 if parts.scheme == "https" else 80
        names = {parts.netloc}
        if parts.port is None:
            names.add(f"{parts.netloc}:{default}")
        self._hosts = frozenset(name.encode() for name in names)

    def at_once(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> Ready | None:
        """A ready document for a request without a body, for whoever can write it out without more ado (`server`).
        None whenever there is anything to decide: then the request goes through `__call__`, as all others do."""
        if method not in (b"GET", b"HEAD"):
            return None
        host = None
        for name, value in headers:
            if name == b"host":
                if host is not None:
                    return None
                host = value
            elif name == b"if-none-match" or (name == b"accept" and b"text/html" in value):
                return None
        if host not in self._hosts:
            return None
        ready = self._hot.get(target)
        if ready is not None:
            metrics.ready_document()
        return ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # uvicorn's parsers disagree about missing and doubled Host headers; what is believed about the address is
        # the configuration, and a request for somebody else is not ours to answer.
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        path = scope["path"]
        if path in probes.PATHS:
            pass  # asked by address, from probes that know no name
        elif len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            await json_error(421, "This server does not answer for that host")(scope, receive, send)
            return
        elif "\0" in path or b"%00" in scope["query_string"]:
            # No name, tag or number has it, and PostgreSQL fails on it where SQLite finds nothing.
            await json_error(400, "The address holds a NUL character")(scope, receive, send)
            return
        elif scope["method"] in ("GET", "HEAD"):
            query = scope["query_string"]
            ready = self._hot.get(scope["raw_path"] + b"?" + query if query else scope["raw_path"])
            if ready is not None and not _may_want_page(scope):
                metrics.ready_document()
                await send_ready(ready, scope, send)
                return
        begun, answered = time.perf_counter(), [500]
        # A new id, whatever the request may say of itself: what it causes here is told under it.
        with trail.begin():
            try:
                await self._route(scope, receive, send, answered)
            finally:
                metrics.request(_route_of(scope), answered[0], time.perf_counter() - begun)

    async def _route(self, scope: Scope, receive: Receive, send: Send, answered: list[int]) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answered[0] = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in EVERYWHERE if name not in present),
                ]
            await send(message)

        # With an "app" in scope the router raises what it does not find instead of answering in plain text.
        scope["app"] = self
        try:
            await self._app(scope, receive, watched)
        except ThreadbridgeError as error:
            if started:
                raise
            response = _refusal(scope, status_of(error), error)
            await response(scope, receive, watched)
        except HTTPException as error:
            words = {404: "There is nothing here", 405: "That is not possible here"}.get(
                error.status_code, error.detail
            )
            plain = errors.NotFound(words)
            response = _refusal(scope, error.status_code, plain, dict(error.headers or {}))
            await response(scope, receive, watched)
        except Exception:
            log.exception("a request failed", path=path_for_log(scope))
            if started:
                raise
            response = _refusal(scope, 500, errors.Unavailable("Something went wrong here"))
            await response(scope, receive, watched)


def _may_want_page(scope: Scope) -> bool:
    """Whether a person may have followed an id with a browser: then the route decides, not the ready document."""
    if not scope["path"].startswith("/ap/"):
        return False
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def _route_of(scope: Scope) -> str:
    """The route that a request took, as it is written in the table of routes: never its address."""
    return getattr(scope.get("route"), "path", "none")


def path_for_log(scope: Scope) -> str:
    """The path without its query (links carry signatures), cut."""
    return str(scope["path"])[:200]


def _refusal(scope: Scope, status: int, error: ThreadbridgeError, headers: dict[str, str] | None = None) -> Response:
    """The error as a page for people, as JSON for programs."""
    sent = dict(headers or {})
    if (held := trail.current()) is not None:
        # What somebody can name when they ask the operator about it.
        sent["X-Request-Id"] = held
    if isinstance(error, errors.SignatureRefused):
        sent.update(demands.ours(scope["method"]))
    if status in (429, 503):
        sent["Retry-After"] = RETRY_AFTER
    if status == 503:
        log.warning("unavailable", path=path_for_log(scope), error=str(error))
    detail = error.detail if status < 500 else None
    if wants_page(scope):
        return error_page(status, error.public, detail=detail, hint=error.hint, headers=sent)
    words = error.public if detail is None else f"{error.public}: {detail}"
    words += f". {error.hint}" if error.hint else ""
    return json_error(status, words, sent)


def wants_page(scope: Scope) -> bool:
    """Whether whoever asks is a person with a browser."""
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1").lower()
    machine = scope["path"].startswith(("/ap/", "/actor", "/.well-known/", "/nodeinfo/"))
    return "text/html" in accept and not actors.wants_activity(accept) and not machine
