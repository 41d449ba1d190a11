"""What an account here says to another one here is heard like everything, and no request to ourselves ever leaves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.crowd import crowd, drained, follow, ledger_rows, publish, retract, revise

from threadbridge.activitypub import outgoing
from threadbridge.domain.accounts import Account
from threadbridge.federation import farewell
from threadbridge.net.client import Client
from threadbridge.storage import jobs, ledger, posts, schema
from threadbridge.storage.store import Tx


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that this server asks or posts to."""
    seen: list[str] = []
    for name in ("post", "get"):
        real = getattr(Client, name)

        async def watched(self: Client, url: str, *args: Any, real: Any = real, **given: Any) -> Any:
            seen.append(url)
            return await real(self, url, *args, **given)

        monkeypatch.setattr(Client, name, watched)
    return seen


@pytest.fixture
def bridge(tmp_path: Path, asked: list[str]) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


def named(bridge: Bridge, handle: str) -> Account:
    return bridge.account(handle, source_url=f"https://www.threads.com/@{handle}")


def mentions(bridge: Bridge, account: Account) -> list[Any]:
    m = schema.mentions
    query = m.select().where(m.c.account_id == account.id, m.c.deleted_at.is_(None))
    return bridge.ground.store.read_now(lambda tx: list(tx.execute(query)))


def test_who_is_named_here_reads_it_with_its_edits_until_it_is_deleted(bridge: Bridge, asked: list[str]) -> None:
    alice, bob = named(bridge, "alice"), named(bridge, "bob")
    with crowd(bridge.loop) as people:
        follow(bridge, alice, people, "carol")
        post_id = publish(bridge, alice, "Look, @bob, a bird")
        (held,) = eventually(lambda: mentions(bridge, bob))
        assert held.uri == bridge.ground.ids.post(alice.id, post_id)
        assert held.peer_uri == bridge.ground.ids.actor(alice.id)
        assert "a bird" in held.html
        assert mentions(bridge, alice) == []
        drained(bridge)
        revise(bridge, alice, post_id, "Look, @bob, two birds")
        eventually(lambda: "two birds" in mentions(bridge, bob)[0].html)
        retract(bridge, alice, post_id)
        eventually(lambda: not mentions(bridge, bob))
        drained(bridge)
        # The others got the same, over the network; the receipts do not differ.
        assert [a.kind for a in people.deliveries()] == ["Create", "Update", "Delete"]
        own = [row for row in ledger_rows(bridge) if row.host == bridge.authority]
        assert [(row.state, row.status, row.attempts) for row in own] == [("delivered", 202, 1)] * 3
        assert [url for url in asked if url.startswith(bridge.base)] == []
        assert people.base in {url[: len(people.base)] for url in asked}
        # We are no stranger to ourselves.
        assert bridge.count("hosts", host=bridge.authority) == 0


def test_a_part_of_a_thread_that_names_somebody_is_a_mention_and_no_answer_to_its_own_author(bridge: Bridge) -> None:
    alice, bob = named(bridge, "alice"), named(bridge, "bob")
    first = publish(bridge, alice, "A thread")
    second = int(bridge.post(alice, "and @bob").rsplit("/", 1)[1])

    def say(tx: Tx) -> None:
        from threadbridge.delivery import outbox

        p = schema.posts
        tx.execute(p.update().where(p.c.id == second).values(parent_id=first, thread_id=first, silent=False))
        outbox.publish(tx, bridge.ground.ids, alice, second)

    bridge.ground.store.transact_now(say)
    assert len(eventually(lambda: mentions(bridge, bob))) == 1
    drained(bridge)
    assert bridge.count("replies") == 0
    assert bridge.count("jobs", kind="climb_thread") == 0


