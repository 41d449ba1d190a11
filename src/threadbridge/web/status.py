"""How this server is doing, for everybody.

    /status         a page
    /status.json    the same for programs

Rule: what is told is true and a few seconds old, names no host and nobody, and costs the database the same whoever
asks how often.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge import __version__
from threadbridge.services import Services
from threadbridge.storage.figures import Standing
from threadbridge.storage.turns import Backlog
from threadbridge.telemetry import metrics
from threadbridge.web.render import CACHE_PAGE, Renderer, answer, iso
from threadbridge.web.standing import Watch, in_words, span

LANES = (
    ("Answers to people", "somebody follows, and waits to be let in"),
    ("New posts", "what the owners have just written"),
    ("Edits and deletions", "changes of what was said before"),
    ("In bulk", "moves, farewells, refreshed profiles"),
)
ENDS = (
    ("delivered", "delivered"),
    ("refused", "refused by the other server"),
    ("gone", "to inboxes that are gone"),
    ("given_up", "given up after days of trying"),
)


def routes(services: Services, watch: Watch) -> list[Route]:
    """The page and its twin."""
    renderer = Renderer(services.ids)

    async def page(request: Request) -> Response:
        standing = await watch.standing()
        return renderer.public(
            request,
            "status.html",
            canonical=f"{services.ids.base}/status",
            words=in_words(standing, quiet=services.config.quiet),
            at=standing.at,
            last_read=standing.last_read,
            connected=standing.connected,
            lanes=[_row(standing, number, quiet=services.config.quiet) for number in range(len(LANES))],
            ends=[(words, standing.last_hour.get(state, 0)) for state, words in ENDS],
            version=__version__,
        )

    async def document(request: Request) -> Response:
        standing = told(await watch.standing(), quiet=services.config.quiet)
        body = orjson.dumps(standing, option=orjson.OPT_INDENT_2) + b"\n"
        headers = {"access-control-allow-origin": "*"}
        return answer(request, body, "application/json", cache=CACHE_PAGE, headers=headers)

    return [
        Route("/status", page, methods=["GET"]),
        Route("/status.json", document, methods=["GET"]),
    ]


def _row(standing: Standing, number: int, *, quiet: bool) -> dict[str, Any]:
    lane = standing.lanes.get(number, Backlog(0, 0, 0.0))
    name, about = LANES[number]
    late = f"{span(lane.oldest_due_seconds)} behind" if lane.oldest_due_seconds >= 5 else "at once"
    late = "when the brake is released" if quiet else late
    return {"name": name, "about": about, "late": late, "due": lane.due, "held": lane.waiting - lane.due}


def told(standing: Standing, *, quiet: bool) -> dict[str, Any]:
    """How things stand as JSON. Ages in seconds; `held` waits for a server that rests or refuses, or for what goes
    before it; `brake`: nothing leaves at all."""
    return {
        "version": __version__,
        "at": iso(standing.at),
        "brake": quiet,
        "words": list(in_words(standing, quiet=quiet)),
        "lanes": {
            name: {"age_seconds": round(lane.oldest_due_seconds, 1), "due": lane.due, "held": lane.waiting - lane.due}
            for number, name in enumerate(metrics.LANES)
            for lane in (standing.lanes.get(number, Backlog(0, 0, 0.0)),)
        },
        "servers_waited_for": {why: standing.waited_for.get(why, 0) for why in ("asked", "trouble", "refuses")},
        "deliveries_last_hour": {state: standing.last_hour.get(state, 0) for state, _ in ENDS},
        "last_successful_read": iso(standing.last_read) if standing.last_read else None,
        "connected_accounts": standing.connected,
        "accounts_in_trouble": standing.in_trouble,
    }
