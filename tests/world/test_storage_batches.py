"""What is written for a whole batch at once comes out as if it had been written one by one."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import bindparam, exc, update
from tests.world.deliverable import Clock, account, address, rows, said, take

from threadbridge.storage import hosts, ledger, schema
from threadbridge.storage.ledger import Settled
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Store

_f = schema.facts
PUT = Prepared(lambda insert: insert(_f).on_conflict_do_nothing(), ["name", "value"])
CHANGE = Prepared(lambda _: update(_f).where(_f.c.name == bindparam("which")).values(value=bindparam("new")))


@pytest.fixture
def clock(store: Store) -> Clock:
    made = Clock()
    store.clock = made
    return made


def of(store: Store, host: str) -> object:
    (row,) = rows(store, "hosts", host=host)
    return row.last_delivered_at


def test_many_rows_are_counted_and_what_is_there_already_is_not(store: Store) -> None:
    some = [{"name": name, "value": "1"} for name in ("a", "b", "c")]
    assert store.transact_now(PUT.many, some[:2]) == 2
    assert store.transact_now(PUT.many, some) == 1
    assert store.transact_now(PUT.many, []) == 0
    assert store.transact_now(CHANGE.many, [{"which": name, "new": "2"} for name in ("a", "c", "z")]) == 2
    assert Counter(row.value for row in rows(store, "facts") if row.name in "abc") == {"2": 2, "1": 1}


def test_what_the_driver_says_of_many_rows_is_an_error_as_everywhere(store: Store) -> None:
    with pytest.raises(exc.IntegrityError):
        store.transact_now(PUT.many, [{"name": "a", "value": "1"}, {"name": "b", "value": None}])
    assert not [row for row in rows(store, "facts") if row.name == "a"]
    with pytest.raises(TypeError):
        store.transact_now(PUT.many, [{"name": "a"}])


def test_servers_that_are_well_are_written_down_once_a_minute(store: Store, clock: Clock) -> None:
    store.transact_now(hosts.reached_all, {"a.example", "b.example"}, {"a.example", "b.example"})
    first = clock.now
    clock.forward(seconds=59)
    store.transact_now(hosts.reached_all, {"a.example"}, {"a.example"})
    assert of(store, "a.example") == first
    clock.forward(seconds=2)
    store.transact_now(hosts.reached_all, {"a.example"}, {"a.example"})
    assert of(store, "a.example") == clock.now
    assert of(store, "b.example") == first


def test_the_trouble_of_a_server_ends_within_the_same_minute(store: Store, clock: Clock) -> None:
    store.transact_now(hosts.reached_all, {"a.example", "b.example"}, {"a.example", "b.example"})
    clock.forward(seconds=1)
    store.transact_now(hosts.in_trouble, "a.example", "503", held_until=clock.now + timedelta(hours=1))
    clock.forward(seconds=1)
    store.transact_now(hosts.reached_all, {"a.example", "b.example"}, {"a.example", "b.example"})
    (row,) = rows(store, "hosts", host="a.example")
    assert row.failures == 0
    assert row.held_until is None
    assert row.last_trouble is None


def test_a_batch_settles_each_delivery_under_its_own_lease(store: Store, clock: Clock) -> None:
    activity = said(store, account(store))
    address(store, activity, *(f"h{number}.example" for number in range(6)))
    taken = take(store)
    outcomes = [
        Settled(row.id, row.lease, row.host, "delivered", None, 202 if number % 2 else 200, None)
        for number, row in enumerate(taken[:4])
    ]
    later = clock.now + timedelta(minutes=1)
    outcomes.append(Settled(taken[4].id, taken[4].lease, taken[4].host, "waiting", later, 503, "trouble", "trouble"))
    # Somebody else holds this one by now: what is settled under the old lease has no effect.
    outcomes.append(Settled(taken[5].id, taken[5].lease - 1, taken[5].host, "delivered", None, 202, None))
    store.transact_now(ledger.settle, outcomes)
    held = {row.host: row for row in rows(store)}
    assert Counter((row.state, row.status, row.attempts) for row in held.values()) == {
        ("delivered", 200, 1): 2, ("delivered", 202, 1): 2, ("waiting", 503, 1): 1, ("waiting", None, 0): 1,
    }  # fmt: skip
    assert held[taken[4].host].due_at == later
    assert held[taken[4].host].ended_at is None
    assert held[taken[0].host].ended_at == clock.now
    assert held[taken[5].host].leased_until is not None
    assert held[taken[0].host].leased_until is None
