"""`serve` is killed again and again while posts are published and people follow: what was accepted is there in the
end, everything arrives, and nothing happened twice but on the wire.

`--faults-long` makes it a hundred kills.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from tests.faults.beside import Beside, beside, kill, seconds_until_drained
from tests.rig import eventually
from tests.stories.crowd import Crowd, Reply, crowd, ledger_rows, publish, retract

from threadbridge.domain.accounts import Account
from threadbridge.errors import ThreadbridgeError

SHORT, LONG = 5, 100
SERVERS = 3


class Publishing:
    """Posts and deletes in a thread of its own, and keeps what was acknowledged."""

    def __init__(self, here: Beside, account: Account) -> None:
        self.posts: list[int] = []
        self.deleted: list[int] = []
        self._here, self._account = here, account
        self._stop = threading.Event()
        self._trouble: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        chance = random.Random(3)
        while not self._stop.wait(chance.uniform(0.02, 0.25)):
            try:
                self.posts.append(publish(self._here, self._account, f"post {len(self.posts)}"))
                if chance.random() < 0.3:
                    number = self.posts[-1]
                    retract(self._here, self._account, number)
                    self.deleted.append(number)
            except ThreadbridgeError as error:
                self._trouble.append(error)

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._trouble == []


class Following:
    """New people follow all the time; keeps who was told 202."""

    def __init__(self, here: Beside, account: Account, servers: list[Crowd]) -> None:
        self.accepted: list[str] = []
        self.answers: Counter[int] = Counter()
        self._here, self._servers = here, servers
        self._actor = here.ground.ids.actor(account.id)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.03):
            people = self._servers[number % len(self._servers)]
            name = f"p{number}"
            try:
                status = people.says(name, f"{self._here.base}/ap/inbox", "Follow", self._actor).status_code
            except httpx2.HTTPError:
                continue  # killed just now: they try again, as servers do
            self.answers[status] += 1
            if status == 202:
                self.accepted.append(people.person(name))
                number += 1

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_what_was_accepted_is_there_and_everything_arrives(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = LONG if request.config.getoption("--faults-long") else SHORT
    chance = random.Random(11)
    with beside(tmp_path) as here:
        account = here.account()
        with crowd(here.loop) as one, crowd(here.loop) as two, crowd(here.loop) as three:
            servers = [one, two, three]
            for people in servers:
                people.script = lambda _: Reply(seconds=chance.choice([0, 0, 0.05, 0.3]))
            running = here.start()
            with Following(here, account, servers) as following:
                while not all(people.of_kind("Accept") for people in servers):
                    time.sleep(0.02)
                with Publishing(here, account) as publishing:
                    for _ in range(kills):
                        time.sleep(chance.uniform(0.05, 0.6))
                        kill(running)
                        here.whole()
                        running = here.start()
                    # On a slow machine much of the time goes into starting.
                    eventually(lambda: len(following.accepted) > 10 < len(publishing.posts), 30)
                    time.sleep(0.3)
                    kill(running)
            for people in servers:
                people.script = lambda _: Reply()
            held = {row.id: row.lease for row in ledger_rows(here, state="waiting") if row.leased_until is not None}
            running = here.start()
            started = time.monotonic()
            eventually(lambda: not still_held(here, held), 10)
            assert time.monotonic() - started < 10
            seconds_until_drained(here, 20 + kills)
            assert running.stopped().went_well()
            check(here, servers, following, publishing)


def still_held(here: Beside, held: dict[int, int]) -> list[int]:
    """What nobody has taken up yet of the deliveries that a killed process held, under these leases."""
    rows = ledger_rows(here, state="waiting")
    return [row.id for row in rows if row.lease == held.get(row.id)]


def check(here: Beside, servers: list[Crowd], following: Following, publishing: Publishing) -> None:
    # Every request that was answered at all was answered well, and what was told 202 is there, once.
    assert set(following.answers) == {202}
    assert len(set(following.accepted)) == len(following.accepted) > 10
    assert here.count("followers", ended_at=None) >= len(following.accepted)
    accepts = {a["object"]["actor"] for people in servers for a in people.of_kind("Accept")}
    assert accepts >= set(following.accepted)

    # Every post that was published reached every server, and every deletion came after its post.
    ids = here.ground.ids
    assert len(publishing.posts) > 10
    assert publishing.deleted
    for people in servers:
        created = [a["object"]["id"] for a in people.of_kind("Create")]
        deleted = [
            a["object"] if isinstance(a["object"], str) else a["object"]["id"] for a in people.of_kind("Delete")
        ]
        # What was deleted before it left need not come at all; whatever may have arrived is deleted there.
        published, gone = (
            {ids.post(1, number) for number in numbers} for numbers in (publishing.posts, publishing.deleted)
        )
        assert published - gone <= set(created) <= published
        assert gone & set(created) <= set(deleted) <= gone
        order = [(a["type"], a["object"] if isinstance(a["object"], str) else a["object"]["id"])
                 for a in people.received if a["type"] in ("Create", "Delete")]  # fmt: skip
        for number in publishing.deleted:
            uri = ids.post(1, number)
            if uri not in created:
                continue
            last_create = max(place for place, what in enumerate(order) if what == ("Create", uri))
            first_delete = min(place for place, what in enumerate(order) if what == ("Delete", uri))
            assert last_create < first_delete

    # Twice on the wire is twice the same: one id, one body; and few.
    bodies: dict[str, set[bytes]] = {}
    for people in servers:
        for (_, body), asked in zip(people.requests, people.arrivals, strict=True):
            bodies.setdefault(asked.activity["id"], set()).add(body)
    assert {len(found) for found in bodies.values()} == {1}
    rows = here.count("deliveries") - here.count("deliveries", state="superseded")
    requests = sum(len(people.arrivals) for people in servers)
    assert rows <= requests <= rows * 1.5 + 20
    assert here.count("deliveries", state="delivered") == rows
    assert here.count("jobs", failed_at=None) == here.count("jobs")
    here.whole()
