"""The wall for everything that is served: a Starlette route that does nothing, under the product's own server."""

from __future__ import annotations

import sys

import uvloop
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from threadbridge import server


async def _nothing(_: object) -> PlainTextResponse:
    return PlainTextResponse("")


if __name__ == "__main__":
    sock = server.listen("127.0.0.1", int(sys.argv[1]))
    uvloop.run(server.http_server(Starlette(routes=[Route("/", _nothing)])).serve(sockets=[sock]))