def test_a_repost_of_a_post_here_is_counted_until_it_is_taken_back(bridge: Bridge, asked: list[str]) -> None:
    alice, bob = named(bridge, "alice"), named(bridge, "bob")
    original = publish(bridge, bob, "A bird")
    repost = int(bridge.post(alice, "").rsplit("/", 1)[1])
    ids = bridge.ground.ids

    def say(tx: Tx) -> None:
        from threadbridge.delivery import outbox

        p = schema.posts
        tx.execute(p.update().where(p.c.id == repost).values(kind="repost", silent=False))
        posts.announce(tx, repost, ids.post(bob.id, original), ids.actor(bob.id))
        outbox.publish(tx, ids, alice, repost)

    def shares() -> int:
        post = bridge.ground.store.read_now(posts.by_id, bob.id, original)
        assert post is not None
        return post.shares_count

    bridge.ground.store.transact_now(say)
    eventually(lambda: shares() == 1)
    retract(bridge, alice, repost)
    eventually(lambda: shares() == 0)
    assert [url for url in asked if url.startswith(bridge.base)] == []


def test_a_deleted_account_is_forgotten_by_those_it_named(bridge: Bridge, asked: list[str]) -> None:
    alice, bob = named(bridge, "alice"), named(bridge, "bob")
    publish(bridge, alice, "Bye, @bob")
    eventually(lambda: mentions(bridge, bob))
    drained(bridge)
    bridge.ground.store.transact_now(farewell.ask, alice.id, "a test", timedelta(0))
    eventually(lambda: not mentions(bridge, bob))
    assert [url for url in asked if url.startswith(bridge.base)] == []


def test_what_the_ledger_holds_in_the_name_of_another_is_refused_and_changes_nothing(bridge: Bridge) -> None:
    """The forged twin: bytes under alice's number that say they are bob's, or about a post that is not hers."""
    alice, bob, nora = (named(bridge, name) for name in ("alice", "bob", "nora"))
    ids, store = bridge.ground.ids, bridge.ground.store
    post_id = publish(bridge, alice, "Hello @nora")
    eventually(lambda: mentions(bridge, nora))
    drained(bridge)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def forge(number: int, kind: str, author: str, object_: Any) -> int:
        said = {
            "@context": "https://www.w3.org/ns/activitystreams", "id": f"{author}#forged-{number}", "type": kind,
            "actor": author, "object": object_, "to": [ids.actor(nora.id)], "cc": [],
        }  # fmt: skip

        def write(tx: Tx) -> int:
            made = ledger.add_activity(
                tx, account_id=bob.id, uri=said["id"], kind=kind, order_key=said["id"],
                body=outgoing.encode(orjson.loads(orjson.dumps(said))), addressed=True,
            )  # fmt: skip
            assert made is not None
            activity = ledger.activity(tx, made)
            assert activity is not None
            ledger.add_deliveries(tx, activity, [(ids.shared_inbox, bridge.authority)], lane=ledger.LANE_ANSWER)
            return made

        return store.transact_now(write)

    mine, hers = ids.actor(bob.id), ids.actor(alice.id)
    uri = ids.post(alice.id, post_id)
    note = {"id": f"{hers}/posts/99", "type": "Note", "attributedTo": hers, "content": "<p>Forged</p>",
            "published": now, "to": [ids.actor(nora.id)], "cc": []}  # fmt: skip
    before = {
        name: n for name, n in bridge.everything().items() if name in ("mentions", "replies", "reactions", "peers")
    }
    kept = [row.html for row in mentions(bridge, nora)]
    bridge.stop_worker()
    as_alice = [forge(1, "Create", hers, note), forge(2, "Delete", hers, {"id": uri, "type": "Tombstone"})]
    as_bob = [
        forge(3, "Delete", mine, {"id": uri, "type": "Tombstone"}),
        forge(4, "Update", mine, {**note, "id": uri}),
    ]
    bridge.start_worker()

    def tried(number: int) -> list[Any]:
        return [row for row in ledger_rows(bridge, activity_id=number) if row.attempts]

    for number in (*as_alice, *as_bob):
        eventually(partial(tried, number))
    ended = {number: tried(number)[0] for number in (*as_alice, *as_bob)}
    assert {ended[number].status for number in as_alice} == {403}
    assert [row.html for row in mentions(bridge, nora)] == kept
    after = {name: n for name, n in bridge.everything().items() if name in before}
    assert {**after, "peers": 0} == {**before, "peers": 0}
    assert bridge.count("jobs", kind=jobs.key_of("climb_thread")) == 0
