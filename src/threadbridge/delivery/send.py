"""The deliveries of the ledger, taken, carried to their inboxes and settled.

Rule: no transaction is open while the network is asked. Keys are kept parsed in memory. Outcomes are settled in
batches.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import retry, telling
from threadbridge.delivery.carrier import Carrier
from threadbridge.delivery.proving import Prover
from threadbridge.delivery.retry import Answer, Outcome
from threadbridge.delivery.telling import Telling
from threadbridge.errors import NotFound, OwnTrouble, ThreadbridgeError, Unavailable
from threadbridge.signatures.keys import SigningKey, signing_key
from threadbridge.storage import decisions, hosts, jobs, keys, ledger, rotations, turns, wakeups
from threadbridge.storage.hosts import Taken
from threadbridge.storage.ledger import Settled
from threadbridge.storage.rotations import KeyChoice
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.turns import Claimed
from threadbridge.storage.vault import Vault
from threadbridge.telemetry import traces

log = structlog.get_logger(__name__)

LEASE_SECONDS = 8.0
"""A killed worker's deliveries are taken up after this time; a living one extends its leases."""
CONCURRENCY = 256
PLACES = {
    ledger.LANE_POST: CONCURRENCY * 7 // 8,
    ledger.LANE_CHANGE: CONCURRENCY // 2,
    ledger.LANE_BULK: CONCURRENCY * 3 // 8,
}
"""How many deliveries of a lane and of those less urgent may be under way: slow servers, each of which keeps a place
for as long as it takes, never keep all of them from what somebody waits for."""
ROOM_MIN = 12
SETTLE_EVERY = 0.02
REST_SECONDS = 2.0
"""How long nothing is taken after nobody could be reached from here."""
LOOK_EVERY = 0.1
"""How often all that is due is looked through, rather than the head of the queue."""
VERIFY_GONE = "verify_gone"


Home = Callable[[int, str, bytes, SigningKey], Awaitable[Answer]]
"""Hands over what an account here (its number) says to an inbox of ours, signed with its key: no request to ourselves
ever leaves."""


