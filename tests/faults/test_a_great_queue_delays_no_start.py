"""Thirty thousand deliveries wait (a million in the long form) when the server is killed: it is back at once, goes
on sending at once, and whoever follows meanwhile is answered before all of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.faults.beside import kill
from tests.faults.chaos import Chaos, chaos
from tests.rig import eventually
from tests.stories.command_line import answers

from threadbridge.storage.store import Tx

SHORT, LONG = 30_000, 1_000_000
READY_SECONDS, SENDING_SECONDS = 5, 10
PATIENCE = 2.0
"""For a machine that has more to do than this."""

_FILL = """
WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < :count - 1),
     t AS (SELECT n, '127.0.' || (n / 250 % 200 + 1) || '.' || (n % 250 + 1) || :port AS host FROM s)
INSERT INTO deliveries
  (activity_id, account_id, inbox, host, order_key, lane, state, attempts, due_at, created_at, lease)
SELECT :activity, 1, 'http://' || host || '/inbox/' || n, host, 'object ' || n, 1, 'waiting', 0, :at, :at, 0 FROM t
"""


def fill(run: Chaos, count: int) -> None:
    """So many waiting rows, to as many inboxes of 50,000 hosts, written at once."""
    number = run.publish()

    def write(tx: Tx) -> None:
        said = tx.execute(text("SELECT id, created_at FROM activities WHERE post_id = :n"), {"n": number}).one()
        tx.execute(
            text(_FILL),
            {"count": count, "port": f":{run.sink.port}", "activity": said.id, "at": said.created_at},
        )

    run.here.ground.store.transact_now(write)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_is_back_and_sends_within_seconds(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--faults-long")
    if database == "postgresql" and not long:
        pytest.skip("in the long form")
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else None
    with chaos(tmp_path, url, hosts=2) as run:
        fill(run, LONG if long else SHORT)
        serve = run.here.shell.start("serve")
        eventually(lambda: len(run.sink.came) > 50, 60)
        kill(serve)
        before = len(run.sink.came)
        began = time.monotonic()
        serve = run.here.shell.start("serve")
        eventually(lambda: answers(f"{run.here.base}/livez"), 60)
        ready = time.monotonic() - began
        eventually(lambda: len(run.sink.came) > before + 20, 60)
        sending = time.monotonic() - began
        actor = run.here.ground.ids.actor(run.account.id)
        assert run.sink.follows("p0", f"{run.here.base}/ap/inbox", actor) == 202
        asked = time.monotonic()
        eventually(lambda: [came for came in run.sink.came if came.kind == "Accept"], 60)
        accepted = time.monotonic() - asked
        left = run.here.count("deliveries", state="waiting")
        print(f"{database}, {left} still wait: ready after {ready:.1f} s, sending after {sending:.1f} s, "
              f"a follow is answered in {accepted:.1f} s")  # fmt: skip
        assert left > SHORT / 2
        assert ready < READY_SECONDS * PATIENCE
        assert sending < SENDING_SECONDS * PATIENCE
        assert accepted < 5 * PATIENCE
        kill(serve)
        if database == "sqlite":
            run.here.whole()
