"""What waits for a server that is suspended ends in pieces, however much it is, and nothing of it is left."""

from __future__ import annotations

from functools import partial

import pytest
from tests.world.deliverable import account, address, rows, said

from threadbridge.activitypub.ids import Ids
from threadbridge.federation import enforcement
from threadbridge.storage import blocks, jobs, parking
from threadbridge.storage.blocks import Entry
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store

IDS = Ids("https://bridge.example")
NAMES = [f"shut.example/{number}" for number in range(5)]


def test_it_ends_piece_by_piece(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = account(store), account(store, "bob")
    for number in (alice, bob):
        address(store, said(store, number), *NAMES, "well.example")
    shut = [Entry("domain", "shut.example", "suspend")]
    store.transact_now(enforcement.add_rules, blocks.owner(alice), shut, account_id=alice)
    (job,) = store.transact_now(jobs.take, [enforcement.ENFORCE], 8.0, 1)
    monkeypatch.setattr(parking, "recall", partial(parking.recall, limit=2))
    waiting = []
    while (left := store.transact_now(enforcement.step, IDS, job)) is not None:
        waiting.append(len(rows(store, state="waiting")))
        job = Job(job.id, job.kind, job.key, left, job.attempts, job.lease)
    assert waiting == [10, 8, 7]
    assert {(row.account_id, row.host, row.reason) for row in rows(store, state="refused")} == {
        (alice, "shut.example", "suspended by the owner")
    }
    assert rows(store, "jobs", kind=enforcement.ENFORCE) == []
