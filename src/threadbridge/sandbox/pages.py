"""The sandbox's pages: people with their tokens, their posts, and plain forms to post, edit and delete.

Rule: everything works with HTML alone; whatever somebody typed is escaped by the template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from threadbridge.errors import NotFound, ThreadbridgeError
from threadbridge.sandbox.controls import draw_into, form_uploads, status_of
from threadbridge.sandbox.drawing import SCENES
from threadbridge.sandbox.graph import Graph
from threadbridge.sandbox.network import Draft, Entry, Network, Person, poll_for_a_day

_SHOWN = 50
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def template_folders() -> list[Path]:
    """Where the templates may be: inside the installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return [package / "web" / "templates", package.parents[1] / "templates"]


class Pages:
    """The HTML routes on one Network."""

    def __init__(self, network: Network, graph: Graph) -> None:
        self._network = network
        self._graph = graph
        self._templates = Environment(
            loader=FileSystemLoader(template_folders()), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self._home, methods=["GET"]),
            Route("/post", self._post, methods=["POST"]),
            Route("/post/{id}/edit", self._edit, methods=["POST"]),
            Route("/post/{id}/delete", self._delete, methods=["POST"]),
            Route("/@{username}", self._profile, methods=["GET"]),
            Route("/@{username}/post/{code}", self._permalink, methods=["GET"]),
        ]

    async def _home(self, request: Request) -> Response:
        return self._list("The sandbox", self._network.everything(), None)

    async def _profile(self, request: Request) -> Response:
        try:
            person = self._network.person(request.path_params["username"])
        except NotFound as error:
            return self._refused(error)
        own = [entry for entry in self._network.everything() if entry.owner == person.id]
        return self._list(person.name, own, person)

    async def _permalink(self, request: Request) -> Response:
        try:
            entry = self._network.by_shortcode(request.path_params["code"])
        except NotFound as error:
            return self._refused(error)
        answers = self._network.answers_to(entry.id)
        return self._page("post.html", title="Post", post=self._shown(entry), answers=[*map(self._shown, answers)])

    async def _post(self, request: Request) -> Response:
        async with request.form() as form:
            typed = {name: value.strip() for name, value in form.items() if isinstance(value, str)}
            try:
                person = self._network.person(typed.get("user", ""))
                items = []
                for upload in await form_uploads(form):
                    name = self._network.store(upload.body, upload.content_type)
                    items.append(self._network.item(name, alt=typed.get("alt", "")))
                if typed.get("draw"):
                    name = await draw_into(self._network, typed["draw"])
                    items.append(self._network.item(name, alt=typed.get("alt", "")))
                options = [line.strip() for line in typed.get("poll", "").splitlines() if line.strip()]
                reply_to = typed.get("reply_to") or None
                if reply_to:
                    self._network.entry(reply_to)
                draft = Draft(
                    text=typed.get("text", "").replace("\r\n", "\n"),
                    media=tuple(items),
                    topic=typed.get("topic") or None,
                    poll=poll_for_a_day(options, self._network.now()) if options else None,
                    spoiler_media=typed.get("spoiler") == "on",
                    reply_to=reply_to,
                )
                entry = self._network.post(person, draft)
            except ThreadbridgeError as error:
                return self._refused(error)
        return RedirectResponse(f"/@{person.username}/post/{entry.shortcode}", 303)

    async def _edit(self, request: Request) -> Response:
        async with request.form() as form:
            text = str(form.get("text", "")).strip().replace("\r\n", "\n")
        try:
            entry = self._network.edit(None, request.path_params["id"], text=text)
        except ThreadbridgeError as error:
            return self._refused(error)
        owner = self._network.people[entry.owner]
        return RedirectResponse(f"/@{owner.username}/post/{entry.shortcode}", 303)

    async def _delete(self, request: Request) -> Response:
        try:
            owner = self._network.people[self._network.entry(request.path_params["id"]).owner]
            self._network.delete(None, request.path_params["id"])
        except ThreadbridgeError as error:
            return self._refused(error)
        return RedirectResponse(f"/@{owner.username}", 303)

    # ── rendering ────────────────────────────────────────────────────────────────────────────────────────────────

    def _list(self, title: str, entries: list[Entry], person: Person | None) -> Response:
        return self._page(
            "people.html",
            title=title,
            person=person,
            people=list(self._network.people.values()),
            posts=[self._shown(entry) for entry in entries[:_SHOWN]],
            more=max(0, len(entries) - _SHOWN),
            scenes=SCENES,
        )

    def _shown(self, entry: Entry) -> dict[str, Any]:
        owner = self._network.people[entry.owner]
        return {
            "entry": entry,
            "owner": owner,
            "href": f"/@{owner.username}/post/{entry.shortcode}",
            "media": [
                (item, f"/cdn/{item.file}?{self._network.signed_query(item.file)}") for item in entry.draft.media
            ],
        }

    def _refused(self, error: ThreadbridgeError) -> Response:
        return self._page("refused.html", status_of(error), title="That did not work", words=str(error))

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(f"sandbox/{template}").render(**values)
        return HTMLResponse(html, status, _HEADERS)
