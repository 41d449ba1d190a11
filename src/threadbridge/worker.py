"""The table of jobs: everything that happens by itself.

    fan_out       delivery.fanout.step        an activity -> one delivery row per distinct inbox
    read          bridge.reading.Reader       a connected account is read, its changes said
    build_export  portability.exports.build   the archive an owner asked for
    verify_gone   federation.leaving.verify   an inbox answered 410: are its followers really gone?
    bury          federation.actor.bury_more  somebody is gone who did much here: it ends, piece by piece
    let_in        federation.follow.let_in_some  everybody may follow again: let in who waits
    confirm_move  federation.move.confirm     a follower says that they moved: does the new account agree?
    climb_thread  federation.thread.climb     where does a post hang that names somebody here?
    look_around   federation.thread.look_around  are there answers below a post that nobody sent us?
    own_word      delivery.server_word.say    the server's own actor says something (to a relay, a Flag)
    wake          _wake                       a server is back: what waited for it may go
    tend_host     delivery.tending.tend       a server does not answer: is it back, are its followers to wait?
    ask_software  delivery.tending.ask_software  what do the servers run that we deal with?
    rotate_key    federation.rotation.step    an account's key is changed, step by step
    enforce       federation.enforcement.step a rule about who may speak changed: park what it cuts, give back
    find_name     federation.enforcement.find_name  whose handle is it that a rule names?
    read_list     federation.blocklists.read_followed  a followed list of blocked servers is read, every day
    announce      delivery.announcing.tell    an actor document changed: its followers are told, once
    check_links   federation.link_back.check  do the pages named on a profile link back?
    check_domain  federation.own_domain.check does an account's own domain still lead here?
    farewell      federation.farewell.step    an account is deleted, phase by phase
    poll          delivery.polls.say          the figures of a poll moved, or it has closed
    find_post     federation.quoting.find     is what a post quotes or reposts in the Fediverse?
    check_stamp   federation.quoting.check    an author lets us quote: the authorization at its origin
    share         bridge.holding.step         new posts that their owner held for a while leave
    again         delivery.again.step         an owner wants tried again what has not arrived
    prune         _prune                      ids heard long ago, old sign-in rows, people of whom nothing is here;
                                              deliveries that ended thirty days ago become figures (`rollups`)

and, beside them, `delivery.send.Sender`, which carries the deliveries.

Rule: whoever takes a job holds a lease and extends it while working; a killed worker's jobs are taken up again within
ten seconds. A job that fails in an unforeseen way is put off, then given up with its reason; it never stops the rest.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import structlog

from threadbridge.bridge import cadence, holding, reading
from threadbridge.delivery import again, announcing, fanout, outbox, polls, send, server_word, tending
from threadbridge.domain.accounts import AccountState
from threadbridge.errors import (
    NetworkError,
    SourceError,
    ThreadbridgeError,
    Unavailable,
)
from threadbridge.federation import (
    actor,
    blocklists,
    enforcement,
    farewell,
    follow,
    leaving,
    link_back,
    move,
    own_domain,
    quote,
    quoting,
    reply,
    rotation,
    thread,
)
from threadbridge.portability import exports
from threadbridge.services import Services, utc_now
from threadbridge.storage import (
    accounts,
    connections,
    decisions,
    farewells,
    figures,
    held,
    hosts,
    jobs,
    profiles,
    queued,
    rollups,
    seen,
    set_back,
    strangers,
    wakeups,
)
from threadbridge.storage import exports as archives
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx
from threadbridge.telemetry import metrics, traces, trail

log = structlog.get_logger(__name__)

LEASE_SECONDS = 8.0
CONCURRENCY = 8
ATTEMPTS = 8
PATIENT_EVERY = 4
"""Every so often the jobs that give way to the others go first."""
CLOCK_SECONDS = 10.0
"""How often it is looked whether the clock was set back."""
PRUNE = "prune"
PRUNE_EVERY = timedelta(hours=6)
HEARD_FOR = timedelta(days=30)
UNUSED_SECONDS = 600.0
"""A file taken in (again) since is not removed: whoever did so may be about to show it."""
PROFILE_EVERY = timedelta(seconds=20)
"""How often the profile is read, times `poll_seconds`."""

INWARD = frozenset(
    {
        outbox.FAN_OUT,
        connections.READ,
        again.AGAIN,
        held.SHARE,
        exports.BUILD,
        actor.BURY,
        follow.LET_IN,
        hosts.WAKE,
        accounts.ANNOUNCE,
        farewells.FAREWELL,
        enforcement.ENFORCE,
        polls.POLL,
        PRUNE,
    }
)
"""Kinds of jobs that tell other servers nothing and ask them nothing: done also while the brake is on (`quiet`). One
that is not named here waits then; a change of keys too, which judges by the answers of others. Reading the owner's
own source is among them, or nobody could see what is to be said."""

BEGINS = frozenset(
    {connections.READ, PRUNE, blocklists.READ_LIST, profiles.CHECK_LINKS, profiles.CHECK_DOMAIN, polls.POLL}
)
"""Kinds of jobs that come back by themselves: each time something of its own begins, with a new id in the log."""

Stopping = Callable[[], bool]
Handler = Callable[[Services, Job, Stopping], Awaitable[None]]


class Worker:
    """Runs jobs and deliveries until stopped. Any number of them may run against one PostgreSQL."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sender = services.sender()
        self._kinds = [kind for kind in JOBS if kind in INWARD or not services.config.quiet]
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self._held: dict[int, tuple[Job, asyncio.Task[None]]] = {}
        self._turn = 0

    def stop(self) -> None:
        """Take nothing more; `run` returns when what is under way has ended or a few seconds have passed."""
        self._stopping.set()
        self._woken.set()
        self._sender.stop()

    async def run(self) -> None:
        """Work until `stop`."""
        await self._services.store.transact(_at_start)
        await self._services.store.transact(enforcement.restrict_to_allowed, self._services.config.allow_list)
        if self._services.config.quiet:
            waiting = await self._services.store.read(queued.count)
            log.warning("the brake is on: nothing is sent, and nobody is asked anything", deliveries_waiting=waiting)
            sending = asyncio.create_task(_until(self._stopping))
        else:
            sending = asyncio.create_task(self._sender.run())
        extending = asyncio.create_task(self._extend_for_ever())
        loop, store = asyncio.get_running_loop(), self._services.store

        def wake() -> None:
            # From the thread that committed, or that listens; after the loop has ended nobody is left to be woken.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake)

        store.on_work(wake)
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                taken, patience = 0, wakeups.FAST_SECONDS
                try:
                    taken, patience = await self._take()
                except ThreadbridgeError as error:
                    log.warning("jobs could not be taken", error=str(error))
                except Exception:
                    log.exception("jobs could not be taken")
                if (sending.done() or extending.done()) and not self._stopping.is_set():
                    # Better a process that ends, and is started again, than one that looks alive and sends nothing.
                    raise RuntimeError("a part of the worker ended by itself")
                if not taken:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), patience)
            if self._held:
                await asyncio.wait([task for _, task in self._held.values()], timeout=3)
        finally:
            store.off_work(wake)
            tasks = [task for _, task in self._held.values()]
            for task in (*tasks, extending):
                task.cancel()
            await asyncio.gather(*tasks, extending, return_exceptions=True)
            self._sender.stop()
            await asyncio.gather(sending, return_exceptions=True)

    def _wake(self) -> None:
        self._woken.set()
        self._sender.wake()

    async def _take(self) -> tuple[int, float]:
        """How many jobs were taken, and for how long to wait when there was none."""
        store = self._services.store
        free = CONCURRENCY - len(self._held)
        if free <= 0:
            return 0, wakeups.SLOW_SECONDS
        due, next_due = await store.read(_look, self._kinds)
        if not due:
            return 0, store.patience(next_due)
        self._turn += 1
        patient_first = self._turn % PATIENT_EVERY == 0
        taken = await store.transact(jobs.take, self._kinds, LEASE_SECONDS, free, patient_first=patient_first)
        for job in taken:
            task = asyncio.create_task(self._watched(job))
            self._held[job.id] = (job, task)
            task.add_done_callback(partial(self._done, job.id))
        return len(taken), 0.0

    def _done(self, job_id: int, _task: asyncio.Task[None]) -> None:
        self._held.pop(job_id, None)
        # There is room, and the job itself may be due again.
        self._woken.set()

    async def _watched(self, job: Job) -> None:
        """Do a job under the id of what made it necessary, and measure it."""
        begun = time.perf_counter()
        with trail.follow(trail.new() if job.kind in BEGINS else job.trail or trail.new()):
            outcome = await self._run_one(job)
        metrics.job(job.kind, outcome, time.perf_counter() - begun)

    async def _run_one(self, job: Job) -> str:
        """Do a job; returns 'done', 'put_off' or 'given_up'."""
        store = self._services.store
        try:
            await JOBS[job.kind](self._services, job, self._stopping.is_set)
        except asyncio.CancelledError:
            raise
        except (Unavailable, NetworkError) as error:
            delay = timedelta(seconds=min(5 * 2**job.attempts, 3600))
            log.warning("a job has to wait", kind=job.kind, key=job.key, error=str(error))
            await self._quietly(store.transact(jobs.put_off, job, utc_now() + delay, reason=str(error)[:500]))
            return "put_off"
        except Exception as error:
            log.exception("a job failed", kind=job.kind, key=job.key)
            words = str(error) if isinstance(error, ThreadbridgeError) else f"{type(error).__name__}: {error}"
            if job.attempts + 1 >= ATTEMPTS:
                await self._quietly(store.transact(jobs.give_up, job, words[:500]))
                return "given_up"
            due_at = utc_now() + timedelta(seconds=10 * 2**job.attempts)
            await self._quietly(store.transact(jobs.put_off, job, due_at, reason=words[:500]))
            return "put_off"
        return "done"

    async def _quietly(self, writing: Awaitable[None]) -> None:
        # If even this cannot be written the lease runs out and the job is taken again.
        try:
            await writing
        except ThreadbridgeError as error:
            log.warning("a job's outcome could not be written down", error=str(error))

    async def _look_at_clock(self) -> None:
        store = self._services.store
        try:
            back = await store.transact(set_back.noticed)
            if back is not None:
                log.warning("the clock was set back; what was written ahead of time is due now", by=str(back))
                while await store.transact(set_back.mend):
                    pass
        except ThreadbridgeError as error:
            log.warning("the clock could not be looked at", error=str(error))
        except Exception:
            log.exception("the clock could not be looked at")

    async def _extend_for_ever(self) -> None:
        looked_at = float("-inf")
        while True:
            if time.monotonic() - looked_at >= CLOCK_SECONDS:
                looked_at = time.monotonic()
                await self._look_at_clock()
            await asyncio.sleep(LEASE_SECONDS / 4)
            held = [(job.id, job.lease) for job, _ in self._held.values()]
            if held:
                try:
                    await self._services.store.transact(jobs.extend, held, LEASE_SECONDS)
                except Exception as error:
                    log.warning("leases of jobs could not be extended", error=str(error))


