"""The owner's door: sign in by a one-time link, see what happened, pause, resume, pin, take everything away.

    /owner/sign-in?token=…              GET shows a button, POST uses the link up
    /owner/sign-out                     POST
    /owner                              the account at a glance
    /owner/pause, /owner/resume         POST
    /owner/posts                        posts with their receipts        ?before=CURSOR
    /owner/posts/{post}                 one post                         …/pin, …/unpin: POST
    /owner/posts/{post}/receipts        server by server, see `owner_receipts`
    /owner/held                         new posts that have not left, see `owner_held`
    /owner/deliveries                   what was said, or what is stuck  ?show=problems ?before=NUMBER
    /owner/followers, /owner/mentions   see `audience`
    /owner/replies                                                       ?before=NUMBER
    /owner/heard                        likes and boosts                 ?show=likes|boosts ?before=NUMBER
    /owner/profile, /owner/domain, /owner/delete   see `owner_profile`
    /owner/blocks, /owner/decisions            see `owner_blocks`
    /owner/quotes, /owner/rules         see `owner_posts`
    /owner/export                       archives; POST asks for one
    /owner/export/{export}              how far it is, and its link
    /owner/export/{export}/{name}.zip   the archive, by its signed link

Rule: everything works with forms and links alone. No answer is kept by anybody, nothing changes by a GET, and every
POST goes through `sessions.allowed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from threadbridge.bridge import pause
from threadbridge.domain.posts import Post
from threadbridge.domain.rules import QUOTE_RULES, REPLY_RULES, Rules
from threadbridge.errors import Conflict, Invalid, NotFound
from threadbridge.portability import exports
from threadbridge.services import Services
from threadbridge.storage import (
    accounts,
    connections,
    farewells,
    ledger,
    outages,
    posts,
    quotes,
    reactions,
    replies,
    rules,
    views,
)
from threadbridge.storage import exports as archives
from threadbridge.storage.exports import Export
from threadbridge.storage.posts import Cursor
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import token_hash
from threadbridge.web import (
    audience,
    owner_blocks,
    owner_held,
    owner_posts,
    owner_profile,
    owner_receipts,
    receipts,
    sessions,
    shown,
)
from threadbridge.web.documents import format_cursor
from threadbridge.web.downloads import Downloads
from threadbridge.web.pages import cursor_from, number_from
from threadbridge.web.receipts import Sentence
from threadbridge.web.render import CACHE_NEVER, Renderer
from threadbridge.web.sessions import Session

PAGE = 25
GLANCE = 5
# As many as Mastodon lets its own people pin.
PINS = 5

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]


def routes(services: Services) -> list[Route]:
    """The owner's pages of one server."""
    door = _Door(services)
    rooms = _Rooms(services)
    downloads = Downloads(services.store, services.vault, services.ids, services.archives)
    takeaway = _Takeaway(services, downloads)
    page, act = door.page, door.act
    return [
        Route("/owner/sign-in", door.sign_in, methods=["GET", "POST"]),
        Route("/owner/sign-out", door.sign_out, methods=["POST"]),
        Route("/owner", page(rooms.overview), methods=["GET"]),
        Route("/owner/pause", act(rooms.pause), methods=["POST"]),
        Route("/owner/resume", act(rooms.resume), methods=["POST"]),
        Route("/owner/posts", page(rooms.posts), methods=["GET"]),
        Route("/owner/posts/{post:number}", page(rooms.post), methods=["GET"]),
        Route("/owner/posts/{post:number}/pin", act(rooms.pin), methods=["POST"]),
        Route("/owner/posts/{post:number}/unpin", act(rooms.unpin), methods=["POST"]),
        Route("/owner/deliveries", page(rooms.deliveries), methods=["GET"]),
        *audience.routes(services, page, act),
        *owner_blocks.routes(services, page, act),
        Route("/owner/replies", page(rooms.replies), methods=["GET"]),
        Route("/owner/heard", page(rooms.heard), methods=["GET"]),
        *owner_profile.routes(services, page, act),
        *owner_posts.routes(services, page, act),
        *owner_receipts.routes(services, page, act),
        *owner_held.routes(services, page, act),
        Route("/owner/export", takeaway.list_or_ask(page, act), methods=["GET", "POST"]),
        Route("/owner/export/{export:number}", page(takeaway.one), methods=["GET"]),
        Route("/owner/export/{export:number}/{name}.zip", downloads.answer, methods=["GET"]),
    ]


