"""A bridge in several processes that die, a sink of many servers, and the books balanced every second.

with chaos(folder, database_url) as run:        # followers at run.hosts servers
    with run.audited():                         # accepted = delivered + pending + dropped, every second
        run.publish() …                         # what returns is acknowledged
    run.drained(…)
    run.check()                                 # nothing lost, nothing undelivered, nothing twice, in order
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from tests.faults.beside import Beside, beside
from tests.faults.dying import DEAD, Death
from tests.faults.sink import Sink, sink
from tests.rig import LOOPBACK, eventually, new_sqlite
from tests.stories.command_line import Running
from tests.stories.crowd import publish, retract, revise

from threadbridge.config import fixed
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Peer
from threadbridge.errors import DatabaseBusy
from threadbridge.services import open_ground
from threadbridge.storage import accounts, balance, followers, peers, schema
from threadbridge.storage.balance import Balance
from threadbridge.storage.store import Tx

_PROCESSES = multiprocessing.get_context("forkserver")


@dataclass
class Audits:
    """What the books said, every second."""

    held: list[Balance] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Chaos:
    """One account, followers at `hosts` servers, and what was acknowledged."""

    def __init__(self, here: Beside, heard: Sink, account: Account, hosts: int) -> None:
        self.here, self.sink, self.account, self.hosts = here, heard, account, hosts
        self.published: list[int] = []
        self.edited: list[int] = []
        self.deleted: list[int] = []
        self.followed: list[str] = []
        self.audits = Audits()
        self.kills = 0
        self.turned_away = 0

    # ── saying ───────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self) -> int:
        number: int = self._until_taken(publish, f"post {len(self.published)}")
        self.published.append(number)
        return number

    def revise(self, number: int) -> None:
        self._until_taken(revise, number, f"edited {len(self.edited)}")
        self.edited.append(number)

    def retract(self, number: int) -> None:
        self._until_taken(retract, number)
        self.deleted.append(number)

    def _until_taken(self, say: Callable[..., Any], *said: Any) -> Any:
        """Several processes write to one SQLite file here, and none is served in turn: who was told that it is busy
        tries again."""
        for _ in range(20):
            try:
                return say(self.here, self.account, *said)
            except DatabaseBusy:
                self.turned_away += 1
        raise AssertionError("the database is busy all the time")

    def dies_publishing(self, death: Death, folder: Path) -> None:
        """Publish in a process of its own until it dies at that place; what it acknowledged counts."""
        acknowledged = folder / "acknowledged"
        acknowledged.write_text("")
        settings = self.here.shell.settings
        process = _PROCESSES.Process(
            target=_publisher,
            args=(death, settings["DATA_DIR"], settings.get("DATABASE_URL"), self.here.base, acknowledged),
        )
        process.start()
        process.join(30)
        assert process.exitcode == DEAD, f"{death}: it did not die there ({process.exitcode})"
        self.kills += 1
        self.published += [int(line) for line in acknowledged.read_text().splitlines()]

    # ── working ──────────────────────────────────────────────────────────────────────────────────────────────────

    def work(self, first: Callable[[], None] | None = None, *, ready: bool = False) -> Running:
        """`threadbridge work`."""
        running = self.here.shell.start("work", first=first)
        if ready:
            eventually(lambda: up(running) or not running.alive, 30)
            assert running.alive, running.err
        return running

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def audited(self, every: float = 1.0) -> Iterator[Audits]:
        """Balance the books again and again, beside whatever happens."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(every):
                self.audit()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield self.audits
        finally:
            stop.set()
            thread.join()

    def audit(self) -> None:
        """One snapshot: the sum comes out, and everything that was acknowledged before is in it."""
        known = [*self.published]
        found, said = self.here.ground.store.read_now(_books)
        self.audits.held.append(found)
        if not found.comes_out:
            self.audits.wrong.append(str(found))
        lost = [number for number in known if number not in said]
        if lost:
            self.audits.wrong.append(f"acknowledged, and not there: {lost}")
        effects = self.sink.effects()  # after the snapshot: whatever is delivered by then has been heard
        if found.delivered > effects:
            self.audits.wrong.append(f"{found.delivered} are called delivered, and {effects} were heard")

    def drained(self, seconds: float) -> float:
        """Wait until nothing is pending; returns how long it took."""
        started = time.monotonic()

        def done() -> bool:
            found, _ = self.here.ground.store.read_now(_books)
            return not (found.pending or found.to_address)

        eventually(done, seconds)
        return time.monotonic() - started

    def check(self) -> None:
        """After draining: nothing lost, nothing undelivered, nothing done twice, everything in order."""
        self.audit()
        assert not self.audits.wrong, self.audits.wrong[:5]
        assert not self.sink.wrong, self.sink.wrong[:5]
        overtaken = self.sink.overtaken()
        assert not overtaken, overtaken[:5]
        found = self.audits.held[-1]
        assert (found.pending, found.to_address, found.not_addressed) == (0, 0, 0), found
        ids = self.here.ground.ids
        alive = {ids.post(self.account.id, number) for number in set(self.published) - set(self.deleted)}
        gone = {ids.post(self.account.id, number) for number in self.deleted}
        for number in range(self.hosts):
            known = self.sink.servers[self.sink.host(number)].objects
            missing = {uri for uri in alive if known.get(uri) != "there"}
            assert not missing, f"{self.sink.host(number)} never got {sorted(missing)[:3]}"
            # Who never heard of a post need not hear of its end.
            risen = {uri for uri in gone if known.get(uri, "deleted") != "deleted"}
            assert not risen, f"{self.sink.host(number)} still has {sorted(risen)[:3]}"
        self.every_delivered_row_was_heard()
        assert self.here.count("jobs", failed_at=None) == self.here.count("jobs")
        if self.here.ground.store.dialect == "sqlite":
            self.here.whole()

    def every_delivered_row_was_heard(self) -> None:
        a, d = schema.activities, schema.deliveries
        query = select(d.c.host, a.c.uri).join(a, a.c.id == d.c.activity_id).where(d.c.state == "delivered")
        rows = self.here.ground.store.read_now(lambda tx: [(row.host, row.uri) for row in tx.execute(query)])
        heard = self.sink.taken()
        assert not [row for row in rows if row not in heard]

    def summary(self, name: str, seconds: float) -> str:
        taken = self.sink.taken()
        twice = self.sink.duplicates()
        return (
            f"{name}: {self.kills} kills in {seconds:.0f} s, {len(taken)} deliveries, {twice} duplicates "
            f"({100 * twice / max(len(taken), 1):.2f} %), {len(self.audits.held)} audits, "
            f"{self.turned_away} times busy, 0 lost"
        )