def _look(tx: Tx, kinds: list[str]) -> tuple[bool, datetime | None]:
    """Whether a job can be taken; if not, when the next one is due."""
    return (True, None) if jobs.anything_due(tx, kinds) else (False, jobs.next_due(tx, kinds))


async def _until(stopping: asyncio.Event) -> None:
    await stopping.wait()


def _at_start(tx: Tx) -> None:
    # Reading begins at once after a start, except for accounts that were asked to be left in peace.
    connections.bring_reads_forward(tx)
    set_back.noticed(tx)
    jobs.add(tx, PRUNE, "all", {}, due_at=tx.now + PRUNE_EVERY)


# ── the jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _fan_out(services: Services, job: Job, _stopping: Stopping) -> None:
    current = job
    with metrics.fanning_out(), traces.span("fan_out"):
        while (left := await services.store.transact(fanout.step, current)) is not None:
            current = Job(job.id, job.kind, job.key, left, job.attempts, job.lease)


async def _read(services: Services, job: Job, _stopping: Stopping) -> None:
    """Read one account; says when it is read next, also after trouble."""
    with traces.span("read"):
        await _read_account(services, job)


async def _read_account(services: Services, job: Job) -> None:
    account_id = int(job.arguments["account"])
    found = await services.store.read(_readable, account_id)
    if found is None:
        await services.store.transact(jobs.finish, job)
        return
    connection = found
    source = services.source_for(
        await services.store.read(connections.token, services.vault, account_id), connection.graph_url
    )
    try:
        if connection.history_done_at is None:
            await services.reader.whole_history(connection, source)
        changes = await services.reader.latest(connection, source)
        if changes:
            done = {name: len(getattr(changes, name)) for name in ("created", "edited", "deleted")}
            log.info("an account was read", account=account_id, **done)
        profile_due = utc_now() - PROFILE_EVERY * services.config.poll_seconds
        if connection.profile_read_at is None or connection.profile_read_at < profile_due:
            await services.reader.profile(account_id, await source.profile())
    except (SourceError, NetworkError) as error:
        log.warning("an account could not be read", account=account_id, error=str(error))
        metrics.read(cadence.trouble_kind(error))
        await services.store.transact(_read_failed, job, account_id, error, services.config.poll_seconds)
        return
    latest = await services.store.read(connections.of_account, account_id)
    due_at = cadence.next_read(
        utc_now(),
        services.config.poll_seconds,
        newest=_lively_since(latest) if latest else None,
        usage=source.usage,
        spread=random.random(),  # noqa: S311 (keeps accounts out of step)
    )
    metrics.read("ok")
    await services.store.transact(_read_well, job, due_at)


