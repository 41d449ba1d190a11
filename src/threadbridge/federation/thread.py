"""The thread around an answer, fetched by jobs.

    climb         from a post that names somebody here, up, to see whether it hangs below a post of ours
    look_around   from the answers that are held, to the answers to them that nobody sent us

Rule: an inbox request fetches none of this (PeerTube CVE-2025-32947: whoever could make it read a collection decided
how long). Every job has limits of its own: how far up, how many documents in all and of one host (authors too), how
many pages, how long; each address is asked once; a page leads on only within its own server. A collection leads to
its own server and to those that take part in the thread already, and nowhere else: or whoever answers here could
point us at anybody. What leads to another server is counted against the one that led there, for a day. A post is
believed as its own origin tells it, and only if it is public. What cannot be had is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import structlog

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.domain.people import Peer
from threadbridge.errors import Invalid, NetworkError
from threadbridge.federation import admission, inbox, reply
from threadbridge.federation.heard import Done, Heard, PreparedNote, prepare
from threadbridge.net.peers import Peers, peer_of
from threadbridge.storage import jobs, mentions, peers, posts, replies
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

ANCESTORS = 20
DOCUMENTS = 60
OF_ONE_HOST = 30
PAGES = 5
"""Pages of one collection."""
ITEMS = 200
SECONDS = 60.0
ROUNDS = 5
NEXT_ROUND = timedelta(minutes=15)
NOT_YET = "answers nothing of ours"
"""As far as is known: what it answers may be found later."""

Collections = tuple[str | Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A public post as its own origin tells it, and who wrote it."""

    note: PreparedNote
    peer: Peer


@dataclass(slots=True)
class Walk:
    """One job's way through other servers, and what of its limits is left."""

    store: Store
    ids: Ids
    peers: Peers
    documents: int = DOCUMENTS
    seconds: float = SECONDS
    around: dict[str, Collections] = field(default_factory=dict)
    """Where the documents that were read say that the posts around them are."""
    _authors: dict[str, Peer | None] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)
    _hosts: Counter[str] = field(default_factory=Counter)
    _began: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether the limits are used up."""
        return self.documents <= 0 or time.monotonic() - self._began > self.seconds

    def may_ask(self, uri: str) -> bool:
        """Whether the limits leave room for one more question to this address's host."""
        return not self.over and self._hosts[host_of(uri)] < OF_ONE_HOST

    async def document(self, uri: str, led_by: str) -> dict[str, Any] | None:
        """The document at an address that has not been asked yet, and to which a document of the host `led_by` has
        led; None when it cannot be had."""
        host = host_of(uri)
        if uri.startswith(self.ids.base + "/") or uri in self._asked or not self.may_ask(uri):
            return None
        self._asked.add(uri)
        self._hosts[host] += 1
        self.documents -= 1
        left = max(0.1, self.seconds - (time.monotonic() - self._began))
        if await self.store.read(admission.refusal_of, uri) is not None:
            # Whoever may not speak here is not asked either.
            return None
        try:
            async with asyncio.timeout(left):
                return await self.peers.unhurried(uri, led_by=led_by)
        except (NetworkError, Invalid, TimeoutError) as error:
            log.debug("a part of a thread could not be had", uri=uri, error=str(error))
            return None

    async def post(self, uri: str, led_by: str) -> Found | None:
        """A public post of somebody else's, with its author."""
        read = await self.document(uri, led_by)
        if read is None:
            return None
        try:
            note = incoming.read_note(read)
            prepared = await asyncio.to_thread(prepare, note, orjson.dumps(read).decode())
        except Invalid as error:
            log.debug("a part of a thread is no post", uri=uri, error=str(error))
            return None
        if not prepared.public or prepared.is_vote:
            return None
        self.around[uri] = incoming.related_collections(read)
        if prepared.author not in self._authors:
            self._authors[prepared.author] = await self._author(prepared.author)
        author = self._authors[prepared.author]
        return Found(prepared, author) if author else None

    async def _author(self, uri: str) -> Peer | None:
        known = await self.store.read(peers.by_uri, uri)
        if known is not None:
            return known
        # It lives where the post lives, which has led here.
        read = await self.document(uri, host_of(uri))
        try:
            return peer_of(incoming.read_actor(read)) if read is not None else None
        except Invalid as error:
            log.debug("an author in a thread could not be read", uri=uri, error=str(error))
            return None

    async def items(self, collection: str | Mapping[str, Any], within: str) -> list[str]:
        """Ids in a collection of the server of `within`, page by page; a page that was read, or that is another
        server's, ends it."""
        found: dict[str, None] = {}
        onward: str | Mapping[str, Any] | None = collection
        for _ in range(PAGES + 1):
            if isinstance(onward, str):
                if not incoming.same_origin(onward, within):
                    break
                onward = await self.document(onward, host_of(within))
            if onward is None:
                break
            try:
                page = incoming.read_page(onward)
            except Invalid:
                break
            found.update(dict.fromkeys(page.items))
            if len(found) >= ITEMS:
                break
            first = page.first
            if isinstance(first, Mapping):
                # Mastodon embeds the first page, empty where nobody of that server answered, with the way on.
                try:
                    inside = incoming.read_page(first)
                except Invalid:
                    break
                found.update(dict.fromkeys(inside.items))
                onward = inside.next
            else:
                onward = first or page.next
        return list(found)[:ITEMS]


# ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def climb(store: Store, ids: Ids, remote: Peers, job: Job) -> None:
    """Follow `inReplyTo` up from a post that names somebody here. Where it comes to a post of ours, it is an answer,
    and what lies between is kept with it; otherwise it stays a mention."""
    uri = str(job.arguments["uri"])
    held = await store.read(mentions.held, uri)
    walk = Walk(store, ids, remote)
    between: list[Found] = []
    met = {uri}
    parent = held.mention.in_reply_to if held else None
    while parent is not None and parent not in met and len(between) <= ANCESTORS:
        met.add(parent)
        if await store.read(reply.place_of, ids, parent) is not None:
            await store.transact(_hang, ids, list(reversed(between)), uri)
            break
        found = await walk.post(parent, host_of(uri))
        if found is None:
            break
        between.append(found)
        parent = found.note.in_reply_to
    await store.transact(jobs.finish, job)


def _hang(tx: Tx, ids: Ids, between: list[Found], uri: str) -> None:
    for found in between:
        if _keep(tx, ids, found) is not None:
            return
    held = mentions.held(tx, uri)
    place = reply.place_of(tx, ids, held.mention.in_reply_to) if held else None
    if held is not None and place is not None and reply.hang(tx, *place, held):
        reply.adopt(tx, *place, uri)


def _keep(tx: Tx, ids: Ids, found: Found) -> str | None:
    """Keep a fetched post as an answer if it is one; returns why not. It passes the same door as what is sent."""
    note, peer = found.note, found.peer
    if reply.place_of(tx, ids, note.in_reply_to) is None:
        return NOT_YET
    created = incoming.Create(note.uri, peer.uri, note.uri, None, None)
    outcome = inbox.receive_fetched(tx, created, Heard(ids, peer, note, peer_is_news=False), reply.found)
    return None if isinstance(outcome, Done) else outcome.reason


# ── around ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def look_around(store: Store, ids: Ids, remote: Peers, job: Job) -> None:
    """Look below the answers to one post for answers that nobody sent us. Each answer is looked at once; what the
    limits leave over waits for the next round."""
    post_id, rounds = int(job.arguments["post"]), int(job.arguments.get("round", 1))
    walk = Walk(store, ids, remote)
    tried: set[str] = set()
    while not walk.over:
        unlooked = await store.read(replies.unlooked, post_id, ids.base, limit=ITEMS)
        uri = next((uri for uri in unlooked if uri not in tried), None)
        if uri is None:
            break
        tried.add(uri)
        if uri in walk.around or walk.may_ask(uri):
            await _look_below(walk, uri, post_id)
            await store.transact(replies.looked, uri)
    await store.transact(_settle_look, job, ids.base, rounds)


async def _look_below(walk: Walk, uri: str, post_id: int) -> None:
    own = host_of(uri)
    if uri not in walk.around:
        read = await walk.document(uri, own)
        walk.around[uri] = incoming.related_collections(read) if read is not None else ()
    waiting: list[Found] = []
    for collection in walk.around[uri]:
        for item in await walk.items(collection, uri):
            if walk.over or await walk.store.read(_is_held, item):
                continue
            if host_of(item) != own and not await walk.store.read(replies.has_from, post_id, host_of(item)):
                log.debug("a thread leads to a server that takes no part in it", uri=item, of=uri)
                continue
            found = await walk.post(item, own)
            if found is not None and await walk.store.transact(_keep, walk.ids, found) == NOT_YET:
                waiting.append(found)
    # A collection need not be in the order in which they answer each other.
    progress = True
    while waiting and progress:
        progress = False
        for found in list(waiting):
            if await walk.store.transact(_keep, walk.ids, found) is None:
                waiting.remove(found)
                progress = True


def _is_held(tx: Tx, uri: str) -> bool:
    return replies.known(tx, uri)


def _settle_look(tx: Tx, job: Job, own_base: str, rounds: int) -> None:
    account_id, post_id = int(job.arguments["account"]), int(job.arguments["post"])
    live = posts.is_live(tx, account_id, post_id)
    if live and rounds < ROUNDS and replies.unlooked(tx, post_id, own_base, limit=1):
        jobs.progress(tx, job, {**job.arguments, "round": rounds + 1})
        jobs.again(tx, job, tx.now + NEXT_ROUND)
    else:
        jobs.finish(tx, job)
