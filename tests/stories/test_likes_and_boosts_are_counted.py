"""Likes and boosts of our posts are counted once per person, and taken back by their Undo."""

from __future__ import annotations

from functools import partial

import pytest
from tests.rig import Bridge, Stranger, eventually

from threadbridge.domain.people import Peer
from threadbridge.storage import peers, reactions
from threadbridge.storage.store import Tx


@pytest.mark.parametrize(("kind", "collection"), [("Like", "likes"), ("EmojiReact", "likes"), ("Announce", "shares")])
def test_a_reaction_is_counted_once_and_undone(
    bridge: Bridge, stranger: Stranger, kind: str, collection: str
) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    reaction = stranger.activity(kind, post)
    assert stranger.post(inbox, reaction).status_code == 202
    assert stranger.post(inbox, stranger.activity(kind, post)).status_code == 202
    eventually(lambda: bridge.get(f"{post}/{collection}").json()["totalItems"] == 1, seconds=5)
    assert bridge.get(post).json()[collection]["totalItems"] == 1

    inner = {key: reaction[key] for key in ("id", "type", "actor", "object")}
    assert stranger.post(inbox, stranger.activity("Undo", inner)).status_code == 202
    eventually(lambda: bridge.get(f"{post}/{collection}").json()["totalItems"] == 0, seconds=5)


def test_a_like_of_somebody_elses_post_is_dropped_and_counted(bridge: Bridge, stranger: Stranger) -> None:
    bridge.account()
    like = stranger.activity("Like", f"{stranger.base}/notes/1")
    assert stranger.post(f"{bridge.base}/ap/inbox", like).status_code == 202
    assert bridge.count("reactions") == 0
    assert bridge.count("dropped", kind="Like", reason="about no post of ours") == 1


def test_somebody_else_cannot_undo_a_like(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    like = stranger.activity("Like", post)
    stranger.post(f"{bridge.base}/ap/inbox", like)
    mallory = stranger.uri.replace("bob", "mallory")
    forged = {**stranger.activity("Undo", {**like, "actor": mallory}), "actor": mallory}
    assert stranger.post(f"{bridge.base}/ap/inbox", forged).status_code in (401, 403)
    assert bridge.count("reactions", undone_at=None) == 1


def test_likes_and_shares_are_listed_by_their_activities(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    for kind, name in (("Like", "likes"), ("Announce", "shares")):
        said = stranger.activity(kind, post)
        assert stranger.post(f"{bridge.base}/ap/inbox", said).status_code == 202
        eventually(partial(_counted, bridge, f"{post}/{name}"))
        whole = bridge.get(f"{post}/{name}").json()
        assert (whole["id"], whole["type"], whole["totalItems"]) == (f"{post}/{name}", "Collection", 1)
        page = whole["first"]
        assert (page["type"], page["partOf"], page["items"]) == ("CollectionPage", whole["id"], [said["id"]])
        assert bridge.get(page["id"]).json()["items"] == [said["id"]]
        assert bridge.get(f"{post}/{name}?page=true&after=x").status_code == 400
        undone = stranger.activity("Undo", said)
        assert stranger.post(f"{bridge.base}/ap/inbox", undone).status_code == 202
        eventually(partial(_is_empty, bridge, f"{post}/{name}"))
        assert bridge.get(f"{post}/{name}").json()["first"]["items"] == []


def test_many_likes_have_pages(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    number = int(post.rpartition("/")[2])
    people = [f"{stranger.base}/users/p{n}" for n in range(45)]

    def like(tx: Tx) -> None:
        for uri in people:
            peers.save(
                tx,
                Peer(uri, f"{uri}/inbox", None, "p@server.example", "P", None, f"{uri}#main-key", "pem"),
                "server.example",
            )
            reactions.react(tx, account.id, number, uri, "like", f"{uri}/like", person=uri)
        # A second emoji of the same person counts, and is listed, once.
        reactions.react(tx, account.id, number, people[0], "like", f"{people[0]}/again", emoji="🎉", person=people[0])

    bridge.ground.store.transact_now(like)
    page = bridge.get(f"{post}/likes").json()["first"]
    found = list(page["items"])
    while "next" in page:
        page = bridge.get(page["next"]).json()
        found += page["items"]
    assert found == [f"{uri}/like" for uri in people]


def _is_empty(bridge: Bridge, collection: str) -> bool:
    return not _counted(bridge, collection)


def _counted(bridge: Bridge, collection: str) -> bool:
    return bool(bridge.get(collection).json()["totalItems"])
