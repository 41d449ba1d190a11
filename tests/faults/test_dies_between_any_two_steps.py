"""A process dies between any two steps of publishing, addressing, claiming, sending and settling: what was
acknowledged is there and arrives, nothing has its effect twice, and the books balance all the time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tests.faults.chaos import chaos
from tests.faults.dying import DEAD, PUBLISHING, WORKING

ROUNDS_LONG = 20


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("half", "database"), [(0, "sqlite"), (1, "postgresql")])
def test_at_every_named_place(half: int, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--faults-long")
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else None
    chance = random.Random(5)
    # The short form shares the places out between the two databases.
    publishing, working = (PUBLISHING, WORKING) if long else (PUBLISHING[half::2], WORKING[half::2])
    started = time.monotonic()
    with chaos(tmp_path, url, hosts=12) as run:
        with run.audited(every=0.25):
            for _ in range(ROUNDS_LONG if long else 1):
                for death in publishing:
                    run.dies_publishing(death, tmp_path)
                for death in chance.sample(working, len(working)):
                    number = run.publish()
                    if chance.random() < 0.3:
                        run.revise(number)
                    if chance.random() < 0.3:
                        run.retract(number)
                        # Deleted before it left, it need not leave; this one does.
                        run.publish()
                    worker = run.work(death)
                    worker.process.join(20)
                    assert not worker.alive, f"{death}: it never came there"
                    status = worker.done().status
                    assert status == DEAD, f"{death}: {status} {worker.err}"
                    run.kills += 1
        worker = run.work()
        run.drained(40 if long else 25)
        worker.stopped().went_well()
        run.check()
        assert len(run.audits.held) > 3
        print(run.summary(f"named places, {database}", time.monotonic() - started))