def _read_well(tx: Tx, job: Job, due_at: datetime) -> None:
    figures.count(tx, trail.process(), figures.READ, [("ok", 1)])
    jobs.again(tx, job, due_at)


def _lively_since(connection: connections.Connection) -> datetime:
    """When something last happened to an account: a post, its connection, the end of a pause. Whoever has just
    connected is about to try it."""
    moments = (connection.last_new_at, connection.connected_at, connection.speaks_since)
    return max(moment for moment in moments if moment is not None)


def _readable(tx: Tx, account_id: int) -> connections.Connection | None:
    account = accounts.by_id(tx, account_id)
    if account is None or account.state is AccountState.GONE:
        return None
    connection = connections.of_account(tx, account_id)
    if account.state is AccountState.PAUSED or connection is None or connection.trouble in cadence.NEEDS_OWNER:
        return None
    return connection


def _read_failed(tx: Tx, job: Job, account_id: int, error: SourceError | NetworkError, poll_seconds: float) -> None:
    # A lost lease means that somebody connected the account anew meanwhile: the old token's trouble is over.
    if not jobs.progress(tx, job, job.arguments):
        return
    spread = random.random()  # noqa: S311 (keeps accounts out of step)
    due_at = reading.read_failed(tx, account_id, error, poll_seconds=poll_seconds, spread=spread)
    if due_at is None:
        jobs.finish(tx, job)
    else:
        jobs.again(tx, job, due_at)


