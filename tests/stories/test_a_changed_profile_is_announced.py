"""A profile that changed reaches the followers by an Update: by itself, once, and only when it really changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from tests.rig import Bridge, Stranger, eventually

from threadbridge.activitypub.ids import Ids
from threadbridge.bridge import pause
from threadbridge.delivery import announcing
from threadbridge.domain.accounts import Account
from threadbridge.domain.source import SourceProfile
from threadbridge.storage import accounts, jobs, profiles, schema
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

SOON = timedelta(seconds=0.3)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test cannot wait as long as a reader would not mind."""
    monkeypatch.setattr(accounts, "ANNOUNCE_AFTER", SOON)
    monkeypatch.setattr(accounts, "ANNOUNCE_EVERY", SOON)


def followed(bridge: Bridge, stranger: Stranger, handle: str = "alice") -> tuple[Account, str]:
    account = bridge.account(handle, name="Alice")
    actor = bridge.ground.ids.actor(account.id)
    assert stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor)).status_code == 202
    return account, actor


def nothing_waits(bridge: Bridge) -> bool:
    return not bridge.count("jobs", kind="announce") and not bridge.count("deliveries", state="waiting")


def test_a_changed_profile_is_announced(bridge: Bridge, stranger: Stranger, soon: None) -> None:
    account, actor = followed(bridge, stranger)
    changed = SourceProfile("1", "alice", name="Alice Liddell", bio="Now with a bio")
    for _ in range(2):
        bridge.loop.run(bridge.services.reader.profile(account.id, changed))
    told = eventually(lambda: stranger.of_kind("Update"))[0]
    assert told["object"]["id"] == actor
    assert told["object"]["name"] == "Alice Liddell"
    assert "Now with a bio" in told["object"]["summary"]
    served = bridge.get(actor).json()
    for document in (served, told["object"]):
        document.pop("proof", None)
        document.pop("@context", None)
    assert served == told["object"]
    eventually(lambda: nothing_waits(bridge))
    assert len(stranger.of_kind("Update")) == 1

    # Several changes are one; a change that is taken back is none.
    store = bridge.ground.store
    store.transact_now(profiles.set_fields, account.id, [("Pronouns", "she/her")])
    store.transact_now(accounts.set_choices, account.id, discoverable=False)
    store.transact_now(accounts.set_choices, account.id, bridge_line="Mirrors my Threads account")
    told = eventually(lambda: len(stranger.of_kind("Update")) > 1 and stranger.of_kind("Update")[1])
    assert told["object"]["discoverable"] is False
    assert "Mirrors my Threads account" in told["object"]["summary"]
    assert {"type": "PropertyValue", "name": "Pronouns", "value": "she/her"} in told["object"]["attachment"]
    store.transact_now(accounts.set_choices, account.id, discoverable=True)
    store.transact_now(accounts.set_choices, account.id, discoverable=False)
    eventually(lambda: nothing_waits(bridge))
    assert len(stranger.of_kind("Update")) == 2
    assert stranger.of_kind("Update")[0]["id"] != stranger.of_kind("Update")[1]["id"]

    # Nor is anything told after a restart, or when all accounts are looked over.
    bridge.stop_worker()
    bridge.start_worker()
    assert look_over(bridge) is None
    eventually(lambda: nothing_waits(bridge))
    assert len(stranger.of_kind("Update")) == 2

    # What the source took away is taken away here, and told.
    sha = "ab" * 32

    def with_picture(tx: Tx) -> None:
        tx.execute(schema.media.insert().values(sha256=sha, media_type="image/png", size=1, created_at=tx.now))
        accounts.update_profile(tx, account.id, avatar=sha)

    store.transact_now(with_picture)
    eventually(lambda: len(stranger.of_kind("Update")) == 3)
    assert "icon" in stranger.of_kind("Update")[2]["object"]
    bridge.loop.run(bridge.services.reader.profile(account.id, changed))
    eventually(lambda: len(stranger.of_kind("Update")) == 4)
    assert "icon" not in stranger.of_kind("Update")[3]["object"]
    assert "icon" not in bridge.get(actor).json()


def test_nobody_is_told_while_the_account_is_paused_and_everything_when_it_goes_on(
    bridge: Bridge, stranger: Stranger, soon: None
) -> None:
    account, _ = followed(bridge, stranger)
    bridge.ground.store.transact_now(pause.pause, account.id, "test")
    bridge.loop.run(bridge.services.reader.profile(account.id, SourceProfile("1", "alice", name="Somebody else")))
    assert bridge.count("jobs", kind="announce") == 0
    assert bridge.count("activities", kind="Update") == 0
    bridge.ground.store.transact_now(pause.resume, account.id, "test")
    assert eventually(lambda: stranger.of_kind("Update"))[0]["object"]["name"] == "Somebody else"


def test_a_program_that_changes_every_document_tells_them_one_after_another(
    bridge: Bridge, stranger: Stranger
) -> None:
    # The worker is asleep, so that the times can be read.
    bridge.stop_worker()
    numbers = [followed(bridge, stranger, f"alice{n}")[0].id for n in range(3)]
    alone = bridge.account("nobody_follows")

    def older(tx: Tx) -> None:
        tx.execute(update(schema.accounts).values(announced=None))

    bridge.ground.store.transact_now(older)
    # Starting a program sends nothing; the next look, hours later, has it told.
    look_over(bridge)
    assert bridge.ground.store.read_now(_due) == {}
    look_over(bridge)
    due = bridge.ground.store.read_now(_due)
    assert set(due) == {str(number) for number in numbers}
    times = [due[str(number)] for number in numbers]
    assert [later - times[0] for later in times] == [announcing.APART * n for n in range(3)]
    # A change that somebody made goes before.
    bridge.ground.store.transact_now(accounts.set_choices, numbers[2], discoverable=False)
    assert bridge.ground.store.read_now(_due)[str(numbers[2])] < times[2]
    # What nobody was told of before is now known: the next look asks for nothing.
    assert bridge.ground.store.read_now(accounts.announced, alone.id) not in ("", None)
    # Told twice by a worker that was thought dead, it is told once.
    job = Job(0, accounts.ANNOUNCE, str(numbers[0]), {"account": numbers[0]}, 0, 1)
    for _ in range(2):
        bridge.ground.store.transact_now(announcing.tell, bridge.ground.ids, job)
    assert bridge.count("activities", kind="Update") == 1


def look_over(bridge: Bridge) -> Any:
    def over(tx: Tx, ids: Ids) -> Any:
        return announcing.look_over(tx, ids, 0, 0)

    return bridge.ground.store.transact_now(over, bridge.ground.ids)


def _due(tx: Tx) -> dict[str, Any]:
    rows = tx.execute(schema.jobs.select().where(schema.jobs.c.kind == accounts.ANNOUNCE))
    return {row.key: row.due_at for row in rows}


def test_the_same_work_is_asked_for_once(bridge: Bridge, stranger: Stranger) -> None:
    bridge.stop_worker()
    account, _ = followed(bridge, stranger)
    for on in (False, True, False):
        bridge.ground.store.transact_now(accounts.set_choices, account.id, discoverable=on)
    assert bridge.count("jobs", kind="announce") == 1
    assert bridge.ground.store.read_now(jobs.wanted, accounts.ANNOUNCE, str(account.id))
