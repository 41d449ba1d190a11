"""Secure mode ("authorized fetch"): whoever reads posts, profiles and collections as ActivityPub says who they are.

Open in any case: WebFinger, host-meta, NodeInfo, the server's own actor, pages for people, media; and of each account
a stub with its keys. Two servers in secure mode would otherwise wait for each other: each needs the other's key to
verify the request for its own.

Rule: what is for known readers is kept and marked apart from what is for everybody, so that no shortcut, here or in a
cache between, hands it to somebody else. Without secure mode a signature on a GET is not looked at, however broken.
"""

from __future__ import annotations

import structlog
from starlette.requests import Request

from threadbridge.errors import Forbidden
from threadbridge.federation import admission
from threadbridge.services import Services
from threadbridge.web.senders import Senders

log = structlog.get_logger(__name__)


class Readers:
    """Decides who may read. `secure` says whether that is asked at all."""

    def __init__(self, services: Services, senders: Senders) -> None:
        self.secure = services.config.secure_mode
        self._store = services.store
        self._senders = senders

    def anonymous(self, request: Request) -> bool:
        """Whether a request that would have to be signed is not."""
        return self.secure and "signature" not in request.headers

    async def admit(self, request: Request, account_id: int) -> None:
        """Let a GET of something of an account pass; raises SignatureRefused, TooMany, and Forbidden for readers whom
        the operator, or the owner of the account, has blocked."""
        if not self.secure:
            return
        verified, known, _ = await self._senders.proven(request, b"")
        if not await self._store.read(admission.may_read, verified.actor, account_id, known.peer.handle):
            log.info("request refused", method=request.method, path=request.url.path[:200], reason="blocked",
                     reader=verified.actor)  # fmt: skip
            raise Forbidden("Your server, or your account, may not read here")
