"""What strangers can have written down is forgotten after a while, and only where nothing is kept of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import insert, update
from tests.world.deliverable import account, follower, rows

from threadbridge.storage import followers, hosts, schema
from threadbridge.storage.store import Store, Tx

LONG = timedelta(days=91)


def host(store: Store, name: str, **values: Any) -> None:
    store.transact_now(lambda tx: tx.execute(insert(schema.hosts).values(host=f"{name}.example", **values)))


def forgotten(store: Store) -> None:
    """As the daily job does it, at a time at which all that is here is of long ago."""

    def some(tx: Tx) -> bool:
        later = Tx(tx.connection, tx.now + LONG)
        return hosts.forget_some(later, limit=1)

    while store.transact_now(some):
        pass


def test_hosts_without_anything_are_forgotten(store: Store) -> None:
    me, now = account(store), store.clock()
    host(store, "silent", last_heard_at=now)
    host(store, "failing", failures=9, failing_since=now, held_until=now + timedelta(days=1), last_trouble="x")
    host(store, "known", scheme="rfc9421", scheme_at=now)
    follower(store, me, "bob", "followed.example")
    host(store, "followed", last_delivered_at=now)
    left = follower(store, me, "eve", "left.example")
    store.transact_now(followers.end, me, left.uri, cause="undo")
    host(store, "left", last_delivered_at=now)
    host(store, "asked", asked_until=now + 2 * LONG)
    host(store, "spoke", last_heard_at=now + timedelta(days=30))
    host(store, "took", last_heard_at=now, last_delivered_at=now + timedelta(days=30))

    forgotten(store)
    assert {row.host for row in rows(store, "hosts")} == {
        "followed.example", "asked.example", "spoke.example", "took.example"
    }  # fmt: skip


def test_a_host_for_which_something_waits_is_not_forgotten(store: Store) -> None:
    me = account(store)
    host(store, "waits")

    def owe(tx: Tx) -> None:
        a, d = schema.activities, schema.deliveries
        said = tx.execute(
            insert(a).values(account_id=me, uri="https://us.example/1", kind="Create", order_key="k", body=b"{}",
                             created_at=tx.now).returning(a.c.id)
        ).scalar_one()  # fmt: skip
        tx.execute(
            insert(d).values(activity_id=said, account_id=me, inbox="https://waits.example/inbox",
                             host="waits.example", order_key="k", lane=1, state="waiting", due_at=tx.now,
                             created_at=tx.now)
        )  # fmt: skip

    store.transact_now(owe)
    forgotten(store)
    assert len(rows(store, "hosts")) == 1
    store.transact_now(lambda tx: tx.execute(update(schema.deliveries).values(state="given_up", ended_at=tx.now)))
    forgotten(store)
    assert rows(store, "hosts") == []
