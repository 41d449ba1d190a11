"""Looking after hosts that do not answer: when they are parked, whether they are back; and what hosts run.

Rule: a host is asked for the one small document that is made for being asked for (NodeInfo, unsigned, through the
guard, within a budget per host): at most once a day while it is away, hourly when it speaks, and at the operator's
wish. Any answer that is not a server's own trouble shows that it is there; that it takes deliveries only a delivery
shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import structlog

from threadbridge.domain import hosts as rules
from threadbridge.errors import BadAnswer, NetworkError
from threadbridge.net.peers import Peers
from threadbridge.net.restraint import BudgetSpent
from threadbridge.storage import hosts, jobs, outages
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

TEND, SOFTWARE = hosts.TEND, outages.SOFTWARE
AT_ONCE = 4
SOFTWARE_CHUNK = 40
SOFTWARE_AFTER = timedelta(minutes=10)
"""After a post has left, so that it is not held up; and nothing is asked of anybody by a start alone."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking at a host: whether it is there, what it runs (name, version), and all in words."""

    there: bool
    words: str
    software: tuple[str, str] | None = None


async def look(store: Store, remote: Peers, host: str) -> Found:
    """Ask a host for its NodeInfo, in the way in which it is spoken to."""
    inbox = await store.read(outages.an_inbox, host)
    scheme = urlsplit(inbox).scheme if inbox is not None else "https"
    try:
        software = await remote.software(f"{scheme}://{host}")
    except BudgetSpent:
        raise
    except BadAnswer as error:
        status = error.status
        there = status is None or (status < 500 and status not in (408, 425, 429))
        return Found(there, f"answers, but not with NodeInfo: {error.public}" if there else error.public)
    except NetworkError as error:
        return Found(False, error.public)
    words = " ".join(part for part in (software.name, software.version) if part)
    return Found(True, f"answers: {words}", (software.name, software.version))


async def probe(store: Store, remote: Peers, host: str) -> Found:
    """Look whether a host is there, and act on it: what waits may go, one at a time, or its trouble goes on."""
    found = await look(store, remote, host)
    await store.transact(_settle_probe, host, found)
    return found


def _settle_probe(tx: Tx, host: str, found: Found) -> None:
    row = hosts.memory_row(tx, host)
    if found.there:
        outages.answered(tx, host)
    elif row is not None and row.failing_since is not None:
        outages.still_away(tx, host, found.words)
    if row is not None:
        outages.runs(tx, host, found.software)
    log.info("a host was looked at", host=host, there=found.there, words=found.words)


# ── the jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def tend(store: Store, remote: Peers, job: Job, stopping: Callable[[], bool]) -> None:
    """See to a host in trouble; settles the job, which is there for as long as the trouble."""
    host = str(job.arguments["host"])
    if not await store.read(_nobody_knows, host):
        await _expire(store, host, stopping)
    wanted = await store.transact(_decide, job, host)
    if wanted == "nothing":
        return
    found = await look(store, remote, host)
    if not found.there:
        await _expire(store, host, stopping)
    await store.transact(_settle_look, job, host, found, wanted == "before parking")


async def _expire(store: Store, host: str, stopping: Callable[[], bool]) -> None:
    while not stopping() and await store.transact(outages.expire, host):
        pass


def _nobody_knows(tx: Tx, host: str) -> bool:
    """Whether a host would be parked, and was not tried for a day or more (we were away ourselves, or the brake was
    on): then nothing ends before it was asked."""
    row = hosts.memory_row(tx, host)
    if row is None or not rules.is_to_be_parked(hosts.memory_of(row), tx.now):
        return False
    return row.last_failed_at is None or row.last_failed_at <= tx.now - rules.LOOK_DAILY


def _decide(tx: Tx, job: Job, host: str) -> str:
    """'nothing' (and the job is settled), or why the host is to be looked at."""
    row = hosts.memory_row(tx, host)
    if row is None or (row.failing_since is None and row.parked_at is None):
        jobs.finish(tx, job)
        return "nothing"
    memory = hosts.memory_of(row)
    if memory.parked_at is not None:
        return "parked"
    if not rules.is_to_be_parked(memory, tx.now):
        park_at = (row.failing_since or tx.now) + rules.HELD_FOR
        jobs.again(tx, job, min(park_at, tx.now + hosts.TEND_FIRST))
        return "nothing"
    if _nobody_knows(tx, host):
        return "before parking"
    _park(tx, job, host)
    return "nothing"


def _park(tx: Tx, job: Job, host: str) -> None:
    outages.park(tx, host)
    _later(tx, job, host)


def _later(tx: Tx, job: Job, host: str) -> None:
    row = hosts.memory_row(tx, host)
    due_at: datetime = rules.next_look(hosts.memory_of(row), tx.now)
    jobs.again(tx, job, due_at)


def _settle_look(tx: Tx, job: Job, host: str, found: Found, before_parking: bool) -> None:
    # A lost lease: somebody else looks.
    if not jobs.progress(tx, job, job.arguments):
        return
    row = hosts.memory_row(tx, host)
    if not found.there and before_parking and row is not None and rules.is_to_be_parked(hosts.memory_of(row), tx.now):
        # It may have taken a delivery while it was looked at.
        outages.park(tx, host)
    _settle_probe(tx, host, found)
    # Also when it is there: its trouble is over only when it has taken something.
    _later(tx, job, host)


async def ask_software(store: Store, remote: Peers, job: Job, stopping: Callable[[], bool]) -> None:
    """Ask the hosts that we deal with what they run, each once a week; settles the job."""
    some = await store.read(outages.unasked, SOFTWARE_CHUNK)
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(host: str) -> None:
        async with room:
            if stopping():
                return
            try:
                found = await look(store, remote, host)
            except NetworkError as error:
                found = Found(False, error.public)
            await store.transact(outages.runs, host, found.software)

    await asyncio.gather(*(ask(host) for host in some))
    await store.transact(_settle_asking, job, len(some) == SOFTWARE_CHUNK)


def _settle_asking(tx: Tx, job: Job, more: bool) -> None:
    if more:
        jobs.again(tx, job, tx.now)
    else:
        jobs.finish(tx, job)


def wish_to_know(tx: Tx) -> None:
    """Something leaves: in a while it is asked what runs where it went."""
    jobs.add(tx, SOFTWARE, "all", due_at=tx.now + SOFTWARE_AFTER, anew=False)