def _books(tx: Tx) -> tuple[Balance, set[int]]:
    a = schema.activities
    said = {row.post_id for row in tx.execute(select(a.c.post_id).where(a.c.kind == "Create"))}
    return balance.account_for(tx, fan_out=FAN_OUT), said


def up(running: Running) -> bool:
    """Whether it has begun to work."""
    return "works for" in running.err


def _publisher(death: Death, data_dir: str, database_url: str | None, base: str, acknowledged: Path) -> None:
    """In the new process: publish, and say of each post that it is said."""
    config = fixed(
        base_url=base, data_dir=Path(data_dir), database_url=database_url, allowed_private_networks=LOOPBACK
    )
    death()
    ground = open_ground(config)
    account = ground.store.read_now(accounts.by_id, 1)
    assert account is not None
    with acknowledged.open("a") as file:
        for _ in range(3):
            number = publish(_Publishing(ground), account, "from elsewhere")
            file.write(f"{number}\n")
            file.flush()
    os._exit(0)


class _Publishing(Beside):
    """As much of a bridge as it takes to publish."""

    def __init__(self, ground: Any) -> None:
        self.ground = ground


@contextmanager
def chaos(folder: Path, database_url: str | None, *, hosts: int = 20, **settings: str) -> Iterator[Chaos]:
    """The place; nothing works yet."""
    if database_url is None:
        new_sqlite(folder / "a home" / "data dir" / "threadbridge.sqlite3")
    else:
        settings["DATABASE_URL"] = database_url
    with beside(folder, **settings) as here, sink(here.loop) as heard:
        run = Chaos(here, heard, here.account(), hosts)
        here.ground.store.transact_now(given_followers, run.account.id, heard, hosts)
        yield run


def given_followers(tx: Tx, account_id: int, heard: Sink, hosts: int) -> None:
    """One follower at each of so many servers."""
    for number in range(hosts):
        host = heard.host(number)
        uri = f"http://{host}/users/f{number}"
        peer = Peer(
            uri=uri, inbox=f"http://{host}/inbox", shared_inbox=None, handle="x@y", name="x", url=None,
            key_id=f"{uri}#main-key", key_pem=heard.speaker.key.public_pem, kind="Person", moved_to=None,
        )  # fmt: skip
        peers.save(tx, peer, host)
        followers.follow(tx, account_id, peer, f"{uri}/follow")