async def _build_export(services: Services, job: Job, stopping: Stopping) -> None:
    await asyncio.to_thread(
        exports.build,
        services.store,
        services.ids,
        services.media,
        services.config.data_dir,
        job,
        stopping=stopping,
        shelf=services.archives,
    )


async def _verify_gone(services: Services, job: Job, stopping: Stopping) -> None:
    await leaving.verify(services.store, services.peers, job, stopping)


async def _bury(services: Services, job: Job, stopping: Stopping) -> None:
    while not stopping() and await services.store.transact(actor.bury_more, job):
        pass


async def _let_in(services: Services, job: Job, stopping: Stopping) -> None:
    while not stopping() and await services.store.transact(follow.let_in_some, services.ids, job):
        pass


async def _confirm_move(services: Services, job: Job, _stopping: Stopping) -> None:
    await move.confirm(services.store, services.ids, services.peers, job)


async def _climb(services: Services, job: Job, _stopping: Stopping) -> None:
    await thread.climb(services.store, services.ids, services.peers, job)


async def _look_around(services: Services, job: Job, _stopping: Stopping) -> None:
    await thread.look_around(services.store, services.ids, services.peers, job)


async def _say_as_server(services: Services, job: Job, _stopping: Stopping) -> None:
    await server_word.say(services.store, services.vault, services.carrier, services.prover, services.ids, job)


async def _wake(services: Services, job: Job, _stopping: Stopping) -> None:
    while await services.store.transact(hosts.bring_forward, str(job.arguments["host"])):
        pass
    await services.store.transact(jobs.finish, job)


async def _tend(services: Services, job: Job, stopping: Stopping) -> None:
    await tending.tend(services.store, services.peers, job, stopping)


async def _ask_software(services: Services, job: Job, stopping: Stopping) -> None:
    await tending.ask_software(services.store, services.peers, job, stopping)


async def _read_list(services: Services, job: Job, _stopping: Stopping) -> None:
    await blocklists.read_followed(services.store, services.client, services.ids, job)


async def _enforce(services: Services, job: Job, _stopping: Stopping) -> None:
    current = job
    while (left := await services.store.transact(enforcement.step, services.ids, current)) is not None:
        current = Job(job.id, job.kind, job.key, left, job.attempts, job.lease)


async def _find_name(services: Services, job: Job, _stopping: Stopping) -> None:
    await enforcement.find_name(services.store, services.peers, job)


async def _announce(services: Services, job: Job, _stopping: Stopping) -> None:
    await services.store.transact(announcing.tell, services.ids, job)


async def _check_links(services: Services, job: Job, _stopping: Stopping) -> None:
    await link_back.check(services.store, services.client, services.ids, job)


async def _check_domain(services: Services, job: Job, _stopping: Stopping) -> None:
    async with services.echo_client() as client:
        await own_domain.check(services.store, client, services.ids, job)


