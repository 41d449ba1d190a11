"""Workers and the web are killed at random moments, a thousand times in the long form, while posts are published,
edited and deleted and people follow: nothing acknowledged is lost, all arrives in order, hardly anything goes out
twice, nothing has its effect twice, and the books balance every second."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from tests.faults.chaos import Chaos, chaos, up
from tests.stories.command_line import Running, answers

SHORT, LONG = 6, int(os.environ.get("FAULTS_KILLS", "500"))
"""Kills on each of the two databases."""
BETWEEN_DRAINS = 25
IN_PEACE_SHORT, IN_PEACE_LONG = 20, 400
"""Posts that are said between two rounds of killing."""
DUPLICATES = 0.01
PER_KILL = 12
"""So many may be between their arrival and the ledger when somebody is killed: the short form is too short for a
percentage."""

pytestmark = pytest.mark.timeout(7200)


class Beside:
    """Something done again and again in a thread of its own, until the block ends."""

    def __init__(self, step: Callable[[], None], pause: tuple[float, float], seed: int) -> None:
        self._step, self._pause, self._chance = step, pause, random.Random(seed)
        self._stop = threading.Event()
        self._trouble: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(self._chance.uniform(*self._pause)):
            try:
                self._step()
            except BaseException as error:
                self._trouble.append(error)
                return

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._trouble == []


def speaking(run: Chaos) -> Callable[[], None]:
    chance = random.Random(3)

    def step() -> None:
        number = run.publish()
        if chance.random() < 0.2:
            run.revise(number)
        if chance.random() < 0.2:
            run.retract(number)

    return step


def following(run: Chaos, told: Counter[int]) -> Callable[[], None]:
    actor = run.here.ground.ids.actor(run.account.id)

    def step() -> None:
        name = f"p{len(run.followed)}"
        try:
            status = run.sink.follows(name, f"{run.here.base}/ap/inbox", actor)
        except httpx2.HTTPError:
            return  # killed just now: they try again, as servers do
        told[status] += 1
        if status == 202:
            run.followed.append(run.sink.person(name))

    return step


class Killing:
    """Processes that are killed and started again."""

    def __init__(self, run: Chaos, workers: int) -> None:
        self._run = run
        self._chance = random.Random(17)
        self._workers = [run.work() for _ in range(workers)]
        self._web = run.here.shell.start("serve", "--no-worker")

    def kill_one(self) -> None:
        """50 to 350 ms into the life of one of the workers; every tenth time the web goes as well."""
        place = self._chance.randrange(len(self._workers))
        victim = self._workers[place]
        deadline = time.monotonic() + 30
        while not up(victim):
            assert victim.alive, victim.err
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(self._chance.uniform(0.05, 0.35))
        self._workers[place] = self._again(victim, lambda: self._run.work())
        if self._chance.random() < 0.1:
            self._web = self._again(self._web, lambda: self._run.here.shell.start("serve", "--no-worker"))

    def _again(self, victim: Running, start: Callable[[], Running]) -> Running:
        victim.send(signal.SIGKILL)
        assert victim.done().status == -signal.SIGKILL
        self._run.kills += 1
        return start()

    def end(self) -> None:
        for running in (*self._workers, self._web):
            if not up(running):
                time.sleep(1)
            running.stopped()

    def web_is_up(self) -> bool:
        return answers(f"{self._run.here.base}/readyz")


@pytest.mark.parametrize(("database", "workers"), [("sqlite", 1), ("postgresql", 3)])
def test_whoever_is_killed_when(database: str, workers: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--faults-long")
    kills, in_peace = (LONG, IN_PEACE_LONG) if long else (SHORT, IN_PEACE_SHORT)
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else None
    told: Counter[int] = Counter()
    with chaos(tmp_path, url, hosts=20) as run:
        killing = Killing(run, workers)
        started = time.monotonic()
        with run.audited(), Beside(following(run, told), (0.02, 0.1), 2):
            while run.kills < kills:
                with Beside(speaking(run), (0.02, 0.15), 1):
                    for _ in range(min(BETWEEN_DRAINS, kills - run.kills)):
                        killing.kill_one()
                # In peace for a while: what was held by the killed is taken up, and as much again is said.
                for _ in range(in_peace):
                    run.publish()
                run.drained(90)
                print(run.summary(f"so far, {database}", time.monotonic() - started), flush=True)
        run.drained(30)
        killing.end()
        run.check()
        assert set(told) == {202}
        followed_there(run)
        taken = run.sink.taken()
        print(run.summary(f"random kills, {database}", time.monotonic() - started))
        allowed = DUPLICATES * len(taken) if long else PER_KILL * run.kills
        assert run.sink.duplicates() <= allowed, f"{run.sink.duplicates()} of {len(taken)}"


def followed_there(run: Chaos) -> None:
    """Whoever was told 202 follows, once, and has heard of it."""
    assert len(set(run.followed)) == len(run.followed) > 5
    assert run.here.count("followers", ended_at=None) >= len(run.followed) + run.hosts
    accepted = {came.about for came in run.sink.came if came.kind == "Accept"}
    assert {f"{uri}/follows" for uri in run.followed} <= accepted
