"""Likes and boosts of our posts are counted once per person, and taken back by their Undo."""

from __future__ import annotations

from functools import partial

import pytest
from tests.rig import Bridge, Stranger, eventually


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


def test_likes_and_shares_have_a_page_that_names_nobody(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    for kind, name in (("Like", "likes"), ("Announce", "shares")):
        assert stranger.post(f"{bridge.base}/ap/inbox", stranger.activity(kind, post)).status_code == 202
        eventually(partial(_counted, bridge, f"{post}/{name}"))
        whole = bridge.get(f"{post}/{name}").json()
        assert (whole["type"], whole["first"]) == ("Collection", f"{post}/{name}?page=1")
        page = bridge.get(whole["first"]).json()
        assert (page["id"], page["type"], page["partOf"]) == (whole["first"], "CollectionPage", whole["id"])
        assert (page["totalItems"], page["items"]) == (1, [])
        assert stranger.base not in bridge.get(whole["first"]).text


def _counted(bridge: Bridge, collection: str) -> bool:
    return bool(bridge.get(collection).json()["totalItems"])
