"""Archives leave through a signed link.

    /owner/export/{export}/{name}.zip?sig=…

Rule: whoever holds the link may download until it ends, so that curl can go on where it stopped, without a cookie.
A link that is wrong, has ended, or belongs to another archive is answered like an address that never was.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from datetime import datetime, timedelta
from typing import Any

from itsdangerous import BadData, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.errors import NotFound
from threadbridge.media.shelves import Shelf
from threadbridge.portability.exports import name_of
from threadbridge.storage import accounts, exports
from threadbridge.storage.exports import Export
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import Vault
from threadbridge.web import from_shelf
from threadbridge.web.render import CACHE_NEVER, unchanged

LINK_LIFE = timedelta(hours=24)
# One range is all that resuming needs; anything else gets the whole file, as RFC 9110, 14.2 allows.
_RANGE = re.compile(rb"bytes=(?:[0-9]+-[0-9]*|-[0-9]+)")


class Downloads:
    """Makes and honours the links of one server."""

    def __init__(self, store: Store, vault: Vault, ids: Ids, shelf: Shelf) -> None:
        self._store = store
        self._ids = ids
        self._shelf = shelf
        self._signer = URLSafeSerializer(vault.derive("export links"), salt="export")

    def link(self, account: Account, export: Export, now: datetime) -> tuple[str, datetime]:
        """A fresh address of a ready archive, and when it ends."""
        ends = now + LINK_LIFE
        signature = self._signer.dumps([export.id, account.id, export.sha256, int(ends.timestamp())])
        name = file_name(account, export)
        return f"{self._ids.base}/owner/export/{export.id}/{name}?sig={signature}", ends

    async def answer(self, request: Request) -> Response:
        """The archive, whole or from where the caller stopped. Raises NotFound."""
        number = int(request.path_params["export"])
        found = await self._store.read(_found, number)
        if found is None or not self._fits(request, *found):
            raise NotFound("There is nothing here", hint=_HINT)
        account, export = found
        name = name_of(export)
        if name is None:
            raise NotFound("There is nothing here", hint=_HINT)
        etag = f'"sha256-{export.sha256}"'
        headers = {"etag": etag, "cache-control": f"{CACHE_NEVER}, private"}
        if unchanged(request, etag):
            return Response(status_code=304, headers=headers)
        _only_one_range(request.scope)
        return await from_shelf.answer(
            request,
            self._shelf,
            name,
            media_type="application/zip",
            headers=headers,
            filename=file_name(account, export),
        )

    def _fits(self, request: Request, account: Account, export: Export) -> bool:
        try:
            number, account_id, sha256, ends = self._signer.loads(request.query_params.get("sig", ""))
        except (BadData, ValueError, TypeError):
            return False
        return bool(
            (number, account_id, sha256) == (export.id, account.id, export.sha256)
            and export.state == "ready"
            and self._store.clock().timestamp() < ends
            and request.path_params["name"] == file_name(account, export).removesuffix(".zip")
        )


_HINT = "Links to archives end after a day: sign in and get a new one on the page 'Export'."


def file_name(account: Account, export: Export) -> str:
    """What the file is called on the owner's disk."""
    return f"{account.handle}-{export.requested_at:%Y-%m-%d}-{export.id}.zip"


def _found(tx: Tx, number: int) -> tuple[Account, Export] | None:
    export = exports.get(tx, number)
    account = accounts.by_id(tx, export.account_id) if export else None
    if export is None or account is None or account.state is AccountState.GONE:
        return None
    return account, export


def _only_one_range(scope: MutableMapping[str, Any]) -> None:
    headers = scope["headers"]
    ranges = [value for name, value in headers if name == b"range"]
    if ranges and not (len(ranges) == 1 and _RANGE.fullmatch(ranges[0].strip())):
        scope["headers"] = [(name, value) for name, value in headers if name != b"range"]
