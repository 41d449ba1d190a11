"""An account is connected by its token: the profile and the whole history come, silently, once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.rig import eventually
from tests.stories.bridged_account import Answer, Place, place, refusal

from threadbridge.errors import Conflict, SignInAgain, SourceUnavailable
from threadbridge.sandbox.network import Draft


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def test_the_profile_and_the_whole_history_come_and_nobody_is_woken(here: Place) -> None:
    account = here.bridge.account("mira", name="Old name")
    here.follow(account)
    entries = here.threads.history(120)
    reply = here.threads.post(
        "and another thing", at=entries[3].created + timedelta(seconds=30), reply_to=entries[3].id
    )
    seen: list[int] = []

    connected = here.connect(on_page=seen.append)

    assert (connected.new_account, connected.account.id) == (False, account.id)
    assert len(connected.changes.created) == 121
    assert seen == [50, 100, 120, 121]
    actor = here.bridge.get(f"/ap/users/{account.id}").json()
    assert (actor["name"], actor["preferredUsername"]) == ("Mira", "mira")
    assert "Draws." in actor["summary"]
    assert here.bridge.get(actor["icon"]["url"]).status_code == 200
    assert "https://www.threads.com/@mira" in actor["attachment"][0]["value"]

    assert all(post.silent for post in here.posts())
    held = here.held(reply)
    assert held is not None
    first = here.held(entries[3])
    assert first is not None
    assert (held.kind, held.parent_id, held.thread_id) == ("reply", first.id, first.id)
    here.threads.after_reads(2)
    assert here.said("Create") == 0
    assert here.stranger.of_kind("Create") == []

    outbox = here.bridge.get(actor["outbox"]).json()
    assert outbox["totalItems"] == 121
    page, times = here.bridge.get(outbox["first"]).json(), []
    while page["orderedItems"]:
        times += [item["published"] for item in page["orderedItems"]]
        if "next" not in page:
            break
        page = here.bridge.get(page["next"]).json()
    assert len(times) == 121
    assert times == sorted(times, reverse=True)
    assert times[-1] == entries[0].created.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_connecting_again_renews_the_token_and_adds_nothing(here: Place) -> None:
    here.threads.history(3)
    first = here.connect()
    here.bridge.stop_worker()
    before = here.bridge.everything()
    here.threads.do(lambda: here.threads.network.renew_token(here.threads.person))
    again = here.connect()
    assert (again.account.id, again.new_account, bool(again.changes)) == (first.account.id, False, False)
    after = here.bridge.everything()
    assert {name: after[name] - rows for name, rows in before.items() if after[name] != rows} == {"consents": 1}
    here.bridge.start_worker()
    new = here.threads.post("with the new token")
    eventually(lambda: here.held(new))


def test_a_wrong_token_is_refused_in_words_and_nothing_is_stored(here: Place) -> None:
    before = here.bridge.everything()
    with pytest.raises(SignInAgain, match="no longer valid") as refused:
        here.connect(token="THQVJwrong")
    assert "THQVJwrong" not in str(refused.value)
    assert here.bridge.everything() == before


def test_threads_being_down_at_the_first_question_stores_nothing(here: Place) -> None:
    before = here.bridge.everything()
    here.threads.gate = lambda path, query: refusal(503, 2) if path == "/v1.0/me/threads" else None
    with pytest.raises(SourceUnavailable):
        here.connect()
    assert here.bridge.everything() == before


def test_a_handle_belongs_to_one_person(here: Place) -> None:
    here.connect()
    other = here.threads.do(lambda: here.threads.network.join("noor"))
    here.bridge.stop_worker()
    before = here.bridge.everything()
    with pytest.raises(Conflict, match="another person"):
        here.connect(token=other.token, handle="mira")
    with pytest.raises(Conflict, match="already, as 'mira'"):
        here.connect(handle="somebody_else")
    assert here.bridge.everything() == before
    assert here.connect(token=other.token).account.handle == "noor"


def test_what_exists_when_connecting_is_history_also_if_it_is_a_second_old(here: Place) -> None:
    here.follow(here.bridge.account("mira"))
    old = here.threads.post("posted just now")
    here.connect()
    new = here.threads.post("posted after connecting")
    note = here.note_of(new)
    assert "after connecting" in note["content"]
    held = here.held(old)
    assert held is not None
    assert held.silent
    assert len(here.texts()) == here.said("Create") == 1


def test_a_post_published_while_history_is_read_goes_out_once(here: Place) -> None:
    here.follow(here.bridge.account("mira"))
    here.threads.history(60)
    published = []

    def during(read: int) -> None:
        if read == 50:
            # In the loop of the mock network already.
            published.append(here.threads.network.post(here.threads.person, Draft(text="in the middle")))

    here.connect(on_page=during)
    here.note_of(published[0])
    here.threads.after_reads(2)
    assert here.said("Create") == 1
    assert len(here.posts()) == 61


def test_a_network_that_fails_half_way_is_gone_on_from_by_the_worker(here: Place) -> None:
    here.follow(here.bridge.account("mira"))
    entries = here.threads.history(120)
    chain = [entries[5]]
    for number in range(60):  # more than a page, read from its end
        at = entries[5].created + timedelta(seconds=1 + number)
        chain.append(here.threads.post(f"chain {number}", at=at, reply_to=chain[-1].id))
    broken = True

    def down(path: str, query: dict[str, str]) -> Answer | None:
        return refusal(500, 2) if broken and path == "/v1.0/me/threads" and "after" in query else None

    here.threads.gate = down
    with pytest.raises(SourceUnavailable):
        here.connect()
    assert len(here.posts()) == 50
    assert here.connection().history_done_at is None
    assert here.connection().trouble == "unreachable"

    broken = False
    eventually(lambda: here.connection().history_done_at)
    assert here.bridge.count("posts") == here.bridge.count("origins") == 180
    assert here.said("Create") == 0
    held = [here.held(entry) for entry in chain]
    assert [post.parent_id for post in held if post] == [None, *(post.id for post in held[:-1] if post)]
    assert {post.thread_id for post in held[1:] if post} == {held[0] and held[0].id}
    assert here.connection().trouble is None


def test_a_token_without_the_permission_for_replies_bridges_posts(here: Place) -> None:
    here.threads.history(2)
    here.threads.gate = lambda path, query: refusal(403, 10) if path == "/v1.0/me/replies" else None
    here.follow(here.connect().account)
    here.note_of(here.threads.post("without replies"))
    assert here.connection().trouble is None


def test_a_changed_profile_changes_the_actor(here: Place) -> None:
    account = here.connect().account
    uri = f"/ap/users/{account.id}"
    first = here.bridge.get(uri).json()
    picture = here.threads.items("another face")[0].file

    def change() -> None:
        person = here.threads.person
        person.name, person.bio, person.avatar, person.username = "Mira O.", "Draws trams.", picture, "mira.draws"

    here.threads.do(change)
    changed = eventually(lambda: (now := here.bridge.get(uri).json())["name"] == "Mira O." and now)
    assert "Draws trams." in changed["summary"]
    assert changed["icon"]["url"] != first["icon"]["url"]
    assert "threads.com/@mira.draws" in changed["attachment"][0]["value"]
    # Whoever follows knows the account by this name; a rename elsewhere does not take it away from them.
    assert changed["preferredUsername"] == "mira"


def test_an_unchanged_profile_picture_is_fetched_once(here: Place) -> None:
    here.connect()
    eventually(lambda: here.threads.asked.count("/v1.0/me") >= 3)
    assert sum(path.startswith("/cdn/") for path in here.threads.asked) == 1


def test_history_is_judged_by_the_clock_of_the_source(here: Place) -> None:
    """Our clock is two days slow: the posts of yesterday are history all the same."""
    here.follow(here.bridge.account("mira"))
    yesterday = datetime.now(UTC) - timedelta(hours=20)
    here.threads.post("yesterday", at=yesterday)
    here.bridge.stop_worker()
    here.bridge.ground.store.clock = lambda: datetime.now(UTC) - timedelta(days=2)
    here.connect()
    assert here.said("Create") == 0