class _Door:
    """Signing in and out, and what stands before every page and form."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    def page(self, show: Page) -> Callable[[Request], Awaitable[Response]]:
        """A page for the signed-in; everybody else reads how to sign in."""

        async def shown_page(request: Request) -> Response:
            session = await sessions.present(self._store, self._ids, request)
            if session is None:
                return self._renderer.private("owner/signed_out.html", 401)
            return await show(request, session)

        return shown_page

    def act(self, work: Act) -> Callable[[Request], Awaitable[Response]]:
        """A form of the signed-in; `work` says where to go afterwards."""

        async def acted(request: Request) -> Response:
            session, fields = await sessions.allowed(self._store, self._ids, request)
            return _see(await work(request, session, fields))

        return acted

    async def sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return await self._before_sign_in(request)
        sessions.check_sender(request, self._ids)
        fields = await sessions.form(request)
        link_token = fields.get("token") or request.query_params.get("token", "")
        cookie = await sessions.sign_in(self._store, self._ids, request, link_token) if link_token else None
        if cookie is None:
            return self._renderer.private("owner/link_ended.html", 410)
        response = _see("/owner")
        sessions.give_cookie(response, self._ids, cookie)
        return response

    async def _before_sign_in(self, request: Request) -> Response:
        """Only a button: programs that look at links before people do (mail filters, chat previews) press none."""
        link_token = request.query_params.get("token", "")
        if not link_token:
            return self._renderer.private("owner/signed_out.html", 401)
        account = await self._store.read(views.account_of_link, token_hash(link_token))
        if account is None:
            return self._renderer.private("owner/link_ended.html", 410)
        return self._renderer.private("owner/sign_in.html", account=account, token=link_token)

    async def sign_out(self, request: Request) -> Response:
        session, fields = await sessions.allowed(self._store, self._ids, request)
        if fields.get("everywhere"):
            await self._store.transact(views.end_all_sessions, session.account.id)
        else:
            await self._store.transact(accounts.end_session, session.hash)
        response = _see("/owner")
        sessions.take_cookie(response, self._ids)
        return response


def _see(path: str) -> Response:
    return RedirectResponse(path, 303, {"cache-control": CACHE_NEVER})


class _Rooms:
    """The pages of a signed-in owner."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    def _page(self, session: Session, template: str, status: int = 200, **values: Any) -> Response:
        account, token = session.account, session.form_token
        return self._renderer.private(f"owner/{template}", status, account=account, form_token=token, **values)

    async def overview(self, request: Request, session: Session) -> Response:
        return self._page(
            session, "overview.html", **await self._store.read(_overview, self._ids, session.account.id)
        )

    async def pause(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(pause.pause, session.account.id, "the owner's page")
        return "/owner"

    async def resume(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(pause.resume, session.account.id, "the owner's page")
        return "/owner"

    async def posts(self, request: Request, session: Session) -> Response:
        before = cursor_from(request)
        rows, older = await self._store.read(_posts, self._ids, session.account.id, before)
        return self._page(session, "posts.html", rows=rows, older=older, first=before is None)

    async def post(self, request: Request, session: Session) -> Response:
        number = request.path_params["post"]
        return self._page(
            session, "post.html", **await self._store.read(_post, self._ids, session.account.id, number)
        )

    async def pin(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        number = request.path_params["post"]
        await self._store.transact(_pin, session.account.id, number)
        return f"/owner/posts/{number}"

    async def unpin(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        number = request.path_params["post"]
        await self._store.transact(_unpin, session.account.id, number)
        return f"/owner/posts/{number}"

    async def deliveries(self, request: Request, session: Session) -> Response:
        before, show = number_from(request, "before"), _choice(request, ("everything", "problems"))
        number, held = session.account.id, self._store
        values: dict[str, Any]
        if show == "problems":
            found = await held.read(views.troubles, number, limit=PAGE + 1, before_id=before)
            values = {"troubles": found[:PAGE], "older": found[PAGE - 1].id if len(found) > PAGE else None}
        else:
            said = await held.read(ledger.activities_page, number, limit=PAGE + 1, before_id=before)
            values = {
                "activities": [(activity, receipts.tally(states)) for activity, states in said[:PAGE]],
                "older": said[PAGE - 1][0].id if len(said) > PAGE else None,
            }
        values |= {"kinds": receipts.KINDS, "states": receipts.STATES}
        return self._page(session, "deliveries.html", show=show, first=before is None, **values)

    async def replies(self, request: Request, session: Session) -> Response:
        before = number_from(request, "before")
        found = await self._store.read(replies.page, session.account.id, limit=PAGE + 1, before_id=before)
        older = found[PAGE - 1][0] if len(found) > PAGE else None
        rows = [(reply, shown.foreign(reply.html)) for _, reply in found[:PAGE]]
        return self._page(
            session, "replies.html", replies=rows, older=older, first=before is None, name_of=shown.name_of
        )

    async def heard(self, request: Request, session: Session) -> Response:
        before, show = number_from(request, "before"), _choice(request, ("everything", "likes", "boosts"))
        values = await self._store.read(_heard, self._ids, session.account.id, show, before)
        return self._page(session, "heard.html", show=show, first=before is None, **values)


class _Takeaway:
    """Archives: asking for one, watching it, getting its link."""

    def __init__(self, services: Services, downloads: Downloads) -> None:
        self._store = services.store
        self._downloads = downloads
        self._renderer = Renderer(services.ids)

    def list_or_ask(
        self,
        page: Callable[[Page], Callable[[Request], Awaitable[Response]]],
        act: Callable[[Act], Callable[[Request], Awaitable[Response]]],
    ) -> Callable[[Request], Awaitable[Response]]:
        """One address for both, so that an unknown method is told the right ones."""
        listed, asked = page(self._list), act(self._ask)

        async def either(request: Request) -> Response:
            return await (asked if request.method == "POST" else listed)(request)

        return either

    async def _list(self, request: Request, session: Session) -> Response:
        found = await self._store.read(archives.listed, session.account.id)
        return self._renderer.private(
            "owner/exports.html", account=session.account, form_token=session.form_token, exports=found[:PAGE]
        )

    async def _ask(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        return f"/owner/export/{await self._store.transact(exports.request, session.account.id)}"

    async def one(self, request: Request, session: Session) -> Response:
        export = await self._store.read(archives.get, request.path_params["export"])
        if export is None or export.account_id != session.account.id:
            raise NotFound("There is no such archive")
        link, ends = self._link(session, export)
        return self._renderer.private(
            "owner/export.html",
            account=session.account,
            form_token=session.form_token,
            export=export,
            link=link,
            ends=ends,
        )

    def _link(self, session: Session, export: Export) -> tuple[str, Any]:
        if export.state != "ready":
            return "", None
        return self._downloads.link(session.account, export, self._store.clock())


# ── reading and writing ──────────────────────────────────────────────────────────────────────────────────────────


def _overview(tx: Tx, ids: Any, account_id: int) -> dict[str, Any]:
    changes = views.state_changes(tx, account_id, limit=1)
    leaving = farewells.of_account(tx, account_id)
    newest = posts.newest(tx, account_id, limit=GLANCE)
    return {
        "state": changes[0] if changes else None,
        "leaving": leaving,
        "connection": connections.of_account(tx, account_id),
        "figures": views.figures(tx, account_id),
        "waiting": sum(one.followers for one in outages.waiting_followers(tx, account_id)),
        "rows": _with_receipts(tx, ids, account_id, newest),
        "replies": [(reply, shown.foreign(reply.html)) for _, reply in replies.page(tx, account_id, limit=GLANCE)],
        "reactions": [reaction for _, reaction in reactions.page(tx, account_id, limit=GLANCE)],
        "name_of": shown.name_of,
    }


def _with_receipts(
    tx: Tx, ids: Any, account_id: int, page: list[Post]
) -> list[tuple[shown.ShownPost, list[Sentence], str]]:
    account = accounts.by_id(tx, account_id)
    assert account is not None
    numbers = [post.id for post in page]
    held = ledger.receipts(tx, numbers)
    unfinished = views.awaiting_fan_out(tx, numbers)
    return [
        (
            item,
            receipts.sentences(held.get(item.post.id, ())),
            receipts.without(silent=item.post.silent, unfinished=item.post.id in unfinished),
        )
        for item in shown.gather(tx, ids, page, {account.id: account})
    ]


def _posts(
    tx: Tx, ids: Any, account_id: int, before: Cursor | None
) -> tuple[list[tuple[shown.ShownPost, list[Sentence], str]], str | None]:
    found = posts.newest(tx, account_id, limit=PAGE + 1, before=before)
    page = found[:PAGE]
    older = format_cursor(Cursor(page[-1].published, page[-1].id)) if len(found) > PAGE else None
    return _with_receipts(tx, ids, account_id, page), older


def _post(tx: Tx, ids: Any, account_id: int, number: int) -> dict[str, Any]:
    post = posts.by_id(tx, account_id, number)
    if post is None:
        raise NotFound("There is no such post among yours")
    item, said, without = _with_receipts(tx, ids, account_id, [post])[0]
    return {
        "item": item,
        "sentences": said,
        "without": without,
        "pinned": number in views.pinned_ids(tx, account_id),
        "answers": [(reply, shown.foreign(reply.html)) for reply in replies.to_post(tx, number, public_only=False)],
        "edits": posts.edits(tx, number),
        "quotes": quotes.of_post(tx, number),
        "reply_rules": REPLY_RULES,
        "quote_rules": QUOTE_RULES,
        "rules_words": _rules_words(rules.of_account(tx, account_id), post),
        "name_of": shown.name_of,
    }


def _rules_words(chosen: Rules, post: Post) -> str:
    """What holds for a post now, in a sentence."""
    answering, quoting = REPLY_RULES[chosen.who_answers(post)], QUOTE_RULES[chosen.who_quotes(post)]
    return f"May answer: {answering}. May quote: {quoting}."


def _live(tx: Tx, account_id: int, number: int) -> None:
    post = posts.by_id(tx, account_id, number)
    if post is None or post.deleted_at is not None:
        raise NotFound("There is no such post among yours")


def _pin(tx: Tx, account_id: int, number: int) -> None:
    _live(tx, account_id, number)
    held = views.pinned_ids(tx, account_id)
    if number in held:
        return
    if len(held) >= PINS:
        raise Conflict(f"{PINS} posts are pinned already", hint="Unpin one of them first.")
    posts.pin(tx, account_id, number)
    accounts.touch(tx, account_id)


def _unpin(tx: Tx, account_id: int, number: int) -> None:
    _live(tx, account_id, number)
    posts.unpin(tx, account_id, number)
    accounts.touch(tx, account_id)


def _heard(tx: Tx, ids: Any, account_id: int, show: str, before: int | None) -> dict[str, Any]:
    kinds: dict[str, Any] = {"everything": None, "likes": "like", "boosts": "announce"}
    found = reactions.page(tx, account_id, limit=PAGE + 1, before_id=before, kind=kinds[show])
    about = views.by_ids(tx, {reaction.post_id for _, reaction in found})
    titles = {number: shown.title(account, post) for number, (post, account) in about.items()}
    return {
        "reactions": [(reaction, titles.get(reaction.post_id)) for _, reaction in found[:PAGE]],
        "older": found[PAGE - 1][0] if len(found) > PAGE else None,
    }


def _choice(request: Request, choices: tuple[str, ...]) -> str:
    given = request.query_params.get("show", choices[0])
    if given not in choices:
        raise Invalid(f"There is no such list as {given[:40]!r}", hint=f"There are: {', '.join(choices)}.")
    return given
