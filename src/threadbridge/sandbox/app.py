"""The mock network as one ASGI application: the Graph endpoints, the CDN, the controls and the pages.

Rule: nothing is kept outside the Network that is given; two applications in one process share nothing.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.sandbox.controls import Controls
from threadbridge.sandbox.graph import Graph
from threadbridge.sandbox.network import Network
from threadbridge.sandbox.pages import Pages


def create_app(network: Network, base_url: str) -> Starlette:
    """The application. `base_url` is where it can be reached (no trailing slash): media, permalinks and `next` URLs
    begin with it."""
    base = base_url.rstrip("/")
    graph = Graph(network, base)

    async def cdn(request: Request) -> Response:
        """A stored file while its signature lasts; Meta's CDN says 403 afterwards."""
        name, query = request.path_params["name"], request.query_params
        if not network.signature_holds(name, query.get("oe", ""), query.get("oh", "")):
            return Response("URL signature expired", 403, media_type="text/plain")
        file = network.files.get(name)
        if file is None:
            return Response("Not found", 404, media_type="text/plain")
        return Response(file.body, media_type=file.content_type, headers={"x-content-type-options": "nosniff"})

    # The Graph's bare ids come last, since any first path segment could be one.
    routes = [
        Route("/cdn/{name}", cdn, methods=["GET"]),
        *Controls(network, graph).routes(),
        *Pages(network, graph).routes(),
        *graph.routes(),
    ]
    return Starlette(routes=routes)
