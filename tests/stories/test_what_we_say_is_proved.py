"""Whatever we say carries a proof that its author said it, and no other signature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from tests.peers.integrity import author_by_proof
from tests.rig import Bridge, Served, Stranger, eventually, free_socket, running_bridge

from threadbridge.delivery import outbox
from threadbridge.delivery.proving import DELIVERED_MAX
from threadbridge.domain.accounts import Account
from threadbridge.storage import schema


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


@pytest.fixture
def bob(bridge: Bridge) -> Iterator[Stranger]:
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def fetched(url: str) -> dict[str, Any]:
    answer = httpx2.get(url, headers={"Accept": "application/activity+json"}, trust_env=False)
    found: dict[str, Any] = answer.json()
    return found


def said(bridge: Bridge, account: Account, text: str = "Hello", **more: Any) -> int:
    number = int(bridge.post(account, text, **more).rsplit("/", 1)[1])
    bridge.ground.store.transact_now(outbox.publish, bridge.ground.ids, account, number)
    return number


def test_what_is_delivered_and_what_is_served(bridge: Bridge, bob: Stranger) -> None:
    account = bridge.account()
    me = bridge.ground.ids.actor(account.id)
    bob.post(f"{bridge.base}/ap/inbox", bob.activity("Follow", me))
    number = said(bridge, account)
    eventually(lambda: bob.of_kind("Create"))
    store, ids = bridge.ground.store, bridge.ground.ids
    store.transact_now(outbox.retract, ids, account, number)
    store.transact_now(outbox.announce_profile, ids, account)
    eventually(lambda: bob.of_kind("Delete") and bob.of_kind("Update"))
    assert {activity["type"] for activity in bob.received} == {"Accept", "Create", "Delete", "Update"}
    for activity in bob.received:
        assert author_by_proof(activity, fetched) == me == activity["actor"]
        assert datetime.fromisoformat(activity["proof"]["created"]) <= datetime.now(UTC)
    # What is kept is what was said; the proof is made anew for every delivery, and is always the same.
    kept = store.read_now(lambda tx: [row.body for row in tx.execute(schema.activities.select())])
    assert kept
    assert all(b'"proof"' not in body for body in kept)
    bob.received.clear()
    bridge.stop_worker()
    store.transact_now(lambda tx: tx.execute(schema.deliveries.update().values(state="waiting", due_at=tx.now)))
    first = {body["id"]: body for _, raw in bob.requests if (body := orjson.loads(raw))}
    bridge.start_worker()
    # Not the post, which was deleted since.
    eventually(lambda: {activity["type"] for activity in bob.received} >= {"Accept", "Delete", "Update"})
    assert all(first[activity["id"]] == activity for activity in bob.received)

    live = said(bridge, account, "still here")
    for path in ("/actor", f"/ap/users/{account.id}", f"/ap/users/{account.id}/posts/{live}",
                 f"/ap/users/{account.id}/posts/{live}/activity", "/@alice"):  # fmt: skip
        answer = bridge.get(path)
        document = answer.json()
        assert author_by_proof(document, fetched) in (me, f"{bridge.base}/actor"), path
        again = bridge.get(path, **{"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304, path
    # Lists are read for what is in them.
    for path in ("outbox?page=true", "followers", "collections/featured"):
        assert "proof" not in bridge.get(f"/ap/users/{account.id}/{path}").json()


def test_a_changed_word_breaks_the_proof(bridge: Bridge) -> None:
    account = bridge.account()
    note = bridge.get(bridge.post(account, "Hello")).json()
    assert author_by_proof(note, fetched)
    for change in ({"content": "<p>Goodbye</p>"}, {"published": "2020-01-01T00:00:00Z"}, {"extra": 1}):
        with pytest.raises(AssertionError):
            author_by_proof({**note, **change}, fetched)
    # Nobody else's key proves it.
    other = bridge.account("carol")
    forged = json.loads(json.dumps(note).replace(f"users/{account.id}#ed25519", f"users/{other.id}#ed25519"))
    with pytest.raises(AssertionError):
        author_by_proof(forged, fetched)


def test_the_largest_post_stays_small_enough_for_misskey(bridge: Bridge, bob: Stranger) -> None:
    account = bridge.account()
    bob.post(f"{bridge.base}/ap/inbox", bob.activity("Follow", bridge.ground.ids.actor(account.id)))
    said(bridge, account, "Hello", long_text="word " * 10_800)  # just below what a note is shortened to
    eventually(lambda: bob.of_kind("Create"))
    body = next(raw for _, raw in bob.requests if b'"Create"' in raw)
    assert 57_000 < len(body) <= DELIVERED_MAX
    assert author_by_proof(orjson.loads(body), fetched)


def test_accounts_of_an_older_version_get_a_key_at_the_next_start(tmp_path: Path) -> None:
    with running_bridge(tmp_path / "data", base_url="http://127.0.0.1:1", worker=False) as bridge:
        account = bridge.account()
        k = schema.account_keys
        bridge.ground.store.transact_now(lambda tx: tx.execute(k.delete().where(k.c.kind == "ed25519")))
        actor = bridge.get(f"/ap/users/{account.id}", Host="127.0.0.1:1").json()
        assert actor["publicKey"]
        assert not {"proof", "assertionMethod"} & actor.keys()
    with running_bridge(tmp_path / "data", base_url="http://127.0.0.1:1", worker=False) as bridge:
        for path in (f"/ap/users/{account.id}", "/actor"):
            actor = bridge.get(path, Host="127.0.0.1:1").json()
            assert author_by_proof(actor, {actor["id"]: actor}.__getitem__) == actor["id"]
        before = bridge.everything()
    with running_bridge(tmp_path / "data", base_url="http://127.0.0.1:1", worker=False) as bridge:
        assert bridge.everything() == before
