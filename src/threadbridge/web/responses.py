"""Responses that know ETag and HEAD, and errors as JSON."""

from __future__ import annotations

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from threadbridge.web.hot import Ready

EVERYWHERE = (
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; form-action 'self'; "
        b"frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
)
"""What every answer carries unless it says otherwise itself."""


class ReadyResponse(Response):
    """A ready document, answered with 304 when the visitor has it, and without a body to HEAD."""

    def __init__(self, ready: Ready) -> None:
        super().__init__(status_code=ready.status)
        self.ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_ready(self.ready, scope, send)


async def send_ready(ready: Ready, scope: Scope, send: Send) -> None:
    """Send a ready document as the request's method and If-None-Match ask for."""
    held = None
    for name, value in scope["headers"]:
        if name == b"if-none-match":
            held = value
            break
    if held is not None and ready.status == 200 and matches(held, ready.etag):
        await send({"type": "http.response.start", "status": 304, "headers": ready.headers_unchanged})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": ready.status, "headers": ready.headers})
    body = b"" if scope["method"] == "HEAD" else ready.body
    await send({"type": "http.response.body", "body": body})


def matches(held: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match header names this ETag (weak comparison, RFC 9110)."""
    if held.strip() == b"*":
        return True
    return any(part.strip().removeprefix(b"W/") == etag for part in held.split(b","))


def json_error(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    """`{"error": words}`, as Mastodon writes it; never cached by anybody."""
    return Response(
        orjson.dumps({"error": words}),
        status,
        {"Cache-Control": "no-store", "Access-Control-Allow-Origin": "*", **(headers or {})},
        "application/json",
    )
