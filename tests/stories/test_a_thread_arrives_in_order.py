"""The parts of a thread, written within one second, arrive in their order: Mastodon shows a continuation to nobody
who has not got the beginning."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.rig import Bridge, Stranger, eventually

from threadbridge.delivery import outbox
from threadbridge.storage import accounts, posts
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx


def test_a_thread_arrives_in_order(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    ids = bridge.ground.ids
    stranger.post(ids.inbox(account.id), stranger.activity("Follow", ids.actor(account.id)))
    bridge.stop_worker()
    numbers: list[int] = []

    def write(tx: Tx) -> None:
        known = accounts.by_id(tx, account.id)
        assert known is not None
        for part in range(5):
            content = PostContent(
                "reply" if part else "post",
                f"part {part}",
                "en",
                datetime.now(UTC),
                parent_id=numbers[-1] if part else None,
            )
            numbers.append(posts.add(tx, account.id, content, [], silent=False))
        # Said in the worst order in which they could be addressed.
        for number in numbers:
            outbox.publish(tx, ids, known, number)

    bridge.ground.store.transact_now(write)
    # The first answers are refused as "later", so that whatever may overtake does.
    stranger.answer = lambda count: 503 if count < 2 else 202
    bridge.start_worker()
    arrived = eventually(lambda: len(stranger.of_kind("Create")) == 5 and stranger.of_kind("Create"), seconds=40)
    assert [said["object"]["id"] for said in arrived] == [ids.post(account.id, number) for number in numbers]
