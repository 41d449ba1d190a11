"""An account is deleted: it can be taken back for a while, then everybody who ever got anything is told, and what
stays are numbers that answer 410 for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.rig import PUBLIC, Bridge, Served, Stranger, a_key, eventually, free_socket
from tests.world.download_samples import picture

from threadbridge import worker
from threadbridge.delivery import outbox
from threadbridge.errors import Conflict, Gone, NotFound
from threadbridge.federation import farewell
from threadbridge.storage import accounts, farewells, jobs, keys, posts, profiles, schema
from threadbridge.storage.posts import NewAttachment, PostContent
from threadbridge.storage.store import Tx

SECRET = "unmistakable"
"""Stands in everything that the owner wrote."""


def ask(bridge: Bridge, account_id: int, cooling: timedelta = timedelta(0)) -> None:
    bridge.ground.store.transact_now(farewell.ask, account_id, "test", cooling)


def hurry(bridge: Bridge) -> None:
    """What waits for a time waits no more."""

    def now(tx: Tx) -> None:
        tx.execute(update(schema.jobs).where(schema.jobs.c.kind == "farewell").values(due_at=tx.now))

    bridge.ground.store.transact_now(now)


def phase(bridge: Bridge, account_id: int) -> str:
    held = bridge.ground.store.read_now(farewells.of_account, account_id)
    return held.phase if held else ""


def everything_written(bridge: Bridge) -> str:
    """All texts and bytes of the whole database."""

    def read(tx: Tx) -> str:
        return "\n".join(str(tuple(row)) for t in schema.metadata.sorted_tables for row in tx.execute(select(t)))

    return bridge.ground.store.read_now(read)


def with_picture(bridge: Bridge, account_id: int, text: str, file: Path, width: int) -> str:
    """A post that shows a picture; returns its hash. Its file looks old enough to be removed."""
    file.write_bytes(picture("PNG", size=(width, 20)))
    row = bridge.ground.media.ingest(file, kind_hint="image")
    os.utime(bridge.ground.media.path(row.sha256, row.media_type), (1, 1))

    def add(tx: Tx) -> None:
        posts.add_media(tx, row)
        content = PostContent(
            kind="post", text=text, language="en", published=tx.now, tags=(text.split(maxsplit=1)[0],)
        )
        posts.add(tx, account_id, content, [NewAttachment("image", text, "k", sha256=row.sha256)], silent=True)

    bridge.ground.store.transact_now(add)
    return row.sha256


def test_an_account_goes_and_everybody_is_told(
    bridge: Bridge, stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "KEY_STAYS", timedelta(hours=12))
    store, ids = bridge.ground.store, bridge.ground.ids
    account = bridge.account(
        name=f"Alice {SECRET}", bio=f"{SECRET} bio", source_url=f"https://www.threads.com/@{SECRET}"
    )
    other = bridge.account("carol")
    actor, inbox = ids.actor(account.id), f"{ids.actor(account.id)}/inbox"
    note = bridge.post(account, f"{SECRET} text")
    post_id = ids.post_ids(note)
    assert post_id is not None
    shared = with_picture(bridge, account.id, f"{SECRET} shared", tmp_path / "a.png", 31)
    alone = with_picture(bridge, account.id, f"{SECRET} alone", tmp_path / "b.png", 32)
    assert shared == with_picture(bridge, other.id, "another's", tmp_path / "c.png", 31)
    store.transact_now(profiles.set_fields, account.id, [("Site", f"{SECRET} field")])
    store.transact_now(accounts.rename, account.id, "alicia")

    # One follows, one followed once, one only liked, one is a server that got a post and whose people all left.
    hosts = [stranger]
    served = []
    for number in range(3):
        sock = free_socket()
        hosts.append(
            Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name=f"bob{number}", key=a_key(2 + number))
        )
        served.append(Served(bridge.loop, hosts[-1].create_app(), sock))
    follower, former, liker, receiver = hosts
    follower.post(inbox, follower.activity("Follow", actor))
    follow = former.activity("Follow", actor)
    former.post(inbox, follow)
    former.post(inbox, former.activity("Undo", follow))
    liker.post(inbox, liker.activity("Like", note))
    receiver.post(inbox, receiver.activity("Follow", actor))
    store.transact_now(outbox.publish, ids, account, post_id[1])
    eventually(lambda: receiver.of_kind("Create") and follower.of_kind("Create"))

    def only_the_ledger_remembers(tx: Tx) -> None:
        tx.execute(schema.followers.delete().where(schema.followers.c.peer_uri == receiver.uri))
        tx.execute(update(schema.accounts).where(schema.accounts.c.id == account.id).values(followers_count=1))

    store.transact_now(only_the_ledger_remembers)
    replied = follower.activity("Create", follower.note(note, f"<p>{SECRET} answer</p>"), to=[PUBLIC])
    assert follower.post(inbox, replied).status_code == 202

    ask(bridge, account.id)
    for somebody in hosts:
        told = eventually(partial(somebody.of_kind, "Delete"))
        assert [(one["actor"], one["object"], one["id"]) for one in told] == [(actor, actor, f"{actor}#delete")]
    eventually(lambda: phase(bridge, account.id) == "keeping")

    # While it is being told the key can be read, and nothing else.
    document = bridge.get(actor)
    assert document.status_code == 200
    assert document.json()["publicKey"]["publicKeyPem"] == store.read_now(keys.public_key, account.id)
    assert document.json()["suspended"] is True
    assert SECRET not in document.text
    gone_already(bridge, actor, note, other_handle="alice")

    before = bridge.everything()
    assert follower.post(inbox, follower.activity("Follow", actor)).status_code == 410
    assert bridge.everything() == before
    # By way of the shared inbox it is accepted, as everything is, and has no effect.
    follower.post(f"{bridge.base}/ap/inbox", follower.activity("Like", note))
    assert bridge.count("reactions", account_id=account.id) == before["reactions"]

    eventually(lambda: not bridge.count("deliveries", state="waiting"))
    hurry(bridge)
    eventually(lambda: (held := store.read_now(farewells.of_account, account.id)) and held.told_at)
    hurry(bridge)  # twelve hours have not passed: nothing is erased
    assert phase(bridge, account.id) == "keeping"
    assert store.read_now(keys.public_key, account.id)

    monkeypatch.setattr(farewell, "KEY_STAYS", timedelta(0))
    hurry(bridge)
    eventually(lambda: phase(bridge, account.id) == "done")
    with pytest.raises(NotFound):
        store.read_now(keys.public_key, account.id)
    gone_already(bridge, actor, note, other_handle="alice")
    tombstone = bridge.get(actor)
    assert (tombstone.status_code, tombstone.json()["type"]) == (410, "Tombstone")
    assert SECRET not in everything_written(bridge)
    assert not bridge.ground.media.path(alone, "image/png").exists()
    assert bridge.ground.media.path(shared, "image/png").exists()
    assert bridge.count("posts", account_id=account.id) == 3
    assert bridge.count("farewells", account_id=account.id) == 1
    assert not bridge.count("jobs", kind="farewell")
    # The other one lost nothing.
    assert bridge.get(ids.actor(other.id)).status_code == 200
    assert bridge.count("attachments") == 1

    # Neither name nor number comes back.
    for handle in ("alice", "alicia"):
        with pytest.raises(Conflict):
            bridge.account(handle)
    with pytest.raises(Conflict):
        store.transact_now(accounts.rename, other.id, "alice")
    assert bridge.account("dora").id > other.id
    with pytest.raises(Gone):
        ask(bridge, account.id)
    for one in served:
        one.stop()


def gone_already(bridge: Bridge, actor: str, note: str, *, other_handle: str) -> None:
    for path, kind in ((note, "Tombstone"), (f"{note}/activity", "Tombstone")):
        answer = bridge.get(path)
        assert (answer.status_code, answer.json().get("type")) == (410, kind)
    for path in (f"{actor}/outbox", f"{actor}/outbox?page=true", f"{actor}/followers",
                 f"{actor}/collections/featured",
                 f"{note}/replies", "/@alicia", f"/@{other_handle}", f"/.well-known/webfinger?resource={actor}",
                 f"/.well-known/webfinger?resource=acct:alicia@{bridge.authority}",
                 f"/.well-known/webfinger?resource=acct:{other_handle}@{bridge.authority}"):  # fmt: skip
        assert bridge.get(path).status_code == 410, path
        if "/@" in path:
            page = bridge.get(path, "text/html")
            assert page.status_code == 410
            assert SECRET not in page.text


def test_a_deletion_can_be_taken_back_until_it_begins(bridge: Bridge, stranger: Stranger) -> None:
    store = bridge.ground.store
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    ask(bridge, account.id, timedelta(days=7))
    with pytest.raises(Conflict):
        ask(bridge, account.id)
    from threadbridge.bridge import pause

    with pytest.raises(Conflict, match="about to be deleted"):
        store.transact_now(pause.resume, account.id, "test")
    held = store.read_now(accounts.by_id, account.id)
    assert held is not None
    assert held.state == "paused"
    assert bridge.get(actor).status_code == 200
    store.transact_now(farewell.take_back, account.id, "test")
    held = store.read_now(accounts.by_id, account.id)
    assert held is not None
    assert held.state == "active"
    assert not bridge.count("jobs", kind="farewell")
    before = bridge.everything()
    with pytest.raises(Conflict, match="no deletion"):
        store.transact_now(farewell.take_back, account.id, "test")
    assert bridge.everything() == before

    ask(bridge, account.id)
    eventually(lambda: stranger.of_kind("Delete"))
    before = bridge.everything()
    with pytest.raises(Conflict, match="cannot be taken back"):
        store.transact_now(farewell.take_back, account.id, "test")
    assert bridge.everything() == before


@pytest.mark.parametrize("after", range(1, 9))
def test_a_worker_killed_after_any_step_is_succeeded(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.rig import running_bridge

    monkeypatch.setattr(farewell, "KEY_STAYS", timedelta(0))
    monkeypatch.setattr(farewell, "CHUNK", 1)
    monkeypatch.setattr(farewell, "ERASED_TOGETHER", 1)
    with running_bridge(tmp_path / "data", worker=False) as bridge:
        sock = free_socket()
        stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.create_app(), sock)
        account = bridge.account(bio=SECRET)
        actor = bridge.ground.ids.actor(account.id)
        for number in range(3):
            bridge.post(account, f"{SECRET} {number}")
        stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
        ask(bridge, account.id)

        async def killed() -> None:
            store, made = bridge.services.store, 0
            whole = store.transact

            async def counted(work: Callable[..., Any], *args: Any, **more: Any) -> Any:
                nonlocal made
                if made == after:
                    raise KeyboardInterrupt
                made += 1
                return await whole(work, *args, **more)

            taken = await whole(jobs.take, [farewells.FAREWELL], 0.0, 1)
            store.transact = counted  # type: ignore[method-assign]
            try:
                for job in taken:
                    await worker._farewell(bridge.services, job, lambda: False)
            except KeyboardInterrupt:
                pass
            finally:
                del store.transact

        bridge.loop.run(killed())
        bridge.start_worker()
        eventually(lambda: stranger.of_kind("Delete"))

        def over() -> bool:
            hurry(bridge)
            return phase(bridge, account.id) == "done"

        eventually(over)
        assert SECRET not in everything_written(bridge)
        assert bridge.count("activities", kind="Delete") == 1
        assert len(stranger.of_kind("Delete")) == 1
        served.stop()
