"""The Threads API as a source: requests, paging, errors, and every field of its media objects as our nouns.

Rule: what Threads sends is believed only as far as its shape goes. A row that cannot be read is skipped with a
reason and the page goes on; an answer that cannot be read is `SourceUnavailable`; the token is in no error's text.
Field names follow Meta's reference (developers.facebook.com/docs/threads). Where the documentation leaves the shape
open (`children` expanded or bare ids, `text_entities` as a list or inside `data`, ids as numbers) both are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs, quote, urlsplit

from threadbridge.domain.source import (
    MediaKind,
    PostKind,
    SourceMedia,
    SourcePage,
    SourcePoll,
    SourcePost,
    SourceProfile,
    SourceReference,
)
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

Row = Mapping[str, Any]
Listing = Literal["post", "reply"]


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
_GHOST_LIFE = timedelta(hours=24)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_RATE_CODES = frozenset({4, 17, 32, 613})
_RESTRICTED = 4279013
_NO_FIELD = re.compile(r"nonexisting field \((\w+)\)")
_REFERENCES_KEPT = 2_000


class ThreadsApi:
    """A connected Threads account; implements `domain.source.Source`.

    `graph_url` is the host (`https://graph.threads.net`), `now` gives the reading time (aware, UTC).
    """

    def __init__(self, fetch: Fetch, graph_url: str, token: str, *, now: Callable[[], datetime]) -> None:
        self._fetch = fetch
        self._root = f"{graph_url.rstrip('/')}/v1.0"
        self._token = token
        self._now = now
        self._usage = 0.0
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
        order is not the documented one, when a row without id was among them, and from an empty list of replies:
        a token without `threads_read_replies` gets an empty list, not an error.
        """
        limit = max(1, min(limit, _DOCUMENTED_LIMIT))
        read_at = self._now()
        answer = await self._list(kind, cursor, limit)
        rows, following = _rows_and_cursor(answer, limit)
        posts: list[SourcePost] = []
        skipped: list[tuple[str, str]] = []
        nameless = False
        for row in rows:
            native_id = _identifier(row.get("id")) if isinstance(row, Mapping) else None
            nameless = nameless or native_id is None
            try:
                whole = await self._completed(_mapping(row, "a row"))
                posts.append(post_from_row(whole, kind))
                skipped.extend(_unknown_children(whole))
            except Invalid as refusal:
                skipped.append((native_id or "?", refusal.public))
        complete_from = None if nameless else _complete_from(rows, following, _announces_more(answer))
        if kind == "reply" and cursor is None and not rows:
            complete_from = None
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
        code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
        said = self._clean(_text(error.get("message")))
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
        children = _items(row.get("children"))
        if children:
            whole["children"] = {"data": [await self._child(child) for child in children]}
        for name in ("quoted_post", "reposted_post"):
            reference = _reference(row.get(name))
            if reference and reference.native_id and not reference.url:
                known = await self._known(reference.native_id)
                whole[name] = {"id": known.native_id, "permalink": known.url, "username": known.author}
        return whole

    async def _child(self, child: object) -> object:
        row = child if isinstance(child, Mapping) else {"id": child}
        native_id = _identifier(row.get("id"))
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
                reference = _reference({**row, "id": native_id})
            except (SignInAgain, RateLimited, SourceUnavailable):
                raise
            except SourceError:
                reference = None
            if len(self._references) >= _REFERENCES_KEPT:
                self._references.clear()
            self._references[native_id] = reference or SourceReference(native_id=native_id)
        return self._references[native_id]


# ── rows as nouns ────────────────────────────────────────────────────────────────────────────────────────────────


def profile_from_row(row: Row) -> SourceProfile:
    """The answer of `/me`. Raises Invalid when id or user name are missing."""
    native_id, handle = _identifier(row.get("id")), _text(row.get("username")).strip()
    if native_id is None or not handle:
        raise Invalid("The profile has no id or no user name")
    picture = _url(row.get("threads_profile_picture_url"))
    # The picture has no id; the path of its signed address stays, query (signature, expiry) and host change.
    avatar = SourceMedia("image", f"avatar:{urlsplit(picture).path}", picture) if picture else None
    return SourceProfile(
        native_id=native_id,
        handle=handle,
        name=_text(row.get("name")),
        bio=_text(row.get("threads_biography")),
        url=f"https://www.threads.com/@{quote(handle)}",
        avatar=avatar,
    )


