"""Being found: WebFinger, host-meta, NodeInfo, robots.txt."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge import __version__
from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.errors import Invalid, NotFound
from threadbridge.services import Services
from threadbridge.storage import accounts, profiles
from threadbridge.storage.store import Tx
from threadbridge.web import documents
from threadbridge.web.actors import request_target
from threadbridge.web.hot import HotDocuments, Ready
from threadbridge.web.responses import ReadyResponse

WEBFINGER_AGE = 3600
NODEINFO_AGE = 1800

FAVICON_AGE = 86_400

# Two banks and what leads from one to the other. Browsers tell a picture by its type, not by the name asked for.
_FAVICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    b'<rect width="16" height="16" rx="3" fill="#4338ca"/>'
    b'<path d="M2 11.5h12M4 11.5v-2a4 4 0 0 1 8 0v2" fill="none" stroke="#fff" stroke-width="1.6"/></svg>'
)

_ROBOTS = b"""\
User-agent: *
Disallow: /owner
"""


def routes(services: Services, hot: HotDocuments) -> list[Route]:
    """The well-known documents. WebFinger answers JRD whatever the Accept header says: Akkoma asks for XRD first and
    takes JRD, and a 406 makes an account unfindable there."""
    store, ids = services.store, services.ids

    async def webfinger(request: Request) -> Response:
        resource = request.query_params.get("resource", "")

        async def build() -> Ready:
            body, account_id = await store.read(find, ids, resource)
            numbers = frozenset() if account_id is None else frozenset({account_id})
            return Ready.of(body, outgoing.JRD_JSON, max_age=WEBFINGER_AGE, account_ids=numbers)

        return ReadyResponse(await hot.get_or_build(request_target(request), build))

    def fixed(body: bytes, content_type: str, max_age: int) -> Response:
        return ReadyResponse(Ready.of(body, content_type, max_age=max_age))

    async def host_meta(request: Request) -> Response:
        if "json" in request.headers.get("accept", "") and "xml" not in request.headers.get("accept", ""):
            return fixed(outgoing.encode(outgoing.host_meta(ids)), "application/json", WEBFINGER_AGE)
        return fixed(outgoing.host_meta_xml(ids), "application/xrd+xml; charset=utf-8", WEBFINGER_AGE)

    async def host_meta_json(_: Request) -> Response:
        return fixed(outgoing.encode(outgoing.host_meta(ids)), "application/json", WEBFINGER_AGE)

    async def nodeinfo_links(_: Request) -> Response:
        return fixed(outgoing.encode(outgoing.nodeinfo_links(ids)), "application/json", NODEINFO_AGE)

    async def nodeinfo(request: Request) -> Response:
        version = request.path_params["version"]
        if version not in ("2.0", "2.1"):
            raise NotFound("There is no such NodeInfo version")

        async def build() -> Ready:
            users, posts = await store.read(accounts.totals)
            document = outgoing.nodeinfo(
                version, software_version=__version__, users=users, posts=posts, name=ids.authority
            )
            kind = (
                f'application/json; profile="http://nodeinfo.diaspora.software/ns/schema/{version}#"; charset=utf-8'
            )
            return Ready.of(outgoing.encode(document), kind, max_age=NODEINFO_AGE, lives=60.0)

        return ReadyResponse(await hot.get_or_build(request_target(request), build))

    async def robots(_: Request) -> Response:
        return fixed(_ROBOTS, "text/plain; charset=utf-8", WEBFINGER_AGE)

    async def favicon(_: Request) -> Response:
        return fixed(_FAVICON, "image/svg+xml", FAVICON_AGE)

    return [
        Route("/.well-known/webfinger", webfinger, methods=["GET"]),
        Route("/.well-known/host-meta", host_meta, methods=["GET"]),
        Route("/.well-known/host-meta.json", host_meta_json, methods=["GET"]),
        Route("/.well-known/nodeinfo", nodeinfo_links, methods=["GET"]),
        Route("/nodeinfo/{version}", nodeinfo, methods=["GET"]),
        Route("/robots.txt", robots, methods=["GET"]),
        Route("/favicon.ico", favicon, methods=["GET"]),
    ]


def find(tx: Tx, ids: Ids, resource: str) -> tuple[bytes, int | None]:
    """The JRD for a resource, and whose it is (None: the server's own). Raises Invalid, NotFound, Gone."""
    wanted = resource.strip()
    if not wanted:
        raise Invalid("WebFinger needs ?resource=acct:name@host or an address of ours")
    # Scheme and host mean the same in any case (RFC 3986, 6.2.2.1); what follows does not.
    scheme, colon, rest = wanted.partition(":")
    wanted = scheme.lower() + colon + rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        wanted = f"{scheme.lower()}://{host.lower()}{slash}{path}"
    if wanted in (ids.base, f"{ids.base}/", ids.instance):
        return outgoing.encode(outgoing.instance_webfinger(ids)), None
    if wanted.startswith(("https://", "http://")):
        number = ids.account_id(wanted)
        handle = ids.profile_handle(wanted)
        if number is not None:
            account = documents.living(tx, number)
        elif handle is not None:
            account = documents.living_by_handle(tx, unquote(handle))
        else:
            raise NotFound("There is no such account here")
        return outgoing.encode(outgoing.webfinger(ids, account)), account.id
    name, at, host = wanted.removeprefix("acct:").removeprefix("@").rpartition("@")
    if not at or not name or not host or (":" in wanted and not wanted.startswith("acct:") and "://" in wanted):
        raise Invalid("WebFinger needs ?resource=acct:name@host or an address of ours")
    if host.lower() != ids.authority:
        elsewhere = profiles.domain_asked(tx, name, host)
        if elsewhere is None:
            raise NotFound("That account is not on this server")
        account = documents.living(tx, elsewhere.id)
        return outgoing.encode(outgoing.webfinger(ids, account, asked_domain=host.lower())), account.id
    if name.lower() == ids.authority:
        return outgoing.encode(outgoing.instance_webfinger(ids)), None
    account = documents.living_by_handle(tx, name)
    return outgoing.encode(outgoing.webfinger(ids, account)), account.id
