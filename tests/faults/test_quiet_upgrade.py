"""A database of the first form is migrated, and all workers run for an hour: nothing is written that others would
hear, nothing is sent, and nobody is asked anything."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.faults.passing import Passing
from tests.rig import BackgroundLoop, Served, Stranger, a_key, eventually, free_socket, running_bridge
from tests.world.test_storage_migrations import populate

from threadbridge.delivery import outbox
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.storage import accounts, balance, migrate
from threadbridge.storage.store import Store, Tx

QUIET = ("activities", "posts", "followers", "peers", "decisions", "replies", "reactions")


@pytest.mark.parametrize("form", ["0001", "0002"])
def test_an_hour_after_the_upgrade_nobody_has_heard_anything(
    empty_database_url: str, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = BackgroundLoop()
    sock = free_socket()
    stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", key=a_key(1))
    served = Served(loop, stranger.create_app(), sock)
    base = "http://127.0.0.1:1"
    old = Store.open(empty_database_url)
    migrate.to_revision(old, "0001")
    populate(old, tmp_path / "data", base, stranger)
    ended = text("UPDATE deliveries SET reason = 'no' WHERE state <> 'delivered'")
    old.transact_now(Tx.execute, ended)
    migrate.to_revision(old, form)
    old.close()
    data = tmp_path / "data"
    with running_bridge(data, database_url=empty_database_url, base_url=base, worker=False) as bridge:
        passing = Passing(bridge, monkeypatch)
        before = {table: bridge.count(table) for table in QUIET}
        books = bridge.ground.store.read_now(balance.account_for, fan_out=FAN_OUT)
        assert books.comes_out, books
        assert books.accepted == 5
        bridge.start_worker()
        passing.passes(timedelta(hours=1), steps=20)
        assert (stranger.requests, stranger.fetched) == ([], [])
        assert {table: bridge.count(table) for table in QUIET} == before
        # Old rows of the ledger may have become figures; the sum is the same.
        assert bridge.ground.store.read_now(balance.account_for, fan_out=FAN_OUT) == books
        assert books.pending == 0
        # The test can hear: one new post does arrive.
        account = bridge.ground.store.read_now(accounts.by_id, 1)
        assert account is not None
        number = int(bridge.post(account).rsplit("/", 1)[1])
        bridge.ground.store.transact_now(outbox.publish, bridge.ground.ids, account, number)
        eventually(lambda: stranger.received)
        assert [activity["type"] for activity in stranger.received] == ["Create"]
    served.stop()
    loop.close()
