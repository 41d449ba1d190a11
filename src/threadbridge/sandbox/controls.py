"""The sandbox's own JSON API under `/sandbox/api`: people, posts and faults, for tests and scripts.

Rule: bodies are checked field by field, an unknown field is refused; an error is `{"error": words}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from threadbridge.errors import Conflict, Forbidden, Invalid, NotFound, ThreadbridgeError
from threadbridge.sandbox import drawing
from threadbridge.sandbox.graph import Graph
from threadbridge.sandbox.network import Draft, Entry, Item, Network, Person, poll_for_a_day

MAX_UPLOAD = 32 * 1024 * 1024
_STATUS: tuple[tuple[type[ThreadbridgeError], int], ...] = ((NotFound, 404), (Conflict, 409), (Forbidden, 403))
Endpoint = Callable[[Request], Awaitable[Response]]


def status_of(error: ThreadbridgeError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 400)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came with a form."""

    body: bytes
    content_type: str


class Controls:
    """The routes of the control API on one Network."""

    def __init__(self, network: Network, graph: Graph) -> None:
        self._network = network
        self._graph = graph

    def routes(self) -> list[BaseRoute]:
        api = "/sandbox/api"
        return [
            Route(f"{api}/users", _answering(self._users), methods=["GET"]),
            Route(f"{api}/users", _answering(self._join), methods=["POST"]),
            Route(f"{api}/users/{{user}}", _answering(self._change_user), methods=["PATCH"]),
            Route(f"{api}/users/{{user}}/token", _answering(self._renew), methods=["POST"]),
            Route(f"{api}/posts", _answering(self._posts), methods=["GET"]),
            Route(f"{api}/posts", _answering(self._post), methods=["POST"]),
            Route(f"{api}/posts/{{id}}", _answering(self._edit), methods=["PATCH"]),
            Route(f"{api}/posts/{{id}}", _answering(self._delete), methods=["DELETE"]),
            Route(f"{api}/faults", _answering(self._faults), methods=["GET"]),
            Route(f"{api}/faults", _answering(self._break), methods=["POST"]),
        ]

    # ── people ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _users(self, request: Request) -> Response:
        return JSONResponse({"users": [_person(person) for person in self._network.people.values()]})

    async def _join(self, request: Request) -> Response:
        body = await _object(request, {"username", "name", "bio", "token", "draw"})
        avatar = None
        if "draw" in body:
            avatar = await draw_into(self._network, _string(body, "draw"))
        person = self._network.join(
            _string(body, "username"),
            name=_string(body, "name"),
            bio=_string(body, "bio"),
            token=_string(body, "token") or None,
            avatar=avatar,
        )
        return JSONResponse(_person(person), 201)

    async def _change_user(self, request: Request) -> Response:
        body = await _object(request, {"name", "bio"})
        person = self._network.person(request.path_params["user"])
        person.name = _string(body, "name") or person.name
        person.bio = _string(body, "bio") if "bio" in body else person.bio
        return JSONResponse(_person(person))

    async def _renew(self, request: Request) -> Response:
        person = self._network.person(request.path_params["user"])
        self._network.renew_token(person)
        return JSONResponse(_person(person))

    # ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _posts(self, request: Request) -> Response:
        found = self._network.everything()
        if "user" in request.query_params:
            owner = self._network.person(request.query_params["user"]).id
            found = [entry for entry in found if entry.owner == owner]
        return JSONResponse({"posts": [self._told(entry) for entry in found[:500]]})

    async def _post(self, request: Request) -> Response:
        """A post from JSON, or from a multipart form with files as `media` and the JSON fields as text."""
        body, uploads = await _json_or_form(request, _POST_FIELDS)
        person = self._network.person(_string(body, "user"))
        items = await self._items(body, uploads)
        poll = [str(option) for option in _list(body, "poll")]
        reply_to = _string(body, "reply_to") or None
        if reply_to:
            self._network.entry(reply_to)
        draft = Draft(
            text=_string(body, "text"),
            media=tuple(items),
            topic=_string(body, "topic") or None,
            poll=poll_for_a_day(poll, self._network.now()) if poll else None,
            spoilers=tuple(_pair(entry) for entry in _list(body, "spoilers")),
            spoiler_media=body.get("spoiler") is True or body.get("spoiler") in ("true", "on", "1"),
            link=_string(body, "link") or None,
            gif=_string(body, "gif") or None,
            long_text=_string(body, "long_text") or None,
            location=_string(body, "location") or None,
            reply_to=reply_to,
            quote=_string(body, "quote") or None,
            repost=_string(body, "repost") or None,
            reply_audience=_string(body, "reply_audience") or "EVERYONE",
            countries=tuple(str(code) for code in _list(body, "countries")),
            ghost=body.get("ghost") is True,
        )
        entry = self._network.post(person, draft, at=_at(body))
        return JSONResponse(self._told(entry), 201)

    async def _items(self, body: Mapping[str, Any], uploads: list[Upload]) -> list[Item]:
        """Uploaded files, one drawn picture (`draw`, `alt`), or a `carousel` of `{draw, seed, alt}`."""
        wanted = [_described(entry) for entry in _list(body, "carousel")]
        if "draw" in body:
            wanted.append((_string(body, "draw"), 1, _string(body, "alt")))
        items = []
        for upload in uploads:
            name = self._network.store(upload.body, upload.content_type)
            items.append(self._network.item(name, alt=_string(body, "alt")))
        for scene, seed, alt in wanted:
            items.append(self._network.item(await draw_into(self._network, scene, seed), alt=alt))
        return items

    async def _edit(self, request: Request) -> Response:
        body = await _object(request, {"text", "topic", "alt"})
        given = {name: _string(body, name) for name in ("text", "topic", "alt") if name in body}
        return JSONResponse(self._told(self._network.edit(None, request.path_params["id"], **given)))

    async def _delete(self, request: Request) -> Response:
        id = request.path_params["id"]
        self._network.delete(None, id)
        return JSONResponse({"success": True, "deleted_id": id})

    def _told(self, entry: Entry) -> dict[str, Any]:
        return {
            "id": entry.id,
            "user": self._network.people[entry.owner].username,
            "text": entry.draft.text,
            "created": entry.created.isoformat(),
            "edited": entry.edited.isoformat() if entry.edited else None,
            "shortcode": entry.shortcode,
            "permalink": self._graph.permalink(entry),
            "media": [{"id": item.id, "kind": item.kind, "alt": item.alt} for item in entry.draft.media],
            "reply_to": entry.draft.reply_to,
            "quote": entry.draft.quote,
        }

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _faults(self, request: Request) -> Response:
        return JSONResponse(self._broken())

    async def _break(self, request: Request) -> Response:
        """Switch faults: seconds of rate limit or outage (0 ends it), a user's token, the allowance, media life."""
        body, network = await _object(request, _FAULT_FIELDS), self._network
        if body.get("clear") is True:
            network.faults.limited_until = network.faults.outage_until = None
            network.faults.expand_children = True
            network.forget_calls()
            for person in network.people.values():
                person.expired = False
        if "expire_token" in body:
            network.person(_string(body, "expire_token")).expired = True
        if "restore_token" in body:
            network.person(_string(body, "restore_token")).expired = False
        if "rate_limit_seconds" in body:
            network.faults.limited_until = network.now() + _duration(body, "rate_limit_seconds")
        if "outage_seconds" in body:
            network.faults.outage_until = network.now() + _duration(body, "outage_seconds")
        if "media_life_seconds" in body:
            network.media_life = _duration(body, "media_life_seconds")
        if "budget" in body:
            network.budget = int(_duration(body, "budget").total_seconds())
        if "expand_children" in body:
            network.faults.expand_children = body["expand_children"] is True
        return JSONResponse(self._broken())

    def _broken(self) -> dict[str, Any]:
        faults, now = self._network.faults, self._network.now()
        return {
            "rate_limited": bool(faults.limited_until and now < faults.limited_until),
            "outage": bool(faults.outage_until and now < faults.outage_until),
            "expired_tokens": [person.username for person in self._network.people.values() if person.expired],
            "budget": self._network.budget,
            "media_life_seconds": self._network.media_life.total_seconds(),
            "expand_children": faults.expand_children,
        }


