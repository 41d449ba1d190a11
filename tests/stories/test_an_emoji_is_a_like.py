"""Reactions with an emoji, as Pleroma's family and Misskey send them, are likes: each person counts once, whatever
the number of their emoji and of the bridges they come over."""

from __future__ import annotations

from typing import Any

from tests.rig import Bridge, Stranger
from tests.stories.test_nobody_speaks_for_another_server import mallory

from threadbridge.storage import posts, reactions

__all__ = ["mallory"]


def likes(bridge: Bridge, post: str) -> int:
    number = int(post.rsplit("/", 1)[1])
    found = bridge.ground.store.read_now(posts.by_id, 1, number)
    assert found is not None
    return found.likes_count


def emoji(bridge: Bridge) -> list[str]:
    return sorted(one.emoji for _, one in bridge.ground.store.read_now(reactions.page, 1, limit=50))


def pleroma(who: Stranger, post: str, content: str) -> dict[str, Any]:
    return who.activity("EmojiReact", post, content=content)


def misskey(who: Stranger, post: str, content: str) -> dict[str, Any]:
    tag = [{"type": "Emoji", "name": content, "icon": {"type": "Image", "url": f"{who.base}/blob.png"}}]
    return who.activity("Like", post, content=content, _misskey_reaction=content, tag=tag)


def describe(who: Stranger, inbox: str, said: dict[str, Any]) -> None:
    """Say more of oneself; what somebody says of themselves whom nobody here knows would be forgotten."""
    account = inbox.removesuffix("inbox") + "users/1"
    assert who.post(inbox, who.activity("Follow", account)).status_code == 202
    assert who.post(inbox, who.activity("Update", {**who.actor(), **said})).status_code == 202


def test_several_emoji_of_one_person_are_kept_and_count_once(
    bridge: Bridge, stranger: Stranger, mallory: Stranger
) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    party, blob = pleroma(stranger, post, "🎉"), misskey(stranger, post, ":blobcat:")
    plain = stranger.activity("Like", post)
    for activity in (party, blob, plain, pleroma(stranger, post, "🎉")):
        assert stranger.post(inbox, activity).status_code == 202
    assert emoji(bridge) == ["", ":blobcat:", "🎉"]
    assert likes(bridge, post) == 1
    assert mallory.post(inbox, misskey(mallory, post, "👍")).status_code == 202
    assert likes(bridge, post) == 2

    # Forged: nobody takes back what somebody else did.
    before = bridge.everything()
    assert mallory.post(inbox, mallory.activity("Undo", party)).status_code == 400
    assert mallory.post(inbox, mallory.activity("Undo", party["id"])).status_code == 400
    assert bridge.everything() == before
    # Each is taken back by itself: by its id, by what it was, and a plain one by a plain Undo.
    assert stranger.post(inbox, stranger.activity("Undo", party["id"])).status_code == 202
    assert emoji(bridge) == ["", ":blobcat:", "👍"]
    bare = {key: blob[key] for key in ("type", "actor", "object", "content", "_misskey_reaction")}
    assert stranger.post(inbox, stranger.activity("Undo", bare)).status_code == 202
    assert emoji(bridge) == ["", "👍"]
    assert likes(bridge, post) == 2
    bare = {"type": "Like", "actor": stranger.uri, "object": post}
    assert stranger.post(inbox, stranger.activity("Undo", bare)).status_code == 202
    assert likes(bridge, post) == 1


def test_an_undo_that_overtakes_its_emoji_wins(bridge: Bridge, stranger: Stranger) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    late = pleroma(stranger, post, "🎉")
    stranger.post(inbox, stranger.activity("Undo", late))
    assert stranger.post(inbox, late).status_code == 202
    assert (emoji(bridge), likes(bridge, post)) == ([], 0)


def test_what_is_no_emoji_is_a_plain_like(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    inbox = f"{bridge.base}/ap/inbox"
    for number, content in enumerate(("<b>bold</b>", "x" * 5000, 7, None, "", "two words", {"a": 1})):
        post = bridge.post(account, f"post {number}")
        assert stranger.post(inbox, stranger.activity("EmojiReact", post, content=content)).status_code == 202
    assert emoji(bridge) == [""] * 7


def test_one_person_over_two_bridges_counts_once(bridge: Bridge, stranger: Stranger, mallory: Stranger) -> None:
    """FEP-fffd: each of two bridges says for whom its actor stands. The claim takes nothing from anybody else."""
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    carol = "at://did:plc:carol"
    over_one = {"proxyOf": [{"protocol": "at", "proxied": carol}]}
    over_another = {"url": [{"type": "Link", "rel": "canonical", "href": carol}]}
    for who, said in ((stranger, over_one), (mallory, over_another)):
        describe(who, inbox, said)
        assert who.post(inbox, who.activity("Like", post)).status_code == 202
        assert who.post(inbox, who.activity("Announce", post)).status_code == 202
    assert bridge.count("reactions", undone_at=None) == 4
    assert likes(bridge, post) == 1
    stranger.post(inbox, stranger.activity("Undo", {"type": "Like", "actor": stranger.uri, "object": post}))
    assert likes(bridge, post) == 1
    mallory.post(inbox, mallory.activity("Undo", {"type": "Like", "actor": mallory.uri, "object": post}))
    assert likes(bridge, post) == 0


def test_whoever_claims_to_stand_for_somebody_takes_nothing_from_them(
    bridge: Bridge, stranger: Stranger, mallory: Stranger
) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    describe(mallory, inbox, {"proxyOf": stranger.uri})
    mallory.post(inbox, mallory.activity("Like", post))
    assert stranger.post(inbox, stranger.activity("Like", post)).status_code == 202
    mallory.post(inbox, mallory.activity("Undo", {"type": "Like", "actor": mallory.uri, "object": post}))
    assert likes(bridge, post) == 1
    assert [one.peer_uri for _, one in bridge.ground.store.read_now(reactions.page, 1, limit=9)] == [stranger.uri]
