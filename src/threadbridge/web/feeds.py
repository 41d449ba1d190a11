"""Feeds of a profile: Atom (RFC 4287) and JSON Feed 1.1, from the posts that the pages show.

    /@{handle}/feed.atom   ?before=CURSOR
    /@{handle}/feed.json   ?before=CURSOR

Rule: an entry's id is the post's permanent id and never its address. Figures stay out, so that a like changes no
ETag and no reader sees an old post as new.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.services import Services
from threadbridge.web import pages
from threadbridge.web.render import CACHE_FEED, Renderer, answer, iso
from threadbridge.web.shown import ShownPost

ATOM = "application/atom+xml; charset=utf-8"
JSON_FEED = "application/feed+json; charset=utf-8"

# Characters that XML 1.0 cannot hold in any form, not even as references (section 2.2).
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def routes(services: Services) -> list[Route]:
    """The feeds of one server; they stand before the pages, whose post route would take them for numbers."""
    feeds = _Feeds(services)
    return [
        Route("/@{handle}/feed.atom", feeds.atom, methods=["GET"]),
        Route("/@{handle}/feed.json", feeds.json, methods=["GET"]),
    ]


class _Feeds:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    async def atom(self, request: Request) -> Response:
        page = await self._page(request)
        account = page.account
        here = f"{self._ids.profile(account.handle)}/feed.atom"
        newest = max((item.post.updated or item.post.published for item in page.posts), default=account.created_at)
        xml = self._renderer.text(
            "feed.atom",
            page=page,
            account=account,
            here=here,
            updated=newest,
            contents=[self._content(item) for item in page.posts],
        )
        return answer(request, _NOT_XML.sub("", xml).encode(), ATOM, cache=CACHE_FEED)

    async def json(self, request: Request) -> Response:
        page = await self._page(request)
        account, ids = page.account, self._ids
        here = f"{ids.profile(account.handle)}/feed.json"
        author: dict[str, Any] = {"name": account.name or account.handle, "url": ids.profile(account.handle)}
        document: dict[str, Any] = {
            "version": "https://jsonfeed.org/version/1.1",
            "title": account.name or account.handle,
            "home_page_url": ids.profile(account.handle),
            "feed_url": here,
            "description": account.bio,
            "authors": [author],
        }
        if account.avatar and account.avatar_type:
            document["icon"] = author["avatar"] = ids.media(account.avatar, account.avatar_type)
        if page.older:
            document["next_url"] = f"{here}?before={page.older}"
        document["items"] = [self._item(item) for item in page.posts]
        return answer(request, orjson.dumps(document), JSON_FEED, cache=CACHE_FEED)

    async def _page(self, request: Request) -> pages.Profile:
        before = pages.cursor_from(request)
        return await self._store.read(pages.profile_page, self._ids, request.path_params["handle"], before)

    def _content(self, item: ShownPost) -> str:
        return self._renderer.text("feed_content.html", item=item)

    def _item(self, item: ShownPost) -> dict[str, Any]:
        post = item.post
        entry: dict[str, Any] = {"id": item.uri, "url": item.url}
        if post.original_url:
            entry["external_url"] = post.original_url
        entry |= {"content_html": self._content(item), "date_published": iso(post.published)}
        if post.updated:
            entry["date_modified"] = iso(post.updated)
        if post.language:
            entry["language"] = post.language
        if item.preview:
            entry["image"] = item.preview.url
        if item.media:
            entry["attachments"] = [
                {
                    "url": medium.url,
                    "mime_type": medium.media_type,
                    **({"title": medium.alt} if medium.alt else {}),
                    **({"size_in_bytes": medium.size} if medium.size else {}),
                    **({"duration_in_seconds": round(medium.duration)} if medium.duration else {}),
                }
                for medium in item.media
            ]
        return entry
