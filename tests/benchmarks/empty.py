"""The wall for what is served through ASGI: an application that answers nothing, under the product's own server."""

from __future__ import annotations

import sys

import uvloop
from starlette.types import Receive, Scope, Send

from threadbridge import server


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for answer in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await receive()
            await send({"type": answer})
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    sock = server.listen("127.0.0.1", int(sys.argv[1]))
    uvloop.run(server.http_server(_nothing).serve(sockets=[sock]))
