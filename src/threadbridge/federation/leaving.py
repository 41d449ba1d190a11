"""Followers whose inbox said that it is gone: are they?

Rule: an inbox is not a person, and one answer is not the truth. A follow ends when the follower's own document is
gone for good (410, or a Tombstone), or is not found (404) on two days that lie apart: a server that is being mended
answers 404 for everybody. Who could not be asked is asked again on the following days; every chunk of people is
settled by itself, so that a killed worker goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import structlog

from threadbridge.activitypub.text import host_of
from threadbridge.delivery.send import VERIFY_GONE
from threadbridge.errors import NetworkError
from threadbridge.net.peers import Peers
from threadbridge.storage import decisions, followers, jobs, peers
from threadbridge.storage.followers import AtInbox
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

VERIFY = VERIFY_GONE
CHUNK = 50
AT_ONCE = 4
"""Questions under way to one server."""
MISSING_FOR = timedelta(days=2)
AGAIN_AFTER = timedelta(days=1)
PASSES = 8

Finding = Literal["there", "missing", "deleted", "unknown"]


async def verify(store: Store, remote: Peers, job: Job, stopping: Callable[[], bool]) -> None:
    """Ask for the documents of everybody behind an inbox; settles the job, for now or for good."""
    after, left = int(job.arguments.get("after", 0)), bool(job.arguments.get("left"))
    while not stopping():
        people = await store.read(followers.at_inbox, str(job.arguments["inbox"]), after_id=after, limit=CHUNK)
        if not people:
            await store.transact(_settle_pass, job, left)
            return
        uris = list(dict.fromkeys(person.peer_uri for person in people))
        room = asyncio.Semaphore(AT_ONCE)
        found = await asyncio.gather(*(_ask(remote, uri, room) for uri in uris))
        after = people[-1].id
        left = await store.transact(_settle_chunk, job, people, dict(zip(uris, found, strict=True)), after, left)


async def _ask(remote: Peers, uri: str, room: asyncio.Semaphore) -> Finding:
    async with room:
        try:
            return await remote.absence(uri)
        except NetworkError as error:
            log.debug("a follower could not be asked for", actor=uri, error=str(error))
            return "unknown"


def _settle_chunk(tx: Tx, job: Job, people: list[AtInbox], found: dict[str, Finding], after: int, left: bool) -> bool:
    for person in people:
        finding = found[person.peer_uri]
        if finding == "there":
            peers.found_again(tx, person.peer_uri)
        elif finding == "deleted" or (
            finding == "missing" and peers.missing(tx, person.peer_uri) <= tx.now - MISSING_FOR
        ):
            _end(tx, person, finding)
        else:
            left = True
    jobs.progress(tx, job, {**job.arguments, "after": after, "left": left})
    return left


def _end(tx: Tx, person: AtInbox, finding: Finding) -> None:
    if not followers.end(tx, person.account_id, person.peer_uri, cause="gone"):
        return
    host = host_of(person.peer_uri)
    log.info("a follower is gone", account=person.account_id, actor=person.peer_uri, finding=finding)
    # One line per server: a whole one that closes takes thousands along.
    decisions.write_once(
        tx, "follower", "followers whose accounts are gone", subject=host, host=host, account_id=person.account_id
    )


def _settle_pass(tx: Tx, job: Job, left: bool) -> None:
    number = int(job.arguments.get("pass", 1))
    if left and number < PASSES:
        jobs.progress(tx, job, {"inbox": job.arguments["inbox"], "pass": number + 1})
        jobs.again(tx, job, tx.now + AGAIN_AFTER)
    else:
        jobs.finish(tx, job)
