"""Thirty days after their end deliveries become figures, and nobody who holds a post is forgotten."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from tests.rig import new_sqlite
from tests.world.deliverable import Clock, account, address, fail, follower, post, rows, said, settle, take

from threadbridge.delivery import fanout
from threadbridge.storage import jobs, ledger, migrate, posts, receipts, records, rollups, schema
from threadbridge.storage.jobs import Job
from threadbridge.storage.ledger import Activity
from threadbridge.storage.store import Store, Tx


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    opened = Store.open(database_url, clock=clock)
    migrate.to_newest(opened)
    yield opened
    opened.close()


def roll_up(store: Store, limit: int = 500) -> None:
    place: int | None = 0
    while place is not None:
        place = store.transact_now(rollups.step, place, limit=limit)


def fan_out(store: Store, activity: Activity) -> set[str]:
    """Address an activity as the worker does; the inboxes it goes to."""

    def asked(tx: Tx) -> Job:
        jobs.add(tx, "fan_out", str(activity.id), {"activity": activity.id})
        return jobs.take(tx, ["fan_out"], 60, 1)[0]

    job = store.transact_now(asked)
    while (left := store.transact_now(fanout.step, job)) is not None:
        job = Job(job.id, job.kind, job.key, left, job.attempts, job.lease)
    return {row.inbox for row in rows(store, activity_id=activity.id)}


def settle_some(store: Store, chance: random.Random, clock: Clock) -> Counter[str]:
    ends: Counter[str] = Counter()
    for claimed in take(store):
        state = chance.choice(["delivered", "delivered", "refused", "given_up", "gone", "waiting"])
        if state == "waiting":
            fail(store, claimed, clock.now)
        else:
            settle(store, claimed, state, reason=None if state == "delivered" else f"because of {claimed.host}")
            ends[state] += 1
    return ends


@pytest.mark.parametrize("seed", range(3))
def test_a_deletion_goes_to_the_same_servers_with_and_without_roll_ups(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random histories, rolled up at random times: whoever was ever addressed about a post hears of its deletion,
    and no delivery is counted twice or not at all."""
    chance = random.Random(seed)
    monkeypatch.setattr(fanout, "CHUNK", 3)
    monkeypatch.setattr(rollups, "LOOK_AT", 2)
    alice = account(store)
    numbers = [post(store, alice) for _ in range(3)]
    addressed: dict[int, set[str]] = {number: set() for number in numbers}
    ends: Counter[str] = Counter()
    for step in range(25):
        number = chance.choice(numbers)
        doing = chance.choice(["say", "say", "settle", "time", "roll up"])
        if doing == "say":
            about = said(store, alice, "Update", about=f"https://b/{number}", post_id=number)
            hosts = {f"h{chance.randrange(12)}.example" for _ in range(5)}
            address(store, about, *hosts)
            store.transact_now(ledger.mark_fanned_out, about.id)
            addressed[number] |= {f"https://{host}/inbox" for host in hosts}
        elif doing == "settle":
            ends += settle_some(store, chance, clock)
        elif doing == "time":
            clock.forward(days=chance.randrange(40))
        else:
            roll_up(store, limit=chance.choice([2, 500]))
        if step == 20:
            follower(store, alice, "new", "follower.example")
    clock.forward(days=40)
    waiting = {row.id for row in rows(store, state="waiting")}
    roll_up(store)
    assert {row.id for row in rows(store)} == waiting, "what waits stays, everything else is rolled up"
    totals = store.read_now(ledger.totals)
    assert {state: count for state, count in totals.items() if state != "waiting"} == dict(ends)
    for number in numbers:
        delete = said(store, alice, "Delete", about=f"https://b/{number}", post_id=number)
        assert fan_out(store, delete) == addressed[number] | {"https://follower.example/inbox"}


def test_figures_reasons_and_holders_stay(store: Store, clock: Clock) -> None:
    alice = account(store)
    number = post(store, alice)
    create = said(store, alice, post_id=number)
    address(store, create, *(f"h{n}.example" for n in range(40)), "slow.example")
    store.transact_now(ledger.mark_fanned_out, create.id)
    for claimed in take(store):
        if claimed.host == "slow.example":
            fail(store, claimed, clock.now)
        elif claimed.host < "h2":
            settle(store, claimed)
        else:
            settle(store, claimed, "refused", reason=f"{claimed.host} says no")
    before = store.read_now(ledger.receipts, [number])[number]
    roll_up(store)
    assert len(rows(store)) == 41, "younger than thirty days"
    clock.forward(days=31)
    roll_up(store)
    assert [row.host for row in rows(store)] == ["slow.example"]
    after = store.read_now(ledger.receipts, [number])[number]
    counts = [Counter({r.state: 0 for r in found}) for found in (before, after)]
    for found, count in zip((before, after), counts, strict=True):
        for receipt in found:
            count[receipt.state] += receipt.count
    assert counts[0] == counts[1] == {"delivered": 12, "refused": 28, "waiting": 1}
    reasons = {receipt.reason for receipt in after if receipt.state == "refused"}
    assert len(reasons) == rollups.REASONS + 1, "a reason per host is no figure"
    held = store.read_now(lambda tx: list(records.holders(tx, alice)))
    assert Counter(one.state for one in held) == {"delivered": 12, "refused": 28}
    assert store.read_now(lambda tx: sum(one.count for one in records.totals(tx, alice))) == 40
    assert rows(store, "activities")[0].rolled_up_at is None
    for claimed in take(store):
        settle(store, claimed)
    clock.forward(days=31)
    roll_up(store)
    roll_up(store)
    assert rows(store) == []
    assert rows(store, "activities")[0].rolled_up_at == clock.now
    page = store.read_now(ledger.activities_page, alice, limit=5)
    assert page[0][1] == {"delivered": 13, "refused": 28}


