"""Bringing one body to one inbox, signed as its host takes it.

Rule: a request is signed right before it leaves (Misskey refuses a Date older than five minutes, Takahē one older
than a minute); nothing signed is ever stored. Whatever is posted from here goes this way, so that every host is met
in the manner that it is known to take, whoever speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from threadbridge.delivery import pace, retry
from threadbridge.delivery.retry import Answer, Cause
from threadbridge.errors import (
    AddressRefused,
    BadAnswer,
    NameUnknown,
    NetworkError,
    NotSecure,
    OwnTrouble,
    TimedOut,
    Unavailable,
)
from threadbridge.net.client import Client
from threadbridge.signatures import knocking, schemes
from threadbridge.signatures.keys import SigningKey
from threadbridge.signatures.knocking import Knock, Manner
from threadbridge.storage.hosts import Taken
from threadbridge.telemetry import metrics

log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 15.0
_SIGNED_AT_ONCE = 8
_CONTENT_TYPE = "application/activity+json"


class Carrier:
    """Posts to inboxes over `client`. Close it after use."""

    def __init__(self, client: Client, *, clock: Callable[[], datetime], quiet: bool = False) -> None:
        self._client = client
        self._quiet = quiet
        self._clock = clock
        # Signing releases the interpreter's lock, so two threads sign on two cores.
        self._signers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="signer")
        self._unsigned: list[_Unsigned] = []

    def close(self) -> None:
        """Sign nothing more."""
        self._signers.shutdown(wait=False, cancel_futures=True)

    async def knock(
        self, inbox: str, host: str, body: bytes, key: SigningKey, taken: Taken | None
    ) -> tuple[Answer, Taken | None]:
        """Send with the kind of signature that the host is known to take, and at once with others while it is the
        signature that is refused. Returns the answer that counts, and what is worth remembering of the host. Raises
        Unavailable while the brake is on, OwnTrouble when nobody can be reached from here."""
        if self._quiet:
            # Nobody takes anything to be sent while the brake is on; whoever should do so all the same stops here.
            raise Unavailable("The brake is on: nothing is sent", hint="See `threadbridge queue`.")
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
        try:
            url = self._client.canonical(inbox)
            headers = await self._sign(manner, key, url, body)
            got = await self._client.post(url, body=body, headers=headers, deadline=DEADLINE_SECONDS)
        except AddressRefused as error:
            return Answer(None, error.public, ours=True)
        except OwnTrouble:
            # It says nothing of their host.
            raise
        except NetworkError as error:
            return Answer(None, error.public, cause=_cause(error))
        return Answer(
            got.status,
            retry_after=got.headers.get("retry-after"),
            quota=pace.read(got.headers, self._clock()),
            body=got.body,
            asked_signature=got.headers.get("accept-signature"),
        )

    async def _sign(self, manner: Manner, key: SigningKey, url: str, body: bytes) -> dict[str, str]:
        """The headers of a request, made in another thread: several to a thread's turn, since handing one over and
        waking the loop for its answer costs half of what signing does."""
        loop = asyncio.get_running_loop()
        promise: asyncio.Future[dict[str, str]] = loop.create_future()
        if not self._unsigned:
            loop.call_soon(self._hand_over, loop)
        self._unsigned.append(_Unsigned(promise, manner, key, url, body))
        return await promise

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        wanted, self._unsigned = self._unsigned, []
        for start in range(0, len(wanted), _SIGNED_AT_ONCE):
            some = wanted[start : start + _SIGNED_AT_ONCE]
            try:
                self._signers.submit(self._sign_some, loop, some)
            except RuntimeError as error:
                _fulfil([(one, None, error) for one in some])

    def _sign_some(self, loop: asyncio.AbstractEventLoop, wanted: list[_Unsigned]) -> None:
        made: list[_Made] = []
        for one in wanted:
            if one.promise.cancelled():
                continue
            try:
                with metrics.signing():
                    headers = self._signed(one)
                made.append((one, headers, None))
            except Exception as error:
                made.append((one, None, error))
        with suppress(RuntimeError):  # the loop has been closed meanwhile; nobody waits
            loop.call_soon_threadsafe(_fulfil, made)

    def _signed(self, one: _Unsigned) -> dict[str, str]:
        return schemes.sign(
            one.manner.scheme,
            one.key,
            method="POST",
            url=one.url,
            body=one.body,
            date=self._clock(),
            content_type=_CONTENT_TYPE,
            demand=one.manner.demand,
        )


def _cause(error: NetworkError) -> Cause:
    if isinstance(error, TimedOut):
        return "no answer in time"
    if isinstance(error, NameUnknown):
        return "name unknown"
    if isinstance(error, NotSecure):
        return "TLS refused"
    return "not proper HTTP" if isinstance(error, BadAnswer) else "no connection"


@dataclass(frozen=True, slots=True)
class _Unsigned:
    """A request that waits for its signature."""

    promise: asyncio.Future[dict[str, str]]
    manner: Manner
    key: SigningKey
    url: str
    body: bytes


_Made = tuple[_Unsigned, dict[str, str] | None, Exception | None]


def _fulfil(made: list[_Made]) -> None:
    for one, headers, error in made:
        if one.promise.done():
            continue
        if headers is not None:
            one.promise.set_result(headers)
        else:
            one.promise.set_exception(error or RuntimeError("nothing was signed"))
