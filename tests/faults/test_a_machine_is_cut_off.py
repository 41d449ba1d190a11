"""Five machines, each with a network of its own: PostgreSQL on one, the web side on two, workers on two. One worker's
cable is pulled while it works: nothing is lost, the other takes its work over, what it says late has no effect, and
when it is back it works on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from sqlalchemy import select
from tests.faults import namespaces
from tests.faults.beside import Beside, seconds_until_drained
from tests.faults.own_postgres import OwnPostgres
from tests.rig import BackgroundLoop, Served, eventually
from tests.stories.crowd import Crowd, Reply, publish

from threadbridge import server
from threadbridge.config import fixed
from threadbridge.domain.people import Peer
from threadbridge.services import open_ground
from threadbridge.storage import followers, peers, schema, turns
from threadbridge.storage.store import Tx

PORT = 8000
PEOPLE = 40


@pytest.fixture
def net(request: pytest.FixtureRequest) -> Iterator[namespaces.Network]:
    if not request.config.getoption("--faults-long"):
        pytest.skip("in the long form only (--faults-long)")
    reason = namespaces.unavailable()
    if reason:
        pytest.skip(reason)
    with namespaces.network() as made:
        yield made


@contextmanager
def database(machine: namespaces.Machine) -> Iterator[OwnPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="threadbridge-postgres-"))
    running = OwnPostgres(folder, listen=machine.address)
    with (folder / "pg_hba.conf").open("a") as rules:
        rules.write("\nhost all all 0.0.0.0/0 trust\n")
    machine.inside(running.start)
    try:
        yield running
    finally:
        running.stop()
        subprocess.run(["rm", "-rf", str(folder)], check=False)


class Place(Beside):
    """The machines, and the test at the switch."""

    def process(self, machine: namespaces.Machine, *words: str) -> subprocess.Popen[str]:
        home = Path(self.homes) / machine.address
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "THREADBRIDGE_BASE_URL": self.base,
            "THREADBRIDGE_DATA_DIR": str(home),
            "THREADBRIDGE_SECRET_KEY_FILE": str(self.ground.config.secret_key_path),
            "THREADBRIDGE_DATABASE_URL": self.database_url,
            "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": f"{self.network},127.0.0.0/8",
            "THREADBRIDGE_HOST": machine.address,
            "THREADBRIDGE_PORT": str(PORT),
        }
        return machine.start([sys.executable, "-m", "threadbridge", *words], environment)

    homes: str
    database_url: str
    network: str


@pytest.mark.unjudged("the strict readers know loopback as a place for tests, and no other network")
def test_a_worker_whose_cable_is_pulled_loses_nothing_and_comes_back(net: namespaces.Network, tmp_path: Path) -> None:
    db, one, other, web, web2 = (net.machine() for _ in range(5))
    loop = BackgroundLoop()
    with ExitStack() as stack:
        postgres = stack.enter_context(database(db))
        base = f"http://{web.address}:{PORT}"
        config = fixed(base_url=base, data_dir=tmp_path / "test", database_url=postgres.url,
                       allowed_private_networks=[net.network])  # fmt: skip
        ground = open_ground(config)
        stack.callback(ground.close)
        unused: Any = None
        here = Place(loop, ground, unused, base)
        here.homes, here.network = str(tmp_path), net.network
        here.database_url = f"postgresql+psycopg://postgres@{db.address}/postgres"
        sock = server.listen(net.here, 0)
        people = Crowd(f"http://{net.here}:{sock.getsockname()[1]}", shared=False)
        stack.callback(Served(loop, people.create_app(), sock).stop)
        running: dict[namespaces.Machine, subprocess.Popen[str]] = {}

        def end() -> None:
            for process in running.values():
                process.kill()
                process.communicate()

        stack.callback(end)
        for machine in (web, web2):
            running[machine] = here.process(machine, "serve", "--no-worker")
        for machine in (one, other):
            running[machine] = here.process(machine, "work")
        for machine in (web, web2):
            eventually(partial(ready, machine), 40)

        # Both web sides hear the same server; what they hear goes through either worker.
        account = here.account()
        actor = ground.ids.actor(account.id)
        for number, machine in enumerate((web, web2)):
            follow = people.activity("Follow", actor) | {"id": f"{people.base}/f/{number}"}
            body = orjson.dumps(follow)
            signed = people.signed(f"{actor}/inbox", body)
            url = f"{actor}/inbox".replace(web.address, machine.address)
            assert httpx2.post(url, content=body, headers=signed, trust_env=False).status_code == 202
        eventually(lambda: len(people.of_kind("Accept")) == 2)

        given_followers(here, account, people)
        people.script = lambda _: Reply(seconds=0.3)
        before = len(people.deliveries())
        for _ in range(3):
            publish(here, account)
        eventually(lambda: len(people.deliveries()) > before + 20, 20)
        one.pull()
        took = seconds_until_drained(here, 40)
        creates = [a for a in people.deliveries() if a.kind == "Create"]
        wanted = 3 * (PEOPLE + 1)
        assert len({(a.path, a.activity["id"]) for a in creates}) == wanted
        # Twice went out at most what it had under way.
        assert len(creates) <= wanted + turns.HOST_LIMIT
        assert here.count("deliveries", state="delivered") == wanted + 2
        taken_over = len([row for row in rows(here) if row.lease > 1])
        assert 1 <= taken_over <= turns.HOST_LIMIT + 1

        # It comes back and says what it knows of deliveries that others have settled: without effect.
        held = rows(here)
        one.plug()
        running[other].send_signal(signal.SIGTERM)
        running[other].wait(20)
        assert running[one].poll() is None
        people.script = lambda _: Reply()
        publish(here, account)
        back = seconds_until_drained(here, 40)
        assert rows(here)[: len(held)] == held
        assert here.count("deliveries", state="delivered") == wanted + 2 + PEOPLE + 1
        print(f"taken over within {took:.1f} s ({taken_over} deliveries); worked on {back:.1f} s after the cable")
    loop.close()


def ready(machine: namespaces.Machine) -> bool:
    try:
        return httpx2.get(f"http://{machine.address}:{PORT}/livez", trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def rows(here: Place) -> list[Any]:
    d = schema.deliveries
    query = select(d.c.id, d.c.state, d.c.lease, d.c.attempts, d.c.ended_at, d.c.status).order_by(d.c.id)
    return here.ground.store.read_now(lambda tx: list(tx.execute(query)))


def given_followers(here: Place, account: Any, people: Crowd) -> None:
    def add(tx: Tx) -> None:
        for number in range(PEOPLE):
            uri = people.person(f"p{number}")
            peer = Peer(
                uri=uri, inbox=f"{uri}/inbox", shared_inbox=None, handle="x@y", name="x", url=None,
                key_id=f"{uri}#main-key", key_pem=people.key.public_pem, kind="Person", moved_to=None,
            )  # fmt: skip
            peers.save(tx, peer, people.base[7:])
            followers.follow(tx, account.id, peer, f"{uri}/follow")

    here.ground.store.transact_now(add)
