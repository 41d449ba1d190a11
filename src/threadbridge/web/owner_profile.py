"""The owner's rooms about the account itself: what the profile says, the own domain, the end of it.

    /owner/profile                  fields, the line that says what this is, switches, what newcomers see; POST
    /owner/profile/handle           POST another handle
    /owner/profile/aliases          POST one more; …/remove: POST
    /owner/domain                   being found as @name@example.org: POST asks for it; …/check, …/remove: POST
    /owner/delete                   the deletion: POST asks for it; …/take-back: POST

Rule: as in `owner`: forms and links alone, nothing changes by a GET, every POST goes through `sessions.allowed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import (
    ALT_LENGTH,
    FEATURED_MAX,
    FIELDS_MAX,
    check_domain,
)
from threadbridge.errors import Invalid
from threadbridge.federation import also_known, farewell, own_domain
from threadbridge.portability import certificates, exports
from threadbridge.services import Services
from threadbridge.storage import accounts, farewells, profiles
from threadbridge.storage.store import Tx
from threadbridge.web import documents, shown
from threadbridge.web.render import Renderer
from threadbridge.web.sessions import Session

Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, dict[str, str]], Awaitable[str]]
Answer = Callable[[Request], Awaitable[Response]]


def routes(services: Services, page: Callable[[Page], Answer], act: Callable[[Act], Answer]) -> list[Route]:
    """These rooms; `page` and `act` let only the signed-in through."""
    rooms = _Rooms(services)

    def both(show: Page, work: Act) -> Answer:
        """One address for both, so that an unknown method is told the right ones."""
        shown_page, acted = page(show), act(work)

        async def either(request: Request) -> Response:
            return await (acted if request.method == "POST" else shown_page)(request)

        return either

    return [
        Route("/owner/profile", both(rooms.profile, rooms.set_profile), methods=["GET", "POST"]),
        Route("/owner/profile/handle", act(rooms.rename), methods=["POST"]),
        Route("/owner/profile/aliases", act(rooms.add_alias), methods=["POST"]),
        Route("/owner/profile/aliases/remove", act(rooms.remove_alias), methods=["POST"]),
        Route("/owner/domain", both(rooms.domain, rooms.set_domain), methods=["GET", "POST"]),
        Route("/owner/domain/check", act(rooms.check_domain), methods=["POST"]),
        Route("/owner/domain/remove", act(rooms.remove_domain), methods=["POST"]),
        Route("/owner/delete", both(rooms.deletion, rooms.delete), methods=["GET", "POST"]),
        Route("/owner/delete/take-back", act(rooms.take_back), methods=["POST"]),
    ]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._ids = services.ids
        self._renderer = Renderer(services.ids)

    def _page(self, session: Session, template: str, **values: Any) -> Response:
        account, token = session.account, session.form_token
        return self._renderer.private(f"owner/{template}", account=account, form_token=token, **values)

    # ── the profile ──────────────────────────────────────────────────────────────────────────────────────────────

    async def profile(self, request: Request, session: Session) -> Response:
        values = await self._store.read(_profile, self._ids, session.account.id)
        return self._page(session, "profile.html", **values)

    async def set_profile(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(_set_profile, self._ids, session.account.id, fields)
        return "/owner/profile"

    async def rename(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        handle = fields.get("handle", "").strip().lstrip("@").lower()
        await self._store.transact(accounts.rename, session.account.id, handle)
        return "/owner/profile"

    async def add_alias(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        peers, given = self._services.peers, fields.get("alias", "")
        await also_known.add(self._store, peers, self._ids, session.account.id, given)
        return "/owner/profile#aliases"

    async def remove_alias(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(profiles.remove_alias, session.account.id, fields.get("uri", ""))
        return "/owner/profile#aliases"

    # ── the own domain ───────────────────────────────────────────────────────────────────────────────────────────

    async def domain(self, request: Request, session: Session) -> Response:
        held = await self._store.read(profiles.own_domain, session.account.id)
        ready = own_domain.snippets(self._ids, session.account, held.domain if held else "example.org")
        return self._page(session, "domain.html", domain=held, snippets=ready)

    async def set_domain(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        private = bool(self._services.config.allowed_private_networks)
        domain = check_domain(fields.get("domain", ""), private_allowed=private)
        if domain == self._ids.authority:
            raise Invalid("That is this server's own name", hint="You are found under it anyway.")
        await self._store.transact(profiles.ask_for_domain, session.account.id, domain)
        return await self.check_domain(request, session, fields)

    async def check_domain(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        async with self._services.echo_client() as client:
            await own_domain.check_now(self._store, client, self._ids, session.account.id)
        return "/owner/domain"

    async def remove_domain(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(profiles.remove_domain, session.account.id)
        return "/owner/domain"

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def deletion(self, request: Request, session: Session) -> Response:
        held = await self._store.read(farewells.of_account, session.account.id)
        code = await self._store.read(certificates.code, self._services.vault, session.account.id)
        proof = f"{self._ids.base}/certificates/{session.account.id}/{code}" if code else None
        return self._page(session, "delete.html", farewell=held, days=farewell.COOLING.days, certificate=proof)

    async def delete(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        if fields.get("handle", "").strip().lstrip("@") != session.account.handle:
            raise Invalid(
                "The name does not match: nothing was deleted",
                hint=f"Type {session.account.handle} to say that you mean it.",
            )
        await self._store.transact(_delete, session.account.id, archive=bool(fields.get("archive")))
        return "/owner/delete"

    async def take_back(self, request: Request, session: Session, fields: dict[str, str]) -> str:
        await self._store.transact(farewell.take_back, session.account.id, "the owner's page")
        return "/owner/delete"


# ── reading and writing ──────────────────────────────────────────────────────────────────────────────────────────


def _profile(tx: Tx, ids: Ids, account_id: int) -> dict[str, Any]:
    account = accounts.by_id(tx, account_id)
    assert account is not None
    held = profiles.of_account(tx, account_id)
    return {
        "profile": held,
        "blank": range(len(held.fields), FIELDS_MAX),
        "default_line": f"Bridged from Threads by {ids.authority}",
        "featured_max": FEATURED_MAX,
        "alt_length": ALT_LENGTH,
        "newcomers": shown.gather(tx, ids, documents.on_top(tx, account), {account_id: account}),
        "former": accounts.former_handles(tx, account_id),
    }


def _set_profile(tx: Tx, ids: Ids, account_id: int, given: dict[str, str]) -> None:
    """Take over the form. Raises Invalid, and then changes nothing."""
    pairs = [(given.get(f"name{n}", ""), given.get(f"value{n}", "")) for n in range(FIELDS_MAX)]
    profiles.set_fields(tx, account_id, pairs)
    profiles.choose(
        tx,
        account_id,
        ids.authority,
        line={"ours": None, "field": ""}.get(given.get("statement", "ours"), given.get("line", "").strip() or None),
        discoverable="discoverable" in given,
        indexable="indexable" in given,
        featured=_number(given.get("featured", "")),
        credit=given.get("credit", "").replace(",", " ").split(),
        avatar_alt=given.get("avatar_alt", ""),
        header_alt=given.get("header_alt", ""),
    )


def _number(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) < 4):
        raise Invalid(f"{given[:20]!r} is no number of posts", hint=f"Choose 0 to {FEATURED_MAX}.")
    return int(given)


def _delete(tx: Tx, account_id: int, *, archive: bool) -> None:
    farewell.ask(tx, account_id, "the owner's page")
    if archive:
        exports.request(tx, account_id)
