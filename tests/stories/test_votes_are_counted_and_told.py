"""Votes from the Fediverse on our polls: one person, one option, in time; new figures are told, once in a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.rig import Bridge, Stranger, eventually

from threadbridge.delivery import polls
from threadbridge.domain.source import SourcePoll
from threadbridge.storage import accounts, schema
from threadbridge.storage.store import Tx

INBOX = "/ap/inbox"
OPTIONS = ("Tea", "Coffee", "Crème  brûlée")


def poll(bridge: Bridge, *, closes_in: timedelta | None = timedelta(hours=1), votes: Any = (3, 2, 0)) -> str:
    closes_at = datetime.now(UTC) + closes_in if closes_in is not None else None
    return bridge.post(bridge.account(), "What?", poll=SourcePoll(OPTIONS, votes, closes_at))


def vote(stranger: Stranger, post: str, name: str, **more: Any) -> dict[str, Any]:
    note = {**stranger.note(post), "name": name, "to": [post.rsplit("/posts", 1)[0]], **more}
    del note["content"]
    return stranger.activity("Create", note)


def counts(bridge: Bridge, post: str) -> list[int]:
    return [option["replies"]["totalItems"] for option in bridge.get(post).json()["oneOf"]]


def test_a_vote_is_counted_once_and_shown_apart(
    bridge: Bridge, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "EVERY", timedelta(seconds=0.3))
    post = poll(bridge)
    assert stranger.post(bridge.base + INBOX, vote(stranger, post, "Coffee")).status_code == 202
    eventually(lambda: counts(bridge, post) == [3, 3, 0])
    assert bridge.get(post).json()["votersCount"] == 6
    page = bridge.get(f"{bridge.base}/@alice/{post.rsplit('/', 1)[1]}", accept="text/html").text
    assert "5 votes at Threads, 1 vote in the Fediverse" in page
    # Who voted holds a copy, and is told the new figures although the post is history; it is no edit.
    told = eventually(lambda: stranger.of_kind("Update"))[0]
    assert [option["replies"]["totalItems"] for option in told["object"]["oneOf"]] == [3, 3, 0]
    assert "updated" not in told["object"]
    # A second thought does not count, neither for the same option nor for another.
    for name in ("Coffee", "Tea"):
        assert stranger.post(bridge.base + INBOX, vote(stranger, post, name)).status_code == 202
    assert bridge.count("votes") == 1
    assert counts(bridge, post) == [3, 3, 0]
    # Somebody who is gone has no vote.
    stranger.gone = True
    stranger.post(bridge.base + INBOX, stranger.activity("Delete", stranger.uri))
    eventually(lambda: counts(bridge, post) == [3, 2, 0])


def test_many_votes_are_one_update(bridge: Bridge, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "EVERY", timedelta(seconds=1))
    post = poll(bridge)
    number = int(post.rsplit("/", 1)[1])

    def ten_more(tx: Tx) -> None:
        for _ in range(10):
            polls.moved(tx, 1, number)

    stranger.post(bridge.base + INBOX, vote(stranger, post, "Tea"))
    bridge.ground.store.transact_now(ten_more)
    eventually(lambda: stranger.of_kind("Update"))
    assert bridge.count("activities", kind="Refresh") == 1


def test_the_end_of_a_poll_is_told(bridge: Bridge, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "AFTER_THE_END", timedelta(seconds=0.1))
    monkeypatch.setattr(polls, "EVERY", timedelta(seconds=0))
    post = poll(bridge, closes_in=timedelta(seconds=1.5))
    stranger.post(bridge.base + INBOX, vote(stranger, post, "Tea"))
    closed = eventually(lambda: [u for u in stranger.of_kind("Update") if "closed" in u["object"]])[0]
    assert closed["object"]["closed"] == closed["object"]["endTime"]
    assert [option["replies"]["totalItems"] for option in closed["object"]["oneOf"]] == [4, 2, 0]


@pytest.mark.parametrize("name", ["Milk", "coffee", "", "Tea,Coffee"])
def test_a_vote_for_nothing_leaves_no_trace(bridge: Bridge, stranger: Stranger, name: str) -> None:
    post = poll(bridge)
    stranger.post(bridge.base + INBOX, stranger.activity("Like", post))
    jobs_before = bridge.count("jobs")
    stranger.post(bridge.base + INBOX, vote(stranger, post, name))
    assert (bridge.count("votes"), bridge.count("jobs")) == (0, jobs_before)
    assert counts(bridge, post) == [3, 2, 0]


def test_a_vote_comes_too_late_or_where_nothing_is_counted(bridge: Bridge, stranger: Stranger) -> None:
    over = poll(bridge, closes_in=timedelta(seconds=-1))
    account = bridge.ground.store.read_now(accounts.named, "alice")
    unknown = bridge.post(account, "Which?", poll=SourcePoll(OPTIONS, None, None))
    plain = bridge.post(account, "No poll at all")
    for post in (over, unknown, plain):
        assert stranger.post(bridge.base + INBOX, vote(stranger, post, "Tea")).status_code == 202
    assert bridge.count("votes") == 0
    assert bridge.count("replies") == 0
    reasons = bridge.ground.store.read_now(lambda tx: tx.execute(schema.dropped.select()).all())
    assert {row.reason for row in reasons} == {"a vote after the end", "a vote in no poll of ours"}


def test_an_option_is_the_same_however_it_is_composed(bridge: Bridge, stranger: Stranger) -> None:
    post = poll(bridge)
    stranger.post(bridge.base + INBOX, vote(stranger, post, "Cre\u0300me bru\u0302le\u0301e"))
    assert counts(bridge, post) == [3, 2, 1]


def test_nobody_votes_for_another(bridge: Bridge, stranger: Stranger) -> None:
    post = poll(bridge)
    stranger.post(bridge.base + INBOX, stranger.activity("Like", post))
    before = bridge.everything()
    forged = vote(stranger, post, "Tea", attributedTo=f"{stranger.base}/users/carol")
    assert stranger.post(bridge.base + INBOX, forged).status_code == 400
    unsigned = vote(stranger, post, "Tea")
    assert stranger.post(bridge.base + INBOX, unsigned, key=None, digest="SHA-256=AAAA").status_code == 401
    assert bridge.everything() == before