async def _farewell(services: Services, job: Job, stopping: Stopping) -> None:
    """Carry a deletion on; the last part needs the disk, and is done by pieces that can each be done twice."""
    store, current = services.store, job
    while (left := await store.transact(farewell.step, services.ids, current)) is not None:
        phase, arguments = left
        current = Job(job.id, job.kind, job.key, arguments, job.attempts, job.lease)
        if phase == "erasing":
            break
    else:
        return
    account_id, erased = int(current.arguments["account"]), int(current.arguments.get("erased", 0))
    for name in await store.transact(archives.retire, account_id, 0):
        await asyncio.to_thread(services.archives.remove, name)
    while not stopping():
        numbers, files = await store.read(farewell.next_posts, account_id, erased)
        if not numbers:
            break
        hashes = await _removed(services, files)
        if not await store.transact(farewell.posts_erased, current, numbers, hashes):
            return
        erased = numbers[-1]
    if stopping():
        return
    hashes = await _removed(services, await store.read(farewells.files_of_profile, account_id))
    await store.transact(farewell.profile_erased, account_id, hashes)
    while await store.transact(farewell.erase_rows, account_id):
        pass
    await store.transact(farewell.done, current)


async def _removed(services: Services, files: list[tuple[str, str]]) -> list[str]:
    """Remove files from the disk; returns their hashes."""
    for sha256, media_type in files:
        if not await asyncio.to_thread(services.media.remove, sha256, media_type, unused_for=UNUSED_SECONDS):
            raise Unavailable("A file that is to go was taken in a moment ago")
    return [sha256 for sha256, _ in files]


async def _rotate_key(services: Services, job: Job, _stopping: Stopping) -> None:
    await services.store.transact(rotation.step, services.ids, job)


async def _prune(services: Services, job: Job, stopping: Stopping) -> None:
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        place = await services.store.transact(announcing.look_over, services.ids, *place)
    before, met = services.store.clock() - HEARD_FOR, [""]
    while met := await services.store.read(partial(strangers.old, before=before, after=met[-1])):
        await services.store.transact(strangers.forget, met)
    while await services.store.transact(hosts.forget_some):
        pass
    rolled: int | None = 0
    while rolled is not None and not stopping():
        rolled = await services.store.transact(rollups.step, rolled)
    while not stopping() and await services.store.transact(seen.forget, before) > 0:
        pass
    while not stopping() and await services.store.transact(decisions.forget, before) > 0:
        pass
    await services.store.transact(_forget, job)


def _forget(tx: Tx, job: Job) -> None:
    accounts.forget_sign_ins(tx, tx.now - HEARD_FOR)
    figures.forget(tx)
    jobs.again(tx, job, tx.now + PRUNE_EVERY)


async def _poll(services: Services, job: Job, _stopping: Stopping) -> None:
    await services.store.transact(polls.say, services.ids, job)


async def _find_original(services: Services, job: Job, _stopping: Stopping) -> None:
    await quoting.find(services.store, services.peers, services.ids, job)


async def _check_stamp(services: Services, job: Job, _stopping: Stopping) -> None:
    await quoting.check(services.store, services.peers, services.ids, job)


async def _share(services: Services, job: Job, stopping: Stopping) -> None:
    while not stopping() and await services.store.transact(holding.step, services.ids, job):
        pass


async def _try_again(services: Services, job: Job, stopping: Stopping) -> None:
    while not stopping() and await services.store.transact(again.step, job):
        pass


JOBS: dict[str, Handler] = {
    outbox.FAN_OUT: _fan_out,
    connections.READ: _read,
    exports.BUILD: _build_export,
    send.VERIFY_GONE: _verify_gone,
    actor.BURY: _bury,
    follow.LET_IN: _let_in,
    move.CONFIRM: _confirm_move,
    reply.CLIMB: _climb,
    reply.LOOK: _look_around,
    server_word.SAY: _say_as_server,
    hosts.WAKE: _wake,
    tending.TEND: _tend,
    tending.SOFTWARE: _ask_software,
    rotation.ROTATE: _rotate_key,
    accounts.ANNOUNCE: _announce,
    profiles.CHECK_LINKS: _check_links,
    profiles.CHECK_DOMAIN: _check_domain,
    farewells.FAREWELL: _farewell,
    enforcement.NAME: _find_name,
    enforcement.ENFORCE: _enforce,
    blocklists.READ_LIST: _read_list,
    polls.POLL: _poll,
    quoting.FIND: _find_original,
    quote.CHECK_STAMP: _check_stamp,
    again.AGAIN: _try_again,
    held.SHARE: _share,
    PRUNE: _prune,
}
