"""The bridge itself is in trouble: no names are resolved, no descriptor is left, the disk is full, the database is
locked. Whoever brings something hears 503 with a time, nothing is lost, nobody else is blamed, and seconds after the
trouble is over everything goes on."""

from __future__ import annotations

import os
import resource
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from tests.faults.beside import Beside, beside
from tests.rig import eventually, new_sqlite
from tests.stories.command_line import Running
from tests.stories.crowd import Crowd, crowd, follow, ledger_rows, publish

from threadbridge.activitypub.text import host_of
from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Peer
from threadbridge.storage import followers, peers, schema
from threadbridge.storage.store import Tx

HEALED_SECONDS = 15

pytestmark = pytest.mark.unjudged("the names of these servers are none of the Fediverse's")


@dataclass(frozen=True)
class NamesByFile:
    """In the child: every name under .test is this machine, unless the file is there; a lock is waited for half a
    second."""

    broken: Path

    def __call__(self) -> None:
        from threadbridge.storage import store

        store._BUSY_MILLISECONDS = 500
        asked = socket.getaddrinfo

        def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
            if not str(host).endswith(".test"):
                return asked(host, *args, **kwargs)
            if self.broken.exists():
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return asked("127.0.0.1", *args, **kwargs)

        socket.getaddrinfo = answer


@dataclass
class Scene:
    here: Beside
    account: Account
    people: Crowd
    others: Crowd
    """Nobody there is known here yet."""
    running: Running
    broken: Path
    told: int = 0

    @property
    def inbox(self) -> str:
        return f"{self.here.base}/ap/inbox"

    def follows(self, name: str) -> httpx2.Response:
        """Somebody of whom we know nothing follows."""
        actor = self.here.ground.ids.actor(self.account.id)
        return self.others.says(name, self.inbox, "Follow", actor, id=f"{self.others.base}/follows/{name}")

    def refused_for_now(self, name: str) -> None:
        """503 with a time, and nothing is there of it."""
        before = self.here.count("followers"), self.here.count("seen_activities")
        answer = self.follows(name)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert (self.here.count("followers"), self.here.count("seen_activities")) == before

    def nobody_is_blamed(self) -> None:
        """No host has a failure to its name, and no delivery an attempt too many."""
        h = schema.hosts
        failing = self.here.ground.store.read_now(
            lambda tx: [row.host for row in tx.execute(h.select().where(h.c.failures > 0))]
        )
        assert failing == []
        assert {row.attempts for row in ledger_rows(self.here)} <= {0, 1}

    def well_again(self, *names: str) -> None:
        """Within seconds: who was told 503 is let in, and everything arrives once."""
        started = time.monotonic()
        eventually(lambda: all(self.follows(name).status_code == 202 for name in names), HEALED_SECONDS)
        eventually(lambda: not self.here.count("deliveries", state="waiting"), HEALED_SECONDS)
        assert time.monotonic() - started < HEALED_SECONDS
        self.nobody_is_blamed()
        created = [one["id"] for one in self.people.of_kind("Create")]
        assert len(set(created)) == self.told
        self.here.whole()

    def publishes(self) -> None:
        publish(self.here, self.account, f"post {self.told}")
        self.told += 1


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("trouble")
    new_sqlite(folder / "a home" / "data dir" / "threadbridge.sqlite3")
    broken = folder / "no names"
    with beside(folder, GRAPH_URL="http://graph.test:1", REFUSALS_PER_MINUTE="100000") as here:
        account = here.account()
        with crowd(here.loop) as people, crowd(here.loop) as others:
            people.base = people.base.replace("127.0.0.1", "peer.test")
            others.base = others.base.replace("127.0.0.1", "another.test")
            running = here.shell.start("serve", first=NamesByFile(broken))
            eventually(lambda: httpx2_ready(here.base) or not running.alive, 30)
            follow(here, account, people, "bob")
            yield Scene(here, account, people, others, running, broken)
            running.stopped().went_well()


def httpx2_ready(base: str) -> bool:
    try:
        return httpx2.get(f"{base}/livez", trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_no_names_are_resolved(scene: Scene) -> None:
    # The name of a server that was met a moment ago is still known; this one's is not.
    uri = scene.people.person("zoe").replace("peer.test", "never-met.test")
    peer = Peer(
        uri=uri, inbox=f"{uri}/inbox", shared_inbox=None, handle="x@y", name="x", url=None,
        key_id=f"{uri}#main-key", key_pem=scene.people.key.public_pem, kind="Person", moved_to=None,
    )  # fmt: skip

    def add(tx: Tx) -> None:
        peers.save(tx, peer, host_of(uri))
        followers.follow(tx, scene.account.id, peer, f"{uri}/follow")

    scene.here.ground.store.transact_now(add)
    scene.broken.touch()
    scene.publishes()
    scene.refused_for_now("dns")
    eventually(lambda: "nothing can be sent from here at present" in scene.running.err)
    time.sleep(0.5)
    scene.nobody_is_blamed()
    assert [row.host for row in ledger_rows(scene.here, state="waiting")] == [host_of(uri)]
    scene.broken.unlink()
    scene.well_again("dns")


@contextmanager
def limited(running: Running, what: int, soft: int) -> Iterator[None]:
    """A limit of the system on the running process, for as long as the block runs."""
    before = resource.prlimit(running.pid, what)
    resource.prlimit(running.pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(running.pid, what, before)


def test_no_descriptor_is_left(scene: Scene) -> None:
    # Under another name, to which no connection is open.
    scene.others.base = scene.others.base.replace("another.test", "third.test")
    with httpx2.Client(trust_env=False) as kept:
        # A connection that is there already is answered; whatever it takes to answer needs another descriptor.
        assert kept.get(f"{scene.here.base}/livez").status_code == 200
        with limited(scene.running, resource.RLIMIT_NOFILE, 3):
            scene.publishes()
            others, actor = scene.others, scene.here.ground.ids.actor(scene.account.id)
            said = others.activity("Follow", actor, id=f"{others.base}/follows/fd", actor=others.person("fd"))
            body = orjson.dumps(said)
            before = scene.here.count("followers")
            headers = others.signed(scene.inbox, body, key_id=f"{others.person('fd')}#main-key")
            answer = kept.post(scene.inbox, content=body, headers=headers)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert scene.here.count("followers") == before
            time.sleep(1)
            assert scene.running.alive
    scene.well_again("fd")


def test_the_disk_is_full(scene: Scene) -> None:
    database = scene.here.shell.data / "threadbridge.sqlite3"
    with limited(scene.running, resource.RLIMIT_FSIZE, min(os.stat(database).st_size, 4096)):
        scene.refused_for_now("disk")
    scene.publishes()
    scene.well_again("disk")


def test_the_database_is_locked(scene: Scene) -> None:
    scene.publishes()
    lock = sqlite3.connect(scene.here.shell.data / "threadbridge.sqlite3", isolation_level=None, timeout=10)
    lock.execute("BEGIN IMMEDIATE")
    try:
        answer = scene.follows("lock")
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    scene.well_again("lock")
