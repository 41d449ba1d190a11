"""Pages for everybody: the start page, profiles, posts with their threads and answers, hashtags.

    /                       what this is, and who is here
    /about                  who runs it, and what a bridge does
    /@{handle}              a profile, newest posts first           ?before=CURSOR
    /@{handle}/{post}       a post in its thread, with its answers  ?after=NUMBER
    /tags/{tag}             posts with a hashtag                    ?before=CURSOR
    /style.css

Rule: everything works with HTML alone, on a telephone, by keyboard and with a screen reader; nothing is loaded from
anywhere else. Who asks for ActivityPub under the same address has been answered before these routes are asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge import __version__
from threadbridge.activitypub import text
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account, AccountState, ProfileField
from threadbridge.domain.people import Reply
from threadbridge.domain.posts import Post
from threadbridge.errors import Gone, Invalid, NotFound
from threadbridge.services import Services
from threadbridge.storage import accounts, posts, profiles, views
from threadbridge.storage.posts import Cursor
from threadbridge.storage.store import Tx
from threadbridge.web import shown
from threadbridge.web.documents import format_cursor, parse_cursor
from threadbridge.web.render import CACHE_STYLE, Renderer, answer, style_sheet, web_url
from threadbridge.web.shown import ShownPost

PAGE = 20
ANSWERS = 50
AROUND = 25
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def routes(services: Services) -> list[Route]:
    """The public pages of one server."""
    pages = _Pages(services)
    return [
        Route("/", pages.home, methods=["GET"]),
        Route("/about", pages.about, methods=["GET"]),
        Route("/style.css", pages.style, methods=["GET"]),
        Route("/@{handle}", pages.profile, methods=["GET"]),
        Route("/@{handle}/{post:number}", pages.post, methods=["GET"]),
        Route("/tags/{tag}", pages.tag, methods=["GET"]),
    ]


# ── places in a list ─────────────────────────────────────────────────────────────────────────────────────────────


def cursor_from(request: Request) -> Cursor | None:
    """`?before=`; raises Invalid for what we never gave out."""
    return parse_cursor(request.query_params.get("before"))


def _place(post: Post) -> str:
    return format_cursor(Cursor(post.published, post.id))


def number_from(request: Request, name: str) -> int | None:
    """A row number in the query; raises Invalid for anything else."""
    given = request.query_params.get(name)
    if given is None:
        return None
    if not _NUMBER.fullmatch(given):
        raise Invalid("This is no place in the list", hint="Follow the links from page to page.")
    return int(given)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Profile:
    """A page of a profile; `older` is the cursor of the next page, or None at the end."""

    account: Account
    posts: list[ShownPost]
    pinned: list[ShownPost]
    tags: list[tuple[str, int]]
    older: str | None
    fields: tuple[ProfileField, ...] = ()


@dataclass(frozen=True, slots=True)
class PostPage:
    """A post in its thread with a page of answers; `more` is the number to go on from, or None at the end."""

    post: ShownPost
    earlier: list[ShownPost]
    later: list[ShownPost]
    earlier_hidden: bool
    later_hidden: bool
    answers: list[tuple[Reply, str]]
    more: int | None


def account_here(tx: Tx, handle: str) -> Account:
    """The account behind `/@handle`. Raises NotFound, or Gone for one that was deleted."""
    account = accounts.by_handle(tx, handle) or accounts.by_former_handle(tx, handle)
    if account is None:
        raise NotFound("There is no account with this name here")
    if account.state is AccountState.GONE:
        raise Gone("This account has been deleted by its owner")
    return account


def profile_page(tx: Tx, ids: Ids, handle: str, before: Cursor | None, *, limit: int = PAGE) -> Profile:
    """One page of a profile, newest first. Raises NotFound or Gone."""
    account = account_here(tx, handle)
    found = posts.newest(tx, account.id, limit=limit + 1, before=before)
    page = found[:limit]
    pinned = posts.pinned(tx, account.id) if before is None else []
    own = {account.id: account}
    return Profile(
        account=account,
        posts=shown.gather(tx, ids, page, own),
        pinned=shown.gather(tx, ids, pinned, own),
        tags=posts.top_tags(tx, account.id) if before is None else [],
        older=_place(page[-1]) if len(found) > limit else None,
        fields=profiles.of_account(tx, account.id).fields if before is None else (),
    )


def post_page(tx: Tx, ids: Ids, handle: str, post_id: int, after_id: int) -> PostPage:
    """A post with its surroundings. Raises NotFound or Gone."""
    account = account_here(tx, handle)
    post = posts.by_id(tx, account.id, post_id)
    if post is None:
        raise NotFound("There is no such post here")
    if post.deleted_at is not None:
        raise Gone("This post has been deleted by its author")
    earlier, later = views.thread_around(tx, post, limit=AROUND + 1)
    rows = views.answers_to(tx, post.id, limit=ANSWERS + 1, after_id=after_id)
    thread = shown.gather(tx, ids, [*earlier[-AROUND:], post, *later[:AROUND]], {account.id: account})
    place = next(index for index, item in enumerate(thread) if item.post.id == post.id)
    return PostPage(
        post=thread[place],
        earlier=thread[:place],
        later=thread[place + 1 :],
        earlier_hidden=len(earlier) > AROUND,
        later_hidden=len(later) > AROUND,
        answers=[(reply, shown.foreign(reply.html)) for _, reply in rows[:ANSWERS]],
        more=rows[ANSWERS - 1][0] if len(rows) > ANSWERS else None,
    )


def tag_page(tx: Tx, ids: Ids, tag: str, before: Cursor | None) -> tuple[list[ShownPost], str | None]:
    """Posts with a hashtag and the cursor of the next page. Raises NotFound where nothing bears it."""
    found = views.tagged(tx, tag, limit=PAGE + 1, before=before)
    if not found and before is None:
        raise NotFound("No post here bears this hashtag")
    page = found[:PAGE]
    owners = views.accounts_by_ids(tx, {post.account_id for post in page})
    return shown.gather(tx, ids, page, owners), _place(page[-1]) if len(found) > PAGE else None


# ── answering ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Pages:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._contact = services.config.operator_contact.strip()
        self._renderer = Renderer(services.ids)

    async def home(self, request: Request) -> Response:
        everybody = await self._store.read(accounts.listed)
        present = [a for a in everybody if a.state is not AccountState.GONE and a.discoverable]
        return self._renderer.public(request, "home.html", accounts=present, canonical=f"{self._ids.base}/")

    async def about(self, request: Request) -> Response:
        return self._renderer.public(
            request,
            "about.html",
            contact=self._contact,
            contact_url=_contact_url(self._contact),
            version=__version__,
            canonical=f"{self._ids.base}/about",
        )

    async def style(self, request: Request) -> Response:
        return answer(request, style_sheet(), "text/css; charset=utf-8", cache=CACHE_STYLE)

    async def profile(self, request: Request) -> Response:
        before = cursor_from(request)
        page = await self._store.read(profile_page, self._ids, request.path_params["handle"], before)
        account, ids = page.account, self._ids
        return self._renderer.public(
            request,
            "profile.html",
            headers=_headers(account, ids.actor(account.id)),
            page=page,
            account=account,
            first=before is None,
            bio=shown.bio(ids, account),
            description=text.shortened(account.bio, 200) or f"@{ids.acct(account.handle, account.domain)}",
            avatar=_avatar(ids, account),
            header=ids.media(account.header, account.header_type) if account.header and account.header_type else "",
            canonical=ids.profile(account.handle),
        )

    async def post(self, request: Request) -> Response:
        after = number_from(request, "after") or 0
        handle, number = request.path_params["handle"], request.path_params["post"]
        page = await self._store.read(post_page, self._ids, handle, number, after)
        account, ids = page.post.account, self._ids
        return self._renderer.public(
            request,
            "post.html",
            headers=_headers(account, page.post.uri),
            page=page,
            account=account,
            post=page.post,
            first=not after,
            description=text.shortened(page.post.post.text, 200) if not page.post.hidden else "Spoiler",
            avatar=_avatar(ids, account),
            name_of=shown.name_of,
            canonical=page.post.url,
        )

    async def tag(self, request: Request) -> Response:
        tag = request.path_params["tag"]
        if len(tag) > 128:
            raise NotFound("No post here bears this hashtag")
        before = cursor_from(request)
        page, older = await self._store.read(tag_page, self._ids, tag, before)
        return self._renderer.public(
            request,
            "tag.html",
            tag=tag,
            posts=page,
            older=older,
            first=before is None,
            canonical=self._ids.tag(tag),
        )


def _headers(account: Account, document: str) -> dict[str, str]:
    headers = {"link": f'<{document}>; rel="alternate"; type="application/activity+json"'}
    if not account.indexable:
        headers["x-robots-tag"] = "noindex"
    return headers


def _avatar(ids: Ids, account: Account) -> str:
    return ids.media(account.avatar, account.avatar_type) if account.avatar and account.avatar_type else ""


def _contact_url(contact: str) -> str:
    if re.fullmatch(r"[^@\s<>\"]+@[^@\s<>\"]+", contact):
        return f"mailto:{contact}"
    return web_url(contact)
