"""Replies and the conversation of a post can be read to the end, page by page, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from tests.rig import Bridge, Stranger, a_key, running_bridge

from threadbridge.domain.people import Peer
from threadbridge.storage import peers, posts, schema
from threadbridge.storage.store import Tx

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE, ANSWERS = 70, 130


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, str]]:
    """A post with many continuations and many answers."""
    folder: Path = tmp_path_factory.mktemp("talk")
    with running_bridge(folder, worker=False) as bridge:
        account = bridge.account()
        root = bridge.post(account, "root", published=NOON)
        number = int(root.rsplit("/", 1)[1])
        for place in range(HERE):
            bridge.post(
                account,
                f"more {place}",
                parent_id=number,
                kind="reply",
                published=NOON + timedelta(minutes=2 * place + 1),
            )
        elsewhere = Stranger("https://far.example", key=a_key(1))

        def answer(tx: Tx) -> None:
            peer = Peer(
                uri=elsewhere.uri, inbox=f"{elsewhere.uri}/inbox", shared_inbox=None, handle="bob@far.example",
                name="Bob", url=None, key_id=elsewhere.key_id, key_pem=elsewhere.key.public_pem,
            )  # fmt: skip
            peers.save(tx, peer, "far.example")
            rows = [
                {
                    "account_id": account.id, "post_id": number, "uri": f"{elsewhere.base}/notes/{place}",
                    "peer_uri": peer.uri, "html": "<p>x</p>", "published": NOON + timedelta(minutes=2 * place + 2),
                    "public": place % 13 != 0, "original": "{}", "received_at": tx.now,
                }
                for place in range(ANSWERS)
            ]  # fmt: skip
            tx.execute(insert(schema.replies), rows)

        bridge.ground.store.transact_now(answer)
        yield bridge, root


def pages(bridge: Bridge, first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    page: dict[str, Any] | None = first
    seen: set[str] = set()
    while page is not None:
        assert page["id"] not in seen, "the pages go in a circle"
        seen.add(page["id"])
        yield page
        if "next" in page:
            found = bridge.get(page["next"])
            assert found.status_code == 200
            following = found.json()
            assert following["id"] == page["next"]
            assert following["partOf"] == first["partOf"]
            page = following
        else:
            page = None


def test_all_replies_are_found_once(talk: tuple[Bridge, str]) -> None:
    bridge, root = talk
    whole = bridge.get(f"{root}/replies").json()
    items = [item for page in pages(bridge, whole["first"]) for item in page["items"]]
    public = [number for number in range(ANSWERS) if number % 13 != 0]
    assert whole["totalItems"] == HERE + len(public) == len(items) == len(set(items))
    assert items[:HERE] == [f"{root.rsplit('/', 1)[0]}/{number}" for number in range(2, HERE + 2)]
    # From inside the post itself the way leads to the same end.
    inside = bridge.get(root).json()["replies"]
    assert [i for page in pages(bridge, inside["first"]) for i in page["items"]] == items


def test_a_conversation_is_in_order_of_time(talk: tuple[Bridge, str]) -> None:
    bridge, root = talk
    note = bridge.get(root).json()
    continued = bridge.get(f"{root.rsplit('/', 1)[0]}/5").json()
    assert note["context"] == continued["context"] == f"{root}/context"
    whole = bridge.get(note["context"]).json()
    assert whole["type"] == "OrderedCollection"
    assert whole["attributedTo"] == note["attributedTo"]
    items = [item for page in pages(bridge, whole["first"]) for item in page["orderedItems"]]
    assert whole["totalItems"] == len(items) == len(set(items)) == 1 + HERE + ANSWERS - 10
    own = [item for item in items if item.startswith(bridge.base)]
    assert items[0] == root
    assert own == sorted(own, key=lambda item: int(item.rsplit("/", 1)[1]))
    # Strictly in turn while both sides go on (every thirteenth answer is not public).
    assert items[1].startswith(bridge.base)
    assert items[2] != items[1]
    assert items[3].startswith("https://far.example")


@pytest.mark.parametrize("place", ["x", "p", "p-1", "r1x", "p" + "9" * 30, "0-0-2", "1-1", "٣-1-0"])
@pytest.mark.parametrize("name", ["replies", "context"])
def test_a_page_that_we_never_named_is_refused(talk: tuple[Bridge, str], name: str, place: str) -> None:
    bridge, root = talk
    assert bridge.get(f"{root}/{name}?page=true&after={place}").status_code == 400


def test_a_conversation_outlives_its_first_post(tmp_path: Path) -> None:
    with running_bridge(tmp_path, worker=False) as bridge:
        account = bridge.account()
        root = bridge.post(account, "root")
        more = bridge.post(account, "more", parent_id=1, kind="reply")
        bridge.ground.store.transact_now(posts.bury, account.id, 1)
        found = bridge.get(f"{root}/context").json()
        assert found["first"]["orderedItems"] == [more]
        bridge.ground.store.transact_now(posts.bury, account.id, 2)
        assert bridge.get(f"{root}/context?page=1").status_code == 410
        assert bridge.get(f"{root.rsplit('/', 1)[0]}/9/context").status_code == 404
