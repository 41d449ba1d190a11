"""Media is copied at once, since its address expires; what cannot be had waits, or is named."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.rig import eventually
from tests.stories.bridged_account import Answer, Place, place

from threadbridge.bridge import copying, reading
from threadbridge.bridge.compare import NOT_ANSWERED


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def dead_cdn(path: str, query: dict[str, str]) -> Answer | None:
    return (503, {}, b"") if path.startswith("/cdn/") else None


def test_the_picture_outlives_its_address(here: Place) -> None:
    here.threads.network.media_life = timedelta(seconds=2)
    old = here.threads.post("old", media=here.threads.items("old"))
    here.follow(here.connect().account)
    note = here.note_of(here.threads.post("new", media=here.threads.items("new", "newer")))
    here.threads.gate = lambda path, query: (403, {}, b"expired") if path.startswith("/cdn/") else None
    for item in note["attachment"]:
        assert here.threads.base not in item["url"]
        assert here.bridge.get(item["url"]).status_code == 200
    held = here.held(old)
    assert held is not None
    assert held.attachments[0].sha256


def test_a_post_waits_for_its_picture_and_its_thread_for_it(here: Place) -> None:
    here.followed()
    here.threads.gate = dead_cdn
    root = here.threads.post("with picture", media=here.threads.items("a cat"))
    more = here.threads.post("and more", reply_to=root.id)
    other = here.note_of(here.threads.post("without"))
    assert other["attachment"] == []
    here.threads.after_reads(2)
    assert here.held(root) is None
    assert here.held(more) is None
    here.threads.gate = lambda path, query: None
    note = here.note_of(root)
    assert [item["name"] for item in note["attachment"]] == ["a cat"]
    assert here.note_of(more)["inReplyTo"] == note["id"]
    assert here.connection().trouble is None


def test_after_a_while_it_goes_without_and_the_picture_follows(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE_FOR_MEDIA", timedelta(0))
    here.followed()
    here.threads.gate = dead_cdn
    entry = here.threads.post("late picture", media=here.threads.items("one", "two"))
    note = here.note_of(entry)
    assert note["attachment"] == []
    held = here.held(entry)
    assert held is not None
    assert [item.missing for item in held.attachments] == [NOT_ANSWERED, NOT_ANSWERED]
    here.threads.gate = lambda path, query: None
    (said,) = here.heard("Update")
    assert [item["name"] for item in said["object"]["attachment"]] == ["one", "two"]
    here.threads.after_reads(3)
    assert here.said("Update") == 1


def test_a_refused_file_is_named_and_the_post_goes_out(here: Place) -> None:
    here.followed()
    name = here.threads.do(lambda: here.threads.network.store(b"this is no picture", "image/jpeg"))
    strange = here.threads.do(lambda: here.threads.network.item(name, alt="strange"))
    entry = here.threads.post("strange", media=(strange, *here.threads.items("fine")))
    note = here.note_of(entry)
    assert [item["name"] for item in note["attachment"]] == ["fine"]
    held = here.held(entry)
    assert held is not None
    assert held.attachments[0].missing == "This is no picture that we serve, but text"


def test_a_file_that_the_source_does_not_have_is_named(here: Place) -> None:
    here.followed()
    here.threads.gate = lambda path, query: (404, {}, b"") if path.startswith("/cdn/") else None
    entry = here.threads.post("lost", media=here.threads.items("lost"))
    here.note_of(entry)
    held = here.held(entry)
    assert held is not None
    assert held.attachments[0].missing == "the source answered 404 when asked for it"


def test_history_insists_and_a_second_reading_brings_what_was_missed(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PAUSES", (0.0, 0.01, 0.01))
    entry = here.threads.post("old", at=here.threads.history(1)[0].created, media=here.threads.items("a", "b"))
    tries: list[str] = []

    def gate(path: str, query: dict[str, str]) -> Answer | None:
        if path.startswith("/cdn/"):
            tries.append(path)
        return (503, {}, b"") if path.startswith("/cdn/") and tries.count(path) < 3 else None

    here.threads.gate = gate
    here.connect()
    held = here.held(entry)
    assert held is not None
    assert all(item.sha256 for item in held.attachments)

    here.bridge.stop_worker()
    other = here.threads.post("older", at=entry.created - timedelta(hours=1), media=here.threads.items("c"))
    here.threads.gate = dead_cdn
    here.connect()
    held = here.held(other)
    assert held is not None
    assert held.attachments[0].missing == NOT_ANSWERED
    here.threads.gate = lambda path, query: None
    here.connect()
    held = here.held(other)
    assert held is not None
    assert held.attachments[0].sha256
    assert here.said("Create") == here.said("Update") == 0


def test_a_text_can_be_edited_while_the_cdn_is_down(here: Place) -> None:
    here.followed()
    entry = here.threads.post("befor", media=here.threads.items("a cat"))
    note = here.note_of(entry)
    here.threads.gate = dead_cdn
    here.threads.edit(entry, text="before")
    (said,) = here.heard("Update")
    assert said["object"]["attachment"] == note["attachment"]


def test_a_full_disk_loses_nothing(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.followed()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    entry = here.threads.post("waits for space", media=here.threads.items("a cat"))

    def put_off() -> int:
        return here.bridge.count("jobs", kind="read", attempts=1)

    eventually(put_off)
    assert here.held(entry) is None
    monkeypatch.undo()
    here.bridge.stop_worker()
    here.bridge.start_worker()
    assert len(here.note_of(entry)["attachment"]) == 1


def test_nothing_is_left_in_the_folder_of_media(here: Place) -> None:
    here.followed()
    here.note_of(here.threads.post("picture", media=here.threads.items("a", "b")))
    folder = here.bridge.ground.media.folder
    assert list((folder / "incoming").iterdir()) == []
