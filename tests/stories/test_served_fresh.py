"""What is served is true: at once in this process, within five seconds when another one wrote; and it is built once,
however many ask, in bounded memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, Stranger, eventually, running_bridge

from threadbridge.domain.accounts import Account, AccountState
from threadbridge.errors import NotFound
from threadbridge.storage import accounts, posts
from threadbridge.storage.store import Store, Tx
from threadbridge.web import documents
from threadbridge.web.hot import WATCH_SECONDS, HotDocuments, Ready


def delete(tx: Tx, account: Account, uri: str) -> None:
    assert posts.bury(tx, account.id, int(uri.rpartition("/")[2]))
    accounts.touch(tx, account.id)


def test_a_deleted_post_is_gone_with_the_very_next_request(bridge: Bridge) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    for number in range(3):
        uri = bridge.post(account, f"Post {number}")
        kept = (uri, f"{uri}/activity", f"{uri}/replies", f"/@alice/{uri.rpartition('/')[2]}")
        assert [bridge.get(path).status_code for path in kept] == [200, 200, 200, 302]
        assert bridge.get(f"{actor}/outbox").json()["totalItems"] == 1
        bridge.ground.store.transact_now(delete, account, uri)
        assert [bridge.get(path).status_code for path in kept] == [410] * 4
        assert bridge.get(uri).json()["type"] == "Tombstone"
        assert bridge.get(f"{actor}/outbox").json()["totalItems"] == 0
        assert bridge.get(f"{actor}/outbox?page=true").json()["orderedItems"] == []
        assert bridge.get(f"{actor}/collections/featured").json()["orderedItems"] == []


def test_an_etag_from_before_does_not_hide_the_deletion(bridge: Bridge) -> None:
    account = bridge.account()
    uri = bridge.post(account)
    etag = bridge.get(uri).headers["etag"]
    bridge.ground.store.transact_now(delete, account, uri)
    assert bridge.get(uri, **{"If-None-Match": etag}).status_code == 410


def test_a_new_profile_and_a_deleted_account_are_seen_at_once(bridge: Bridge) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    found = f"/.well-known/webfinger?resource=acct:alice@{bridge.authority}"
    assert bridge.get(actor).json()["name"] == "Alice"
    assert bridge.get(found).status_code == 200
    bridge.ground.store.transact_now(accounts.update_profile, account.id, name="Alicia")
    assert bridge.get(actor).json()["name"] == "Alicia"

    def leave(tx: Tx) -> None:
        accounts.set_state(tx, account.id, AccountState.GONE, "test")

    bridge.ground.store.transact_now(leave)
    assert [bridge.get(path).status_code for path in (actor, found, f"{actor}/outbox", "/@alice")] == [410] * 4


def test_figures_are_five_seconds_old_at_most(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, uri = bridge.ground.ids.actor(account.id), bridge.post(account)
    shown = {
        f"{actor}/followers": ("totalItems",), f"{uri}/likes": ("totalItems",), uri: ("likes", "totalItems"),
        f"{uri}/shares": ("totalItems",), f"{uri}/replies": ("totalItems",),
    }  # fmt: skip

    def figures() -> list[int]:
        found = []
        for url, names in shown.items():
            value: Any = bridge.get(url).json()
            for name in names:
                value = value[name]
            found.append(value)
        return found

    assert figures() == [0] * 5
    for activity in (
        stranger.activity("Follow", actor), stranger.activity("Like", uri), stranger.activity("Announce", uri),
        stranger.activity("Create", stranger.note(uri)),
    ):  # fmt: skip
        assert stranger.post(f"{actor}/inbox", activity).status_code == 202
    eventually(lambda: figures() == [1] * 5, 5)
    assert len(bridge.get(uri).json()["replies"]["first"]["items"]) == 1


ANOTHER_PROCESS = """
import sys
from sqlalchemy import update
from threadbridge.storage import accounts, posts, schema
from threadbridge.storage.store import Store
store = Store.open(sys.argv[1])
def write(tx):
    if sys.argv[2] == "likes":
        t = schema.posts
        tx.execute(update(t).where(t.c.id == int(sys.argv[4])).values(likes_count=7))
        accounts.touch(tx, int(sys.argv[3]), figures_only=True)
    else:
        assert posts.bury(tx, int(sys.argv[3]), int(sys.argv[4]))
        accounts.touch(tx, int(sys.argv[3]))
