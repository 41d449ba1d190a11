"""The Threads API as a source: requests, paging and errors. What a row of it means is told by `threads_rows`.

Rule: a row that cannot be read is skipped with a reason and the page goes on; an answer that cannot be read is
`SourceUnavailable`; the token is in no error's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit

from threadbridge.domain.source import Listing, PostKind, SourcePage, SourcePost, SourceProfile, SourceReference
from threadbridge.errors import (
    AddressRefused,
    Invalid,
    NoSuchObject,
    RateLimited,
    SignInAgain,
    SourceError,
    SourceUnavailable,
    ThreadbridgeError,
)
from threadbridge.net.client import Client
from threadbridge.sources.threads_rows import (
    Row,
    identifier,
    items,
    mapping,
    mapping_or_empty,
    moment,
    number,
    post_from_row,
    profile_from_row,
    reference,
    string,
    unknown_children,
)


class Fetch(Protocol):
    """One guarded HTTP request: status, headers and the whole (capped) body. Raises NetworkError."""

    async def __call__(
        self, method: str, url: str, *, params: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]: ...


def fetching(client: Client) -> Fetch:
    """The guarded HTTP client as what this adapter asks of the network."""

    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        answer = await client.request(method, url, params=params)
        return answer.status, answer.headers, answer.body

    return fetch


_PROFILE_FIELDS = "id,username,name,threads_profile_picture_url,threads_biography"
_CHILD_FIELDS = "id,media_type,media_url,alt_text,thumbnail_url"
# fmt: off
_POST_FIELDS = (
    "id", "media_product_type", "media_type", "media_url", "thumbnail_url", "permalink", "username", "text",
    "timestamp", "shortcode", "is_quote_post", "quoted_post", "reposted_post", "alt_text", "link_attachment_url",
    "gif_url", "topic_tag", "is_spoiler_media", "text_entities", "text_attachment", "allowlisted_country_codes",
    "ghost_post_status", "ghost_post_expiration_timestamp", "reply_audience",
)
# fmt: on
_REPLY_FIELDS = ("is_reply", "is_reply_owned_by_me", "root_post", "replied_to")
_EXPANDED = {
    "children": _CHILD_FIELDS,
    "poll_attachment": "option_a,option_b,option_c,option_d,option_a_votes_percentage,option_b_votes_percentage,"
    "option_c_votes_percentage,option_d_votes_percentage,total_votes,expiration_timestamp",
    "location": "id,name,city,country",
}
_HISTORY_LIMIT = 50  # 100 is allowed, but Graph answers 500 when a page with many expansions grows too heavy
_DOCUMENTED_LIMIT = 100
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_RATE_CODES = frozenset({4, 17, 32, 613})
_RESTRICTED = 4279013
_NO_FIELD = re.compile(r"nonexisting field \((\w+)\)")
_REFERENCES_KEPT = 2_000


class ThreadsApi:
    """A connected Threads account; implements `domain.source.Source`.

    `graph_url` is the host (`https://graph.threads.net`), `now` gives the time (aware, UTC) where an answer has no
    Date of its own.
    """

    def __init__(self, fetch: Fetch, graph_url: str, token: str, *, now: Callable[[], datetime]) -> None:
        self._fetch = fetch
        self._root = f"{graph_url.rstrip('/')}/v1.0"
        self._token = token
        self._now = now
        self._usage = 0.0
        self._answered_at: datetime | None = None
        self._absent: set[str] = set()
        self._bare_children = False
        self._references: dict[str, SourceReference] = {}

    @property
    def usage(self) -> float:
        """How much of the account's allowance is spent, in percent, by the last answer's `x-app-usage`."""
        return self._usage

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def profile(self) -> SourceProfile:
        """The owner's profile. Raises SourceError."""
        row = await self._get("me", {"fields": _PROFILE_FIELDS}, "read the profile", "threads_basic")
        try:
            return profile_from_row(row)
        except Invalid as error:
            raise _unreadable("the profile", error.public) from None

    async def page(self, kind: Listing, cursor: str | None, limit: int) -> SourcePage:
        """One page of own posts or own replies, newest first. Raises SourceError.

        The window is complete from one second after the last row (times have whole seconds, so another post of the
        same second may wait on the next page), from the beginning on the last page. Nothing is concluded when the
        order is not the documented one, and when a row without id was among them. A token that lacks a permission
        gets an empty list, not an error: whoever misses a post in it has to ask `exists`.
        """
        limit = max(1, min(limit, _DOCUMENTED_LIMIT))
        answer = await self._list(kind, cursor, limit)
        read_at = self._answered_at or self._now()
        rows, following = _rows_and_cursor(answer, limit)
        posts: list[SourcePost] = []
        skipped: list[tuple[str, str]] = []
        nameless = False
        for row in rows:
            native_id = identifier(row.get("id")) if isinstance(row, Mapping) else None
            nameless = nameless or native_id is None
            try:
                whole = await self._completed(mapping(row, "a row"))
                posts.append(post_from_row(whole, kind))
                skipped.extend(unknown_children(whole))
            except Invalid as refusal:
                skipped.append((native_id or "?", refusal.public))
        complete_from = None if nameless else _complete_from(rows, following, _announces_more(answer))
        return SourcePage(
            posts=tuple(posts),
            kinds=frozenset[PostKind]({"reply"} if kind == "reply" else {"post", "repost"}),
            complete_from=complete_from,
            read_at=read_at,
            next_cursor=following,
            skipped=tuple(skipped),
        )

    async def exists(self, native_id: str) -> bool:
        """Ask for one object by id: False only when the source says that it is not there."""
        try:
            await self._get(quote(native_id, safe=""), {"fields": "id"}, "read a post", "threads_basic")
        except NoSuchObject:
            return False
        return True

    async def history(self, kind: Listing) -> AsyncIterator[SourcePage]:
        """All pages from the newest to the oldest; ends at the last page, an empty page or a repeated cursor."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            page = await self.page(kind, cursor, _HISTORY_LIMIT)
            yield page
            cursor = page.next_cursor
            if cursor is None or cursor in seen:
                return
            seen.add(cursor)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, kind: Listing, cursor: str | None, limit: int) -> Row:
        """The listing as answered. A field that this version of the API does not know is left out from then on,
        and `children` are asked for as bare ids if their expansion is refused, instead of failing every read."""
        path, doing, scope = (
            ("me/threads", "read posts", "threads_basic")
            if kind == "post"
            else ("me/replies", "read replies", "threads_read_replies")
        )
        bare_before = self._bare_children
        while True:
            params = {"fields": self._fields(kind), "limit": str(limit)}
            if cursor is not None:
                params["after"] = cursor
            try:
                return await self._get(path, params, doing, scope)
            except SourceError as error:
                nothing_there = isinstance(error, NoSuchObject)
                if nothing_there or error.code != 100 or not self._ask_for_less(error.detail or ""):
                    self._bare_children = bare_before
                    raise

    def _fields(self, kind: Listing) -> str:
        expanded = dict(_EXPANDED)
        names = [*_POST_FIELDS, *(_REPLY_FIELDS if kind == "reply" else ())]
        plain = [name for name in names if name not in self._absent]
        if self._bare_children:
            plain.append("children")
            del expanded["children"]
        nested = [f"{name}{{{inner}}}" for name, inner in expanded.items() if name not in self._absent]
        return ",".join(plain + nested)

    def _ask_for_less(self, message: str) -> bool:
        named = _NO_FIELD.search(message)
        wanted = {*_POST_FIELDS, *_REPLY_FIELDS, *_EXPANDED} - {"id", "timestamp", "media_type", "text"}
        if named and named[1] in wanted - self._absent:
            self._absent.add(named[1])
            return True
        if not self._bare_children and "children" not in self._absent:
            self._bare_children = True
            return True
        return False

    async def _get(self, path: str, params: Mapping[str, str], doing: str, scope: str) -> Row:
        asked = {**params, "access_token": self._token}
        try:
            status, headers, body = await self._fetch("GET", f"{self._root}/{path}", params=asked)
        except SourceError:
            raise
        except AddressRefused as error:
            raise SourceError(
                self._clean(error.public),
                hint="Check the graph URL; a private address must lie in THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS.",
            ) from None
        except ThreadbridgeError as error:
            raise SourceUnavailable(
                f"Threads could not be reached to {doing}", detail=self._clean(str(error))
            ) from None
        lower = {name.lower(): value for name, value in headers.items()}
        self._usage = _usage(lower.get("x-app-usage"), self._usage)
        self._answered_at = _date(lower.get("date"))
        answer = _parsed(body)
        if status != 200 or (isinstance(answer, Mapping) and "error" in answer):
            raise self._refusal(status, lower, answer, doing, scope)
        if not isinstance(answer, Mapping):
            raise _unreadable("its answer", f"not a JSON object when asked to {doing}")
        return answer

    def _refusal(
        self, status: int, headers: Mapping[str, str], answer: object, doing: str, scope: str
    ) -> SourceError:
        """Graph's error body as one of ours. Order matters: a restricted account may come as a transient error."""
        error = answer.get("error") if isinstance(answer, Mapping) else None
        error = error if isinstance(error, Mapping) else {}
        code, subcode = number(error.get("code")), number(error.get("error_subcode"))
        said = self._clean(string(error.get("message")))
        detail = f"HTTP {status}" + (f", code {code}" if code is not None else "") + (f": {said}" if said else "")
        wait = _seconds(headers.get("retry-after"))
        if subcode == _RESTRICTED:
            return SourceError(
                "Threads has restricted this account", detail=detail, code=code, subcode=subcode,
                hint="Open Threads and follow what it says there; nothing is asked again by itself.",
            )  # fmt: skip
        if code == 190:
            return SignInAgain(
                "The Threads token is no longer valid", detail=detail, code=code, subcode=subcode,
                hint="Sign in at Threads again and connect with the new token.",
            )  # fmt: skip
        if code in _RATE_CODES or (code is None and status == 429):
            return RateLimited(
                "Threads asks for a pause", detail=detail, code=code, subcode=subcode, retry_after=wait
            )
        if code == 100 and subcode == 33:
            return NoSuchObject("Threads has no such object", detail=detail, code=code, subcode=subcode)
        if code == 10 or (code is not None and 200 <= code <= 299):
            return SourceError(
                f"The Threads token lacks the permission to {doing}: {scope}", detail=detail, code=code,
                subcode=subcode, hint=f"Sign in again and grant {scope}.",
            )  # fmt: skip
        if code in {1, 2} or status >= 500 or error.get("is_transient") is True:
            return SourceUnavailable(
                f"Threads has trouble and could not {doing}", detail=detail, code=code, subcode=subcode,
                retry_after=wait,
            )  # fmt: skip
        if code is None:
            return SourceError(
                f"Something that is not the Threads API answered when asked to {doing}", detail=detail,
                hint="Check the graph URL.",
            )  # fmt: skip
        return SourceError(f"Threads refused to {doing}", detail=detail, code=code, subcode=subcode)

    def _clean(self, words: str) -> str:
        for form in (self._token, quote(self._token, safe="")):
            words = words.replace(form, "…") if form else words
        return words

    # ── what a row only names ────────────────────────────────────────────────────────────────────────────────────

    async def _completed(self, row: Row) -> Row:
        """The row with children fetched where only their ids came, and with addresses of what it quotes."""
        whole = dict(row)
        children = items(row.get("children"))
        if children:
            whole["children"] = {"data": [await self._child(child) for child in children]}
        for name in ("quoted_post", "reposted_post"):
            named = reference(row.get(name))
            if named and named.native_id and not named.url:
                known = await self._known(named.native_id)
                whole[name] = {"id": known.native_id, "permalink": known.url, "username": known.author}
        return whole

    async def _child(self, child: object) -> object:
        row = child if isinstance(child, Mapping) else {"id": child}
        native_id = identifier(row.get("id"))
        if native_id is None or row.get("media_type"):
            return row
        try:
            return await self._get(
                quote(native_id, safe=""), {"fields": _CHILD_FIELDS}, "read a carousel item", "threads_basic"
            )
        except NoSuchObject:
            return {**row, "media_type": "IMAGE"}

    async def _known(self, native_id: str) -> SourceReference:
        """What a quoted or reposted id is called. Other people's posts may be closed to the token: then only the id
        is known, and that is remembered, so that a reading does not differ from the one before."""
        if native_id not in self._references:
            try:
                row = await self._get(
                    quote(native_id, safe=""), {"fields": "id,permalink,username"}, "read a post", "threads_basic"
                )
                known = reference({**row, "id": native_id})
            except (SignInAgain, RateLimited, SourceUnavailable):
                raise
            except SourceError:
                known = None
            if len(self._references) >= _REFERENCES_KEPT:
                self._references.clear()
            self._references[native_id] = known or SourceReference(native_id=native_id)
        return self._references[native_id]


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows_and_cursor(answer: Row, limit: int) -> tuple[list[Any], str | None]:
    """The rows and where the next page starts. `next` is there only when there is a next page; a full page with a
    cursor but without `next` is asked once more, and an empty page ends the list whatever it announces."""
    rows = answer.get("data")
    if not isinstance(rows, list):
        raise _unreadable("its answer", "a list without 'data'")
    paging = mapping_or_empty(answer.get("paging"))
    after = string(mapping_or_empty(paging.get("cursors")).get("after"))
    if _announces_more(answer):
        after = after or next(iter(parse_qs(urlsplit(string(paging.get("next"))).query).get("after", [])), "")
    elif len(rows) < limit:
        after = ""
    return rows, after or None if rows else None


