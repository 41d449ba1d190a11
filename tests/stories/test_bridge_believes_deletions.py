"""What is deleted at Threads is deleted everywhere; what is merely not listed is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.rig import eventually
from tests.stories.bridged_account import Answer, Place, listing, place, refusal

from threadbridge.bridge import reading


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def test_a_deleted_post_is_a_delete_a_tombstone_and_410(here: Place) -> None:
    here.followed(3)
    entry = here.threads.post("regretted", media=here.threads.items("a cat"))
    note = here.note_of(entry)
    assert here.bridge.get(note["id"]).status_code == 200
    here.threads.delete(entry)
    (said,) = here.heard("Delete")
    assert said["object"] == {"id": note["id"], "type": "Tombstone"}
    gone = here.bridge.get(note["id"])
    assert gone.status_code == 410
    assert (gone.json()["type"], gone.json()["id"]) == ("Tombstone", note["id"])
    assert "regretted" not in gone.text
    here.threads.after_reads(3)
    assert here.said("Delete") == 1
    here.note_of(here.threads.post("the next one"))
    held = here.held(entry)
    assert held is not None
    assert (held.text, held.attachments) == ("", ())


@pytest.mark.parametrize("kind", ["post", "reply"])
def test_the_last_of_all_can_be_deleted(here: Place, kind: str) -> None:
    """Its list is empty then, as it is when a permission is lost."""
    here.followed()
    root = here.threads.post("root")
    note = here.note_of(root)
    entry = root
    if kind == "reply":
        entry = here.threads.post("and more", reply_to=root.id)
        note = here.note_of(entry)
    here.threads.delete(entry)
    (said,) = here.heard("Delete")
    assert said["object"]["id"] == note["id"]


def test_an_empty_list_deletes_nothing_that_is_still_there(here: Place) -> None:
    here.followed(30)
    root = here.threads.post("root")
    here.note_of(here.threads.post("more", reply_to=root.id))
    here.threads.gate = lambda path, query: listing() if path in ("/v1.0/me/threads", "/v1.0/me/replies") else None
    here.threads.after_reads(8)
    assert here.said("Delete") == 0
    assert len(here.posts()) == 32
    # Each was asked for, and is left in peace for a while: no poll costs a hundred questions.
    singles = [path for path in here.threads.asked if path.removeprefix("/v1.0/").isdigit()]
    assert len(set(singles)) == 32
    assert len(singles) < 2 * 32


def test_many_replies_that_are_gone_at_once_are_not_believed(here: Place) -> None:
    """Without the permission for replies Graph says of each that it does not exist "or cannot be loaded"."""
    here.followed()
    root = here.threads.post("root")
    replies = [here.threads.post(f"{n}", reply_to=root.id) for n in range(5)]
    here.heard("Create", 6)
    closed = {f"/v1.0/{entry.id}" for entry in replies}

    def gate(path: str, query: dict[str, str]) -> Answer | None:
        if path == "/v1.0/me/replies":
            return listing()
        return refusal(400, 100, 33) if path in closed else None

    here.threads.gate = gate
    here.threads.after_reads(3)
    assert here.said("Delete") == 0


def test_a_refusal_that_says_nothing_about_the_post_deletes_nothing(here: Place) -> None:
    here.followed()
    entry = here.threads.post("unlisted")
    here.note_of(entry)

    def gate(path: str, query: dict[str, str]) -> Answer | None:
        if path == "/v1.0/me/threads":
            return listing()
        return refusal(400, 100) if path == f"/v1.0/{entry.id}" else None

    here.threads.gate = gate
    here.threads.after_reads(3)
    assert here.said("Delete") == 0
    assert here.connection().trouble is None


def test_trouble_while_asking_for_a_missing_post_holds_up_nothing_else(here: Place) -> None:
    here.followed()
    missing = here.threads.post("unlisted")
    here.note_of(missing)
    here.threads.gate = lambda path, query: refusal(500, 2) if path == f"/v1.0/{missing.id}" else None
    here.threads.delete(missing)
    here.note_of(here.threads.post("new all the same"))
    assert here.said("Delete") == 0
    here.threads.gate = lambda path, query: None
    here.heard("Delete")


def test_a_post_that_fell_out_of_the_window_is_not_deleted(here: Place) -> None:
    entries = here.threads.history(30)
    here.follow(here.connect().account)
    here.threads.after_reads(2)
    asked = set(here.threads.asked)
    assert f"/v1.0/{entries[0].id}" not in asked
    assert len(here.posts()) == 30
    assert here.said("Delete") == 0


def test_a_deletion_behind_many_new_posts_is_noticed(here: Place) -> None:
    here.followed(5)
    entry = here.threads.post("soon gone")
    here.note_of(entry)
    here.bridge.stop_worker()
    here.threads.delete(entry)
    for number in range(40):
        here.threads.post(f"{number}", at=datetime.now(UTC) + timedelta(seconds=1))
    here.bridge.start_worker()
    (said,) = here.heard("Delete")
    assert said["object"]["id"].endswith(str(held.id) if (held := here.held(entry)) else "?")


def test_an_old_copy_of_the_list_takes_nothing_back(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.followed(2)
    entry = here.threads.post("fresh")
    note = here.note_of(entry)
    rows = here.threads.do(lambda: here.threads.network.written_by(here.threads.person, replies=False))
    stale = [
        {"id": row.id, "media_type": "TEXT_POST", "text": row.draft.text,
         "timestamp": row.created.strftime("%Y-%m-%dT%H:%M:%S+0000")}
        for row in rows if row.id != entry.id
    ]  # fmt: skip
    here.threads.gate = lambda path, query: listing(*stale) if path == "/v1.0/me/threads" else None
    here.threads.after_reads(3)
    assert here.bridge.get(note["id"]).status_code == 200
    # Really deleted afterwards: asked again when its time has come.
    monkeypatch.setattr(reading, "CONFIRM_AGAIN", timedelta(0))
    here.bridge.services.reader._still_there.clear()
    here.threads.delete(entry)
    here.heard("Delete")
    eventually(lambda: here.bridge.get(note["id"]).status_code == 410)


def test_a_deleted_post_does_not_come_back(here: Place) -> None:
    here.followed(1)
    entry = here.threads.post("gone for good")
    here.note_of(entry)
    here.threads.delete(entry)
    here.heard("Delete")
    here.threads.do(
        lambda: here.threads.network.post(here.threads.person, entry.draft, at=entry.created, id=entry.id)
    )
    here.threads.after_reads(3)
    held = here.held(entry)
    assert held is not None
    assert held.deleted_at is not None
    assert here.said("Create") == 1
