"""Whoever says nothing that has an effect leaves no rows for ever: no person, no server, no words of their own, and
no queue that one server alone can fill."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update
from tests.rig import Bridge, Stranger, eventually
from tests.stories.neighbours import rule, send
from tests.stories.test_nobody_speaks_for_another_server import mallory

from threadbridge.domain.rules import Rules
from threadbridge.federation import answering, quote
from threadbridge.storage import followers, jobs, rules, schema, strangers
from threadbridge.storage.store import Tx

__all__ = ["mallory"]


@pytest.fixture
def inbox(bridge: Bridge) -> str:
    return f"{bridge.base}/ap/inbox"


def test_invented_words_are_counted_together(bridge: Bridge, stranger: Stranger, inbox: str) -> None:
    before = bridge.everything()
    for number in range(40):
        assert send(stranger, inbox, stranger.activity(f"Invented{number}", "https://x.example/1")).status_code == 202
    assert send(stranger, inbox, stranger.activity("View", "https://x.example/1")).status_code == 202
    assert bridge.count("dropped") == 2
    assert bridge.count("dropped", kind="Other", times=40) == 1
    assert bridge.count("dropped", kind="View") == 1
    # Ids that were heard are forgotten after a month; nothing else is there.
    assert {**bridge.everything(), "dropped": 0, "seen_activities": 0} == before


def test_who_had_no_effect_is_not_kept_and_is_met_when_they_have_one(
    bridge: Bridge, stranger: Stranger, inbox: str
) -> None:
    account = bridge.account()
    post, actor = bridge.post(account), bridge.ground.ids.actor(account.id)
    before = bridge.everything()
    elsewhere = stranger.note("https://x.example/1")
    for activity in (
        stranger.activity("Like", "https://x.example/1"),
        stranger.activity("Undo", {"type": "Like", "object": post}),
        stranger.activity("Create", elsewhere),
        stranger.activity("Delete", f"{stranger.base}/notes/never"),
        stranger.activity("Add", post, target=f"{stranger.uri}/featured"),
        stranger.activity("Follow", f"{actor}999"),
        stranger.activity("Flag", ["https://x.example/1"]),
        stranger.activity("Block", actor),
        # Played again: seen before.
        *[stranger.activity("View", post)] * 2,
    ):
        assert send(stranger, inbox, activity).status_code == 202
        changed = {name for name, rows in bridge.everything().items() if rows != before[name]}
        assert changed <= {"seen_activities", "dropped"}, activity["type"]
    assert len(stranger.fetched) == 1
    assert send(stranger, inbox, stranger.activity("Like", post)).status_code == 202
    assert (bridge.count("peers"), bridge.count("peer_keys")) == (1, 1)
    # From then on nothing that has no effect takes it away.
    assert send(stranger, inbox, stranger.activity("Like", post)).status_code == 202
    assert send(stranger, inbox, stranger.activity("View", post)).status_code == 202
    assert bridge.count("peers") == 1


def test_a_server_that_was_held_back_is_woken_by_any_word_of_it(
    bridge: Bridge, stranger: Stranger, inbox: str
) -> None:
    host = stranger.base.partition("//")[2]

    def hold(tx: Tx) -> None:
        held = {"failures": 5, "failing_since": tx.now, "held_until": tx.now + timedelta(hours=1)}
        tx.execute(tx.insert(schema.hosts).values(host=host, **held))

    bridge.ground.store.transact_now(hold)
    assert send(stranger, inbox, stranger.activity("View", "https://x.example/1")).status_code == 202
    # What waits for it may go at once: one of it, to see whether it can be reached.
    assert bridge.count("jobs", kind="wake") == 1


def test_people_of_whom_nothing_is_left_are_forgotten_after_a_month(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str
) -> None:
    """And the one whose key this process still has at hand is met anew."""
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    for somebody in (stranger, mallory):
        assert send(somebody, inbox, somebody.activity("Flag", [actor])).status_code == 202
    assert send(mallory, inbox, mallory.activity("Follow", actor)).status_code == 202
    assert bridge.count("peers") == 2

    def a_month_later(tx: Tx) -> None:
        tx.execute(update(schema.peers).values(fetched_at=tx.now - timedelta(days=31)))
        jobs.add(tx, "prune", "all", {})

    bridge.ground.store.transact_now(a_month_later)
    eventually(lambda: bridge.count("peers") == 1)
    assert (bridge.count("peers", uri=mallory.uri), bridge.count("peer_keys", peer_uri=stranger.uri)) == (1, 0)
    # Who has moved and is awaited at the new place is not forgotten there.
    assert send(stranger, inbox, stranger.activity("Follow", actor)).status_code == 202
    bridge.ground.store.transact_now(_end_follow, stranger.uri)
    assert bridge.ground.store.transact_now(strangers.forget, [stranger.uri, mallory.uri]) == 0
    assert bridge.count("followers", ended_at=None) == 1


def _end_follow(tx: Tx, uri: str) -> None:
    assert followers.end(tx, 1, uri, cause="unfollowed")


def test_everything_that_refers_to_people_keeps_them(bridge: Bridge) -> None:
    tables = {column.table.name for column in strangers._referring}
    assert {"followers", "replies", "mentions", "reactions", "quotes", "votes", "approvals"} <= tables
    assert "peer_keys" not in tables


def test_one_server_can_not_fill_what_owners_have_to_decide(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quote, "UNDECIDED_PER_SERVER", 3)
    account = bridge.account()
    post = bridge.post(account)
    for quotes in ("everyone", "ask"):
        bridge.ground.store.transact_now(rules.choose, account.id, Rules(quotes=quotes))
        for number in range(6):
            said = mallory.activity("Create", mallory.note(None, quote=post))
            if quotes == "ask":
                said = {**mallory.activity("QuoteRequest", post), "instrument": f"{mallory.base}/notes/q{number}"}
            assert send(mallory, inbox, said).status_code == 202
        assert bridge.count("quotes") == 3
    assert bridge.count("dropped", kind="QuoteRequest", reason=quote.TOO_MANY, times=6) == 1
    # Others are heard.
    assert send(stranger, inbox, stranger.activity("Create", stranger.note(None, quote=post))).status_code == 202
    assert bridge.count("quotes") == 4


def test_answers_that_are_asked_for_and_never_come_are_not_let_through_for_ever(
    bridge: Bridge, stranger: Stranger, inbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "UNUSED_PER_SERVER", 3)
    account = bridge.account()
    post = bridge.post(account)
    bridge.ground.store.transact_now(rules.choose, account.id, Rules(replies="followers"))
    assert send(stranger, inbox, stranger.activity("Follow", bridge.ground.ids.actor(account.id))).status_code == 202
    notes = [stranger.note(post) for _ in range(5)]

    def ask(note: str) -> None:
        assert (
            send(stranger, inbox, {**stranger.activity("ReplyRequest", post), "instrument": note}).status_code == 202
        )

    for note in notes:
        ask(note["id"])
    assert bridge.count("approvals") == 3
    # Asked again is answered again; one that came makes room for another.
    ask(notes[0]["id"])
    assert send(stranger, inbox, stranger.activity("Create", notes[0])).status_code == 202
    ask(notes[4]["id"])
    assert bridge.count("approvals") == 4


def test_a_suspended_stranger_is_not_written_down_either(bridge: Bridge, stranger: Stranger, inbox: str) -> None:
    account = bridge.account()
    rule(bridge, "suspend", stranger.uri, "actor", owner=account.id)
    assert send(stranger, inbox, stranger.activity("Like", bridge.post(account))).status_code == 202
    assert bridge.count("peers") == 0