# fmt: off
_POST_FIELDS = frozenset({
    "user", "text", "draw", "alt", "topic", "poll", "spoilers", "spoiler", "link", "gif", "long_text", "location",
    "reply_to", "quote", "repost", "reply_audience", "countries", "ghost", "carousel", "created",
})
_FAULT_FIELDS = frozenset({
    "clear", "expire_token", "restore_token", "rate_limit_seconds", "outage_seconds", "media_life_seconds",
    "budget", "expand_children",
})
# fmt: on


async def draw_into(network: Network, scene: str, seed: int = 1) -> str:
    """Draw a scene in a thread (it takes a fifth of a second) and store it; the file's name."""
    body = await asyncio.to_thread(lambda: drawing.encode(drawing.draw(scene, seed=seed)))
    return network.store(body, "image/jpeg")


async def form_uploads(form: FormData, name: str = "media") -> list[Upload]:
    """The files of a form that are not empty. Raises Invalid for one that is too large."""
    uploads = []
    for field in form.getlist(name):
        if isinstance(field, UploadFile):
            body = await field.read(MAX_UPLOAD + 1)
            if len(body) > MAX_UPLOAD:
                raise Invalid(f"The file is larger than {MAX_UPLOAD // 2**20} MiB")
            if body:
                uploads.append(Upload(body, field.content_type or "application/octet-stream"))
    return uploads


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _answering(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ThreadbridgeError as error:
            return JSONResponse({"error": str(error)}, status_of(error))

    return answer


async def _object(request: Request, allowed: frozenset[str] | set[str]) -> Mapping[str, Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Invalid("The body is not JSON") from None
    if not isinstance(body, dict):
        raise Invalid("The body is not a JSON object")
    if unknown := sorted(set(body) - allowed):
        raise Invalid(f"Unknown field {unknown[0]!r}", hint=f"Known: {', '.join(sorted(allowed))}.")
    return body


async def _json_or_form(request: Request, allowed: frozenset[str]) -> tuple[Mapping[str, Any], list[Upload]]:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _object(request, allowed), []
    async with request.form() as form:
        body = {name: value for name, value in form.items() if isinstance(value, str)}
        if unknown := sorted(set(body) - allowed):
            raise Invalid(f"Unknown field {unknown[0]!r}")
        return body, await form_uploads(form)


def _string(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"{name!r} must be a string")
    return value or ""


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise Invalid(f"{name!r} must be a list")
    return value or []


def _pair(entry: Any) -> tuple[int, int]:
    if isinstance(entry, list) and len(entry) == 2 and all(type(number) is int for number in entry):
        return entry[0], entry[1]
    raise Invalid("A spoiler is [offset, length], in characters")


def _described(entry: Any) -> tuple[str, int, str]:
    if not isinstance(entry, dict) or not isinstance(entry.get("seed", 1), int):
        raise Invalid('A carousel item is {"draw": scene, "seed": number, "alt": text}')
    return _string(entry, "draw"), entry.get("seed", 1), _string(entry, "alt")


def _duration(body: Mapping[str, Any], name: str) -> timedelta:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e8:
        raise Invalid(f"{name!r} must be a number from 0 to 100000000")
    return timedelta(seconds=value)


def _at(body: Mapping[str, Any]) -> datetime | None:
    text = _string(body, "created")
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Invalid(f"'created' is no ISO 8601 time: {text!r}") from None


def _person(person: Person) -> dict[str, Any]:
    return {
        "id": person.id,
        "username": person.username,
        "name": person.name,
        "bio": person.bio,
        "token": person.token,
        "expired": person.expired,
    }
