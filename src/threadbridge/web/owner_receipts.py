"""The owner's rooms about what became of one post, server by server.

    /owner/posts/{post}/receipts        ?show=everything|waiting|problems|delivered ?after=SERVER
                                        ?again=…&left=…&until=…: what was said by `receipts/again`
    /owner/posts/{post}/receipts.json   the same for programs, with `next`
    /owner/posts/{post}/receipts/again  POST: try again what has not arrived; `host`: at one server alone
    /owner/posts/{post}/certificate.json  of a deleted post: who was told, signed
    /certificates/{account}/{code}      of a deleted account, for whoever has the code that its owner was given

Rule: as in `owner`: forms and links alone, nothing changes by a GET, every POST goes through `sessions.allowed`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import again
from threadbridge.errors import Invalid, NotFound
from threadbridge.portability import certificates
from threadbridge.services import Services
from threadbridge.storage import accounts, ledger, posts, views
from threadbridge.storage import receipts as by_server
from threadbridge.storage.receipts import SHOWN, Prospect, Server
from threadbridge.storage.store import Tx
from threadbridge.web import receipts, shown
from threadbridge.web.render import CACHE_NEVER, Renderer, moment
from threadbridge.web.sessions import Session

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]
Answer = Callable[[Request], Awaitable[Response]]

PAGE = 50
_HOST_MAX = 255


def routes(services: Services, page: Callable[[Page], Answer], act: Callable[[Act], Answer]) -> list[Route]:
    """These rooms; `page` and `act` let only the signed-in through."""
    rooms = _Rooms(services)
    return [
        Route("/owner/posts/{post:number}/receipts", page(rooms.receipts), methods=["GET"]),
        Route("/owner/posts/{post:number}/receipts.json", page(rooms.as_json), methods=["GET"]),
        Route("/owner/posts/{post:number}/receipts/again", act(rooms.again), methods=["POST"]),
        Route("/owner/posts/{post:number}/certificate.json", page(rooms.certificate), methods=["GET"]),
        Route("/certificates/{account:number}/{code}", rooms.of_account, methods=["GET"]),
    ]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._vault = services.vault
        self._renderer = Renderer(services.ids)

    async def receipts(self, request: Request, session: Session) -> Response:
        show, after = _place(request)
        number = request.path_params["post"]
        values = await self._store.read(_shown, self._ids, session.account.id, number, show, after)
        return self._renderer.private(
            "owner/receipts.html",
            account=session.account,
            form_token=session.form_token,
            show=show,
            first=not after,
            words=_words,
            asked=_asked(request),
            resting=lambda server: Markup(receipts.rest_words(server, moment)),  # noqa: S704 (our own words)
            **values,
        )

    async def as_json(self, request: Request, session: Session) -> Response:
        show, after = _place(request)
        number = request.path_params["post"]
        found, following = await self._store.read(_servers, session.account.id, number, show, after)
        said = {
            "post": self._ids.post(session.account.id, number),
            "show": show,
            "servers": receipts.documents(found),
            "next": following,
        }
        return Response(orjson.dumps(said), headers={"cache-control": CACHE_NEVER}, media_type="application/json")

    async def again(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        number, host = request.path_params["post"], fields.get("host", "")[:_HOST_MAX] or None
        asked = await self._store.transact(again.ask, session.account.id, number, host, "the owner's page")
        until = f"&until={int(asked.until.timestamp())}" if asked.until is not None else ""
        return f"/owner/posts/{number}/receipts?again={asked.servers}&left={asked.left_alone}{until}"

    async def certificate(self, request: Request, session: Session) -> Response:
        me, number = session.account.id, request.path_params["post"]
        made = await self._store.read(certificates.of_post, self._vault, self._ids, me, number)
        return _certificate(made, f"certificate-{me}-{number}")

    async def of_account(self, request: Request) -> Response:
        number, code = request.path_params["account"], request.path_params["code"]
        made = await self._store.read(certificates.by_code, self._vault, self._ids, number, code)
        return _certificate(made, f"certificate-{number}")


def _certificate(made: bytes, name: str) -> Response:
    headers = {"cache-control": CACHE_NEVER, "content-disposition": f'attachment; filename="{name}.json"'}
    return Response(made, headers=headers, media_type="application/json")


def _place(request: Request) -> tuple[str, str]:
    show = request.query_params.get("show", "everything")
    if show not in SHOWN:
        raise Invalid(f"There is no such list as {show[:40]!r}", hint=f"There are: {', '.join(SHOWN)}.")
    return show, request.query_params.get("after", "")[:_HOST_MAX]


def _asked(request: Request) -> Markup | None:
    """What pressing the button came to, in words, from the address that it led to; None before."""
    given = [request.query_params.get(name, "0") for name in ("again", "left", "until")]
    if "again" not in request.query_params or not all(re.fullmatch("[0-9]{1,10}", one) for one in given):
        return None
    servers, left, until = map(int, given)
    found = Prospect(servers, left, datetime.fromtimestamp(until, UTC) if left else None)
    words = receipts.again_words(found, moment)
    return Markup(words[:1].upper() + words[1:])  # noqa: S704 (our own words, figures and times)


def _words(server: Server) -> list[tuple[str, Markup]]:
    """(mood, what it was and what became of it) of each line about a server."""
    moods = {"delivered": "good", "waiting": "wait", "superseded": "wait"}
    said = []
    for line in server.lines:
        # Times come as <time>; everything else is text of other servers.
        times: list[Markup] = []

        def place(at: datetime, times: list[Markup] = times) -> str:
            times.append(moment(at))
            return f"\0{len(times) - 1}\0"

        words = receipts.line_words(line, server, place)
        kind = receipts.KINDS.get(line.kind, line.kind) or "More than thirty days ago"
        parts = f"{kind}: {words}".split("\0")
        markup = Markup("").join(times[int(part)] if place_ % 2 else part for place_, part in enumerate(parts))
        said.append((moods.get(line.state, "bad"), markup))
    return said


def _servers(tx: Tx, account_id: int, number: int, show: str, after: str) -> tuple[list[Server], str | None]:
    if posts.by_id(tx, account_id, number) is None:
        raise NotFound("There is no such post among yours")
    found = by_server.servers(tx, account_id, number, show=show, after=after, limit=PAGE + 1)
    return found[:PAGE], found[PAGE - 1].host if len(found) > PAGE else None


def _shown(tx: Tx, ids: Ids, account_id: int, number: int, show: str, after: str) -> dict[str, Any]:
    found, following = _servers(tx, account_id, number, show, after)
    post, account = posts.by_id(tx, account_id, number), accounts.by_id(tx, account_id)
    assert post is not None, "looked up above"
    assert account is not None, "whose page this is"
    said = ledger.receipts(tx, [number]).get(number, [])
    return {
        "post": post,
        "title": shown.title(account, post),
        "sentences": receipts.sentences(said),
        "without": receipts.without(silent=post.silent, unfinished=number in views.awaiting_fan_out(tx, [number])),
        "can_try": any(one.state in ("waiting", "refused", "gone", "given_up") for one in said),
        "servers": found,
        "older": quote(following, safe="") if following else None,
    }
