"""Several `threadbridge work` on one PostgreSQL share the work: nothing goes out twice, and what one holds that is
killed or stopped is done by the other."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.faults.beside import Beside, beside, kill, seconds_until_drained
from tests.rig import eventually
from tests.stories.crowd import Arrival, Crowd, Reply, crowd, ledger_rows, publish

from threadbridge.delivery import send
from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Peer
from threadbridge.storage import followers, peers, turns
from threadbridge.storage.store import Tx


@pytest.fixture
def here(tmp_path: Path, postgres_url: str) -> Iterator[Beside]:
    with beside(tmp_path, DATABASE_URL=postgres_url) as place:
        yield place


def given_followers(here: Beside, account: Account, server: Crowd, count: int) -> None:
    """People with an inbox each."""

    def add(tx: Tx) -> None:
        for number in range(count):
            uri = server.person(f"p{number}")
            peer = Peer(
                uri=uri, inbox=f"{uri}/inbox", shared_inbox=None, handle="x@y", name="x", url=None,
                key_id=f"{uri}#main-key", key_pem=server.key.public_pem, kind="Person", moved_to=None,
            )  # fmt: skip
            peers.save(tx, peer, server.base[7:])
            followers.follow(tx, account.id, peer, f"{uri}/follow")

    here.ground.store.transact_now(add)


class AtOnce:
    """A script that counts how many requests are under way at the same moment."""

    def __init__(self, loop: object, seconds: float) -> None:
        self.most = 0
        self._seconds = seconds
        self._ends: list[float] = []

    def __call__(self, asked: Arrival) -> Reply:
        self._ends = [end for end in self._ends if end > asked.at] + [asked.at + self._seconds]
        self.most = max(self.most, len(self._ends))
        return Reply(seconds=self._seconds)


def test_two_workers_share_the_work_without_doubling(here: Beside) -> None:
    account = here.account()
    with crowd(here.loop, shared=False) as server, here.shell.working(), here.shell.working():
        given_followers(here, account, server, 80)
        script = server.script = AtOnce(here.loop, 0.15)
        for _ in range(3):
            publish(here, account)
        seconds_until_drained(here, 30)
        came = Counter((a.path, a.activity["id"]) for a in server.deliveries())
        assert len(came) == 240
        assert set(came.values()) == {1}
        assert here.count("deliveries", state="delivered", attempts=1, lease=1) == 240
        # Each of them keeps to its own few per server, so more than that is more than one of them.
        assert script.most > turns.HOST_LIMIT


def test_the_work_of_a_killed_worker_is_done_by_the_other(here: Beside) -> None:
    account = here.account()
    with crowd(here.loop, shared=False) as server, here.shell.working(), here.shell.working() as victim:
        given_followers(here, account, server, 80)
        server.script = AtOnce(here.loop, 0.2)
        publish(here, account)
        eventually(lambda: len(server.deliveries()) > 25)
        kill(victim)
        # Whatever it had taken and not written down: under way, or answered a moment ago.
        held = {row.inbox for row in ledger_rows(here, state="waiting") if row.leased_until is not None}
        assert seconds_until_drained(here, 20) < 12
        came = Counter((a.path, a.activity["id"]) for a in server.deliveries())
        assert len(came) == 80
        twice = {f"{server.base}{path}" for (path, _), times in came.items() if times > 1}
        assert twice <= held
        assert len(twice) < send.CONCURRENCY
        assert max(came.values()) <= 2
        assert here.count("deliveries", state="delivered") == 80


def test_a_worker_that_was_thought_dead_changes_nothing_when_it_comes_back(here: Beside) -> None:
    account = here.account()
    with crowd(here.loop, shared=False) as server, here.shell.working() as frozen:
        given_followers(here, account, server, 4)
        server.script = lambda _: Reply(503, seconds=1)
        publish(here, account)
        eventually(lambda: len(server.deliveries()) == 4)
        frozen.send(signal.SIGSTOP)
        try:
            with here.shell.working():
                server.script = lambda _: Reply()
                eventually(lambda: here.count("deliveries", state="delivered") == 4, 20)
        finally:
            frozen.send(signal.SIGCONT)
        time.sleep(2)  # it hears 503 now, for what has long arrived
        assert here.count("deliveries", state="delivered", attempts=1, lease=2) == 4


def test_a_database_that_goes_away_for_a_moment_loses_nothing(here: Beside) -> None:
    account = here.account()
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.4):
            here.ground.store.transact_now(
                lambda tx: tx.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                         "AND pid <> pg_backend_pid() AND application_name = 'worker'")
                ).all()
            )  # fmt: skip

    url = here.shell.settings["DATABASE_URL"]
    here.shell.settings["DATABASE_URL"] = f"{url}{'&' if '?' in url else '?'}application_name=worker"
    with crowd(here.loop, shared=False) as server, here.shell.working() as worker:
        given_followers(here, account, server, 40)
        server.script = AtOnce(here.loop, 0.1)
        cutting = threading.Thread(target=cut)
        cutting.start()
        for _ in range(5):
            publish(here, account)
            time.sleep(0.3)
        stop.set()
        cutting.join()
        seconds_until_drained(here, 30)
        assert worker.alive
        assert len({(a.path, a.activity["id"]) for a in server.deliveries()}) == 200
        assert here.count("deliveries", state="delivered") == 200
