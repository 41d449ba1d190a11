"""PostgreSQL is stopped, killed and full while the bridge is at work: whoever asks is told 503 with Retry-After,
nothing that was accepted is lost, and when it is back everything goes on by itself within seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.faults.own_postgres import OwnPostgres, own_postgres
from tests.rig import Bridge, Served, Stranger, eventually, free_socket, running_bridge

from threadbridge.delivery import outbox
from threadbridge.errors import Unavailable
from threadbridge.storage import accounts, wakeups
from threadbridge.storage.store import Store, Tx


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def bridge(tmp_path: Path, postgres: OwnPostgres) -> Iterator[Bridge]:
    url = postgres.database()
    with running_bridge(tmp_path / "data", database_url=url, database_connections=6) as running:
        yield running


@pytest.fixture
def stranger(bridge: Bridge) -> Iterator[Stranger]:
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


class Sending:
    """A stranger's server that sends one Follow after the other, each until it is accepted."""

    def __init__(self, stranger: Stranger, inbox: str, followed: str) -> None:
        self._stranger, self._inbox, self._followed = stranger, inbox, followed
        self.accepted: list[str] = []
        self.refused: list[httpx2.Response] = []
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            uri = f"{self._stranger.base}/follows/{number}"
            follow = {**self._stranger.activity("Follow", self._followed), "id": uri}
            started = time.monotonic()
            answer = self._stranger.post(self._inbox, follow)
            self.longest = max(self.longest, time.monotonic() - started)
            if answer.status_code == 202:
                self.accepted.append(uri)
                number += 1
            else:
                self.refused.append(answer)
                self._stop.wait(0.05)

    def has_been_accepted(self, times: int) -> None:
        eventually(lambda: len(self.accepted) >= times)

    def has_been_refused(self, times: int) -> None:
        eventually(lambda: len(self.refused) >= times)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)


def works(bridge: Bridge) -> bool:
    """Whether a transaction can be made."""
    try:
        bridge.ground.store.transact_now(lambda tx: None)
    except Unavailable:
        return False
    return True


def test_a_database_that_stops_dies_and_fills_up_loses_nothing(
    bridge: Bridge, stranger: Stranger, postgres: OwnPostgres
) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    sending = Sending(stranger, f"{actor}/inbox", actor)
    try:
        sending.has_been_accepted(3)
        for mode in ("immediate", "fast"):
            held = len(sending.refused)
            postgres.stop(mode)
            sending.has_been_refused(held + 3)
            assert bridge.get("/readyz").status_code == 503
            assert bridge.get("/livez").status_code == 200
            eventually(lambda: bridge.ground.store.patience(None) == wakeups.FAST_SECONDS)
            postgres.start()
            back, taken = time.monotonic(), len(sending.accepted)
            sending.has_been_accepted(taken + 3)
            assert time.monotonic() - back < 6
            # Whoever waits for work hears of it again.
            eventually(lambda: bridge.ground.store.patience(None) == wakeups.SLOW_SECONDS)
        # As many connections as it will ever give are taken by others; ours is refused like anybody's.
        postgres.stop("fast")
        postgres.start(max_connections=9, superuser_reserved_connections=0)
        others = Store.open(str(bridge.ground.config.database_url), connections=20)
        try:
            eventually(lambda: works(bridge))
            taken_by_others = [others.engine.connect() for _ in range(4)]
            assert works(bridge)  # what it holds it keeps
            for connection in taken_by_others:
                connection.close()
        finally:
            others.close()
    finally:
        sending.end()
    for answer in sending.refused:
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
    assert sending.longest < 12
    # Accepted is accepted: each was heard, once, and answered, but for answers that a later one made pointless
    # before they left.
    assert len(set(sending.accepted)) == len(sending.accepted)
    assert bridge.count("seen_activities") >= len(sending.accepted)
    eventually(lambda: bridge.count("deliveries", state="waiting") == 0, 20)
    ended = bridge.count("deliveries", state="delivered") + bridge.count("deliveries", state="superseded")
    assert ended == bridge.count("deliveries") >= len(sending.accepted)
    assert sending.accepted[-1] in {a["object"]["id"] for a in stranger.of_kind("Accept")}


def test_what_waits_when_the_database_goes_is_sent_when_it_is_back(
    bridge: Bridge, stranger: Stranger, postgres: OwnPostgres
) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    eventually(lambda: stranger.of_kind("Accept"))
    post_id = int(bridge.post(account).rsplit("/", 1)[1])

    def publish(tx: Tx) -> None:
        found = accounts.by_id(tx, account.id)
        assert found is not None
        outbox.publish(tx, bridge.ground.ids, found, post_id)

    bridge.ground.store.transact_now(publish)
    postgres.stop()
    with pytest.raises(Unavailable):
        bridge.ground.store.transact_now(accounts.touch, account.id)
    postgres.start()
    started = time.monotonic()
    eventually(lambda: stranger.of_kind("Create"), 12)
    # A lease that was held when it died has to run out; all the rest goes on at once.
    assert time.monotonic() - started < 11
    eventually(lambda: bridge.count("deliveries", state="delivered") == 2)


def test_a_server_that_does_not_answer_is_given_up_in_seconds() -> None:
    sock = free_socket()
    port = sock.getsockname()[1]
    # It listens and takes the connection, and says nothing.
    store = Store.open(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
    started = time.monotonic()
    try:
        with pytest.raises(Unavailable):
            store.transact_now(lambda tx: None)
    finally:
        store.close()
        sock.close()
    assert time.monotonic() - started < 8


def test_a_server_that_can_only_be_read_is_left_for_another(postgres: OwnPostgres) -> None:
    """What a failover looks like to those who stay connected to the old primary."""
    store = Store.open(postgres.url)
    try:
        store.transact_now(lambda tx: tx.connection.exec_driver_sql("CREATE TABLE t (n int)").rowcount)
        before = store.read_now(lambda tx: tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
            admin.exec_driver_sql("ALTER SYSTEM SET default_transaction_read_only = on")
            admin.exec_driver_sql("SELECT pg_reload_conf()")
            eventually(lambda: admin.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "on")
            with pytest.raises(Unavailable, match="only be read"):
                store.transact_now(lambda tx: tx.connection.exec_driver_sql("INSERT INTO t VALUES (1)").rowcount)
        after = store.read_now(lambda tx: tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
        assert after != before  # by a new connection, which the address may lead elsewhere
        with pytest.raises(Exception, match="read-only"):  # ours, not the server's: a mistake is not hidden
            store.read_now(lambda tx: tx.connection.exec_driver_sql("INSERT INTO t VALUES (1)").rowcount)
    finally:
        store.close()
