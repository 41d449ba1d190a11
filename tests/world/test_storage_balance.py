"""Accepted = delivered + pending + dropped with a reason: it comes out, and what is astray is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from tests.world.deliverable import account, address, said

from threadbridge.storage import balance, jobs, ledger, queued, schema
from threadbridge.storage.balance import Balance
from threadbridge.storage.store import Store, Tx

FAN_OUT = "fan_out"


def books(store: Store) -> Balance:
    return store.read_now(balance.account_for, fan_out=FAN_OUT)


def filled(store: Store) -> None:
    """Three activities: one addressed to four inboxes of which three have ended, one being addressed, one failed."""
    number = account(store)
    first, second, third = (said(store, number) for _ in range(3))
    address(store, first, *(f"h{place}.example" for place in range(4)))

    def fill(tx: Tx) -> None:
        ledger.mark_fanned_out(tx, first.id)
        d, j = schema.deliveries, schema.jobs
        for place, (state, reason) in enumerate([("delivered", None), ("refused", "no"), ("gone", "410: gone")]):
            tx.execute(
                d.update()
                .where(d.c.inbox == f"https://h{place}.example/inbox")
                .values(state=state, reason=reason, ended_at=tx.now)
            )
        for one in (second, third):
            jobs.add(tx, FAN_OUT, str(one.id), {"activity": one.id})
        tx.execute(j.update().where(j.c.key == str(third.id)).values(failed_at=tx.now, reason="broken"))

    store.transact_now(fill)


def test_every_part_of_the_sum_is_counted(store: Store) -> None:
    filled(store)
    assert books(store) == Balance(
        said=3, addressed=1, to_address=1, not_addressed=1, accepted=4, delivered=1, pending=1, dropped=2, astray=()
    )
    assert books(store).comes_out


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("DELETE FROM jobs", "nobody is about to address it"),
        ("UPDATE jobs SET reason = NULL", "nobody is about to address it"),
        ("UPDATE deliveries SET reason = NULL WHERE state = 'refused'", "refused, without its end or its reason"),
        ("UPDATE deliveries SET reason = '' WHERE state = 'gone'", "gone, without its end or its reason"),
        ("UPDATE deliveries SET ended_at = NULL WHERE state = 'delivered'", "delivered, without its end"),
    ],
)
def test_what_is_astray_is_named(store: Store, broken: str, named: str) -> None:
    filled(store)
    store.transact_now(Tx.execute, text(broken))
    found = books(store)
    assert not found.comes_out
    assert any(named in words for words in found.astray), found.astray


def test_what_waits_is_told_by_account_and_kind(store: Store) -> None:
    filled(store)
    (one,) = store.read_now(queued.deliveries)
    assert (one.kind, one.deliveries, one.tried, one.servers, one.hosts) == ("Create", 1, 0, 1, ("h3.example",))
    assert one.about_since <= one.waiting_since
    (left,) = store.read_now(queued.to_address)
    assert left.activities == 2
    assert store.read_now(queued.deliveries, 999) == []


@pytest.mark.parametrize(
    "which",
    [
        {"kind": "Update"},
        {"account_id": 999},
        {"said_before": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
)
def test_what_is_not_meant_is_not_taken_back(store: Store, which: dict[str, Any]) -> None:
    filled(store)
    given = {"account_id": None, "kind": None, "said_before": None, **which}
    before = books(store)
    assert store.read_now(queued.count, **given) == 0
    assert store.transact_now(queued.take_back, **given) == 0
    assert books(store) == before


def test_what_is_under_way_is_not_taken_back_and_what_is_taken_back_is_a_drop(store: Store) -> None:
    filled(store)
    everything: dict[str, Any] = {"account_id": None, "kind": "Create", "said_before": None}
    store.transact_now(Tx.execute, text("UPDATE deliveries SET leased_until = 32503680000000000"))
    assert store.transact_now(queued.take_back, **everything) == 0
    store.transact_now(Tx.execute, text("UPDATE deliveries SET leased_until = NULL"))
    assert store.transact_now(queued.take_back, **everything) == 1
    found = books(store)
    assert (found.pending, found.dropped, found.comes_out) == (0, 3, True)
