"""The documented endpoints of the Threads API, spoken by the mock network: fields, paging, errors, allowance.

Rule: shapes, names and error bodies are Meta's (developers.facebook.com/docs/threads); whatever is not documented is
refused as Graph refuses it, so that a mistake of ours shows here and not first at Meta's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from threadbridge.errors import NotFound
from threadbridge.sandbox.network import Entry, Item, Network, Person, newest_key, shortcode

_DEFAULT_LIMIT, _MAX_LIMIT = 25, 100
_EARLIEST = 1_688_540_400  # 2023-07-05, the day Threads opened
_GHOST_LIFE = timedelta(hours=24)
_OWN_ONLY = frozenset({"owner", "reply_audience", "hide_status", "is_reply_owned_by_me"})

Selection = Mapping[str, "Selection"]


class GraphError(Exception):
    """A refusal in Graph's own words."""

    def __init__(
        self, status: int, code: int, message: str, *, subcode: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.subcode = status, code, message, subcode
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        trace = hashlib.sha256(self.message.encode("utf-8", "replace")).digest()[:8]
        error: dict[str, Any] = {
            "message": self.message,
            "type": "OAuthException" if self.code in {4, 10, 190} else "THApiException",
            "code": self.code,
            "fbtrace_id": "A" + base64.urlsafe_b64encode(trace).decode().rstrip("="),
        }
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        if self.code in {1, 2, 4}:
            error["is_transient"] = True
        headers = {"retry-after": str(self.retry_after)} if self.retry_after is not None else {}
        return JSONResponse({"error": error}, self.status, headers)


def _unknown_object(id: str) -> GraphError:
    return GraphError(
        400,
        100,
        f"Unsupported get request. Object with ID '{id}' does not exist, cannot be loaded due to missing "
        "permissions, or does not support this operation",
        subcode=33,
    )


def parse_fields(text: str) -> Selection:
    """`id,children{id,media_url}` as nested names. Raises GraphError (code 100) for broken syntax."""
    root: dict[str, Any] = {}
    stack: list[dict[str, Any]] = [root]
    last: str | None = None
    for mark in re.findall(r"\w+|[{},]|\S", text):
        if mark == "{" and last is not None:
            stack.append(stack[-1][last])
            last = None
        elif mark == "}" and len(stack) > 1:
            stack.pop()
            last = None
        elif mark == ",":
            last = None
        elif re.fullmatch(r"\w+", mark) and last is None:
            last = mark
            stack[-1].setdefault(mark, {})
        else:
            raise GraphError(400, 100, f"Syntax error in the fields parameter near {mark!r}")
    if len(stack) > 1:
        raise GraphError(400, 100, "Syntax error in the fields parameter: a brace is not closed")
    return root or {"id": {}}


class Graph:
    """Routes under `/v1.0` and without it, answering from one Network."""

    def __init__(self, network: Network, base_url: str) -> None:
        self._network = network
        self._base = base_url

    def routes(self) -> list[BaseRoute]:
        """The edges before the bare object, since both begin with an id."""
        paths: list[tuple[str, Callable[[Request, Person], dict[str, Any]]]] = [
            ("/{id}/threads", lambda request, me: self._own_list(request, me, "threads")),
            ("/{id}/replies", lambda request, me: self._own_list(request, me, "replies")),
            ("/{id}/ghost_posts", lambda request, me: self._own_list(request, me, "ghosts")),
            ("/{id}/children", self._children),
            ("/{id}", self._object),
        ]
        return [
            Route(prefix + path, self._door(answer), methods=["GET"])
            for prefix in ("/v1.0", "")
            for path, answer in paths
        ]

    def _door(self, answer: Callable[[Request, Person], dict[str, Any]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            person = self._network.bearer(_token(request))
            try:
                response: Response = JSONResponse(answer(request, self._admitted(person)))
            except GraphError as error:
                response = error.response()
            spent = int(self._network.spent(person)) if person else 0
            response.headers["x-app-usage"] = json.dumps(
                {"call_count": spent, "total_cpu_time": spent // 2, "total_time": spent // 2}
            )
            return response

        return endpoint

    def _admitted(self, person: Person | None) -> Person:
        network, now = self._network, self._network.now()
        if network.faults.outage_until and now < network.faults.outage_until:
            raise GraphError(500, 2, "An unexpected error has occurred. Please retry your request later.")
        if person is None:
            raise GraphError(401, 190, "Error validating access token: The session is invalid or has expired.")
        limited = network.faults.limited_until
        if limited and now < limited:
            wait = int((limited - now).total_seconds()) + 1
            raise GraphError(429, 4, "Application request limit reached", retry_after=wait)
        if network.spent(person) >= 100:
            raise GraphError(403, 4, "Application request limit reached")
        network.count_call(person)
        return person

    # ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────

    def _object(self, request: Request, me: Person) -> dict[str, Any]:
        id, wanted = request.path_params["id"], parse_fields(request.query_params.get("fields", ""))
        if id in {"me", me.id}:
            return _selected(self._profile(me), wanted, "ThreadsUser")
        try:
            return self._row(self._network.entry(id), me, wanted)
        except NotFound:
            pass
        for entry in self._network.written_by(me, replies=False) + self._network.written_by(me, replies=True):
            for item in entry.draft.media:
                if item.id == id:
                    return _selected(self._child(item, entry), wanted, "ThreadsMedia")
        raise _unknown_object(id)

    def _children(self, request: Request, me: Person) -> dict[str, Any]:
        try:
            entry = self._network.entry(request.path_params["id"])
        except NotFound as missing:
            raise _unknown_object(request.path_params["id"]) from missing
        wanted = parse_fields(request.query_params.get("fields", ""))
        rows = [_selected(self._child(item, entry), wanted, "ThreadsMedia") for item in entry.draft.media]
        return {"data": rows if len(rows) > 1 else []}

    def _own_list(self, request: Request, me: Person, edge: str) -> dict[str, Any]:
        """A person's posts, replies or ghost posts; `/{media}/replies` lists the answers to a post."""
        id = request.path_params["id"]
        if id in {"me", me.id}:
            found = (
                self._network.ghosts_of(me)
                if edge == "ghosts"
                else self._network.written_by(me, replies=edge == "replies")
            )
        elif edge == "replies":
            try:
                found = self._network.answers_to(self._network.entry(id).id)
            except NotFound as missing:
                raise _unknown_object(id) from missing
        else:
            raise _unknown_object(id)
        wanted = parse_fields(request.query_params.get("fields", ""))
        page, paging = self._paged(request, found)
        answer: dict[str, Any] = {"data": [self._row(entry, me, wanted) for entry in page]}
        if page:
            answer["paging"] = paging
        return answer

    def _paged(self, request: Request, found: list[Entry]) -> tuple[list[Entry], dict[str, Any]]:
        """Cut by `since`/`until`, then by cursor. Cursors name a place in the order, not a row, so a deletion between
        two pages loses nothing."""
        query = request.query_params
        if "after" in query and "before" in query:
            raise GraphError(400, 100, "Only one of the parameters before and after may be given")
        since, until = _moment(query.get("since"), "since"), _moment(query.get("until"), "until")
        if since and since.timestamp() < _EARLIEST:
            raise GraphError(400, 100, f"Param since must be at least {_EARLIEST}")
        rows = [row for row in found if (not since or row.created >= since) and (not until or row.created <= until)]
        limit = _limit(query.get("limit"))
        start = 0
        if "after" in query:
            place = _place(query["after"])
            start = next((n for n, row in enumerate(rows) if newest_key(row) < place), len(rows))
        elif "before" in query:
            place = _place(query["before"])
            end = next((n for n, row in enumerate(rows) if newest_key(row) <= place), len(rows))
            start, limit = max(0, end - limit), min(limit, end)
        page = rows[start : start + limit]
        if not page:
            return [], {}
        cursors = {"before": _cursor(page[0]), "after": _cursor(page[-1])}
        paging: dict[str, Any] = {"cursors": cursors}
        if start + limit < len(rows):
            paging["next"] = self._page_url(request, "after", cursors["after"])
        if start > 0:
            paging["previous"] = self._page_url(request, "before", cursors["before"])
        return page, paging

    def _page_url(self, request: Request, direction: str, cursor: str) -> str:
        kept = {key: value for key, value in request.query_params.items() if key not in {"after", "before"}}
        return f"{self._base}{request.url.path}?{urlencode({**kept, direction: cursor})}"

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def media_url(self, file: str) -> str:
        """A signed address that dies after the network's `media_life`."""
        return f"{self._base}/cdn/{quote(file)}?{self._network.signed_query(file)}"

    def permalink(self, entry: Entry) -> str:
        return f"{self._base}/@{self._network.people[entry.owner].username}/post/{entry.shortcode}"

    def _profile(self, me: Person) -> dict[str, Any]:
        return {
            "id": me.id,
            "username": me.username,
            "name": me.name,
            "threads_profile_picture_url": self.media_url(me.avatar) if me.avatar else None,
            "threads_biography": me.bio,
            "is_verified": me.verified,
            "recently_searched_keywords": None,
            "is_eligible_for_geo_gating": False,
        }

    def _child(self, item: Item, entry: Entry) -> dict[str, Any]:
        row = dict.fromkeys(_MEDIA_FIELDS)
        row |= {
            "id": item.id,
            "media_product_type": "THREADS",
            "media_type": item.kind,
            "media_url": self.media_url(item.file),
            "alt_text": item.alt or None,
            "timestamp": _stamp(entry.created),
            "username": self._network.people[entry.owner].username,
            "owner": {"id": entry.owner},
        }
        return row

    def _row(self, entry: Entry, me: Person, wanted: Selection) -> dict[str, Any]:
        draft, owner, mine = entry.draft, self._network.people[entry.owner], entry.owner == me.id
        single = draft.media[0] if len(draft.media) == 1 else None
        reply = draft.reply_to is not None
        carousel = "CAROUSEL_ALBUM" if len(draft.media) > 1 else "TEXT_POST"
        row: dict[str, Any] = dict.fromkeys(_MEDIA_FIELDS)
        row |= {
            "id": entry.id,
            "media_product_type": "THREADS",
            "media_type": "REPOST_FACADE" if draft.repost else single.kind if single else carousel,
            "media_url": self.media_url(single.file) if single else None,
            "permalink": self.permalink(entry),
            "owner": {"id": entry.owner} if not reply else None,
            "username": owner.username,
            "text": draft.text or None,
            "timestamp": _stamp(entry.created),
            "shortcode": shortcode(entry.id),
            "is_quote_post": draft.quote is not None,
            "quoted_post": {"id": draft.quote} if draft.quote else None,
            "reposted_post": {"id": draft.repost} if draft.repost else None,
            "has_replies": bool(self._network.answers_to(entry.id)),
            "alt_text": (single.alt or None) if single else None,
            "link_attachment_url": draft.link,
            "gif_url": draft.gif,
            "topic_tag": draft.topic,
            "is_spoiler_media": draft.spoiler_media,
            "text_attachment": {"plaintext": draft.long_text} if draft.long_text else None,
            "allowlisted_country_codes": list(draft.countries) or None,
            "is_verified": owner.verified,
            "reply_audience": draft.reply_audience,
            "is_reply": reply,
            "is_reply_owned_by_me": mine if reply else None,
            "hide_status": "NOT_HUSHED" if reply else None,
        }
        row |= self._nested(entry, wanted) | self._context(entry)
        if not mine:
            row |= dict.fromkeys(_OWN_ONLY)
        return _selected(row, wanted, "ThreadsMedia")

    def _nested(self, entry: Entry, wanted: Selection) -> dict[str, Any]:
        draft, row = entry.draft, dict[str, Any]()
        if len(draft.media) > 1:
            inner = wanted.get("children") or {} if self._network.faults.expand_children else {}
            shown = inner or {"id": {}}
            row["children"] = {
                "data": [_selected(self._child(item, entry), shown, "ThreadsMedia") for item in draft.media]
            }
        if draft.spoilers:
            row["text_entities"] = {
                "data": [
                    {"entity_type": "SPOILER", "offset": offset, "length": length}
                    for offset, length in draft.spoilers
                ]
            }
        if draft.poll:
            poll, total = draft.poll, sum(draft.poll.votes)
            full: dict[str, Any] = {"id": entry.id, "total_votes": total}
            full["expiration_timestamp"] = _stamp(poll.closes_at)
            full |= dict.fromkeys(f"option_{letter}{suffix}" for letter in "abcd" for suffix in _POLL_SUFFIXES)
            for letter, option, votes in zip("abcd", poll.options, poll.votes, strict=False):
                full[f"option_{letter}"] = option
                full[f"option_{letter}_votes_percentage"] = round(votes / total, 4) if total else 0
            row["poll_attachment"] = _selected(full, wanted.get("poll_attachment") or {"id": {}}, "ThreadsPoll")
        if draft.location:
            place = dict.fromkeys(("address", "city", "country", "latitude", "longitude", "postal_code"))
            id = str(int(hashlib.sha256(draft.location.encode()).hexdigest()[:12], 16))
            row["location_id"] = id
            row["location"] = _selected(
                {**place, "id": id, "name": draft.location}, wanted.get("location") or {"id": {}}, "ThreadsLocation"
            )
        return row

    def _context(self, entry: Entry) -> dict[str, Any]:
        row: dict[str, Any] = {}
        if entry.draft.reply_to is not None:
            row["replied_to"] = {"id": entry.draft.reply_to}
            row["root_post"] = {"id": self._network.root_of(entry)}
        if entry.draft.ghost:
            ends = entry.created + _GHOST_LIFE
            row["ghost_post_status"] = "ACTIVE" if self._network.now() < ends else "ARCHIVED"
            row["ghost_post_expiration_timestamp"] = _stamp(ends)
        return row


_POLL_SUFFIXES = ("", "_votes_percentage")
# fmt: off
_MEDIA_FIELDS = (
    "id", "media_product_type", "media_type", "media_url", "thumbnail_url", "permalink", "owner", "username",
    "text", "timestamp", "shortcode", "children", "is_quote_post", "quoted_post", "reposted_post", "has_replies",
    "alt_text", "link_attachment_url", "gif_url", "poll_attachment", "topic_tag", "is_spoiler_media",
    "text_entities", "text_attachment", "location_id", "location", "allowlisted_country_codes",
    "ghost_post_status", "ghost_post_expiration_timestamp", "is_verified", "profile_picture_url", "reply_audience",
    "is_reply", "is_reply_owned_by_me", "root_post", "replied_to", "hide_status", "reply_approval_status",
)
# fmt: on


def _selected(row: Mapping[str, Any], wanted: Selection, node: str) -> dict[str, Any]:
    """Only what was asked for, `id` always; what has no value is left out, what does not exist is refused."""
    for name in wanted:
        if name not in row:
            raise GraphError(400, 100, f"(#100) Tried accessing nonexisting field ({name}) on node type ({node})")
    return {name: row[name] for name in {**wanted, "id": {}} if row.get(name) is not None}


def _token(request: Request) -> str:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return request.query_params.get("access_token") or (value.strip() if scheme.lower() == "bearer" else "")


def _limit(value: str | None) -> int:
    if value is None:
        return _DEFAULT_LIMIT
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) == 0:
        raise GraphError(400, 100, f"(#100) Param limit must be a number from 1 to {_MAX_LIMIT}")
    return min(int(value), _MAX_LIMIT)


def _moment(value: str | None, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{1,11}", value):
            return datetime.fromtimestamp(int(value), UTC)
        time = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise GraphError(400, 100, f"(#100) Param {name} is no time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _cursor(entry: Entry) -> str:
    place = f"{int(entry.created.timestamp())}:{entry.id}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[datetime, int]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seconds, _, id = text.partition(":")
        return datetime.fromtimestamp(int(seconds), UTC), int(id)
    except (ValueError, OverflowError, binascii.Error, OSError):
        raise GraphError(400, 100, "(#100) Param after or before is no cursor of this list") from None


def _stamp(time: datetime) -> str:
    """Meta writes the offset without a colon."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
