"""The owner's rooms about who may speak to them: their own rules, what those hide, what was decided by itself.

    /owner/blocks                       own rules, and hidden replies    ?before=NUMBER
    /owner/blocks/add, remove           POST: one rule
    /owner/blocks/import                POST: lines or a CSV
    /owner/blocks/export.csv            own rules as other servers import them   ?show=accounts
    /owner/replies/show                 POST: a reply that a limit hides
    /owner/replies/report               POST: complain to its author's server
    /owner/decisions                    what was refused or parked       ?before=NUMBER

Rule: as for all of the owner's pages (`owner`): nothing changes by a GET, every POST passes `sessions.allowed`, and
nobody gets at what is another account's. Who complained about the owner is on no page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub import blocklists as files
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.blocks import Severity, SubjectKind, subject_of
from threadbridge.errors import Conflict, Invalid, NotFound
from threadbridge.federation import blocklists, enforcement, report
from threadbridge.services import Services
from threadbridge.storage import blocks, decisions, parking, reports
from threadbridge.storage.blocks import Entry
from threadbridge.storage.store import Tx
from threadbridge.web import shown
from threadbridge.web.pages import number_from
from threadbridge.web.render import CACHE_NEVER, Renderer
from threadbridge.web.sessions import Session

PAGE = 25
RULES_MAX = 5000
"""Rules that one owner may hold: they are looked up for everything that is said here."""
HOME = "/owner/blocks"

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]


def routes(
    services: Services,
    page: Callable[[Page], Callable[[Request], Awaitable[Response]]],
    act: Callable[[Act], Callable[[Request], Awaitable[Response]]],
) -> list[Route]:
    """These rooms, behind the owner's door (`page` and `act`)."""
    rooms = _Rooms(services)
    return [
        Route(HOME, page(rooms.blocks), methods=["GET"]),
        Route(f"{HOME}/add", act(rooms.add), methods=["POST"]),
        Route(f"{HOME}/remove", act(rooms.remove), methods=["POST"]),
        Route(f"{HOME}/import", act(rooms.import_), methods=["POST"]),
        Route(f"{HOME}/export.csv", page(rooms.export), methods=["GET"]),
        Route("/owner/replies/show", act(rooms.show), methods=["POST"]),
        Route("/owner/replies/report", act(rooms.report), methods=["POST"]),
        Route("/owner/decisions", page(rooms.decisions), methods=["GET"]),
    ]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    def _page(self, session: Session, template: str, **values: Any) -> Response:
        account, token = session.account, session.form_token
        return self._renderer.private(f"owner/{template}", 200, account=account, form_token=token, **values)

    async def blocks(self, request: Request, session: Session) -> Response:
        before = number_from(request, "before")
        values = await self._store.read(_rules_and_hidden, session.account.id, before)
        return self._page(session, "blocks.html", first=before is None, **values)

    async def decisions(self, request: Request, session: Session) -> Response:
        before = number_from(request, "before")
        found = await self._store.read(
            decisions.page, account_id=session.account.id, limit=PAGE + 1, before_id=before
        )
        older = found[PAGE - 1][0] if len(found) > PAGE else None
        rows = [decision for _, decision in found[:PAGE]]
        return self._page(session, "decisions.html", decisions=rows, older=older, first=before is None)

    async def add(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        entry = _entry(fields)
        await self._store.transact(_hold, self._ids, session.account.id, [entry])
        return HOME

    async def remove(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        kind, subject = _kind(fields.get("kind", "")), fields.get("subject", "")
        lifted = await self._store.transact(
            enforcement.lift_rule, blocks.owner(session.account.id), kind, subject_of(kind, subject)
        )
        if not lifted:
            raise NotFound("There is no such rule of yours", hint="Look at the list anew.")
        return HOME

    async def import_(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        severity: Severity = "limit" if fields.get("severity") == "limit" else "suspend"
        read = files.read(fields.get("lines", "").encode(), default=severity)
        blocklists.check(read)
        entries = [blocklists.entry_of(row) for row in read.rows]
        await self._store.transact(_hold, self._ids, session.account.id, entries)
        return HOME

    async def export(self, request: Request, session: Session) -> Response:
        kind = "actor" if request.query_params.get("show") == "accounts" else "domain"
        held = await self._store.read(blocks.of_holder, blocks.owner(session.account.id))
        lines = [one.entry.subject for one in held if one.entry.kind == kind and one.entry.severity == "suspend"]
        name = "blocked_accounts.csv" if kind == "actor" else "blocked_domains.csv"
        headers = {"Cache-Control": CACHE_NEVER, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(files.write_plain(lines), 200, headers, "text/csv; charset=utf-8")

    async def show(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        reply = fields.get("reply", "")
        if not await self._store.transact(enforcement.show_reply, self._ids, session.account.id, reply):
            raise NotFound("There is no hidden reply of that address that you could show")
        return HOME

    async def report(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        about, words = fields.get("reply", ""), fields.get("words", "")
        await self._store.transact(_complain, self._ids, session.account.id, about, words)
        return HOME


def _complain(tx: Tx, ids: Any, account_id: int, about: str, words: str) -> None:
    if reports.author_of_reply(tx, about, account_id) is None:
        raise NotFound("There is no such reply to a post of yours", hint="Look at the page anew.")
    report.complain(tx, ids, about, words, account_id=account_id)


def _hold(tx: Tx, ids: Ids, account_id: int, entries: list[Entry]) -> None:
    enforcement.check_not_us(ids.authority, entries)
    held_by = blocks.owner(account_id)
    held = {(one.entry.kind, one.entry.subject) for one in blocks.of_holder(tx, held_by)}
    if len(held | {(entry.kind, entry.subject) for entry in entries}) > RULES_MAX:
        raise Conflict(f"You can hold {RULES_MAX} rules", hint="Lift some that you need no more.")
    enforcement.add_rules(tx, held_by, entries, account_id=account_id)


def _entry(fields: dict[str, str]) -> Entry:
    kind = _kind(fields.get("kind", ""))
    subject = fields.get("subject", "")
    if kind == "domain" and ("@" in subject or subject.startswith(("https://", "http://"))):
        kind = "actor"
    severity: Severity
    match fields.get("severity", ""):
        case "suspend":
            severity = "suspend"
        case "limit":
            severity = "limit"
        case "allow":
            severity = "allow"
        case _:
            raise Invalid("This form does not say what to do", hint="Open the page and send its form.")
    return Entry(kind, subject_of(kind, subject), severity, fields.get("comment", "")[:500])


def _kind(written: str) -> SubjectKind:
    match written:
        case "actor":
            return "actor"
        case "domain":
            return "domain"
        case "keyword":
            return "keyword"
    raise Invalid("This form does not say what it is about", hint="Open the page and send its form.")


def _rules_and_hidden(tx: Tx, account_id: int, before: int | None) -> dict[str, Any]:
    hidden = parking.hidden_replies(tx, account_id, limit=PAGE + 1, before_id=before)
    return {
        "rules": [one.entry for one in blocks.of_holder(tx, blocks.owner(account_id))],
        "hidden": [(one, shown.foreign(one.html)) for one in hidden[:PAGE]],
        "older": hidden[PAGE - 1].row if len(hidden) > PAGE else None,
        "reported": reports.page(tx, direction="out", account_id=account_id, with_resolved=True, limit=PAGE),
    }
