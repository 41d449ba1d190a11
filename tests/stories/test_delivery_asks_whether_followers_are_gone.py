"""An inbox that says 410 ends that delivery; its followers end only when their own documents are gone as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.crowd import Reply, crowd, drained, follow, ledger_rows, publish

from threadbridge.storage import accounts


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    ("profile_status", "still_there"), [(410, False), (404, False), (200, True), (500, True), (403, True)]
)
def test_followers_of_a_gone_inbox_end_only_when_they_are_gone(
    bridge: Bridge, profile_status: int, still_there: bool
) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob", "carol")
        people.script = lambda _: Reply(410)
        people.profile_status = profile_status
        publish(bridge, account)
        drained(bridge)
        eventually(lambda: not bridge.count("jobs", kind="verify_gone"))
        assert len(people.deliveries()) == 1
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status, row.reason) == ("gone", 410, "410: the inbox is gone")
        assert bridge.count("followers", ended_at=None) == (2 if still_there else 0)
        assert bridge.count("followers", ended_by="gone") == (0 if still_there else 2)
        fresh = bridge.ground.store.read_now(accounts.by_id, account.id)
        assert fresh is not None
        assert fresh.followers_count == (2 if still_there else 0)
        # Those who are still there get the next post, those who are gone do not.
        people.script = lambda _: Reply()
        publish(bridge, account)
        drained(bridge)
        assert len(people.deliveries()) == (2 if still_there else 1)
