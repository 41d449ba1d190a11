"""The owner's rooms for people elsewhere: who follows, who waits to be let in, who mentions the account.

    /owner/followers                    who follows, who waits           ?before=NUMBER
    /owner/followers/approval           POST: let everybody in, or each by hand
    /owner/followers/approve, reject    POST: one who waits
    /owner/followers/remove             POST: one who follows
    /owner/mentions                     what names the account and answers no post of it   ?before=NUMBER

Rule: as for all of the owner's pages (`owner`): nothing changes by a GET, every POST passes `sessions.allowed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.errors import Invalid
from threadbridge.federation import follow
from threadbridge.services import Services
from threadbridge.storage import followers, mentions, outages, requests
from threadbridge.storage.store import Tx
from threadbridge.web import shown
from threadbridge.web.pages import number_from
from threadbridge.web.render import Renderer
from threadbridge.web.sessions import Session

PAGE = 25
HOME = "/owner/followers"

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]


def routes(
    services: Services,
    page: Callable[[Page], Callable[[Request], Awaitable[Response]]],
    act: Callable[[Act], Callable[[Request], Awaitable[Response]]],
) -> list[Route]:
    """These rooms, behind the owner's door (`page` and `act`)."""
    rooms = _Rooms(services)
    return [
        Route(HOME, page(rooms.followers), methods=["GET"]),
        Route(f"{HOME}/approval", act(rooms.approval), methods=["POST"]),
        Route(f"{HOME}/approve", act(rooms.approve), methods=["POST"]),
        Route(f"{HOME}/reject", act(rooms.reject), methods=["POST"]),
        Route(f"{HOME}/remove", act(rooms.remove), methods=["POST"]),
        Route("/owner/mentions", page(rooms.mentions), methods=["GET"]),
    ]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    def _page(self, session: Session, template: str, **values: Any) -> Response:
        account, token = session.account, session.form_token
        return self._renderer.private(f"owner/{template}", 200, account=account, form_token=token, **values)

    async def followers(self, request: Request, session: Session) -> Response:
        before = number_from(request, "before")
        values = await self._store.read(_people, session.account.id, before)
        return self._page(session, "followers.html", first=before is None, **values)

    async def mentions(self, request: Request, session: Session) -> Response:
        before = number_from(request, "before")
        found = await self._store.read(mentions.page, session.account.id, limit=PAGE + 1, before_id=before)
        older = found[PAGE - 1][0] if len(found) > PAGE else None
        rows = [(mention, shown.foreign(mention.html)) for _, mention in found[:PAGE]]
        return self._page(session, "mentions.html", mentions=rows, older=older, first=before is None)

    async def approval(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        chosen = fields.get("by_hand", "")
        if chosen not in ("yes", "no"):
            raise Invalid("This form does not say who may follow", hint="Open the page and send its form.")
        await self._store.transact(follow.choose_approval, self._ids, session.account, chosen == "yes")
        return HOME

    async def approve(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(follow.approve, self._ids, session.account.id, fields.get("person", ""))
        return HOME

    async def reject(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(follow.reject, self._ids, session.account.id, fields.get("person", ""))
        return HOME

    async def remove(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(follow.remove, self._ids, session.account.id, fields.get("person", ""))
        return HOME


def _people(tx: Tx, account_id: int, before: int | None) -> dict[str, Any]:
    found = followers.page(tx, account_id, limit=PAGE + 1, before_id=before)
    waiting = requests.page(tx, account_id, limit=PAGE) if before is None else []
    return {
        "followers": [follower for _, follower in found[:PAGE]],
        "older": found[PAGE - 1][0] if len(found) > PAGE else None,
        "waiting": [request for _, request in waiting],
        "waiting_count": requests.count(tx, account_id),
        "away": outages.waiting_followers(tx, account_id) if before is None else [],
    }