def test_what_a_deleted_post_said_goes_with_the_details(store: Store, clock: Clock) -> None:
    alice = account(store)
    number = post(store, alice)
    create = said(store, alice, post_id=number)
    body = b'{"type":"Create","object":{"type":"Note","content":"secret"}}'
    store.transact_now(
        lambda tx: tx.execute(update(schema.activities).where(schema.activities.c.id == create.id).values(body=body))
    )
    address(store, create, "a.example")
    store.transact_now(ledger.mark_fanned_out, create.id)
    settle(store, take(store)[0])
    clock.forward(days=31)
    roll_up(store)
    assert rows(store, "activities")[0].body == body, "the post is still there"
    store.transact_now(posts.bury, alice, number)
    delete = said(store, alice, "Delete", post_id=number)
    fan_out(store, delete)
    clock.forward(seconds=2)
    settle(store, take(store)[0])
    clock.forward(days=31)
    roll_up(store)
    emptied, told = rows(store, "activities")
    assert (emptied.body, told.body) == (b"", b"{}")
    assert emptied.digest == hashlib.sha256(b'{"content":"secret","type":"Note"}').hexdigest()


@pytest.mark.parametrize(("phase", "kept"), [("telling", 1), ("keeping", 1), ("erasing", 0), ("done", 0)])
def test_whom_a_deleted_account_spoke_to_is_forgotten_with_it(
    store: Store, clock: Clock, phase: str, kept: int
) -> None:
    alice = account(store)
    number = post(store, alice)
    create = said(store, alice, post_id=number)
    address(store, create, "a.example")
    store.transact_now(ledger.mark_fanned_out, create.id)
    settle(store, take(store)[0])
    gone = schema.farewells.insert().values(
        account_id=alice, asked_at=clock.now, asked_by="test", due_at=clock.now, state_before="active", phase=phase
    )
    store.transact_now(Tx.execute, gone)
    clock.forward(days=31)
    roll_up(store)
    assert rows(store) == []
    assert store.read_now(ledger.totals) == {"delivered": 1}
    assert [len(rows(store, name)) for name in ("account_holders", "post_holders", "inboxes")] == [kept] * 3


def test_a_delivery_that_is_rolled_up_takes_a_fraction_of_its_room(tmp_path: Path, clock: Clock) -> None:
    """Bytes per delivered row on SQLite: printed with -s, bounded here."""
    file = tmp_path / "growth.sqlite3"
    new_sqlite(file)
    store = Store.open(f"sqlite:///{file}", clock=clock)
    try:
        alice = account(store)
        empty = _bytes(store)
        deliveries = 0
        for _ in range(5):
            create = said(store, alice, post_id=post(store, alice))
            deliveries += address(store, create, *(f"server-{n:04}.social.example" for n in range(1000)))
            store.transact_now(ledger.mark_fanned_out, create.id)
        d = schema.deliveries
        store.transact_now(
            lambda tx: tx.execute(update(d).values(state="delivered", ended_at=tx.now, status=202, attempts=1))
        )
        detailed = (_bytes(store) - empty) / deliveries
        clock.forward(days=31)
        roll_up(store)
        assert store.read_now(lambda tx: tx.execute(select(func.count()).select_from(d)).scalar()) == 0
        rolled_up = (_bytes(store) - empty) / deliveries
    finally:
        store.close()
    print(f"{detailed:.0f} bytes per delivery before, {rolled_up:.0f} after")
    assert rolled_up < detailed / 5


def _bytes(store: Store) -> int:
    """What the rows take, empty pages apart."""

    def used(tx: Tx) -> int:
        run = tx.connection.exec_driver_sql
        pages = int(run("PRAGMA page_count").scalar_one()) - int(run("PRAGMA freelist_count").scalar_one())
        return pages * int(run("PRAGMA page_size").scalar_one())

    return store.transact_now(used)


def test_servers_are_listed_by_pages_and_tried_again(store: Store, clock: Clock) -> None:
    alice = account(store)
    number = post(store, alice)
    hosts = {"a-b.example", "ab.example", "a.example", "b.example", "xn--bcher-kva.example"}
    create = said(store, alice, about="https://b/p", post_id=number)
    address(store, create, *hosts)
    store.transact_now(ledger.mark_fanned_out, create.id)
    for claimed in take(store):
        settle(store, claimed, "refused", status=403, reason="not welcome")
    clock.forward(days=31)
    roll_up(store)
    update_ = said(store, alice, "Update", about="https://b/p", post_id=number)
    address(store, update_, "a.example", "new.example")
    settle(store, take(store)[0], "given_up", reason="no answer")
    for limit in (1, 2, 50):
        seen: list[str] = []
        while page := store.read_now(receipts.servers, alice, number, after=seen[-1] if seen else "", limit=limit):
            seen += [server.host for server in page]
        assert Counter(seen) == Counter(hosts | {"new.example"})
    waits = store.read_now(receipts.servers, alice, number, show="waiting", limit=9)
    assert [line.state for server in waits for line in server.lines if line.kind] == ["waiting"]
    assert store.transact_now(receipts.try_again, alice, number, host=None, after=0)[0] == 0, "a moment ago"
    clock.forward(minutes=2)
    assert store.transact_now(receipts.try_again, alice + 1, number, host=None, after=0)[0] == 0, "somebody else"
    assert store.transact_now(receipts.try_again, alice, number, host=None, after=0) == (1, None)
    assert Counter(row.state for row in rows(store)) == {"waiting": 2}
