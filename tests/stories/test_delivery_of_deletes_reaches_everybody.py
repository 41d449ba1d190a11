"""A deletion goes to everybody who may hold a copy: who got the post, and who liked, boosted or answered it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig import PUBLIC, Bridge, running_bridge
from tests.stories.crowd import crowd, drained, follow, publish, retract, revise

from threadbridge.delivery import fanout


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


@pytest.mark.parametrize("chunk", [500, 1])
def test_everybody_who_may_hold_a_copy_hears_of_the_deletion_once(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(fanout, "CHUNK", chunk)
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    loop, inbox = bridge.loop, f"{bridge.base}/ap/inbox"
    with (
        crowd(loop) as stays, crowd(loop) as leaves, crowd(loop) as late, crowd(loop) as likes, crowd(loop) as boosts,
        crowd(loop) as answers, crowd(loop) as elsewhere,
    ):  # fmt: skip
        follow(bridge, account, stays, "s1", "s2")
        follow(bridge, account, leaves, "l")
        post_id = publish(bridge, account)
        other = publish(bridge, account)
        drained(bridge)
        post = bridge.ground.ids.post(account.id, post_id)
        inner = {"type": "Follow", "actor": leaves.person("l"), "object": actor}
        assert leaves.says("l", inbox, "Undo", inner).status_code == 202
        follow(bridge, account, late, "m")
        assert likes.says("k", inbox, "Like", post).status_code == 202
        assert boosts.says("b", inbox, "Announce", post, to=[PUBLIC]).status_code == 202
        note = {
            "id": f"{answers.base}/notes/1",
            "type": "Note",
            "attributedTo": answers.person("a"),
            "content": "<p>Hi</p>",
            "inReplyTo": post,
            "to": [PUBLIC],
            "published": "2026-01-01T00:00:00Z",
        }
        assert answers.says("a", inbox, "Create", note, to=[PUBLIC]).status_code == 202
        assert elsewhere.says("e", inbox, "Like", bridge.ground.ids.post(account.id, other)).status_code == 202
        revise(bridge, account, post_id, "edited")
        drained(bridge)
        retract(bridge, account, post_id)
        drained(bridge)
        heard = {
            name: [a.kind for a in server.deliveries("Create", "Update", "Delete")]
            for name, server in (("stays", stays), ("leaves", leaves), ("late", late), ("likes", likes),
                                 ("boosts", boosts), ("answers", answers), ("elsewhere", elsewhere))
        }  # fmt: skip
        both = ["Create", "Create", "Update", "Delete"]
        assert heard == {
            "stays": both, "leaves": both, "late": ["Update", "Delete"], "likes": ["Update", "Delete"],
            "boosts": ["Update", "Delete"], "answers": ["Update", "Delete"], "elsewhere": [],
        }  # fmt: skip
        # Whoever checks finds it gone.
        assert bridge.get(post).status_code == 410
