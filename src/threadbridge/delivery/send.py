"""The deliveries of the ledger, taken, carried to their inboxes and settled.

Rule: no transaction is open while the network is asked. Keys are kept parsed in memory. Outcomes are settled in
batches.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import retry
from threadbridge.delivery.carrier import Carrier
from threadbridge.delivery.proving import Prover
from threadbridge.delivery.retry import Answer, Outcome
from threadbridge.errors import NotFound, ThreadbridgeError
from threadbridge.signatures.keys import SigningKey, signing_key
from threadbridge.storage import hosts, jobs, keys, ledger, rotations, turns
from threadbridge.storage.hosts import Taken
from threadbridge.storage.ledger import Settled
from threadbridge.storage.rotations import KeyChoice
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.turns import Claimed
from threadbridge.storage.vault import Vault

log = structlog.get_logger(__name__)

LEASE_SECONDS = 8.0
"""A killed worker's deliveries are taken up after this time; a living one extends its leases."""
CONCURRENCY = 128
SETTLE_EVERY = 0.02
LOOK_EVERY = 0.1
"""How often all that is due is looked through, rather than the head of the queue."""
VERIFY_GONE = "verify_gone"


class Sender:
    """Takes due deliveries, sends them, settles them. One per worker process."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        carrier: Carrier,
        ids: Ids,
        prover: Prover,
    ) -> None:
        self._store = store
        self._vault = vault
        self._carrier = carrier
        self._ids = ids
        self._prover = prover
        self._keys: OrderedDict[int, SigningKey] = OrderedDict()
        self._bodies: OrderedDict[int, bytes] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._under_way: dict[int, Claimed] = {}
        self._outcomes: list[_Ended] = []
        self._after_account = 0
        self._looked_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, *, idle_seconds: float = 0.2) -> None:
        """Send until `stop`; then wait for what is under way and settle it."""
        settling = asyncio.create_task(self._settle_for_ever())
        extending = asyncio.create_task(self._extend_for_ever())
        try:
            while not self._stopping.is_set():
                taken = 0
                try:
                    taken = await self._take()
                except ThreadbridgeError as error:
                    log.warning("deliveries could not be taken", error=str(error))
                except Exception:
                    # Whatever it is, the next turn may be better; a sender that ends in silence never is.
                    log.exception("deliveries could not be taken")
                if not taken:
                    # Until something has ended: its host has room for the next one.
                    await _wait(self._room, LOOK_EVERY if self._under_way else idle_seconds)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=5)
        finally:
            for task in (*self._tasks, extending, settling):
                task.cancel()
            await asyncio.gather(*self._tasks, extending, settling, return_exceptions=True)
            await self._settle()
            # Whether these arrived nobody knows; they go out again, under the same id, after the next start.
            await self._store.transact(turns.release, [(row.id, row.lease) for row in self._under_way.values()])

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping.set()
        self._room.set()

    async def _take(self) -> int:
        free = CONCURRENCY - len(self._under_way)
        if free <= CONCURRENCY // 4:
            # Full: wait for room rather than claim a few rows at a time.
            self._room.clear()
            await _wait(self._room, 0.05)
            return 1
        self._room.clear()
        now = asyncio.get_running_loop().time()
        if thorough := now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
        if not await self._store.read(turns.anything_due):
            return 0
        claimed, self._after_account = await self._store.transact(
            turns.take,
            busy=dict(self._busy),
            limit=free,
            lease_seconds=LEASE_SECONDS,
            after_account=self._after_account,
            thorough=thorough,
        )
        missing = {row.activity_id for row in claimed} - self._bodies.keys()
        if missing:
            for number, body in (await self._store.read(_proved, self._prover, sorted(missing))).items():
                self._bodies[number] = body
        keys_for = await self._store.read(rotations.choices, claimed)
        for row in claimed:
            self._busy[row.host] += 1
            self._under_way[row.id] = row
            choice = keys_for.get(row.id, KeyChoice(0))
            task = asyncio.create_task(self._carry(row, self._bodies[row.activity_id], choice))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while len(self._bodies) > 256:
            self._bodies.popitem(last=False)
        return len(claimed)

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
        except Exception as error:
            log.exception("a delivery failed in an unforeseen way", inbox=row.inbox)
            answer = Answer(None, f"internal trouble: {type(error).__name__}")
        self._outcomes.append(_Ended(row, answer, learnt, news))
        if not retry.is_trouble(answer.status):
            # After trouble the place is kept until it is written down, or the next one would run into it as well.
            self._free(row.host)
        self._room.set()

    async def _knock(self, row: Claimed, body: bytes, number: int) -> tuple[Answer, Taken | None]:
        try:
            key = self._keys.get(number) or await self._key(row.account_id, number)
        except NotFound:
            log.info("a delivery has ended: its key is destroyed", account=row.account_id, inbox=row.inbox)
            words = "the key of this account is destroyed: nothing more can be said"
            return Answer(None, words, unsayable=True), None
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
        await self._store.transact(_settle, batch, [random.uniform(-1, 1) for _ in batch])  # noqa: S311 (jitter)
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


def _settle(tx: Tx, batch: list[_Ended], spreads: list[float]) -> None:
    failing = hosts.failures(tx, {ended.row.host for ended in batch})
    settled: list[Settled] = []
    for ended, spread in zip(batch, spreads, strict=True):
        row, answer = ended.row, ended.answer
        outcome: Outcome = retry.judge(
            answer,
            kind=row.kind,
            attempts=row.attempts,
            created_at=row.created_at,
            now=tx.now,
            spread=spread,
            host_failures=failing.get(row.host, 0),
            previous=row.status,
        )
        if outcome.state == "gone" and not jobs.wanted(tx, VERIFY_GONE, jobs.key_of(row.inbox)):
            # Not brought forward by the next 410: whether somebody is gone shows over days.
            jobs.add(tx, VERIFY_GONE, jobs.key_of(row.inbox), {"inbox": row.inbox})
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
                sent=not answer.unsayable,
            )
        )
    ledger.settle(tx, settled)
    for ended in batch:
        told = ledger.activity(tx, ended.news) if ended.news is not None else None
        if told is not None:
            ledger.add_deliveries(tx, told, [(ended.row.inbox, ended.row.host)], lane=ledger.LANE_ANSWER)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
