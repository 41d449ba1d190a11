"""Who is named in a post, and is bridged here too, is mentioned: by the name at the source, whatever it is here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.rig import Bridge

from threadbridge.domain.accounts import Account
from threadbridge.storage import connections
from threadbridge.storage.store import Tx


def connected(bridge: Bridge, handle: str, username: str | None, **more: Any) -> Account:
    """An account that is called `username` at its source, as its profile says when it is read."""
    account = bridge.account(handle, **more)

    def write(tx: Tx) -> None:
        connections.connect(
            tx, bridge.ground.vault, account.id, source="threads", native_id=f"n{account.id}",
            graph_url="http://127.0.0.1:1", access_token="t", since=datetime.now(UTC),
        )  # fmt: skip
        if username is not None:
            connections.profile_read(tx, account.id, username)

    bridge.ground.store.transact_now(write)
    return account


@pytest.mark.parametrize("where", ["text", "long_text"])
def test_mentions_go_by_the_name_at_the_source(bridge: Bridge, where: str) -> None:
    ids, alice = bridge.ground.ids, bridge.account()
    nora = connected(bridge, "nora_here", "Nora.B", source_url="https://www.threads.com/@old.name")
    mira = bridge.account("mira", source_url="https://www.threads.net/@mira.draws")
    bridge.account("somebody")
    words = "With @nora.b, @Mira.Draws, @mira, @old.name and @nobody"
    given: dict[str, Any] = {"text": "See", where: words}
    post = bridge.post(alice, **given)
    note = bridge.get(post).json()
    tags = {tag["href"]: tag["name"] for tag in note["tag"] if tag["type"] == "Mention"}
    authority = bridge.authority
    assert tags == {
        ids.actor(nora.id): f"@nora_here@{authority}",
        ids.actor(mira.id): f"@mira@{authority}",
    }
    assert {ids.actor(nora.id), ids.actor(mira.id)} <= set(note["cc"])
    # Names that are nobody's here, or were given up, lead to the source and notify nobody.
    for name in ("old.name", "nobody"):
        assert f'href="https://www.threads.com/@{name}"' in note["content"]
    assert f'href="{ids.profile("nora_here")}"' in note["content"]
