"""Who may answer a post is said with it and kept to: what is let through is stamped, what is not is not stored."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig import PUBLIC, Bridge, Stranger, eventually

from threadbridge.domain.accounts import Account
from threadbridge.domain.rules import Rules
from threadbridge.storage import decisions, rules

INBOX = "/ap/inbox"


def choose(bridge: Bridge, account: Account, **chosen: Any) -> None:
    bridge.ground.store.transact_now(rules.choose, account.id, Rules(**chosen))


@pytest.mark.parametrize(
    ("chosen", "audience", "expected"),
    [
        ("source", None, None),
        ("source", "followers_only", ["me", "followers"]),
        ("source", "mentioned_only", ["me"]),
        ("source", "accounts_you_follow", ["me"]),
        ("source", "a_new_word", ["me"]),
        ("everyone", "mentioned_only", None),
        ("followers", None, ["me", "followers"]),
        ("nobody", None, ["me"]),
    ],
)
def test_the_policy_is_said_only_where_not_everybody_may(
    bridge: Bridge, chosen: str, audience: str | None, expected: list[str] | None
) -> None:
    account = bridge.account()
    choose(bridge, account, replies=chosen)
    me = bridge.ground.ids.actor(account.id)
    names = {"me": me, "followers": f"{me}/followers"}
    policy = bridge.get(bridge.post(account, audience=audience)).json()["interactionPolicy"]
    wanted = {"automaticApproval": [names[name] for name in expected]} if expected else None
    assert policy.get("canReply") == wanted


def test_an_answer_that_is_not_let_through_is_not_stored(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    choose(bridge, account, replies="followers")
    note = stranger.note(post)
    assert stranger.post(bridge.base + INBOX, stranger.activity("Create", note)).status_code == 202
    said = eventually(lambda: stranger.of_kind("Reject"))[0]
    assert (said["object"], said["target"], said["to"]) == (note["id"], post, [stranger.uri])
    assert bridge.count("replies") == 0
    assert bridge.count("approvals") == 0
    assert bridge.get(f"{post}/replies").json()["totalItems"] == 0
    found = bridge.ground.store.read_now(lambda tx: decisions.page(tx, account_id=account.id))
    assert [(d.kind, d.reason, d.subject) for _, d in found] == [
        ("reply", "only followers may answer this post", note["id"])
    ]


def test_a_followers_answer_is_let_through_stamped_and_told(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post, me = bridge.post(account), bridge.ground.ids.actor(account.id)
    choose(bridge, account, replies="followers")
    stranger.post(bridge.base + INBOX, stranger.activity("Follow", me))
    note = stranger.note(post)
    stranger.post(bridge.base + INBOX, stranger.activity("Create", note))
    said = eventually(lambda: [a for a in stranger.of_kind("Accept") if a.get("result")])[0]
    assert (said["object"], said["target"], said["cc"]) == (note["id"], post, [PUBLIC, f"{me}/followers"])
    stamp = bridge.get(said["result"]).json()
    assert stamp["type"] == "ReplyAuthorization"
    assert (stamp["attributedTo"], stamp["interactingObject"], stamp["interactionTarget"]) == (me, note["id"], post)
    assert bridge.get(f"{post}/replies").json()["first"]["items"] == [note["id"]]
    stranger.post(bridge.base + INBOX, stranger.activity("Delete", note["id"]))
    eventually(lambda: bridge.get(said["result"]).status_code == 410)


def test_who_asks_before_answering_is_told(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post, me = bridge.post(account), bridge.ground.ids.actor(account.id)
    choose(bridge, account, replies="followers")

    def ask(note: dict[str, Any]) -> dict[str, Any]:
        request = {**stranger.activity("ReplyRequest", post), "instrument": note}
        assert stranger.post(bridge.base + INBOX, request).status_code == 202

        def answers() -> list[dict[str, Any]]:
            embedded = [said for said in stranger.received if isinstance(said["object"], dict)]
            return [said for said in embedded if said["object"].get("id") == request["id"]]

        found: list[dict[str, Any]] = eventually(answers)
        return found[0]

    assert ask(stranger.note(post))["type"] == "Reject"
    assert bridge.count("approvals") == 0
    stranger.post(bridge.base + INBOX, stranger.activity("Follow", me))
    note = stranger.note(post)
    said = ask(note)
    assert said["type"] == "Accept"
    assert said["object"]["instrument"] == note["id"]
    assert bridge.get(said["result"]).json()["interactingObject"] == note["id"]
    # It arrives, and nobody has to be told once more.
    stranger.post(bridge.base + INBOX, stranger.activity("Create", {**note, "replyAuthorization": said["result"]}))
    assert bridge.count("replies") == 1
    assert bridge.count("activities", kind="Accept") == 2


def test_one_post_may_be_another_matter_than_all(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    closed, open_ = bridge.post(account), bridge.post(account)
    number = int(closed.rsplit("/", 1)[1])
    bridge.ground.store.transact_now(rules.choose_for_post, account.id, number, "nobody", None)
    for post in (closed, open_):
        stranger.post(bridge.base + INBOX, stranger.activity("Create", stranger.note(post)))
    assert bridge.count("replies") == 1
    assert bridge.count("approvals") == 0
    assert bridge.get(f"{open_}/replies").json()["totalItems"] == 1


def test_forged_requests_to_answer_leave_no_trace(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    choose(bridge, account, replies="followers")
    stranger.post(bridge.base + INBOX, stranger.activity("Follow", bridge.ground.ids.actor(account.id)))
    eventually(lambda: stranger.of_kind("Accept"))
    before = bridge.everything()
    note = stranger.note(post)
    for instrument in (
        "https://elsewhere.example/notes/1",
        {**note, "attributedTo": f"{stranger.base}/users/carol"},
        {**note, "inReplyTo": f"{post}0"},
    ):
        request = {**stranger.activity("ReplyRequest", post), "instrument": instrument}
        assert stranger.post(bridge.base + INBOX, request).status_code == 400
    assert bridge.everything() == before
