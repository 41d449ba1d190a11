"""Whoever wants to quote a post asks, gets a stamp that everybody can look up, and loses it when the owner wishes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig import AS, Bridge, Stranger, eventually

from threadbridge.domain.accounts import Account
from threadbridge.domain.rules import Rules
from threadbridge.federation import quote
from threadbridge.storage import decisions, rules

INBOX = "/ap/inbox"


def asked(stranger: Stranger, post: str, quoting: dict[str, Any] | str) -> dict[str, Any]:
    return {**stranger.activity("QuoteRequest", post), "instrument": quoting}


def quoting_note(stranger: Stranger, post: str, content: str = "<p>Look at this</p>") -> dict[str, Any]:
    return stranger.note(None, content, quote=post)


def answers(stranger: Stranger, request: dict[str, Any]) -> list[dict[str, Any]]:
    return [a for a in stranger.received if isinstance(a["object"], dict) and a["object"].get("id") == request["id"]]


def choose(bridge: Bridge, account: Account, **chosen: Any) -> None:
    bridge.ground.store.transact_now(rules.choose, account.id, Rules(**chosen))


def test_a_request_is_accepted_with_a_stamp_that_can_be_looked_up(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    note = quoting_note(stranger, post, "<p>Look <script>x</script>here</p>")
    request = asked(stranger, post, note)
    assert stranger.post(bridge.base + INBOX, request).status_code == 202
    said = eventually(lambda: answers(stranger, request))[0]
    assert said["type"] == "Accept"
    assert said["to"] == [stranger.uri]
    assert said["object"] == {
        "id": request["id"], "type": "QuoteRequest", "actor": stranger.uri, "object": post, "instrument": note["id"],
    }  # fmt: skip
    stamp = bridge.get(said["result"])
    assert stamp.status_code == 200
    document = stamp.json()
    for name in ("@context", "proof"):
        document.pop(name, None)
    assert document == {
        "id": said["result"],
        "type": "QuoteAuthorization",
        "attributedTo": bridge.ground.ids.actor(account.id),
        "interactingObject": note["id"],
        "interactionTarget": post,
    }
    # Shown to people, cleaned, as a figure and to the owner.
    page = bridge.get(f"{bridge.base}/@alice/{post.rsplit('/', 1)[1]}", accept="text/html").text
    assert "1 quote" in page
    # Asked again, since the answer was lost: answered again, with the same stamp.
    again = asked(stranger, post, note)
    stranger.post(bridge.base + INBOX, again)
    assert eventually(lambda: answers(stranger, again))[0]["result"] == said["result"]
    assert bridge.count("quotes") == 1


def test_the_owner_takes_a_quote_back_and_everybody_hears_it(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    request = asked(stranger, post, quoting_note(stranger, post))
    stranger.post(bridge.base + INBOX, request)
    stamp = eventually(lambda: answers(stranger, request))[0]["result"]
    bridge.ground.store.transact_now(quote.revoke, bridge.ground.ids, account.id, 1)
    deleted = eventually(lambda: stranger.of_kind("Delete"))[0]
    assert deleted["object"]["id"] == stamp
    eventually(lambda: bridge.get(stamp).status_code == 410)
    # It is not given again.
    again = asked(stranger, post, request["instrument"])
    stranger.post(bridge.base + INBOX, again)
    assert eventually(lambda: answers(stranger, again))[0]["type"] == "Reject"


def test_the_quoting_post_is_deleted_and_so_is_its_stamp(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    note = quoting_note(stranger, post)
    request = asked(stranger, post, note)
    stranger.post(bridge.base + INBOX, request)
    stamp = eventually(lambda: answers(stranger, request))[0]["result"]
    stranger.post(bridge.base + INBOX, stranger.activity("Delete", {"id": note["id"], "type": "Tombstone"}))
    eventually(lambda: bridge.get(stamp).status_code == 410)
    assert bridge.count("posts", quotes_count=0) == 1
    # The other way of taking it back.
    second = asked(stranger, post, quoting_note(stranger, post))
    stranger.post(bridge.base + INBOX, second)
    stamp = eventually(lambda: answers(stranger, second))[0]["result"]
    stranger.post(bridge.base + INBOX, stranger.activity("Undo", second))
    eventually(lambda: bridge.get(stamp).status_code == 410)


def test_nobody_may_and_is_told_so(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    choose(bridge, account, quotes="nobody")
    me = bridge.ground.ids.actor(account.id)
    policy = eventually(lambda: bridge.get(post).json())["interactionPolicy"]
    assert policy == {"canQuote": {"automaticApproval": [me]}}
    request = asked(stranger, post, quoting_note(stranger, post))
    assert stranger.post(bridge.base + INBOX, request).status_code == 202
    said = eventually(lambda: answers(stranger, request))[0]
    assert said["type"] == "Reject"
    assert bridge.count("quotes") == 0
    found = bridge.ground.store.read_now(lambda tx: decisions.page(tx, account_id=account.id))
    assert [(d.kind, d.reason) for _, d in found] == [("quote", "nobody may quote this post")]


def test_the_owner_is_asked_and_lets_one_and_not_the_other(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    choose(bridge, account, quotes="ask")
    assert bridge.get(post).json()["interactionPolicy"]["canQuote"]["manualApproval"] == [f"{AS}#Public"]
    first, second = (asked(stranger, post, quoting_note(stranger, post)) for _ in range(2))
    for request in (first, second):
        stranger.post(bridge.base + INBOX, request)
    eventually(lambda: bridge.count("quotes", state="waiting") == 2)
    assert bridge.get(f"{bridge.base}/ap/users/{account.id}/quotes/1").status_code == 404
    assert stranger.received == []
    store, ids = bridge.ground.store, bridge.ground.ids
    store.transact_now(quote.let, ids, account.id, 1)
    store.transact_now(quote.refuse, ids, account.id, 2)
    said = eventually(lambda: answers(stranger, first))[0]
    assert said["type"] == "Accept"
    assert bridge.get(said["result"]).status_code == 200
    assert eventually(lambda: answers(stranger, second))[0]["type"] == "Reject"
    assert bridge.count("posts", quotes_count=1) == 1


def test_only_followers_may(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    choose(bridge, account, quotes="followers")
    before = asked(stranger, post, quoting_note(stranger, post))
    stranger.post(bridge.base + INBOX, before)
    assert eventually(lambda: answers(stranger, before))[0]["type"] == "Reject"
    stranger.post(bridge.base + INBOX, stranger.activity("Follow", bridge.ground.ids.actor(account.id)))
    after = asked(stranger, post, quoting_note(stranger, post))
    stranger.post(bridge.base + INBOX, after)
    assert eventually(lambda: answers(stranger, after))[0]["type"] == "Accept"


@pytest.mark.parametrize("word", ["quote", "_misskey_quote", "quoteUrl", "quoteUri", "link"])
def test_a_post_that_quotes_in_an_older_way_is_known_as_a_quote(
    bridge: Bridge, stranger: Stranger, word: str
) -> None:
    post = bridge.post(bridge.account())
    link = {"type": "Link", "rel": "https://misskey-hub.net/ns#_misskey_quote", "href": post, "name": "RE"}
    note = stranger.note(None, "<p>first</p>", **({"tag": [link]} if word == "link" else {word: post}))
    stranger.post(bridge.base + INBOX, stranger.activity("Create", note))
    assert bridge.count("quotes", uri=note["id"], state="unasked", html="<p>first</p>") == 1
    assert bridge.count("replies") == 0
    assert bridge.count("posts", quotes_count=1) == 1
    # An edit changes the text; an edit that quotes nothing any more ends it.
    stranger.post(bridge.base + INBOX, stranger.activity("Update", {**note, "content": "<p>second</p>"}))
    assert bridge.count("quotes", html="<p>second</p>") == 1
    bare = {name: value for name, value in note.items() if name not in (word, "tag")}
    stranger.post(bridge.base + INBOX, stranger.activity("Update", bare))
    assert bridge.count("posts", quotes_count=0) == 1


def test_forged_requests_leave_no_trace(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    stranger.post(bridge.base + INBOX, stranger.activity("Like", post))
    before = bridge.everything()
    mine = quoting_note(stranger, post)
    elsewhere = "https://elsewhere.example/notes/1"
    bent: tuple[Any, ...] = (
        {**mine, "id": elsewhere},
        elsewhere,
        {**mine, "attributedTo": f"{stranger.base}/users/carol"},
        {**mine, "quote": f"{post}0"},
        None,
        [],
    )
    for instrument in bent:
        request = {**stranger.activity("QuoteRequest", post), "instrument": instrument}
        assert stranger.post(bridge.base + INBOX, request).status_code == 400, instrument
    # Nobody asks in another's name, and nobody ends another's quote.
    request = {**asked(stranger, post, mine), "actor": f"{stranger.base}/users/carol"}
    assert stranger.post(bridge.base + INBOX, request).status_code in (400, 401, 403)
    assert bridge.everything() == before
    assert stranger.received == []