def post_from_row(row: Row, kind: Listing) -> SourcePost:
    """A media object as a post; `children`, quoted and reposted posts are read as far as they are expanded.

    Raises Invalid, in words, for an unknown `media_type`, a missing id or time, and a post without any content.
    """
    native_id = _identifier(row.get("id"))
    if native_id is None:
        raise Invalid("The post has no id")
    published = _time(row.get("timestamp"))
    if published is None:
        raise Invalid("The post has no readable time")
    text, long_text = _text(row.get("text")), _mapping_or_empty(row.get("text_attachment"))
    media = _media(row, native_id)
    quoted, reposted = _reference(row.get("quoted_post")), _reference(row.get("reposted_post"))
    poll, attached = _poll(row.get("poll_attachment")), _text(long_text.get("plaintext"))
    link = _url(row.get("link_attachment_url")) or _url(long_text.get("link_attachment_url"))
    repost = row.get("media_type") == "REPOST_FACADE"
    if not (text.strip() or media or quoted or reposted or poll or attached or link or repost):
        raise Invalid("The post is empty")
    parent = _reference(row.get("replied_to")) or _reference(row.get("root_post"))
    answers = kind == "reply" or row.get("is_reply") is True
    return SourcePost(
        native_id=native_id,
        published=published,
        text=text,
        kind="repost" if repost else "reply" if answers else "post",
        media=media,
        permalink=_url(row.get("permalink")),
        parent=parent if answers else None,
        quoted=quoted,
        reposted=reposted,
        topic=_text(row.get("topic_tag")).strip() or None,
        link=link,
        poll=poll,
        spoiler_media=row.get("is_spoiler_media") is True,
        spoilers=_spoilers(row.get("text_entities"), len(text)),
        long_text=attached or None,
        location=_location(row.get("location")),
        audience=_text(row.get("reply_audience")).lower() or "everyone",
        country_gated=bool(row.get("allowlisted_country_codes")),
        expires_at=_expiry(row, published),
    )


_KINDS: dict[str, MediaKind] = {"IMAGE": "image", "VIDEO": "video", "AUDIO": "audio"}


def _media(row: Row, native_id: str) -> tuple[SourceMedia, ...]:
    """Pictures and videos. Keys are media ids, never addresses; an item without address is known to be missing
    (Meta leaves `media_url` out when a copyright claim stands)."""
    media_type, gif = row.get("media_type"), _url(row.get("gif_url"))
    if media_type in _KINDS:
        return (_one(row, native_id),)
    if media_type == "CAROUSEL_ALBUM":
        rows = [child for child in _items(row.get("children")) if isinstance(child, Mapping)]
        return tuple(
            _one(child, _identifier(child.get("id")) or f"{native_id}/{position}")
            for position, child in enumerate(rows)
            if child.get("media_type") in _KINDS
        )
    if media_type in {"TEXT_POST", "REPOST_FACADE"}:
        return (SourceMedia("image", f"{native_id}/gif", gif, alt=_text(row.get("alt_text"))),) if gif else ()
    raise Invalid(f"The media type {media_type!r} is not known")


def _one(row: Row, key: str) -> SourceMedia:
    return SourceMedia(_KINDS[row["media_type"]], key, _url(row.get("media_url")), alt=_text(row.get("alt_text")))


def _unknown_children(row: Row) -> list[tuple[str, str]]:
    """Carousel items that were left out, since a post is worth having without them."""
    if row.get("media_type") != "CAROUSEL_ALBUM":
        return []
    children = [child for child in _items(row.get("children")) if isinstance(child, Mapping)]
    return [
        (_identifier(child.get("id")) or "?", f"A carousel item of type {child.get('media_type')!r} is not known")
        for child in children
        if child.get("media_type") not in _KINDS
    ]


def _poll(value: object) -> SourcePoll | None:
    """Options with counts: Threads gives shares of 0..1 and a total; shares above 1 are read as percent."""
    poll = _mapping_or_empty(value)
    letters = [letter for letter in "abcd" if _text(poll.get(f"option_{letter}"))]
    if not letters:
        return None
    total = _number(poll.get("total_votes"))
    shares = [_share(poll.get(f"option_{letter}_votes_percentage")) for letter in letters]
    known = [share for share in shares if share is not None]
    votes = None
    if total == 0:
        votes = (0,) * len(letters)
    elif total is not None and total > 0 and len(known) == len(letters):
        scale = 100 if max(known) > 1 else 1
        votes = tuple(round(share / scale * total) for share in known)
    options = tuple(_text(poll.get(f"option_{letter}")) for letter in letters)
    return SourcePoll(options, votes, _time(poll.get("expiration_timestamp")))


