"""Media from our own address: content-addressed, so each answer may be kept for ever."""

from __future__ import annotations

import asyncio
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub.ids import media_type_of
from threadbridge.errors import NotFound
from threadbridge.services import Services
from threadbridge.web import from_shelf
from threadbridge.web.responses import matches

_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z0-9]{3,4})")


def routes(services: Services) -> list[Route]:
    """`/media/<sha256><extension>`, with Range. The type comes from our own list, never from the file; sandboxed, so
    that a picture that is also something else stays a picture."""
    media = services.media

    async def file(request: Request) -> Response:
        match = _NAME.fullmatch(request.path_params["name"])
        media_type = media_type_of(match[2]) if match else None
        if match is None or media_type is None:
            raise NotFound("There is no such file here")
        headers = {
            "ETag": f'"{match[1]}"',
            "Cache-Control": "public, max-age=31536000, immutable",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        name = media.name(match[1], media_type)
        held = request.headers.get("if-none-match")
        if held is not None and matches(held.encode("latin-1"), headers["ETag"].encode()):
            if await asyncio.to_thread(media.about, match[1], media_type) is None:
                raise NotFound("There is no such file here")
            return Response(status_code=304, headers=headers)
        return await from_shelf.answer(request, media.shelf, name, media_type=media_type, headers=headers)

    return [Route("/media/{name}", file, methods=["GET"])]
