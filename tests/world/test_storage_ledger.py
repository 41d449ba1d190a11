"""The ledger: written once, taken under a lease, in order, in turns, and settled by whoever holds the lease."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import event, text
from tests.world.deliverable import (
    LEASE,
    START,
    Clock,
    account,
    address,
    fail,
    post,
    rows,
    said,
    settle,
    take,
)

from threadbridge.storage import decisions, hosts, jobs, ledger, migrate, turns
from threadbridge.storage.hosts import Taken
from threadbridge.storage.ledger import Settled
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


def due(store: Store) -> bool:
    return store.read_now(turns.anything_due)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_activity_is_kept_once_by_its_id(store: Store) -> None:
    alice = account(store)
    given = {"account_id": alice, "uri": "https://b/1", "kind": "Create", "order_key": "https://b/p", "body": b"{}"}
    assert store.transact_now(lambda tx: ledger.add_activity(tx, **given)) is not None  # type: ignore[arg-type]
    assert store.transact_now(lambda tx: ledger.add_activity(tx, **{**given, "body": b"other"})) is None  # type: ignore[arg-type]
    assert [row.body for row in rows(store, "activities")] == [b"{}"]


def test_an_inbox_gets_an_activity_once_however_often_it_is_addressed(store: Store) -> None:
    activity = said(store, account(store))
    assert address(store, activity, "a.example", "b.example", "a.example") == 2
    assert address(store, activity, "b.example", "c.example") == 1
    assert [row.host for row in rows(store)] == ["a.example", "b.example", "c.example"]


def test_a_thousand_inboxes_are_written_at_once(store: Store) -> None:
    activity = said(store, account(store))
    assert address(store, activity, *(f"h{n}.example" for n in range(1234))) == 1234
    assert len(rows(store)) == 1234


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_taken_is_not_taken_again_until_its_lease_runs_out(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    assert due(store)
    (first,) = take(store)
    assert (first.host, first.kind, first.attempts, first.status) == ("a.example", "Create", 0, None)
    assert (due(store), take(store)) == (False, [])
    clock.forward(seconds=LEASE)
    assert take(store) == []
    clock.forward(seconds=0.001)
    assert due(store)
    (second,) = take(store)
    assert (second.id, second.lease) == (first.id, first.lease + 1)


def test_an_extended_lease_lasts(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    (held,) = take(store)
    clock.forward(seconds=6)
    store.transact_now(turns.extend, [(held.id, held.lease)], LEASE)
    clock.forward(seconds=6)
    assert take(store) == []
    # Whoever lost the lease extends nothing.
    clock.forward(seconds=6)
    (taken_over,) = take(store)
    clock.forward(seconds=6)
    store.transact_now(turns.extend, [(held.id, held.lease)], LEASE)
    clock.forward(seconds=6)
    assert [row.lease for row in take(store)] == [taken_over.lease + 1]


def test_what_is_given_back_by_its_holder_can_be_taken_at_once(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example", "b.example")
    one, two = take(store)
    store.transact_now(turns.release, [(one.id, one.lease), (two.id, two.lease + 1)])
    (again,) = take(store)
    assert (again.id, again.lease, again.attempts) == (one.id, one.lease + 1, 0)
    settle(store, again)
    store.transact_now(turns.release, [(again.id, again.lease)])
    assert take(store) == []


def test_what_is_settled_under_an_old_lease_has_no_effect(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    (old,) = take(store)
    clock.forward(seconds=LEASE + 1)
    (new,) = take(store)
    settle(store, old, "given_up", reason="thought dead", status=500)
    (row,) = rows(store)
    assert (row.state, row.attempts, row.reason, row.lease) == ("waiting", 0, None, new.lease)
    settle(store, new)
    settle(store, new, "given_up", reason="twice")
    (row,) = rows(store)
    assert (row.state, row.attempts, row.reason, row.ended_at) == ("delivered", 1, None, clock.now)
    assert (due(store), take(store)) == (False, [])


def test_trying_again_waits_until_it_is_due(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    (first,) = take(store)
    fail(store, first, clock.now + timedelta(seconds=15))
    assert (due(store), take(store)) == (False, [])
    clock.forward(seconds=15)
    (second,) = take(store)
    assert (second.attempts, second.lease) == (1, first.lease + 1)
    settle(store, second, "refused", status=403, reason="403: not welcome")
    (row,) = rows(store)
    assert (row.state, row.status, row.reason, row.attempts) == ("refused", 403, "403: not welcome", 2)


def test_the_answer_before_is_known_at_the_next_try(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    settle(store, take(store)[0], "waiting", due_at=clock.now, status=404, reason="404")
    assert take(store)[0].status == 404


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_about_one_object_arrives_in_order_at_each_inbox(store: Store, clock: Clock) -> None:
    alice = account(store)
    create, update, delete = (
        said(store, alice, kind, about="https://b/p") for kind in ("Create", "Update", "Delete")
    )
    for activity, lane in ((create, ledger.LANE_BULK), (update, ledger.LANE_POST), (delete, ledger.LANE_ANSWER)):
        address(store, activity, "a.example", "b.example", lane=lane)
    other = said(store, alice)
    address(store, other, "a.example")
    taken = take(store)
    # More urgent or not, the Create goes first; another object waits for nobody.
    assert Counter((row.activity_id, row.host) for row in taken) == Counter(
        [(create.id, "a.example"), (create.id, "b.example"), (other.id, "a.example")]
    )
    settle(store, next(row for row in taken if row.activity_id == other.id))
    at_a, at_b = (next(row for row in taken if (row.activity_id, row.host) == (create.id, host))
                  for host in ("a.example", "b.example"))  # fmt: skip
    settle(store, at_a)
    clock.forward(seconds=1)
    (update_at_a,) = take(store)
    assert (update_at_a.activity_id, update_at_a.host) == (update.id, "a.example")
    # At b the Create has to be tried again: nothing overtakes it meanwhile.
    fail(store, at_b, clock.now + timedelta(hours=1))
    settle(store, update_at_a)
    clock.forward(minutes=30)
    assert [(row.activity_id, row.host) for row in take(store)] == [(delete.id, "a.example")]
    clock.forward(minutes=31)
    late = next(row for row in take(store) if row.host == "b.example")
    assert late.activity_id == create.id
    # Its end, whatever it is, lets the next one go.
    settle(store, late, "given_up", status=None, reason="given up after 7 days")
    clock.forward(seconds=1)
    assert [(row.activity_id, row.host) for row in take(store)] == [(update.id, "b.example")]


def test_what_has_to_wait_for_another_is_not_looked_at_all_the_time(store: Store, clock: Clock) -> None:
    alice = account(store)
    create, update = said(store, alice, about="https://b/p"), said(store, alice, "Update", about="https://b/p")
    address(store, create, "a.example")
    (held,) = take(store)
    fail(store, held, clock.now + timedelta(hours=12))
    address(store, update, "a.example")
    assert due(store)
    assert take(store) == []
    assert not due(store)
    clock.forward(hours=12)
    assert [row.activity_id for row in take(store)] == [create.id]


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_urgent_lanes_go_first(store: Store) -> None:
    alice = account(store)
    lanes = [ledger.LANE_BULK, ledger.LANE_CHANGE, ledger.LANE_POST, ledger.LANE_ANSWER]
    for lane in lanes:
        address(store, said(store, alice, kind=str(lane)), f"h{lane}.example", lane=lane)
    order = [take(store, limit=1)[0].kind for _ in lanes]
    assert order == ["0", "1", "2", "3"]


def test_an_account_with_a_hundred_thousand_followers_delays_nobody(store: Store) -> None:
    loud = said(store, account(store, "loud"))
    for start in range(0, 2000, 500):
        address(store, loud, *(f"h{n}.example" for n in range(start, start + 500)))
    quiet = [account(store, f"quiet{n}") for n in range(3)]
    for number in quiet:
        address(store, said(store, number), "x.example", "y.example")
    taken = Counter(row.account_id for row in take(store, limit=40))
    assert taken == Counter({loud.account_id: 34, **dict.fromkeys(quiet, 2)})


def test_every_account_gets_its_turn(store: Store) -> None:
    numbers = [account(store, f"a{n:03}") for n in range(70)]
    for number in numbers:
        activity = said(store, number)
        address(store, activity, *(f"h{number}-{n}.example" for n in range(5)))
    seen: set[int] = set()
    after: turns.Place = {}
    for _ in range(4):
        taken, after = store.transact_now(turns.take, busy={}, limit=64, lease_seconds=LEASE, after=after)
        seen |= {row.account_id for row in taken}
    assert seen == set(numbers)


def test_accounts_with_nothing_but_waiting_cost_nobody_a_turn(store: Store, clock: Clock) -> None:
    for number in range(70):
        address(
            store, said(store, account(store, f"a{number:03}")), "dead.example", due_at=START + timedelta(hours=1)
        )
    last = account(store, "z")
    address(store, said(store, last), "x.example")
    assert [row.account_id for row in take(store)] == [last]


def test_a_host_gets_a_few_at_a_time_and_stands_in_nobodys_way(store: Store) -> None:
    alice = account(store)
    activity = said(store, alice)
    address(store, activity, *(f"big.example/{n}" for n in range(500)))
    address(store, activity, "small.example")
    taken = take(store)
    assert Counter(row.host for row in taken) == {"big.example": turns.HOST_LIMIT, "small.example": 1}
    assert take(store, busy={"big.example": turns.HOST_LIMIT}) == []
    more = take(store, busy={"big.example": turns.HOST_LIMIT - 1})
    assert [row.host for row in more] == ["big.example"]


def test_what_stands_behind_a_busy_host_is_found_by_a_thorough_look(store: Store) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"big.example/{n}" for n in range(500)), "small.example")

    def look(busy: int, *, thorough: bool) -> Counter[str]:
        given = {"busy": {"big.example": busy}, "limit": 100, "lease_seconds": LEASE, "thorough": thorough}
        taken, _ = store.transact_now(lambda tx: turns.take(tx, **given))  # type: ignore[arg-type]
        return Counter(row.host for row in taken)

    assert look(turns.HOST_LIMIT, thorough=False) == {}
    assert look(turns.HOST_LIMIT - 2, thorough=False) == {"big.example": 2}
    assert look(turns.HOST_LIMIT - 1, thorough=True) == {"big.example": 1, "small.example": 1}


def test_a_host_in_trouble_gets_one_at_a_time(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"ill.example/{n}" for n in range(20)))
    fail(store, take(store, limit=1)[0], clock.now + timedelta(hours=1))
    (probe,) = take(store)
    assert take(store, busy={"ill.example": 1}) == []
    settle(store, probe)
    assert len(take(store)) == turns.HOST_LIMIT


def test_a_held_host_is_left_alone_until_its_time_and_stands_in_nobodys_way(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"held.example/{n}" for n in range(600)), "well.example")
    (first,) = take(store, limit=1)
    until = clock.now + timedelta(minutes=10)
    fail(store, first, clock.now + timedelta(seconds=15), held_until=until)
    (other,) = take(store)
    assert other.host == "well.example"
    settle(store, other)
    # What was found to be held is not looked at again.
    assert not due(store)
    assert {row.due_at for row in rows(store, host="held.example", attempts=0)} == {until}
    clock.forward(minutes=9, seconds=59)
    assert take(store) == []
    clock.forward(seconds=1)
    assert [row.host for row in take(store)] == ["held.example"]


def test_the_lowest_numbers_of_a_batch_are_sent_first(store: Store) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"h{n}.example" for n in range(30)))
    taken = [row.id for row in take(store)]
    assert taken == sorted(taken)


def test_two_workers_never_take_the_same_delivery(store: Store, database_url: str, clock: Clock) -> None:
    for handle in ("alice", "bob", "carol"):
        activity = said(store, account(store, handle))
        address(store, activity, *(f"{handle}{n}.example" for n in range(300)))
    workers = [Store.open(database_url, clock=clock) for _ in range(3)]

    def work(own: Store) -> list[int]:
        mine: list[int] = []
        while taken := take(own, limit=20):
            mine += [row.id for row in taken]
        return mine

    with ThreadPoolExecutor(len(workers)) as pool:
        shares = list(pool.map(work, workers))
    everything = [number for share in shares for number in share]
    assert len(everything) == len(set(everything))
    left = take(store)  # PostgreSQL passes over rows that another one looks at just now
    while left:
        everything += [row.id for row in left]
        left = take(store)
    assert sorted(everything) == [row.id for row in rows(store)]
    assert {row.lease for row in rows(store)} == {1}
    for worker in workers:
        worker.close()


def test_looking_costs_the_same_whatever_waits(store: Store, clock: Clock) -> None:
    """The plans: nothing on the way of a turn reads the table from end to end."""
    alice = account(store)
    for _ in range(4):
        activity = said(store, alice)
        later = clock.now + timedelta(hours=3)
        address(store, activity, *(f"dead.example/{n}" for n in range(1000)), due_at=later)
    address(store, said(store, alice), "a.example", "b.example")
    statements: list[tuple[str, object]] = []
    event.listen(
        store.engine, "before_cursor_execute",
        lambda connection, cursor, statement, parameters, context, many: statements.append((statement, parameters)),
    )  # fmt: skip
    take(store)
    store.transact_now(turns.anything_due)
    store.transact_now(hosts.bring_forward, "dead.example")
    looked = [(s, p) for s, p in statements if "deliveries" in s and "SELECT" in s]
    assert len(looked) >= 4

    explain = "EXPLAIN QUERY PLAN" if store.dialect == "sqlite" else "EXPLAIN"

    def plans(tx: Tx) -> list[str]:
        if store.dialect == "postgresql":
            # A table of this size is read from end to end by choice; only where there is no other way, it is wrong.
            tx.execute(text("SET LOCAL enable_seqscan = off"))
        found = []
        for statement, parameters in looked:
            answer = tx.connection.exec_driver_sql(f"{explain} {statement}", parameters)  # type: ignore[arg-type]
            found += [str(row[-1]) for row in answer]
        return found

    steps = store.transact_now(plans)
    scans = [step for step in steps if step.startswith("SCAN deliveries") or "Seq Scan on deliveries" in step]
    assert scans == [], "\n".join(steps)
    assert [step for step in steps if "ix_deliveries_" in step]


# ── hosts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def host(store: Store, name: str = "a.example") -> object:
    (row,) = rows(store, "hosts", host=name)
    return row


def test_failures_in_a_row_are_counted_and_forgotten_at_a_success(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    for number in range(1, 4):
        (held,) = take(store)
        fail(store, held, clock.forward(minutes=1))
        assert store.read_now(hosts.failures, ["a.example", "b.example"]) == {"a.example": number}
    row = host(store)
    assert (row.failing_since, row.last_trouble) == (START + timedelta(minutes=1), "could not be reached")  # type: ignore[attr-defined]
    settle(store, take(store)[0])
    row = host(store)
    assert (row.failures, row.failing_since, row.last_trouble) == (0, None, None)  # type: ignore[attr-defined]
    assert row.last_delivered_at == clock.now  # type: ignore[attr-defined]


def test_a_batch_counts_once_per_host_and_one_success_outweighs_it(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"a.example/{n}" for n in range(3)))
    taken = take(store)
    bad = [Settled(row.id, row.lease, row.host, "waiting", clock.now, None, "no", "no") for row in taken]
    store.transact_now(ledger.settle, bad)
    assert store.read_now(hosts.failures, ["a.example"]) == {"a.example": 1}
    again = [row for _ in range(3) for row in take(store)]
    good = Settled(again[0].id, again[0].lease, "a.example", "delivered", None, 202, None)
    bad = [Settled(row.id, row.lease, row.host, "waiting", clock.now, None, "no", "no") for row in again[1:]]
    store.transact_now(ledger.settle, [good, *bad])
    assert store.read_now(hosts.failures, ["a.example"]) == {}


def test_a_wish_to_be_left_alone_is_neither_shortened_nor_overheard(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"a.example/{n}" for n in range(4)))
    one, two, three, four = take(store)
    asked_until = clock.now + timedelta(hours=1)
    fail(store, one, asked_until, asked_until=asked_until)
    fail(store, two, clock.now)  # was under way, and ended some other way
    fail(store, three, clock.now, asked_until=clock.now + timedelta(minutes=5))
    settle(store, four)  # even a success
    store.transact_now(hosts.heard_from, "a.example")  # and even a word from there
    assert take(store) == []
    clock.forward(minutes=59)
    assert take(store) == []
    clock.forward(minutes=1)
    assert len(take(store)) == 3


def test_a_success_and_a_wish_in_one_batch_are_both_kept(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"a.example/{n}" for n in range(3)))
    one, two, _ = take(store)
    until = clock.now + timedelta(minutes=5)
    store.transact_now(
        ledger.settle,
        [
            Settled(one.id, one.lease, one.host, "waiting", until, 429, "slow", "slow", asked_until=until),
            Settled(two.id, two.lease, two.host, "delivered", None, 202, None),
        ],
    )
    clock.forward(seconds=LEASE + 1)
    assert take(store) == []


def held_back(store: Store, clock: Clock, count: int = 20) -> None:
    """A host with an open breaker, and deliveries that wait for it: some put off, some on their own schedule."""
    activity = said(store, account(store))
    address(store, activity, *(f"a.example/{n}" for n in range(count)), "other.example")
    taken = take(store)
    for row in taken:
        if row.host == "a.example":
            fail(store, row, clock.now + timedelta(hours=12), held_until=clock.now + timedelta(minutes=30))
        else:
            settle(store, row)
    while take(store):
        pass
    assert not due(store)


def test_the_first_word_of_a_held_host_lets_one_go_and_that_the_others(store: Store, clock: Clock) -> None:
    held_back(store, clock, count=1200)
    clock.forward(minutes=1)
    store.transact_now(hosts.heard_from, "a.example")
    (job,) = rows(store, "jobs", kind=hosts.WAKE)
    assert job.key == "a.example"
    assert store.transact_now(hosts.bring_forward, "a.example") is False
    assert len([row for row in rows(store, host="a.example") if row.due_at == clock.now]) == 1
    (probe,) = take(store)  # to see whether it is really back
    settle(store, probe)
    steps = 0
    while store.transact_now(hosts.bring_forward, "a.example"):
        steps += 1
    assert steps == 3  # in pieces, each in a short transaction
    assert {row.due_at for row in rows(store, host="a.example", state="waiting")} == {clock.now}
    assert len(take(store)) == turns.HOST_LIMIT


def test_a_host_that_always_speaks_and_never_listens_is_woken_once(store: Store, clock: Clock) -> None:
    held_back(store, clock)
    for _ in range(5):
        clock.forward(minutes=2)
        store.transact_now(hosts.heard_from, "a.example")
        if rows(store, "jobs", kind=hosts.WAKE):
            store.transact_now(jobs.drop, hosts.WAKE, "a.example")
            while store.transact_now(hosts.bring_forward, "a.example"):
                pass
            (probe,) = take(store)
            fail(store, probe, clock.now + timedelta(hours=12), held_until=clock.now + timedelta(minutes=30))
            woken_at = clock.now
    assert woken_at == START + timedelta(minutes=2)


def test_a_success_after_a_hold_lets_everything_go(store: Store, clock: Clock) -> None:
    held_back(store, clock)
    clock.forward(minutes=30)
    (probe,) = take(store)
    settle(store, probe)
    assert [row.key for row in rows(store, "jobs", kind=hosts.WAKE)] == ["a.example"]
    while store.transact_now(hosts.bring_forward, "a.example"):
        pass
    assert len(take(store)) == turns.HOST_LIMIT


def test_a_success_without_a_hold_wakes_nothing(store: Store, clock: Clock) -> None:
    # Else one activity that always makes their server fail would be tried again after each one that does not.
    activity = said(store, account(store))
    address(store, activity, "a.example/1", "a.example/2")
    one, two = take(store)
    fail(store, one, clock.now + timedelta(hours=1))
    settle(store, two)
    assert rows(store, "jobs", kind=hosts.WAKE) == []


def test_bringing_forward_stops_when_the_host_is_to_be_left_alone_again(store: Store, clock: Clock) -> None:
    held_back(store, clock)
    assert store.transact_now(hosts.bring_forward, "a.example") is False
    assert not due(store)


def test_bringing_forward_heeds_what_the_host_has_asked_for(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example")
    later = clock.now + timedelta(hours=12)
    fail(store, take(store)[0], later, asked_until=clock.now + timedelta(hours=1))
    assert store.transact_now(hosts.bring_forward, "a.example") is False
    assert {row.due_at for row in rows(store)} == {later}
    clock.forward(hours=1)
    assert store.transact_now(hosts.bring_forward, "a.example") is True
    assert len(take(store)) == 1


def test_hearing_from_a_host_is_written_down_once_a_minute(store: Store, clock: Clock) -> None:
    store.transact_now(hosts.heard_from, "a.example")
    clock.forward(seconds=59)
    store.transact_now(hosts.heard_from, "a.example")
    assert host(store).last_heard_at == START  # type: ignore[attr-defined]
    clock.forward(seconds=2)
    store.transact_now(hosts.heard_from, "a.example")
    assert host(store).last_heard_at == clock.now  # type: ignore[attr-defined]


def test_a_signature_scheme_is_remembered_for_a_month(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, "a.example/1", "a.example/2", "b.example")
    taken = take(store)
    assert {row.taken for row in taken} == {None}
    settle(store, taken[0], taken=Taken("rfc9421", None, "cavage: 401; rfc9421: 202"))
    clock.forward(seconds=LEASE + 1)
    again = {row.host: row.taken for row in take(store)}
    assert again == {"a.example": Taken("rfc9421", None, "cavage: 401; rfc9421: 202"), "b.example": None}
    (decided,) = [decision for _, decision in store.read_now(decisions.page)]
    assert (decided.kind, decided.subject, decided.reason) == ("signature", "a.example", "cavage: 401; rfc9421: 202")
    clock.forward(days=30)
    assert {row.taken for row in take(store)} == {None}


def test_long_host_names_do_not_break_waking(store: Store) -> None:
    long = "x" * 60 + "." + "y" * 60 + "." + "z" * 60 + ".example:8443"
    address(store, said(store, account(store)), long)
    fail(store, take(store)[0], START, held_until=START + timedelta(hours=1))
    store.transact_now(hosts.heard_from, long)
    assert {job.kind for job in rows(store, "jobs")} == {hosts.TEND, hosts.WAKE}
    assert all(long in job.arguments for job in rows(store, "jobs"))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_receipts_tell_what_became_of_a_post(store: Store, clock: Clock) -> None:
    alice = account(store)
    number, other = post(store, alice), post(store, alice)
    create = said(store, alice, about="p", post_id=number)
    address(store, create, *(f"h{n}.example" for n in range(6)))
    address(store, said(store, alice, about="q", post_id=other), "a.example")
    ends: list[tuple[str, str | None]] = [
        ("delivered", None), ("delivered", None), ("refused", "403: no"), ("refused", "403: no"), ("gone", "410"),
    ]  # fmt: skip
    taken = [row for row in take(store) if row.activity_id == create.id]
    for row, (state, reason) in zip(taken, ends, strict=False):
        settle(store, row, state, reason=reason)
    found = store.read_now(ledger.receipts, [number, other])
    assert sorted((r.kind, r.state, r.reason or "", r.count) for r in found[number]) == [
        ("Create", "delivered", "", 2), ("Create", "gone", "410", 1), ("Create", "refused", "403: no", 2),
        ("Create", "waiting", "", 1),
    ]  # fmt: skip
    assert found[number][0].state == "delivered"
    assert [(r.state, r.count) for r in found[other]] == [("waiting", 1)]
    page = store.read_now(ledger.activities_page, alice, limit=10)
    assert page[1][0] == create
    assert page[1][1] == {"delivered": 2, "gone": 1, "refused": 2, "waiting": 1}
    assert store.read_now(ledger.totals) == {"delivered": 2, "gone": 1, "refused": 2, "waiting": 2}


def test_recipients_are_listed_in_pieces(store: Store) -> None:
    activity = said(store, account(store))
    names = sorted(f"h{n}.example" for n in range(25))
    address(store, activity, *names)
    found: list[str] = []
    after = ""
    while page := store.read_now(ledger.recipients, activity.id, after=after, limit=10):
        found += [host for _, host in page]
        after = page[-1][0]
    assert found == names