def _announces_more(answer: Row) -> bool:
    return bool(mapping_or_empty(answer.get("paging")).get("next"))


def _complete_from(rows: list[Any], following: str | None, more: bool) -> datetime | None:
    if following is None:
        return None if more else _BEGINNING
    times = [time for row in rows if (time := moment(row.get("timestamp"))) is not None]
    # A pinned post may stand first; any other disorder means that the end of the page says nothing.
    order = times if times == sorted(times, reverse=True) else times[1:]
    if not order or order != sorted(order, reverse=True):
        return None
    return order[-1] + timedelta(seconds=1)


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _unreadable(what: str, why: str) -> SourceUnavailable:
    return SourceUnavailable(f"Threads answered, but {what} cannot be read", detail=why)


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; a date is not used by Graph and is ignored."""
    return float(value) if value and re.fullmatch(r"[0-9]{1,7}", value.strip()) else None


def _usage(header: str | None, before: float) -> float:
    if header is None:
        return before
    report = mapping_or_empty(_parsed(header.encode("utf-8", "replace")))
    figures = [report.get(name) for name in ("call_count", "total_cpu_time", "total_time")]
    return max((float(figure) for figure in figures if isinstance(figure, int | float)), default=before)


def _date(value: str | None) -> datetime | None:
    """The Date of an answer: the clock by which the timestamps of its posts are to be judged."""
    try:
        date = parsedate_to_datetime(value) if value else None
    except (ValueError, TypeError, OverflowError):
        return None
    return date.astimezone(UTC) if date is not None and date.tzinfo is not None else None
