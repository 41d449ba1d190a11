"""What Threads answers is heeded: who must sign in again is left alone, who is asked to wait waits longer each time,
and whatever is temporary is tried again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually
from tests.stories.bridged_account import Answer, Place, place, refusal

from threadbridge.errors import RateLimited, SignInAgain
from threadbridge.storage import connections
from threadbridge.storage.store import Tx

POLL = 0.05


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path, poll_seconds=POLL) as found:
        yield found


def refused(here: Place, answer: Answer) -> None:
    """From now on every listing is answered so."""
    listings = ("/v1.0/me/threads", "/v1.0/me/replies")
    here.threads.gate = lambda path, query: answer if path in listings else None


def accounts_command(bridge: Bridge, folder: Path) -> list[dict[str, object]]:
    """What `threadbridge accounts --json` says, beside the running bridge."""
    environment = {
        **os.environ,
        "THREADBRIDGE_DATA_DIR": str(folder),
        "THREADBRIDGE_BASE_URL": bridge.base,
        "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    done = subprocess.run(
        [sys.executable, "-m", "threadbridge", "accounts", "--json"],
        capture_output=True, text=True, env=environment, check=True, timeout=60,
    )  # fmt: skip
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_a_dead_token_is_not_used_again_until_somebody_signs_in(here: Place, tmp_path: Path) -> None:
    here.followed(1)
    here.threads.do(lambda: setattr(here.threads.person, "expired", True))
    eventually(lambda: here.connection().trouble == "sign_in_again")
    asked = len(here.threads.asked)
    (row,) = accounts_command(here.bridge, tmp_path / "data")
    assert (row["needs_sign_in"], row["trouble"]) == (True, "sign_in_again")
    assert "Sign in at Threads again" in str(row["trouble_text"])
    assert here.threads.person.token not in json.dumps(row)
    here.bridge.stop_worker()
    here.bridge.start_worker()  # a restart is no reason to ask
    missed = here.threads.post("while signed out")
    assert here.bridge.count("jobs", kind=connections.READ) == 0
    assert len(here.threads.asked) == asked

    with pytest.raises(SignInAgain):
        here.connect()
    assert here.connection().trouble == "sign_in_again"

    here.threads.do(lambda: here.threads.network.renew_token(here.threads.person))
    here.connect()
    assert here.connection().trouble is None
    here.note_of(missed)
    here.note_of(here.threads.post("back again"))


def test_a_restricted_account_is_not_asked_again(here: Place) -> None:
    here.followed(1)
    refused(here, refusal(400, 1, 4279013))
    eventually(lambda: here.connection().trouble == "restricted")
    eventually(lambda: here.bridge.count("jobs", kind=connections.READ) == 0)
    assert "restricted" in str(here.connection().trouble_text)


def test_a_rate_limit_is_answered_with_growing_patience(here: Place) -> None:
    here.followed(1)
    refused(here, refusal(403, 613))
    for failures in (1, 2, 3):
        connection = eventually(lambda: (now := here.connection()).failures >= failures and now)  # noqa: B023
        assert connection.trouble == "rate_limited"
        due = here.due_in()
        if connection.failures == failures:  # not overtaken meanwhile
            least = POLL * 10 * 2 ** (failures - 1)
        assert least - 0.5 <= due <= least * 1.21
    here.threads.gate = lambda path, query: None
    here.note_of(here.threads.post("patience rewarded"))
    assert here.connection().failures == 0


def test_the_pause_that_is_asked_for_is_kept_also_over_a_restart(here: Place) -> None:
    here.followed(1)
    refused(here, refusal(429, 4, retry_after="90"))
    eventually(lambda: here.connection().trouble == "rate_limited")
    assert 85 <= here.due_in() <= 110
    asked = len(here.threads.asked)
    here.bridge.stop_worker()
    here.bridge.start_worker()
    assert 80 <= here.due_in() <= 110
    assert len(here.threads.asked) == asked


def test_a_rate_limit_while_connecting_is_kept_by_the_worker(here: Place) -> None:
    here.threads.history(60)
    limited = refusal(429, 4, retry_after="90")
    here.threads.gate = lambda path, query: limited if "after" in query else None
    with pytest.raises(RateLimited):
        here.connect()
    assert here.connection().trouble == "rate_limited"
    assert 85 <= here.due_in() <= 110


def test_an_outage_is_waited_for(here: Place) -> None:
    here.followed(1)
    here.threads.do(
        lambda: setattr(here.threads.network.faults, "outage_until", datetime.now(UTC) + timedelta(days=1))
    )
    entry = here.threads.post("during the outage")
    eventually(lambda: here.connection().failures >= 2)
    assert here.connection().trouble == "unreachable"
    here.threads.do(lambda: setattr(here.threads.network.faults, "outage_until", None))
    here.note_of(entry)
    assert (here.connection().trouble, here.connection().failures) == (None, 0)


def test_what_does_not_exist_is_not_insisted_on(here: Place) -> None:
    here.followed(1)
    refused(here, refusal(400, 100, 33))
    eventually(lambda: here.connection().trouble == "refused")
    assert here.connection().failures == 1
    assert here.due_in() > POLL * 10 - 0.5


@pytest.mark.parametrize(("used", "least", "most"), [(75, 2.5, 2.9), (97, 3600, 3601)])
def test_a_nearly_spent_allowance_slows_the_reading(tmp_path: Path, used: int, least: float, most: float) -> None:
    with place(tmp_path, poll_seconds=0.3) as here:
        here.followed()
        here.threads.do(lambda: setattr(here.threads.network, "budget", 10_000))

        def spend() -> None:
            calls = here.threads.network._recent(here.threads.person)
            calls.extend([here.threads.network.now()] * (used * 100))

        here.threads.do(spend)
        here.note_of(here.threads.post("the last of its kind"))
        assert least - 0.5 <= here.due_in() <= most


def test_an_old_tokens_refusal_does_not_touch_a_renewed_connection(here: Place) -> None:
    """A read with the old token is under way while somebody connects anew."""
    here.followed(1)
    here.bridge.stop_worker()
    person, account_id = here.threads.person, here.account().id
    old = person.token
    here.threads.do(lambda: here.threads.network.renew_token(person))
    ground, renewed = here.bridge.ground, False

    def renew(tx: Tx) -> None:
        connections.connect(
            tx, ground.vault, account_id, source="threads", native_id=person.id, graph_url=here.threads.base,
            access_token=person.token, since=tx.now,
        )  # fmt: skip
        connections.hold_read(tx, account_id, 0.0)

    def gate(path: str, query: dict[str, str]) -> Answer | None:
        nonlocal renewed
        if query.get("access_token") == old and not renewed:
            renewed = True
            ground.store.transact_now(renew)
        return None

    here.threads.gate = gate
    here.bridge.start_worker()
    eventually(lambda: renewed)
    here.note_of(here.threads.post("renewed"))
    assert here.connection().trouble is None
