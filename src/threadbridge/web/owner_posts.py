"""The owner's rooms about what posts let others do, and how they are said.

    /owner/quotes                       who quotes                       ?show=waiting ?before=NUMBER
    /owner/quotes/{quote}/let           POST; …/refuse, …/revoke: POST
    /owner/rules                        who may answer and quote, how posts are worded; POST
    /owner/posts/{post}/rules           POST the same for one post

Rule: as in `owner`: forms and links alone, nothing changes by a GET, every POST goes through `sessions.allowed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.rules import QUOTE_RULES, REPLY_RULES, Rules
from threadbridge.errors import Invalid, NotFound
from threadbridge.federation import quote
from threadbridge.services import Services
from threadbridge.storage import accounts, posts, quotes, rules, views
from threadbridge.storage.store import Tx
from threadbridge.web import shown
from threadbridge.web.pages import number_from
from threadbridge.web.render import Renderer
from threadbridge.web.sessions import Session

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]
Answer = Callable[[Request], Awaitable[Response]]

_Word = TypeVar("_Word", bound=str)

PAGE = 25
SPOILER_WORDS_MAX = 200


def routes(services: Services, page: Callable[[Page], Answer], act: Callable[[Act], Answer]) -> list[Route]:
    """These rooms; `page` and `act` let only the signed-in through."""
    rooms = _Rooms(services)
    shown_rules, set_rules = page(rooms.rules), act(rooms.set_rules)

    async def either(request: Request) -> Response:
        return await (set_rules if request.method == "POST" else shown_rules)(request)

    return [
        Route("/owner/quotes", page(rooms.quotes), methods=["GET"]),
        Route("/owner/quotes/{quote:number}/let", act(rooms.decided(quote.let)), methods=["POST"]),
        Route("/owner/quotes/{quote:number}/refuse", act(rooms.decided(quote.refuse)), methods=["POST"]),
        Route("/owner/quotes/{quote:number}/revoke", act(rooms.decided(quote.revoke)), methods=["POST"]),
        Route("/owner/rules", either, methods=["GET", "POST"]),
        Route("/owner/posts/{post:number}/rules", act(rooms.set_post_rules), methods=["POST"]),
    ]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    def _page(self, session: Session, template: str, **values: Any) -> Response:
        account, token = session.account, session.form_token
        return self._renderer.private(f"owner/{template}", account=account, form_token=token, **values)

    async def quotes(self, request: Request, session: Session) -> Response:
        before = number_from(request, "before")
        show = "waiting" if request.query_params.get("show") == "waiting" else "everything"
        values = await self._store.read(_quotes, session.account.id, before, show == "waiting")
        return self._page(session, "quotes.html", show=show, first=before is None, **values)

    def decided(self, decide: Callable[[Tx, Ids, int, int], None]) -> Act:
        async def work(request: Request, session: Session, fields: dict[str, str]) -> str:
            number = request.path_params["quote"]
            await self._store.transact(decide, self._ids, session.account.id, number)
            return "/owner/quotes"

        return work

    async def rules(self, request: Request, session: Session) -> Response:
        chosen = await self._store.read(rules.of_account, session.account.id)
        return self._page(
            session, "rules.html", rules=chosen, reply_rules=REPLY_RULES, quote_rules=QUOTE_RULES,
            words_max=SPOILER_WORDS_MAX,
        )  # fmt: skip

    async def set_rules(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        words = " ".join(fields.get("spoiler_words", "").split())
        if len(words) > SPOILER_WORDS_MAX:
            raise Invalid(f"The words for spoilers have at most {SPOILER_WORDS_MAX} characters")
        chosen = Rules(
            replies=_one_of(REPLY_RULES, fields.get("replies"), "who may answer"),
            quotes=_one_of(QUOTE_RULES, fields.get("quotes"), "who may quote"),
            spoiler_words=words,
            link_cards=fields.get("link_cards") == "1",
            own_pages=fields.get("own_pages") == "1",
        )
        await self._store.transact(rules.choose, session.account.id, chosen)
        return "/owner/rules"

    async def set_post_rules(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        number = request.path_params["post"]
        await self._store.transact(_set_post_rules, self._ids, session.account.id, number, fields)
        return f"/owner/posts/{number}"


def _one_of(words: Mapping[_Word, str], given: str | None, what: str) -> _Word:
    found = next((word for word in words if word == given), None)
    if found is None:
        raise Invalid(f"There is no such choice for {what}", hint=f"There are: {', '.join(words)}.")
    return found


def _quotes(tx: Tx, account_id: int, before: int | None, waiting_only: bool) -> dict[str, Any]:
    found = quotes.page(tx, account_id, limit=PAGE + 1, before_id=before, waiting_only=waiting_only)
    page = found[:PAGE]
    about = views.by_ids(tx, {item.post_id for item in page})
    return {
        "quotes": [(item, shown.foreign(item.html)) for item in page],
        "titles": {number: shown.title(account, post) for number, (post, account) in about.items()},
        "older": page[-1].id if len(found) > PAGE else None,
    }


def _set_post_rules(tx: Tx, ids: Ids, account_id: int, number: int, fields: dict[str, str]) -> None:
    post = posts.by_id(tx, account_id, number)
    if post is None or post.deleted_at is not None:
        raise NotFound("There is no such post among yours")
    replies = fields.get("replies") or None
    quoting = fields.get("quotes") or None
    changed = rules.choose_for_post(
        tx,
        account_id,
        number,
        _one_of(REPLY_RULES, replies, "who may answer") if replies else None,
        _one_of(QUOTE_RULES, quoting, "who may quote") if quoting else None,
    )
    account = accounts.by_id(tx, account_id)
    if changed and account is not None and account.state is AccountState.ACTIVE:
        outbox.refresh(tx, ids, account, number)
