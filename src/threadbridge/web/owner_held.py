"""The owner's room of posts that have not left yet.

    /owner/held                  what is held, with the time left; POST: for how many minutes new posts are held
    /owner/held/{held}/send      POST: now, and before it what it continues
    /owner/held/{held}/cancel    POST: not at all

Rule: as in `owner`: forms and links alone, nothing changes by a GET, every POST goes through `sessions.allowed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub.ids import Ids
from threadbridge.bridge import holding
from threadbridge.errors import Invalid
from threadbridge.services import Services
from threadbridge.storage import held, posts
from threadbridge.storage.store import Tx
from threadbridge.web.render import Renderer
from threadbridge.web.sessions import Session

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]
Answer = Callable[[Request], Awaitable[Response]]

_WHO = "the owner's page"


def routes(services: Services, page: Callable[[Page], Answer], act: Callable[[Act], Answer]) -> list[Route]:
    """This room; `page` and `act` let only the signed-in through."""
    rooms = _Rooms(services)
    shown, chosen = page(rooms.held), act(rooms.choose)

    async def either(request: Request) -> Response:
        return await (chosen if request.method == "POST" else shown)(request)

    return [
        Route("/owner/held", either, methods=["GET", "POST"]),
        Route("/owner/held/{held:number}/send", act(rooms.done(holding.send_now)), methods=["POST"]),
        Route("/owner/held/{held:number}/cancel", act(rooms.done(holding.cancel)), methods=["POST"]),
    ]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    async def held(self, request: Request, session: Session) -> Response:
        values = await self._store.read(_held, self._ids, session.account.id)
        return self._renderer.private(
            "owner/held.html",
            account=session.account,
            form_token=session.form_token,
            saved=request.query_params.get("saved") == "1",
            **values,
        )

    async def choose(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        given = fields.get("minutes", "")
        if not (given.isascii() and given.isdigit() and len(given) < 3):
            raise Invalid(f"{given[:20]!r} is no number of minutes", hint=f"Choose 0 to {held.MINUTES[-1]}.")
        await self._store.transact(holding.choose, session.account.id, int(given), _WHO)
        return "/owner/held?saved=1"

    def done(self, work: Callable[[Tx, int, int, str], None]) -> Act:
        async def acted(request: Request, session: Session, fields: dict[str, str]) -> str:
            await self._store.transact(work, session.account.id, request.path_params["held"], _WHO)
            return "/owner/held"

        return acted


def _held(tx: Tx, ids: Ids, account_id: int) -> dict[str, Any]:
    """What the page shows; `left` are minutes, rounded up."""
    found = held.listed(tx, account_id)
    rows: list[dict[str, Any]] = []
    for one in found:
        files = [posts.media_row(tx, item.sha256) for item in one.attachments if item.sha256]
        pictures = [ids.media(row.sha256, row.media_type) for row in files if row and row.media_type[:6] == "image/"]
        left = max(0, -int((tx.now - one.due_at).total_seconds() // 60))
        young = one.post.published > tx.now - holding.AFTER_ALL
        reason = (one.reason or "").replace(_WHO, "you", 1)
        rows.append(
            {"held": one, "left": left, "files": len(files), "pictures": pictures, "young": young, "reason": reason}
        )
    return {
        "waiting": [row for row in rows if row["held"].state == "held"],
        "unshared": [row for row in rows if row["held"].state == "unshared"],
        "minutes": held.minutes(tx, account_id),
        "choices": held.MINUTES,
    }