def _spoilers(value: object, length: int) -> tuple[tuple[int, int], ...]:
    """Spoiler ranges as (start, end) in code points, sorted and joined. A spoiler whose place cannot be read hides
    the whole text: hiding too much is the lesser harm."""
    ranges = []
    for item in _items(value):
        entity = _mapping_or_empty(item)
        if _text(entity.get("entity_type")).upper() != "SPOILER":
            continue
        offset, extent = _number(entity.get("offset")), _number(entity.get("length"))
        start, end = (offset, offset + extent) if offset is not None and extent is not None else (0, length)
        if 0 <= start < min(end, length):
            ranges.append((start, min(end, length)))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _location(value: object) -> str | None:
    place = _mapping_or_empty(value)
    parts = [_text(place.get(name)).strip() for name in ("name", "city", "country")]
    return ", ".join(dict.fromkeys(part for part in parts if part)) or None


def _expiry(row: Row, published: datetime) -> datetime | None:
    """End of a ghost post. The status is on ghost posts only, and they are archived after a day."""
    told = _time(row.get("ghost_post_expiration_timestamp"))
    return told or (published + _GHOST_LIFE if row.get("ghost_post_status") else None)


def _reference(value: object) -> SourceReference | None:
    """`{"id": …}`, with `permalink` and `username` where they are known; a bare id is accepted."""
    row = value if isinstance(value, Mapping) else {"id": value}
    native_id, url = _identifier(row.get("id")), _url(row.get("permalink"))
    if native_id is None and url is None:
        return None
    return SourceReference(native_id, url, _text(row.get("username")) or None)


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows_and_cursor(answer: Row, limit: int) -> tuple[list[Any], str | None]:
    """The rows and where the next page starts. `next` is there only when there is a next page; a full page with a
    cursor but without `next` is asked once more, and an empty page ends the list whatever it announces."""
    rows = answer.get("data")
    if not isinstance(rows, list):
        raise _unreadable("its answer", "a list without 'data'")
    paging = _mapping_or_empty(answer.get("paging"))
    after = _text(_mapping_or_empty(paging.get("cursors")).get("after"))
    if _announces_more(answer):
        after = after or next(iter(parse_qs(urlsplit(_text(paging.get("next"))).query).get("after", [])), "")
    elif len(rows) < limit:
        after = ""
    return rows, after or None if rows else None


def _announces_more(answer: Row) -> bool:
    return bool(_mapping_or_empty(answer.get("paging")).get("next"))


def _complete_from(rows: list[Any], following: str | None, more: bool) -> datetime | None:
    if following is None:
        return None if more else _BEGINNING
    times = [time for row in rows if (time := _time(row.get("timestamp"))) is not None]
    # A pinned post may stand first; any other disorder means that the end of the page says nothing.
    order = times if times == sorted(times, reverse=True) else times[1:]
    if not order or order != sorted(order, reverse=True):
        return None
    return order[-1] + timedelta(seconds=1)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _unreadable(what: str, why: str) -> SourceUnavailable:
    return SourceUnavailable(f"Threads answered, but {what} cannot be read", detail=why)


def _mapping(value: object, what: str) -> Row:
    if not isinstance(value, Mapping):
        raise Invalid(f"Instead of {what} there is {type(value).__name__}")
    return value


def _mapping_or_empty(value: object) -> Row:
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> list[Any]:
    """A bare list, or the one inside `{"data": […]}`."""
    inner = value.get("data") if isinstance(value, Mapping) else value
    return inner if isinstance(inner, list) else []


def _identifier(value: object) -> str | None:
    """Ids are strings in the documentation and numbers in some answers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value and len(value) <= 200 else None


def _text(value: object) -> str:
    """A string without what no database and no UTF-8 document can hold (NUL, lone surrogates)."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "�").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _url(value: object) -> str | None:
    """An http(s) address; it becomes a link on pages, so no other scheme passes."""
    url = _text(value).strip()
    return url if url.startswith(("https://", "http://")) else None


def _time(value: object) -> datetime | None:
    """`2023-10-17T05:42:03+0000` in UTC, or None."""
    try:
        time = datetime.fromisoformat(_text(value))
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if 1990 <= time.year <= 9000 else None


def _number(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _share(value: object) -> float | None:
    try:
        share = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return share if 0 <= share <= 100 else None


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; a date is not used by Graph and is ignored."""
    return float(value) if value and re.fullmatch(r"[0-9]{1,7}", value.strip()) else None


def _usage(header: str | None, before: float) -> float:
    if header is None:
        return before
    report = _mapping_or_empty(_parsed(header.encode("utf-8", "replace")))
    figures = [report.get(name) for name in ("call_count", "total_cpu_time", "total_time")]
    return max((float(figure) for figure in figures if isinstance(figure, int | float)), default=before)
