"""What is posted and edited at Threads is said in the Fediverse, within one poll, once, in good shape."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.rig import eventually
from tests.stories.bridged_account import Place, place

from threadbridge.domain.accounts import Account
from threadbridge.sandbox.network import Draft, Entry, Poll


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


@pytest.fixture
def account(here: Place) -> Account:
    return here.followed()


def test_a_new_post_arrives_with_its_picture(here: Place, account: Account) -> None:
    entry = here.threads.post("The ferry is in. #harbour", media=here.threads.items("A ferry at sunrise"))
    note = here.note_of(entry)
    assert here.stranger.of_kind("Create")[0]["actor"] == here.bridge.ground.ids.actor(account.id)
    assert note["type"] == "Note"
    assert "The ferry is in." in note["content"]
    assert note["published"] == entry.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert [tag["name"] for tag in note["tag"]] == ["#harbour"]
    (shown,) = note["attachment"]
    assert (shown["type"], shown["mediaType"], shown["name"]) == ("Image", "image/jpeg", "A ferry at sunrise")
    assert here.bridge.get(shown["url"]).content[:3] == b"\xff\xd8\xff"
    here.threads.after_reads(3)
    assert here.said("Create") == 1


def test_a_carousel_of_six_keeps_order_and_alt_texts(here: Place, account: Account) -> None:
    alts = [f"picture {n}" for n in range(6)]
    entry = here.threads.post("six of them", media=here.threads.items(*alts))
    note = here.note_of(entry)
    assert [item["name"] for item in note["attachment"]] == alts
    assert [item["width"] for item in note["attachment"]] == [40, 41, 42, 43, 44, 45]


def test_children_that_come_as_bare_ids_are_asked_for(here: Place, account: Account) -> None:
    here.threads.network.faults.expand_children = False
    note = here.note_of(here.threads.post("two", media=here.threads.items("left", "right")))
    assert [item["name"] for item in note["attachment"]] == ["left", "right"]


def test_a_thread_of_one_second_arrives_as_a_thread(here: Place, account: Account) -> None:
    at = datetime.now(UTC)

    def write() -> list[str]:
        network, ids = here.threads.network, list[str]()
        for number in range(4):
            draft = Draft(text=f"{number}/4", reply_to=ids[-1] if ids else None)
            ids.append(network.post(here.threads.person, draft, at=at).id)
        return ids

    here.threads.do(write)
    here.heard("Create", 4)
    notes = {note["content"]: note for note in (said["object"] for said in here.stranger.of_kind("Create"))}
    chain = [notes[f"<p>{number}/4</p>"] for number in range(4)]
    assert [note["inReplyTo"] for note in chain] == [None, *(note["id"] for note in chain[:-1])]
    assert len({note["conversation"] for note in chain}) == 1


def test_a_thread_that_is_published_between_two_lists_is_whole(here: Place, account: Account) -> None:
    here.bridge.stop_worker()
    lists: list[str] = []
    written: list[Entry] = []

    def gate(path: str, query: dict[str, str]) -> None:
        if path in ("/v1.0/me/threads", "/v1.0/me/replies"):
            lists.append(path)
            if len(lists) == 2:
                network, person = here.threads.network, here.threads.person
                written.append(network.post(person, Draft(text="root")))
                written.append(network.post(person, Draft(text="more", reply_to=written[0].id)))

    here.threads.gate = gate
    here.bridge.start_worker()
    eventually(lambda: written)
    root = here.note_of(written[0])
    assert here.note_of(written[1])["inReplyTo"] == root["id"]


def test_an_answer_to_somebody_else_is_kept_and_not_delivered(here: Place, account: Account) -> None:
    other = here.threads.do(lambda: here.threads.network.join("noor"))
    theirs = here.threads.post("What do you draw with?", by=other)
    answer = here.threads.post("A stick.", reply_to=theirs.id)
    held = eventually(lambda: here.held(answer))
    assert (held.kind, held.parent_id, held.silent) == ("reply", None, True)
    here.note_of(here.threads.post("And now for everybody"))
    assert here.said("Create") == 1


def test_a_quote_names_what_it_quotes(here: Place, account: Account) -> None:
    other = here.threads.do(lambda: here.threads.network.join("noor"))
    theirs = here.threads.post("A thought", by=other)
    note = here.note_of(here.threads.post("See this", quote=theirs.id))
    assert theirs.shortcode in note["content"]
    mine = here.threads.post("My own thought")
    first = here.note_of(mine)
    again = here.note_of(here.threads.post("As I said", quote=mine.id))
    assert again["quote"] == first["id"]


def test_a_poll_is_a_question_and_its_counts_are_told_in_a_while(here: Place, account: Account) -> None:
    closes = datetime.now(UTC) + timedelta(hours=24)
    entry = here.threads.post("Tea?", poll=Poll(("Yes", "No"), (1, 1), closes))
    question = here.note_of(entry)
    assert question["type"] == "Question"
    assert [option["name"] for option in question["oneOf"]] == ["Yes", "No"]

    def vote() -> None:
        now = here.threads.network._entries[entry.id]
        poll = Poll(("Yes", "No"), (3, 1), closes)
        here.threads.network._entries[entry.id] = replace(now, draft=replace(now.draft, poll=poll))

    here.threads.do(vote)

    def counts() -> list[int]:
        shown = here.bridge.get(question["id"]).json()
        return [option["replies"]["totalItems"] for option in shown["oneOf"]]

    eventually(lambda: counts() == [3, 1])
    # Told together with whatever else moves in the next minutes, and at the end; never as an edit.
    number = question["id"].rsplit("/", 1)[1]
    assert here.bridge.count("jobs", kind="poll", key=number) == 1
    assert here.bridge.count("jobs", kind="poll", key=f"{number}-end") == 1
    assert here.said("Update") == 0


def test_an_edit_is_said_once(here: Place, account: Account) -> None:
    entry = here.threads.post("Tpyo", media=here.threads.items("a cat"))
    note = here.note_of(entry)
    asked = sum(path.startswith("/cdn/") for path in here.threads.asked)
    here.threads.edit(entry, text="Typo")
    (said,) = here.heard("Update")
    assert said["object"]["id"] == note["id"]
    assert "Typo" in said["object"]["content"]
    assert said["object"]["updated"] > said["object"]["published"]
    assert said["object"]["attachment"] == note["attachment"]
    assert "Typo" in here.bridge.get(note["id"]).json()["content"]
    here.threads.after_reads(3)
    assert here.said("Update") == 1
    assert sum(path.startswith("/cdn/") for path in here.threads.asked) == asked, "the picture was copied again"


def test_a_better_alt_text_is_an_edit(here: Place, account: Account) -> None:
    entry = here.threads.post("Look", media=here.threads.items("", "second"))
    note = here.note_of(entry)
    assert "name" not in note["attachment"][0]
    here.threads.edit(entry, alt="A cat on a wall")
    (said,) = here.heard("Update")
    assert [item["name"] for item in said["object"]["attachment"]] == ["A cat on a wall", "second"]


def test_an_edit_of_history_changes_the_page_and_is_not_said(here: Place) -> None:
    (old,) = here.threads.history(1)
    here.follow(here.connect().account)
    here.threads.edit(old, text="history, corrected")
    eventually(lambda: (held := here.held(old)) and held.text == "history, corrected")
    assert here.said("Update") == 0


def test_posts_for_some_countries_are_kept_out(here: Place, account: Account) -> None:
    gated = here.threads.post("only there", countries=("DE",))
    here.note_of(here.threads.post("everywhere"))
    assert here.held(gated) is None
    assert here.said("Create") == 1


def test_more_new_posts_than_a_page_holds_all_arrive(here: Place, account: Account) -> None:
    """After a day without network."""
    here.threads.history(3)
    here.threads.after_reads(2)
    here.bridge.stop_worker()
    start = datetime.now(UTC)
    entries = [here.threads.post(f"number {n}", at=start + timedelta(milliseconds=n)) for n in range(60)]
    here.bridge.start_worker()
    here.heard("Create", 60)
    here.threads.after_reads(2)
    assert here.said("Create") == 60
    assert all(here.held(entry) for entry in entries)


def test_posts_that_turn_up_late_are_kept_silently(here: Place, account: Account) -> None:
    late = here.threads.post("un-archived", at=datetime.now(UTC) - timedelta(days=3))
    held = eventually(lambda: here.held(late))
    assert held.silent
    assert here.said("Create") == 0


def test_two_workers_that_read_the_same_page_write_it_once(tmp_path: Path, postgres_url: str) -> None:
    """On PostgreSQL, where two transactions may truly run at the same time."""
    with place(tmp_path, database_url=postgres_url) as here:
        here.followed(2)
        here.bridge.stop_worker()
        entries = [here.threads.post(f"twice {n}") for n in range(5)]
        connection = here.connection()

        async def read_twice() -> None:
            services = here.bridge.services
            source = services.source_for(here.threads.person.token, here.threads.base)
            await asyncio.gather(*(services.reader.latest(connection, source) for _ in range(4)))

        here.bridge.loop.run(read_twice())
        assert here.said("Create") == 5
        assert all(here.held(entry) for entry in entries)
        here.bridge.start_worker()
        here.heard("Create", 5)
