"""New posts wait for as long as their owner wants: seen by nobody else, edited, cancelled, sent now, or gone."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.browser.site import Site, field_of, same_origin
from tests.rig import eventually
from tests.stories.bridged_account import Place, place
from tests.stories.command_line import CommandLine
from tests.stories.test_bridge_pauses import past_this_second, pause_now, resume_now

from threadbridge.bridge import holding
from threadbridge.domain.source import SourceMedia, SourcePoll, SourcePost, SourceReference
from threadbridge.federation import farewell
from threadbridge.storage import held, schema
from threadbridge.storage.held import Held
from threadbridge.storage.store import Tx


@pytest.fixture
def here(tmp_path: Path, database_url: str) -> Iterator[Place]:
    with place(tmp_path, database_url=database_url) as found:
        yield found


def holds(here: Place, minutes: int = 10) -> int:
    account = here.followed(1)
    here.bridge.ground.store.transact_now(holding.choose, account.id, minutes, "test")
    return account.id


def waiting(here: Place) -> dict[str, Held]:
    """What is held or not shared, by its text."""
    found = here.bridge.ground.store.read_now(held.listed, here.account().id)
    return {one.post.text: one for one in found}


def let_go(here: Place) -> None:
    """The time of everything that is held is over."""

    def over(tx: Tx) -> None:
        me = tx.execute(select(schema.accounts.c.id)).scalar_one()
        tx.execute(update(schema.held_posts).values(due_at=tx.now))
        held.ask(tx, me, tx.now)

    here.bridge.ground.store.transact_now(over)


def everywhere(here: Place) -> str:
    """All that anybody else can read of the account, with the archive's outbox left out."""
    account = here.account()
    first = here.bridge.get(f"/ap/users/{account.id}/outbox").json()["first"]
    said = here.bridge.get(first).text
    pages = (f"/@{account.handle}", f"/@{account.handle}/feed.atom", f"/@{account.handle}/feed.json", "/tags/secret")
    return said + "".join(here.bridge.get(path, "text/html").text for path in pages)


def test_a_held_post_is_nowhere_and_leaves_as_it_is_then(here: Place) -> None:
    holds(here)
    entry = here.threads.post("tpyo #secret", media=here.threads.items("a cat"))
    first = eventually(lambda: waiting(here).get("tpyo #secret"))
    assert first.state == "held"
    assert timedelta(0) < first.due_at - first.post.published <= timedelta(minutes=10, seconds=1)
    assert here.held(entry) is None
    assert "secret" not in everywhere(here)
    here.threads.edit(entry, text="typo #secret")
    second = eventually(lambda: waiting(here).get("typo #secret"))
    assert (second.id, second.due_at) == (first.id, first.due_at)
    assert [item.sha256 for item in second.attachments] == [item.sha256 for item in first.attachments]
    regretted = here.threads.post("regretted #secret")
    eventually(lambda: waiting(here).get("regretted #secret"))
    before = here.bridge.count("activities")
    here.threads.delete(regretted)
    eventually(lambda: "regretted #secret" not in waiting(here))
    assert here.bridge.count("activities") == before
    here.bridge.stop_worker()
    let_go(here)
    here.bridge.start_worker()
    note = here.note_of(entry)
    assert "typo" in note["content"]
    assert len(note["attachment"]) == 1
    here.threads.after_reads(2)
    assert (here.said("Create"), here.said("Update"), here.said("Delete")) == (1, 0, 0)
    assert here.bridge.get(note["id"]).status_code == 200
    assert waiting(here) == {}
    assert here.bridge.count("held_files") == 0


def test_a_thread_is_cancelled_whole_and_sent_in_its_order(here: Place) -> None:
    account = holds(here)
    begin = here.threads.post("one")
    eventually(lambda: waiting(here).get("one"))
    second = here.threads.post("two", reply_to=begin.id)
    third = here.threads.post("three", reply_to=second.id)
    found = eventually(lambda: len(waiting(here)) == 3 and waiting(here))
    store = here.bridge.ground.store
    store.transact_now(holding.cancel, account, found["two"].id, "the owner")
    states = {text: (one.state, one.reason) for text, one in waiting(here).items()}
    assert states == {
        "one": ("held", None),
        "two": ("unshared", "the owner chose not to share it"),
        "three": ("unshared", "it continues a post that is not shared"),
    }
    here.threads.post("four", reply_to=third.id)
    four = eventually(lambda: waiting(here).get("four"))
    assert four.state == "unshared"
    let_go(here)
    here.note_of(begin)
    here.threads.after_reads(2)
    assert here.said("Create") == 1
    assert "two" not in everywhere(here)
    # On second thoughts: the last one, and with it what it continues.
    store.transact_now(holding.send_now, account, four.id, "the owner")
    eventually(lambda: len(here.texts()) == 4)
    assert [text.replace("<p>", "")[:3] for text in here.texts()] == ["one", "two", "thr", "fou"]
    assert here.note_of(third)["inReplyTo"] == here.note_of(second)["id"]


