"""Other servers' documents: actors, keys, posts, WebFinger.

Rule: a document is believed only when it came, as ActivityPub, from the very address that its `id` names (Mastodon
CVE-2024-23832 and Misskey CVE-2024-52591 are what happens otherwise); a key only when its owner's own document lists
it. And nobody makes us ask a third party more often than it can bear: one request per URL at a time, a budget per
host that redirects count against, and a memory of what was not there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from typing import Any, Literal
from urllib.parse import urldefrag, urlencode, urljoin

import structlog

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.content_types import JRD, is_activity_json, media_type
from threadbridge.domain.people import Peer, PeerKey
from threadbridge.errors import AddressRefused, BadAnswer, Invalid, NetworkError, OwnTrouble, TimedOut
from threadbridge.net.answers import Answer
from threadbridge.net.client import Client
from threadbridge.net.guard import parse_url
from threadbridge.net.manners import Manners, Memory
from threadbridge.net.restraint import Budgets, BudgetSpent, Dead, SingleFlight
from threadbridge.signatures import knocking
from threadbridge.signatures.keys import origin
from threadbridge.signatures.knocking import Knock, Manner

log = structlog.get_logger(__name__)

ACCEPT = "application/activity+json, application/ld+json"
"""What Mastodon sends."""

DOCUMENT_MAX = 1_000_000
JRD_MAX = 100_000
DOCUMENT_DEADLINE = 10.0
KEY_DEADLINE = 15.0
_PROBE_DEADLINE = 2.0
REQUESTS_PER_MINUTE = 30
UNHURRIED_PER_MINUTE = 60
BROUGHT_PER_MINUTE = 20
"""How often one host is asked, within a minute, about what others bring of it."""
LED_PER_DAY = 200
"""How many requests to other hosts the documents of one host may lead us to in a day."""

SignGet = Callable[[str, Manner], Awaitable[Mapping[str, str]]]
"""Given the canonical URL of a GET and the manner of signing, its signature headers. Asked anew for every hop."""

_HANDLE = re.compile(r"(?:acct:)?@?([^@\s/?#]{1,2048})@([^@\s/?#]{1,300})")


class Peers:
    """Fetches documents of other servers over `client`. `sign_get` gives the headers with which the instance actor,
    whose key is `key_id`, signs a GET of a URL; GoToSocial, Threads and servers in secure mode answer nothing else.

    `requests_per_minute` is the budget of one host (host and port); `monotonic` a clock in seconds.
    """

    def __init__(
        self,
        client: Client,
        sign_get: SignGet,
        *,
        key_id: str = "",
        requests_per_minute: int = REQUESTS_PER_MINUTE,
        monotonic: Callable[[], float] = time.monotonic,
        memory: Memory | None = None,
    ) -> None:
        self._client = client
        self._sign_get = sign_get
        self._key_id = key_id
        self._monotonic = monotonic
        self._manners = Manners(monotonic, memory)
        self._per_minute = requests_per_minute
        self._budgets = Budgets(requests_per_minute, monotonic)
        self._led = Budgets(LED_PER_DAY, monotonic, seconds=24 * 3600.0)
        self._led_by: str | None = None
        self._unhurried: Peers | None = None
        self._dead = Dead(monotonic)
        self._documents = SingleFlight[tuple[str, dict[str, Any]]]()
        self._owners = SingleFlight[Peer]()

    def apart(self, requests_per_minute: int) -> Peers:
        """The same, paid for from budgets of its own (never larger ones): whatever is asked through it, and however
        much, nothing is taken from what these peers may ask. What was not there, and which signature a host takes, is
        known to both."""
        other = copy(self)
        other._per_minute = min(requests_per_minute, self._per_minute)
        other._budgets = Budgets(other._per_minute, self._monotonic)
        # Nor do they wait for each other: whoever joins a question would share its end, also that of its budget.
        other._documents, other._owners = SingleFlight(), SingleFlight()
        return other

    async def document(self, url: str) -> dict[str, Any]:
        """The document at `url`, or the one that it names as its `id`; its id is the address it came from.

        Raises BadAnswer, with the HTTP `status` when it is not 200 (404 and 410 mean gone), AddressRefused, TimedOut,
        NetworkError.
        """
        return await self._by_its_id(*await self._fetch(url))

    async def _by_its_id(self, final: str, read: dict[str, Any]) -> dict[str, Any]:
        """`read`, which came from `final`, if that is its id; otherwise what is found at its id, asked once."""
        named = document.id_of(read)
        if not named:
            raise BadAnswer(f"{_shown(final)} has no id")
        if _same(named, final):
            return read
        final, again = await self._fetch(named)
        if document.id_of(again) != named or not _same(named, final):
            raise BadAnswer(
                f"{_shown(final)} is a document about something else", detail=_shown(document.id_of(again))
            )
        return again

    async def object(self, uri: str) -> dict[str, Any]:
        """The document whose id is `uri`, from its origin; for believing what somebody else forwarded."""
        read = await self.document(uri)
        if document.id_of(read) != uri:
            raise BadAnswer(f"{_shown(uri)} is the address of something else", detail=_shown(document.id_of(read)))
        return read

    async def unhurried(self, uri: str, *, led_by: str) -> dict[str, Any]:
        """`object` for what nobody waits for, to which a document of the host `led_by` has led: paid for from a
        smaller budget of its own, so that following threads takes nothing from asking for keys. What leads to another
        host, by redirects and ids too, is counted against the one that led there, for a day."""
        if self._unhurried is None:
            self._unhurried = self.apart(UNHURRIED_PER_MINUTE)
        led = copy(self._unhurried)
        led._led_by = led_by
        return await led.object(uri)

    async def described(self, uri: str) -> incoming.IncomingActor:
        """All that the actor whose id is `uri` says of itself."""
        return _read_actor(await self.object(uri))

    async def actor(self, uri: str) -> Peer:
        """The actor whose id is `uri`."""
        return peer_of(_read_actor(await self.object(uri)))

    async def is_gone(self, uri: str) -> bool:
        """Whether the origin says that `uri` was deleted: 404, 410 or a Tombstone. Raises when it says neither."""
        return await self.absence(uri) != "there"

    async def absence(self, uri: str) -> Literal["there", "missing", "deleted"]:
        """What the origin says of `uri`: that it is there, is not found (404), or was deleted (410, a Tombstone).
        Raises when it says none of these."""
        try:
            _, read = await self._fetch(uri)
        except BadAnswer as error:
            if error.status == 410:
                return "deleted"
            if error.status == 404:
                return "missing"
            raise
        if document.id_of(read) != uri:
            raise BadAnswer(f"{_shown(uri)} is the address of something else")
        return "deleted" if incoming.is_tombstone(read) else "there"

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def by_key(self, key_id: str) -> Peer:
        """The actor to whom `key_id` belongs, with that key.

        `key_id` may lead to the actor, to a stub of it (GoToSocial's `…/main-key`), or to the bare key; in any case
        the actor's own document must list it, and both live at one origin. What failed is not asked again for five
        minutes, then longer, up to six hours; trouble on the way is forgotten after five minutes each time.
        """
        if origin(key_id) is None:
            raise BadAnswer("The key has no http(s) address", detail=_shown(key_id))
        self._dead.check(key_id, urldefrag(key_id).url)
        # On its own: whoever asked may lose patience, and what was found out is remembered all the same. (A server
        # that never answers would otherwise be asked again by every request that names it.)
        return await self._owners.run(key_id, lambda: self._by_key_remembered(key_id))

    async def _by_key_remembered(self, key_id: str) -> Peer:
        where = urldefrag(key_id).url
        try:
            async with asyncio.timeout(KEY_DEADLINE):
                peer = await self._by_key(key_id, where)
        except (BudgetSpent, OwnTrouble):
            # Neither says anything of that server.
            raise
        except TimeoutError:
            self._dead.failed(where, TimedOut(f"{_shown(where)} did not answer in time"), lasting=False)
            raise TimedOut(f"{_shown(where)} did not answer in time") from None
        except _NotListed as error:
            # Remembered for this key alone: others of the same actor may be good.
            self._dead.failed(key_id, error, lasting=True)
            raise
        except NetworkError as error:
            status = error.status if isinstance(error, BadAnswer) else None
            lasting = isinstance(error, AddressRefused) or (status is not None and status < 500)
            self._dead.failed(where, error, lasting=lasting)
            raise
        self._dead.forget(key_id, where)
        return peer

    async def _by_key(self, key_id: str, where: str) -> Peer:
        final, read = await self._fetch(where)
        if not incoming.is_bare_key(read):
            return _with_key(await self._by_its_id(final, read), key_id, None)
        try:
            owner = incoming.key_owner(read)
        except Invalid as error:
            raise BadAnswer(f"{_shown(final)} is not a key we can read", detail=str(error)) from None
        named = document.id_of(read)
        if named != key_id or not _same(where, final):
            raise _NotListed(f"{_shown(final)} is another key than the one that was used", detail=_shown(named))
        return _with_key(await self.object(owner), key_id, read)

    # ── WebFinger ────────────────────────────────────────────────────────────────────────────────────────────────

    async def webfinger(self, handle: str) -> str:
        """The actor id of `@user@host`. A server may name its accounts under another host (`subject`): then that host
        is asked too and must name the same actor."""
        match = _HANDLE.fullmatch(handle.strip())
        if match is None:
            raise BadAnswer("A handle looks like @user@host", detail=repr(handle[:100]))
        asked = f"{match[1]}@{match[2]}"
        subject, href = await self._jrd(asked)
        if subject.casefold() != asked.casefold():
            confirmed, same = await self._jrd(subject)
            if confirmed.casefold() != subject.casefold() or same != href:
                raise BadAnswer(f"{asked} calls itself {subject}, which {subject} does not confirm")
        return href

    async def _jrd(self, handle: str) -> tuple[str, str]:
        """Subject (`user@host`) and actor id in the WebFinger answer for `user@host`."""
        path = "/.well-known/webfinger?" + urlencode({"resource": f"acct:{handle}"})
        host = handle.rpartition("@")[2]
        accept = {"Accept": "application/jrd+json, application/json"}
        private = bool(self._client.guard.allowed)
        try:
            deadline = _PROBE_DEADLINE if private else DOCUMENT_DEADLINE
            answer = await self._ask(f"https://{host}{path}", accept, signed=False, limit=JRD_MAX, deadline=deadline)
        except NetworkError as error:
            if not private or isinstance(error, (BadAnswer, AddressRefused, BudgetSpent)):
                raise
            # On a private network a handle does not say whether its server speaks TLS.
            answer = await self._ask(f"http://{host}{path}", accept, signed=False, limit=JRD_MAX)
        if media_type(answer.headers.get("content-type", ""))[0] not in JRD:
            raise BadAnswer(f"{host} does not answer WebFinger with JSON")
        read = incoming.read_jrd(_decode(answer))
        if not _HANDLE.fullmatch(read.handle):
            raise BadAnswer(f"{host} answers WebFinger without a subject")
        if not read.actors:
            raise BadAnswer(f"{handle} has no ActivityPub actor")
        self._client.guard.check_url(read.actors[0])
        return read.handle, read.actors[0]

    # ── NodeInfo ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def software(self, base: str) -> incoming.Software:
        """What the server at `base` (scheme and authority) runs, by its NodeInfo 2.x, which it must serve itself.
        Raises as `document` does; BadAnswer too when it answers with something else."""
        accept = {"Accept": "application/json"}
        answer = await self._ask(f"{base}/.well-known/nodeinfo", accept, signed=False, limit=JRD_MAX)
        try:
            own = {parse_url(base).authority, parse_url(answer.url).authority}
            places = [
                place
                for place in incoming.read_nodeinfo_links(_decode(answer))
                if parse_url(urljoin(answer.url, place)).authority in own
            ]
            if not places:
                raise BadAnswer(f"{_shown(answer.url)} names no NodeInfo of its own")
            found = await self._ask(urljoin(answer.url, places[0]), accept, signed=False, limit=JRD_MAX)
            return incoming.read_nodeinfo(_decode(found))
        except (Invalid, AddressRefused) as error:
            raise BadAnswer(f"{_shown(answer.url)} has no NodeInfo we can read", detail=str(error)) from None

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, url: str) -> tuple[str, dict[str, Any]]:
        """The final address and the document there. Everybody who asks for one URL at a time shares one request."""
        canonical = self._client.canonical(url)
        return await self._documents.run(canonical, lambda: self._fetch_alone(canonical))

    async def _fetch_alone(self, url: str) -> tuple[str, dict[str, Any]]:
        answer = await self._ask(url, {"Accept": ACCEPT}, signed=True, limit=DOCUMENT_MAX)
        content_type = answer.headers.get("content-type", "")
        if not is_activity_json(content_type):
            raise BadAnswer(f"{_shown(answer.url)} is not an ActivityPub document", detail=repr(content_type[:100]))
        return answer.url, _decode(answer)

    async def _ask(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        signed: bool,
        limit: int,
        deadline: float = DOCUMENT_DEADLINE,
    ) -> Answer:
        """A GET whose every hop is signed (if it is to be) and paid for by the host that is asked. A host that
        refuses the signature is asked again with another one; `deadline` is over all of it."""
        ends_at = asyncio.get_running_loop().time() + deadline
        tried: list[Knock] = []
        trial: dict[str, Manner] = {}

        async def each_hop(hop: str) -> Mapping[str, str]:
            authority = parse_url(hop).authority
            if self._led_by not in (None, authority) and not self._led.take(str(self._led_by)):
                raise BudgetSpent(f"{self._led_by} has led to other servers {LED_PER_DAY} times within a day")
            self._budgets.spend(authority)
            if not signed:
                return {}
            return await self._sign_get(hop, trial.get(authority) or await self._manners.of(authority))

        while True:
            left = max(ends_at - asyncio.get_running_loop().time(), 0.001)
            answer = await self._client.get(url, headers=headers, limit=limit, deadline=left, resign=each_hop)
            if not signed:
                break
            authority = parse_url(answer.url).authority
            used = trial.get(authority) or await self._manners.of(authority)
            tried.append(Knock(used, answer.status, answer.headers.get("accept-signature")))
            onward = knocking.onward(tried, key_id=self._key_id, body=False, query="?" in answer.url)
            if onward is None:
                if len(tried) > 1 and answer.status == 200:
                    evidence = knocking.evidence(tried)
                    log.info("another signature was accepted", host=authority, evidence=evidence)
                    await self._manners.learnt(authority, used, evidence)
                break
            # From where the redirects led: what is refused there says nothing about the way.
            url, trial = answer.url, {authority: onward}
        if answer.status != 200:
            raise BadAnswer(f"{_shown(answer.url)} answered {answer.status}", status=answer.status)
        return answer


class _NotListed(BadAnswer):
    """A document was found, but it does not speak for this key. Says nothing about other keys found there."""


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _decode(answer: Answer) -> dict[str, Any]:
    try:
        return document.decode(answer.body)
    except Invalid as error:
        raise BadAnswer(f"{_shown(answer.url)} is not a document we can read", detail=str(error)) from None


def _read_actor(read: dict[str, Any]) -> incoming.IncomingActor:
    try:
        return incoming.read_actor(read)
    except Invalid as error:
        raise _unreadable(read, error) from None


def _unreadable(read: dict[str, Any], error: Invalid) -> BadAnswer:
    return BadAnswer(f"{_shown(document.id_of(read))} is not an actor we can read", detail=str(error))


def peer_of(actor: incoming.IncomingActor, key: incoming.IncomingKey | None = None) -> Peer:
    """An actor as the rest of the house knows it, with `key` or else the first of its keys. The handle is made of the
    id's host, whatever other host its WebFinger may prefer."""
    key = key or actor.keys[0]
    authority = parse_url(actor.id).authority
    return Peer(
        uri=actor.id,
        inbox=actor.inbox,
        shared_inbox=actor.shared_inbox,
        handle=f"{actor.preferred_username or authority}@{authority}",
        name=actor.name,
        url=actor.url,
        key_id=key.id,
        key_pem=key.pem,
        keys=tuple(PeerKey(held.id, held.pem, held.asserts) for held in actor.keys),
        kind=actor.kind,
        moved_to=actor.moved_to,
        original=actor.copy_of,
    )


def _with_key(read: dict[str, Any], key_id: str, bare: dict[str, Any] | None) -> Peer:
    """The actor in `read` with the key `key_id`, which it must list; `bare` is that key as a document of its own."""
    try:
        actor, key = incoming.read_key_of(read, key_id, bare)
    except Invalid as error:
        raise _unreadable(read, error) from None
    if key is None:
        raise _NotListed(f"{_shown(actor.id)} does not list the key that was used", detail=_shown(key_id))
    return peer_of(actor, key)


def _same(one: str, other: str) -> bool:
    """Whether two ids lead to the same document."""
    if one == other:
        return True
    try:
        return parse_url(one).url == parse_url(other).url and not urldefrag(one).fragment
    except AddressRefused:
        return False


def _shown(url: str) -> str:
    return url.split("?", 1)[0][:200]
