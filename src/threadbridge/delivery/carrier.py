"""Bringing one body to one inbox, signed as its host takes it.

Rule: a request is signed right before it leaves (Misskey refuses a Date older than five minutes, Takahē one older
than a minute); nothing signed is ever stored. Whatever is posted from here goes this way, so that every host is met
in the manner that it is known to take, whoever speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import structlog

from threadbridge.delivery import retry
from threadbridge.delivery.retry import Answer
from threadbridge.errors import AddressRefused, NetworkError
from threadbridge.net.client import Client
from threadbridge.signatures import knocking, schemes
from threadbridge.signatures.keys import SigningKey
from threadbridge.signatures.knocking import Knock, Manner
from threadbridge.storage.hosts import Taken

log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 15.0
_CONTENT_TYPE = "application/activity+json"


class Carrier:
    """Posts to inboxes over `client`. Close it after use."""

    def __init__(self, client: Client, *, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._clock = clock
        # Signing releases the interpreter's lock, so two threads sign on two cores.
        self._signers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="signer")

    def close(self) -> None:
        """Sign nothing more."""
        self._signers.shutdown(wait=False, cancel_futures=True)

    async def knock(
        self, inbox: str, host: str, body: bytes, key: SigningKey, taken: Taken | None
    ) -> tuple[Answer, Taken | None]:
        """Send with the kind of signature that the host is known to take, and at once with others while it is the
        signature that is refused. Returns the answer that counts, and what is worth remembering of the host."""
        manner = knocking.remembered(taken.scheme, taken.asked) if taken else knocking.USUAL
        tried: list[Knock] = []
        refusal: Answer | None = None
        while True:
            answer = await self._post(inbox, body, manner, key)
            if answer.status is None:
                break
            said = retry.readable(answer) if retry.other_scheme_worth_trying(answer) else ""
            tried.append(Knock(manner, answer.status, answer.asked_signature, said))
            refusal = refusal or (answer if retry.other_scheme_worth_trying(answer) else None)
            onward = knocking.onward(tried, key_id=key.key_id)
            if onward is None:
                break
            manner = onward
        if refusal is not None and (answer.status is None or retry.other_scheme_worth_trying(answer)):
            # The first refusal names the trouble with what everybody else takes.
            return refusal, None
        if len(tried) < 2 or answer.status is None or not 200 <= answer.status < 300:
            return answer, None
        evidence = knocking.evidence(tried)
        log.info("another signature was accepted", host=host, evidence=evidence)
        demand = manner.lasting.demand
        return answer, Taken(manner.scheme, demand.lasting if demand else None, evidence)

    async def _post(self, inbox: str, body: bytes, manner: Manner, key: SigningKey) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            url = self._client.canonical(inbox)
            headers = await loop.run_in_executor(self._signers, self._signed, manner, key, url, body)
            got = await self._client.post(url, body=body, headers=headers, deadline=DEADLINE_SECONDS)
        except AddressRefused as error:
            return Answer(None, error.public, ours=True)
        except NetworkError as error:
            return Answer(None, error.public)
        return Answer(
            got.status,
            retry_after=got.headers.get("retry-after"),
            body=got.body,
            asked_signature=got.headers.get("accept-signature"),
        )

    def _signed(self, manner: Manner, key: SigningKey, url: str, body: bytes) -> dict[str, str]:
        return schemes.sign(
            manner.scheme,
            key,
            method="POST",
            url=url,
            body=body,
            date=self._clock(),
            content_type=_CONTENT_TYPE,
            demand=manner.demand,
        )