class Sender:
    """Takes due deliveries, sends them, settles them. One per worker process."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        carrier: Carrier,
        ids: Ids,
        prover: Prover,
        home: Home,
    ) -> None:
        self._store = store
        self._vault = vault
        self._carrier = carrier
        self._ids = ids
        self._prover = prover
        self._home = home
        self._keys: OrderedDict[int, SigningKey] = OrderedDict()
        self._bodies: OrderedDict[int, bytes] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._under_way: dict[int, Claimed] = {}
        self._outcomes: list[_Ended] = []
        self._place: turns.Place = {}
        self._looked_at = float("-inf")
        self._resting_until = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._telling = Telling()
        self._patience = wakeups.FAST_SECONDS

    async def run(self) -> None:
        """Send until `stop`; then wait for what is under way and settle it."""
        settling = asyncio.create_task(self._settle_for_ever())
        extending = asyncio.create_task(self._extend_for_ever())
        try:
            while not self._stopping.is_set():
                taken, self._patience = 0, wakeups.FAST_SECONDS
                try:
                    taken = await self._take()
                except ThreadbridgeError as error:
                    log.warning("deliveries could not be taken", error=str(error))
                except Exception:
                    # Whatever it is, the next turn may be better; a sender that ends in silence never is.
                    log.exception("deliveries could not be taken")
                if not taken:
                    # Until something has ended: its host has room for the next one.
                    await _wait(self._room, LOOK_EVERY if self._under_way else self._patience)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=5)
        finally:
            for task in (*self._tasks, extending, settling):
                task.cancel()
            await asyncio.gather(*self._tasks, extending, settling, return_exceptions=True)
            await self._settle()
            self._telling.tell(now=True)
            # Whether these arrived nobody knows; they go out again, under the same id, after the next start.
            await self._store.transact(turns.release, [(row.id, row.lease) for row in self._under_way.values()])

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping.set()
        self._room.set()

    def wake(self) -> None:
        """Look at once whether there is something to send."""
        self._room.set()

    async def _take(self) -> int:
        free = CONCURRENCY - len(self._under_way)
        answers = [ledger.LANE_ANSWER]
        full = free <= CONCURRENCY // 4
        if full and not (free and await self._store.read(turns.anything_due, answers)):
            # Full but for answers: wait for room rather than claim a few rows at a time.
            self._room.clear()
            await _wait(self._room, 0.05)
            return 1
        self._room.clear()
        now = asyncio.get_running_loop().time()
        if now < self._resting_until:
            self._patience = self._resting_until - now
            return 0
        if thorough := now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
        due, next_due = await self._store.read(_look)
        if not due:
            self._patience = self._store.patience(next_due)
            return 0
        with traces.span("claim", room=free):
            claimed, self._place = await self._store.transact(
                turns.take,
                busy=dict(self._busy),
                limit=free,
                lease_seconds=LEASE_SECONDS,
                after=self._place,
                thorough=thorough,
                room=dict.fromkeys(PLACES, 0) if full else self._rooms(),
            )
        missing = {row.activity_id for row in claimed} - self._bodies.keys()
        if missing:
            for number, body in (await self._store.read(_proved, self._prover, sorted(missing))).items():
                self._bodies[number] = body
            self._telling.learn(await self._store.read(telling.names, sorted(missing)))
        keys_for = await self._store.read(rotations.choices, claimed)
        for row in claimed:
            self._busy[row.host] += 1
            self._under_way[row.id] = row
            choice = keys_for.get(row.id, KeyChoice(0))
            task = asyncio.create_task(
                self._carry(row, self._bodies[row.activity_id], choice),
                context=self._telling.context(row.activity_id),
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while len(self._bodies) > 256:
            self._bodies.popitem(last=False)
        return len(claimed)

    def _rooms(self) -> dict[int, int]:
        """{lane: how many more of it and of those less urgent may be under way}; a few are none, see `_take`."""
        held = Counter(row.lane for row in self._under_way.values())
        rooms = {}
        for lane, places in PLACES.items():
            left = places - sum(count for other, count in held.items() if other >= lane)
            rooms[lane] = left if left >= ROOM_MIN else 0
        return rooms

    async def _carry(self, row: Claimed, body: bytes, choice: KeyChoice) -> None:
        learnt: Taken | None = None
        news: int | None = None
        try:
            answer, learnt = await self._knock(row, body, choice.first)
            if choice.other is not None and answer.status in (401, 403):
                # While keys change over: this host may believe in the other one (see `rotations.choose`).
                second, taught = await self._knock(row, body, choice.other)
                if second.status is not None and 200 <= second.status < 300:
                    log.info("the other key was accepted", host=row.host, account=row.account_id)
                    answer, learnt, news = second, taught, choice.news
        except asyncio.CancelledError:
            # Not settled: the lease runs out and the next worker takes it.
            self._free(row.host)
            raise
        except (OwnTrouble, Unavailable) as error:
            await self._give_back(row, error)
            return
        except Exception as error:
            log.exception("a delivery failed in an unforeseen way", inbox=row.inbox)
            answer = Answer(None, f"internal trouble: {type(error).__name__}")
        self._outcomes.append(_Ended(row, answer, learnt, news))
        if not retry.is_trouble(answer.status):
            # After trouble the place is kept until it is written down, or the next one would run into it as well.
            self._free(row.host)
        self._room.set()

    async def _give_back(self, row: Claimed, error: ThreadbridgeError) -> None:
        """The fault is here, whatever it is: nothing is counted against the host, nothing more is taken for a moment,
        and the delivery is due as it was."""
        now = asyncio.get_running_loop().time()
        if now >= self._resting_until:
            log.warning("nothing can be sent from here at present", error=str(error), rest_seconds=REST_SECONDS)
        self._resting_until = now + REST_SECONDS
        self._free(row.host)
        self._under_way.pop(row.id, None)
        with suppress(ThreadbridgeError):
            # If not even this can be written, the lease runs out.
            await self._store.transact(turns.release, [(row.id, row.lease)])

    async def _knock(self, row: Claimed, body: bytes, number: int) -> tuple[Answer, Taken | None]:
        try:
            key = self._keys.get(number) or await self._key(row.account_id, number)
        except NotFound:
            log.info("a delivery has ended: its key is destroyed", account=row.account_id, inbox=row.inbox)
            words = "the key of this account is destroyed: nothing more can be said"
            return Answer(None, words, unsayable=True), None
        if self._ids.is_ours(row.inbox):
            return await self._home(row.account_id, row.inbox, body, key), None
        with traces.span("send", lane=row.lane, attempt=row.attempts + 1):
            return await self._carrier.knock(row.inbox, row.host, body, key, row.taken)

    def _free(self, host: str) -> None:
        self._busy[host] -= 1
        if self._busy[host] <= 0:
            del self._busy[host]

    async def _key(self, account_id: int, number: int) -> SigningKey:
        own, pem = await self._store.read(keys.private_key, self._vault, account_id, number=number)
        key = signing_key(f"{self._ids.actor(account_id)}#{own.fragment}", pem)
        self._keys[number] = key
        while len(self._keys) > 1024:
            self._keys.popitem(last=False)
        return key

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _settle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_EVERY)
            try:
                await self._settle()
                self._telling.tell()
            except ThreadbridgeError as error:
                # Kept in memory and tried again; if this process dies first, the leases run out.
                log.warning("outcomes could not be written down", error=str(error))
                await asyncio.sleep(1)
            except Exception:
                log.exception("outcomes could not be written down")
                await asyncio.sleep(1)

    async def _settle(self) -> None:
        batch = self._outcomes[:500]
        if not batch:
            return
        spreads = [random.uniform(-1, 1) for _ in batch]  # noqa: S311 (jitter)
        with traces.span("settle", deliveries=len(batch)):
            await self._store.transact(_settle, batch, spreads, self._telling, self._ids.is_ours)
        del self._outcomes[: len(batch)]
        for ended in batch:
            self._under_way.pop(ended.row.id, None)
            if retry.is_trouble(ended.answer.status):
                self._free(ended.row.host)
        self._room.set()

    async def _extend_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            held = [(row.id, row.lease) for row in self._under_way.values()]
            if held:
                try:
                    await self._store.transact(turns.extend, held, LEASE_SECONDS)
                except ThreadbridgeError as error:
                    log.warning("leases could not be extended", error=str(error))
                except Exception:
                    log.exception("leases could not be extended")


def _proved(tx: Tx, prover: Prover, numbers: list[int]) -> dict[int, bytes]:
    """{activity id: the bytes to send}: as said, and with the integrity proof, which is the same every time."""
    said = ledger.activities(tx, numbers)
    return {one.id: prover.proved(tx, one.account_id, one.body, one.created_at) for one in said}


@dataclass(frozen=True, slots=True)
class _Ended:
    """An attempt that is over: what was answered, and the kind of signature that it taught us."""

    row: Claimed
    answer: Answer
    learnt: Taken | None
    news: int | None = None
    """The activity that tells of a new key, when the host turned out not to know it."""


def _settle(
    tx: Tx, batch: list[_Ended], spreads: list[float], tells: Telling, ours: Callable[[str], bool]
) -> None:  # fmt: skip
    failing = hosts.failures(tx, {ended.row.host for ended in batch})
    settled: list[Settled] = []
    for ended, spread in zip(batch, spreads, strict=True):
        row, answer = ended.row, ended.answer
        outcome: Outcome = retry.judge(
            answer,
            # An Update about no post is about the account itself.
            kind="Profile" if row.kind == "Update" and row.post_id is None else row.kind,
            attempts=retry.tries_on_schedule(answer, row.attempts, tx.now - row.created_at),
            created_at=row.created_at,
            now=tx.now,
            spread=spread,
            host_failures=failing.get(row.host, 0),
            previous=row.status,
        )
        if outcome.state == "gone" and not jobs.wanted(tx, VERIFY_GONE, jobs.key_of(row.inbox)):
            # Not brought forward by the next 410: whether somebody is gone shows over days.
            jobs.add(tx, VERIFY_GONE, jobs.key_of(row.inbox), {"inbox": row.inbox})
        if retry.COURSES[outcome.kind].owner_is_told:
            words = outcome.reason or outcome.kind
            if decisions.write_once(
                tx, "Delivery", words, subject=row.host, host=row.host, account_id=row.account_id
            ):  # fmt: skip
                log.info("not welcome there", host=row.host, account=row.account_id, reason=words)
        settled.append(
            Settled(
                id=row.id,
                lease=row.lease,
                host=row.host,
                state=outcome.state,
                due_at=outcome.due_at,
                status=answer.status,
                reason=outcome.reason,
                host_trouble=outcome.host_trouble,
                held_until=outcome.held_until,
                asked_until=outcome.asked_until,
                taken=ended.learnt,
                # To be heard by ourselves says nothing of any host.
                sent=not answer.unsayable and not ours(row.inbox),
                quota=(answer.quota[0], tx.now + answer.quota[1]) if answer.quota else None,
            )
        )
    ledger.settle(tx, settled)
    tells.settling(tx, [(ended.row, outcome) for ended, outcome in zip(batch, settled, strict=True)])
    for ended in batch:
        told = ledger.activity(tx, ended.news) if ended.news is not None else None
        if told is not None:
            ledger.add_deliveries(tx, told, [(ended.row.inbox, ended.row.host)], lane=ledger.LANE_ANSWER)


def _look(tx: Tx) -> tuple[bool, datetime | None]:
    """Whether a delivery might be taken; if not, when the next one is due."""
    return (True, None) if turns.anything_due(tx) else (False, turns.next_due(tx))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