store.transact_now(write)
store.close()
"""


def test_what_another_process_writes_is_seen_within_five_seconds(bridge: Bridge) -> None:
    account = bridge.account()
    uri = bridge.post(account)
    url = bridge.ground.config.database

    def another_process(what: str) -> None:
        number = uri.rpartition("/")[2]
        command = [sys.executable, "-c", ANOTHER_PROCESS, url, what, str(account.id), number]
        subprocess.run(command, check=True, timeout=30)

    assert bridge.get(f"{uri}/likes").json()["totalItems"] == 0
    another_process("likes")
    eventually(lambda: bridge.get(f"{uri}/likes").json()["totalItems"] == 7, 5)
    assert bridge.get(uri).json()["likes"]["totalItems"] == 7
    another_process("delete")
    eventually(lambda: bridge.get(uri).status_code == 410, 5)


def test_readers_under_way_never_bring_back_what_was_deleted(tmp_path: Path) -> None:
    """Many readers while the post is deleted: after the deletion was acknowledged nobody who asks gets it."""
    with running_bridge(tmp_path, worker=False) as bridge:
        account = bridge.account()
        for number in range(5):
            uri = bridge.post(account, f"Post {number}")
            deleted = threading.Event()
            late: list[int] = []

            def read(uri: str = uri, deleted: threading.Event = deleted, late: list[int] = late) -> None:
                while True:
                    asked_after = deleted.is_set()
                    status = bridge.get(uri).status_code
                    if asked_after:
                        late.append(status)
                        return

            with ThreadPoolExecutor(8) as pool:
                readers = [pool.submit(read) for _ in range(8)]
                time.sleep(0.05)
                bridge.ground.store.transact_now(delete, account, uri)
                deleted.set()
                for reader in readers:
                    reader.result(10)
            assert late == [410] * 8


# ── the ready documents by themselves ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = Store.open(f"sqlite:///{tmp_path / 'hot.sqlite3'}")
    yield opened
    opened.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def ready(body: bytes, *account_ids: int) -> Ready:
    return Ready.of(body, "text/plain", max_age=0, account_ids=frozenset(account_ids))


def test_a_hundred_who_ask_at_once_are_answered_by_one_building(store: Store) -> None:
    async def story() -> None:
        hot = HotDocuments(store)
        built = 0

        async def build() -> Ready:
            nonlocal built
            built += 1
            await asyncio.sleep(0.01)
            return ready(b"x", 1)

        answers = await asyncio.gather(*(hot.get_or_build(b"/a", build) for _ in range(100)))
        assert built == 1
        assert {answer.body for answer in answers} == {b"x"}
        assert hot.get(b"/a") is answers[0]

    run(story())


def test_who_asks_after_a_change_is_not_given_what_was_being_built_before_it(store: Store) -> None:
    async def story() -> None:
        hot = HotDocuments(store)
        go = asyncio.Event()

        async def before() -> Ready:
            await go.wait()
            return ready(b"before", 1)

        async def after() -> Ready:
            return ready(b"after", 1)

        first = asyncio.create_task(hot.get_or_build(b"/a", before))
        await asyncio.sleep(0)
        hot.forget({1})
        assert (await hot.get_or_build(b"/a", after)).body == b"after"
        go.set()
        assert (await first).body == b"before"
        kept = hot.get(b"/a")
        assert kept is not None
        assert kept.body == b"after"

    run(story())


def test_what_changed_while_it_was_built_is_not_kept(store: Store) -> None:
    async def story() -> None:
        hot = HotDocuments(store)

        async def build() -> Ready:
            hot.forget({1})
            return ready(b"x", 1, 2)

        await hot.get_or_build(b"/a", build)
        assert hot.get(b"/a") is None

        async def another() -> Ready:
            hot.forget({3})
            return ready(b"x", 1, 2)

        await hot.get_or_build(b"/a", another)
        assert hot.get(b"/a") is not None

    run(story())


def test_a_failure_is_told_to_all_who_wait_and_not_kept(store: Store) -> None:
    async def story() -> None:
        hot = HotDocuments(store)

        async def fail() -> Ready:
            await asyncio.sleep(0.01)
            raise NotFound("no")

        results = await asyncio.gather(*(hot.get_or_build(b"/a", fail) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [NotFound] * 3

        async def build() -> Ready:
            return ready(b"x")

        assert (await hot.get_or_build(b"/a", build)).body == b"x"

    run(story())


def test_memory_is_bounded_and_the_longest_unasked_makes_room(store: Store) -> None:
    async def story() -> None:
        hot = HotDocuments(store, bytes_max=100_000)
        for number in range(500):

            async def build(number: int = number) -> Ready:
                return ready(b"x" * 1000, number)

            await hot.get_or_build(b"/%d" % number, build)
            assert number < 1 or hot.get(b"/0") is not None, "what is asked for again and again stays"
        kept = [number for number in range(500) if hot.get(b"/%d" % number) is not None]
        assert 30 < len(kept) <= 100
        assert kept[-1] == 499
        hot.forget(set(range(500)))
        assert not any(hot.get(b"/%d" % number) for number in range(500))
        assert hot._bytes == 0

    run(story())


def test_documents_with_a_date_end_by_themselves(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        hot = HotDocuments(store)

        async def build() -> Ready:
            return Ready.of(b"x", "text/plain", max_age=0, lives=60.0)

        await hot.get_or_build(b"/a", build)
        assert hot.get(b"/a") is not None
        later = time.monotonic() + 61
        monkeypatch.setattr("threadbridge.web.hot.time.monotonic", lambda: later)
        assert hot.get(b"/a") is None

    run(story())


def test_serving_a_ready_document_touches_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_bridge(tmp_path, worker=False) as bridge:
        account = bridge.account()
        uri = bridge.post(account)
        built = 0
        note = documents.note

        def counting(*args: Any, **given: Any) -> bytes:
            nonlocal built
            built += 1
            return note(*args, **given)

        monkeypatch.setattr(documents, "note", counting)
        # The watcher's next look drops what it has not seen the latest revision of.
        time.sleep(2 * WATCH_SECONDS)
        for _ in range(5):
            assert bridge.get(uri).status_code == 200
        assert built == 1
