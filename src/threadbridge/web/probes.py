"""What machines ask about this process.

    /livez      the process answers; touches nothing else
    /readyz     200, or 503 with every reason in words: the database, its form, free space, the backlog
                ?backlog=no leaves the backlog out: whoever takes requests can do so with a worker that is late
    /metrics    figures for Prometheus, for those whom `THREADBRIDGE_METRICS` lets in
                ?collect=process or ?collect=shared (read from the database) for one half of them

Rule: probes come by address and know no name, so no Host header is asked for; what they are told names no host and
nobody. A worker without a web side answers the same three (`THREADBRIDGE_PROBE_PORT`).
"""

from __future__ import annotations

import hmac
import ipaddress

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from threadbridge import __version__
from threadbridge.config import Config
from threadbridge.errors import Forbidden, Invalid, NotFound, ThreadbridgeError
from threadbridge.services import Services
from threadbridge.telemetry import metrics
from threadbridge.web.standing import Watch

log = structlog.get_logger(__name__)

PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_HALVES = ("process", "shared")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_NEVER = {"Cache-Control": "no-store"}


def routes(services: Services, watch: Watch, *, shared: bool) -> list[Route]:
    """The probes of one process. `shared`: whether /metrics tells what all processes share without being asked."""
    metrics.is_version(__version__)
    probes = _Probes(services.config, watch, _HALVES if shared else _HALVES[:1])
    return [
        Route("/livez", probes.live, methods=["GET"]),
        Route("/readyz", probes.ready, methods=["GET"]),
        Route("/metrics", probes.metrics, methods=["GET"]),
    ]


class _Probes:
    def __init__(self, config: Config, watch: Watch, halves: tuple[str, ...]) -> None:
        self._config = config
        self._watch = watch
        self._halves = halves
        self._said: list[str] = []

    async def live(self, _: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_NEVER)

    async def ready(self, request: Request) -> Response:
        try:
            reasons = await self._watch.why_not_ready(backlog=request.query_params.get("backlog") != "no")
        except ThreadbridgeError as error:
            reasons = [f"the database cannot be asked: {error.public}"]
        if reasons != self._said:
            # Probes come every few seconds: a line when something changes.
            self._said = reasons
            log.warning("not ready", reasons=reasons) if reasons else log.info("ready again")
        if not reasons:
            brake = "the brake is on (THREADBRIDGE_QUIET): nothing leaves\n" if self._config.quiet else ""
            return PlainTextResponse(f"ok\n{brake}", headers=_NEVER)
        words = "".join(f"{reason}\n" for reason in reasons)
        return PlainTextResponse(f"not ready\n{words}", 503, {**_NEVER, "Retry-After": "10"})

    async def metrics(self, request: Request) -> Response:
        check_reader(self._config, request)
        wanted = request.query_params.getlist("collect") or self._halves
        if unknown := set(wanted) - set(_HALVES):
            raise Invalid("?collect= is process or shared", detail=f"not {sorted(unknown)[0][:50]}")
        body = b""
        if "process" in wanted:
            body += metrics.own()
        if "shared" in wanted:
            try:
                body += metrics.shared(await self._watch.shared())
            except ThreadbridgeError as error:
                # The figures of this process are wanted most when the database is away.
                log.warning("the shared figures could not be read", error=str(error))
                if "process" not in wanted:
                    raise
        return Response(body, headers=_NEVER, media_type=metrics.CONTENT_TYPE)


def check_reader(config: Config, request: Request) -> None:
    """Raises NotFound, or Forbidden, unless whoever asks may read the figures."""
    if config.metrics == "open":
        return
    if config.metrics == "token":
        assert config.metrics_token is not None, "the configuration was checked"
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if hmac.compare_digest(given.encode(), config.metrics_token.get_secret_value().encode()):
            return
        raise Forbidden("The figures are told to whoever has the token", hint="Send it: Authorization: Bearer …")
    if config.metrics == "loopback" and _asked_here(request):
        return
    raise NotFound("There is nothing here")


def _asked_here(request: Request) -> bool:
    """Whether somebody on this very machine asks, and not a proxy on it in the name of somebody else: by a loopback
    address in Host (a proxy passes the public name on, and a page that had its name point to 127.0.0.1 has its own),
    and with nothing that says it was forwarded."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    hosts = request.headers.getlist("host")
    named = hosts[0].rpartition(":")[0] if len(hosts) == 1 and ":" in hosts[0] else "".join(hosts[:1])
    return _is_loopback(request.client.host if request.client else "") and (
        named == "localhost" or _is_loopback(named.strip("[]"))
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
