"""A file from a shelf as an answer: from this machine's disk, or carried through from an S3-compatible store.

Rule: whoever asks sees no difference: the same address, headers, ETag and ranges. Nobody is redirected to the store:
an address that is published once must lead to the file for ever, the store stays private, and its answers could not
carry the headers that keep a picture a picture.
"""

from __future__ import annotations

import asyncio
import re

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from threadbridge.errors import NotFound
from threadbridge.media.shelves import Shelf

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


async def answer(
    request: Request,
    shelf: Shelf,
    name: str,
    *,
    media_type: str,
    headers: dict[str, str],
    filename: str | None = None,
) -> Response:
    """The file, or the one range that is asked for (RFC 9110, 14.2; more than one gets the whole). `headers` has the
    ETag. Raises NotFound, Unavailable."""
    path = shelf.path(name)
    if path is not None:
        if not await asyncio.to_thread(path.is_file):
            raise NotFound("There is no such file here")
        return FileResponse(path, headers=headers, media_type=media_type, filename=filename)
    held = await asyncio.to_thread(shelf.about, name)
    if held is None:
        raise NotFound("There is no such file here")
    given = {**headers, "accept-ranges": "bytes"}
    if filename is not None:
        given["content-disposition"] = f'attachment; filename="{filename}"'
    asked = _asked(request, held.size, headers.get("ETag") or headers.get("etag") or "")
    if asked is None:
        start, stop, status = 0, held.size, 200
    else:
        start, stop = asked
        if start >= held.size or start >= stop:
            return Response(status_code=416, headers={**given, "content-range": f"bytes */{held.size}"})
        status = 206
        given["content-range"] = f"bytes {start}-{stop - 1}/{held.size}"
    given["content-length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=given, media_type=media_type)
    return StreamingResponse(shelf.stream(name, start, stop), status, given, media_type)


def _asked(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """(start, stop) of the range that is asked for; None for the whole."""
    ranges = request.headers.getlist("range")
    match = _RANGE.fullmatch(ranges[0].strip()) if len(ranges) == 1 else None
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return max(0, size - int(suffix)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size