def test_pauses_and_deletions_keep_what_is_held(here: Place) -> None:
    account = holds(here)
    before = here.threads.post("before the pause")
    eventually(lambda: waiting(here))
    pause_now(here)
    let_go(here)
    eventually(lambda: not here.bridge.count("jobs", kind="share"))
    assert here.held(before) is None
    past_this_second()
    resume_now(here)
    post = eventually(lambda: here.held(before))
    assert post.silent, "followers are not sent what was held over a pause"
    assert here.said("Create") == 0
    meanwhile = here.threads.post("before the deletion that was taken back")
    eventually(lambda: waiting(here))
    here.bridge.ground.store.transact_now(farewell.ask, account, "test")
    let_go(here)
    eventually(lambda: not here.bridge.count("jobs", kind="share"))
    past_this_second()
    here.bridge.ground.store.transact_now(farewell.take_back, account, "test")
    assert eventually(lambda: here.held(meanwhile)).silent
    assert here.said("Create") == 0
    here.threads.post("never")
    eventually(lambda: waiting(here))
    here.bridge.ground.store.transact_now(farewell.ask, account, "test", timedelta(0))
    here.heard("Delete")
    assert here.said("Create") == 0
    assert {one.state for one in waiting_of(here, account)} <= {"unshared"}


def waiting_of(here: Place, account_id: int) -> list[Held]:
    return here.bridge.ground.store.read_now(held.listed, account_id)


def test_the_owner_holds_sends_and_cancels_by_forms(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        account, site = here.followed(1), Site(here.bridge)
        other = here.bridge.account("other")
        with site.signed_in(account) as client, site.signed_in(other) as stranger:
            token = field_of(client.get("/owner/held").text, "form_token")
            theirs = field_of(stranger.get("/owner/held").text, "form_token")
            headers = same_origin(site.base)

            def press(who: Any, path: str, form_token: str, **fields: str) -> int:
                status: int = who.post(path, data={"form_token": form_token, **fields}, headers=headers).status_code
                return status

            assert press(client, "/owner/held", token, minutes="16") == 400
            assert press(client, "/owner/held", token, minutes="-1") == 400
            assert press(client, "/owner/held", "", minutes="5") == 403
            assert here.bridge.ground.store.read_now(held.minutes, account.id) == 0
            assert press(client, "/owner/held", token, minutes="5") == 303
            sent, kept = here.threads.post("send me"), here.threads.post("keep me")
            found = eventually(lambda: len(waiting(here)) == 2 and waiting(here))
            page = html.unescape(client.get("/owner/held").text)
            assert "send me" in page
            assert "in 5 minutes" in page
            # Somebody else's held posts are not there for anybody.
            before = here.bridge.everything()
            assert "send me" not in stranger.get("/owner/held").text
            assert press(stranger, f"/owner/held/{found['send me'].id}/send", theirs) == 404
            assert press(stranger, f"/owner/held/{found['send me'].id}/cancel", theirs) == 404
            assert press(client, f"/owner/held/{found['send me'].id}/send", "forged") == 403
            assert here.bridge.everything() == before
            assert press(client, f"/owner/held/{found['send me'].id}/send", token) == 303
            assert press(client, f"/owner/held/{found['keep me'].id}/cancel", token) == 303
            assert press(client, f"/owner/held/{found['keep me'].id}/cancel", token) == 409
            here.note_of(sent)
            assert press(client, f"/owner/held/{found['send me'].id}/cancel", token) == 404
            assert "you chose not to share it" in html.unescape(client.get("/owner/held").text)
            assert here.held(kept) is None


def test_what_the_source_told_is_kept_whole() -> None:
    told = SourcePost(
        native_id="1", published=datetime(2026, 3, 1, 12, tzinfo=UTC), text="🙂 Ça", kind="reply",
        media=(SourceMedia("image", "k", url="https://cdn.example/1", alt="a cat"),), permalink="https://t.example/1",
        parent=SourceReference("0", "https://t.example/0", "mira"), quoted=SourceReference(None, "https://t.example/q"),
        topic="Cats", language="fr", link="https://example.org",
        poll=SourcePoll(("a", "b"), (1, 2), datetime(2026, 3, 2, tzinfo=UTC)), spoiler_media=True,
        spoilers=((0, 1), (2, 3)), long_text="long", location="here", audience="followers",
        expires_at=datetime(2026, 3, 3, tzinfo=UTC),
    )  # fmt: skip
    assert held.load(held.dump(told)) == told
    plain = SourcePost("2", datetime(2026, 3, 1, tzinfo=UTC), "")
    assert held.load(held.dump(plain)) == plain


def test_held_posts_at_the_command_line(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        holds(here, 15)
        here.threads.post("one")
        number = eventually(lambda: waiting(here).get("one")).id
        base = here.bridge.base
    shell = CommandLine(tmp_path, settings={"BASE_URL": base, "DATA_DIR": str(tmp_path / "data")})
    said = shell.run("held", "list", "mira", "--json").went_well().json
    assert (said["minutes"], [one["text"] for one in said["posts"]]) == (15, ["one"])
    assert "It is not shared." in shell.run("held", "cancel", "mira", str(number)).went_well().out
    shell.run("held", "send", "mira", "99").refused("no such held post", status=1)
    assert shell.run("profile", "set", "mira", "--hold", "3", "--json").went_well().json["hold_minutes"] == 3
