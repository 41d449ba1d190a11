"""People on other servers, as far as the rows go: keys change hands, ends stay ends, figures stay right."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.world.deliverable import account, follower, post, rows

from threadbridge.domain.people import Peer, PeerKey
from threadbridge.storage import followers, peers, reactions, seen
from threadbridge.storage.store import Store


def save(store: Store, peer: Peer) -> None:
    store.transact_now(peers.save, peer, "a.example")


def test_a_key_that_passes_to_another_actor_is_no_trouble(store: Store) -> None:
    # An account is deleted and made anew on the same server, and its key document names the new one.
    old = follower(store, account(store), "bob", "a.example")
    new = replace(old, uri="https://a.example/users/bob2")
    save(store, new)
    found = store.read_now(peers.by_key, old.key_id)
    assert found is not None
    assert found.uri == new.uri
    # Back and forth, and the old one can show a key of its own again.
    save(store, old)
    save(store, new)
    save(store, replace(old, key_id="https://a.example/users/bob#second"))
    assert {row.peer_uri: row.key_id for row in rows(store, "peer_keys")} == {
        old.uri: "https://a.example/users/bob#second",
        new.uri: old.key_id,
    }


def test_an_actor_has_the_keys_that_its_document_lists_and_no_others(store: Store) -> None:
    first, second = PeerKey("https://a.example/k#1", "one"), PeerKey("https://a.example/k#2", "two", asserts=True)
    somebody = follower(store, account(store), "bob", "a.example")
    save(store, replace(somebody, key_id=first.id, key_pem=first.pem, keys=(first, second)))
    met = store.read_now(peers.by_key, second.id)
    assert met is not None
    assert (met.uri, met.key_id, met.key_pem, met.keys) == (somebody.uri, second.id, "two", (first, second))
    known = store.read_now(peers.by_uri, somebody.uri)
    assert known is not None
    assert known.key_id == first.id
    save(store, replace(somebody, key_id=second.id, key_pem=second.pem, keys=(second,)))
    assert store.read_now(peers.by_key, first.id) is None
    assert [row.key_id for row in rows(store, "peer_keys")] == [second.id]


def test_very_long_ids_fit(store: Store) -> None:
    somebody = follower(store, account(store), "bob", "a.example")
    long = replace(somebody, uri=f"https://a.example/users/{'x' * 2000}", key_id="https://a.example/key")
    save(store, long)
    save(store, replace(somebody, uri="https://a.example/users/new", key_id=long.key_id))
    assert len(rows(store, "peers")) == 3


def test_following_twice_counts_once_and_leaving_twice_too(store: Store) -> None:
    alice = account(store)
    peer = follower(store, alice, "bob", "a.example")
    follower(store, alice, "bob", "a.example")
    assert rows(store, "accounts")[0].followers_count == 1
    assert store.transact_now(followers.end, alice, peer.uri, cause="unfollowed") is True
    assert store.transact_now(followers.end, alice, peer.uri, cause="unfollowed") is False
    assert rows(store, "accounts")[0].followers_count == 0
    follower(store, alice, "bob", "a.example")
    (row,) = rows(store, "followers")
    assert (row.ended_at, row.ended_by) == (None, None)
    assert rows(store, "accounts")[0].followers_count == 1


def test_a_moved_inbox_takes_the_copies_with_it(store: Store) -> None:
    alice = account(store)
    peer = follower(store, alice, "bob", "a.example")
    store.transact_now(followers.move_inbox, replace(peer, shared_inbox=None, inbox="https://a.example/new"))
    assert store.read_now(followers.reach, alice) == [(1, "https://a.example/new")]


def test_all_that_somebody_did_ends_with_them(store: Store) -> None:
    alice = account(store)
    number = post(store, alice)
    bob, carol = (follower(store, alice, name, "a.example") for name in ("bob", "carol"))
    for peer in (bob, carol):
        store.transact_now(reactions.react, alice, number, peer.uri, "like", f"{peer.uri}/like")
        store.transact_now(reactions.react, alice, number, peer.uri, "announce", f"{peer.uri}/boost")
    assert store.read_now(peers.conversers, number) == ["https://a.example/inbox"]
    store.transact_now(peers.bury, bob.uri)
    (row,) = rows(store, "posts")
    assert (row.likes_count, row.shares_count) == (1, 1)
    assert rows(store, "accounts")[0].followers_count == 1
    assert store.read_now(peers.known, bob.uri) is False
    assert store.read_now(peers.by_uri, bob.uri) is None


@pytest.mark.parametrize("times", [1, 3])
def test_an_id_is_heard_once_and_forgotten_after_its_time(store: Store, times: int) -> None:
    heard = [store.transact_now(seen.first_hearing, "https://a/1", "https://a", "done") for _ in range(times)]
    assert heard == [True] + [False] * (times - 1)
    assert store.transact_now(lambda tx: seen.forget(tx, tx.now - timedelta(days=1))) == 0
    store.transact_now(seen.first_hearing, "https://a/2", "https://a", "done")
    # Some at a time, or whoever writes would wait.
    for left in (1, 1, 0):
        assert store.transact_now(lambda tx: seen.forget(tx, tx.now + timedelta(days=1), limit=1)) == left
    assert store.transact_now(seen.first_hearing, "https://a/1", "https://a", "done") is True


def test_reach_lists_in_pieces_whoever_comes_and_goes(store: Store) -> None:
    alice = account(store)
    everybody = [follower(store, alice, f"p{n}", f"h{n}.example") for n in range(12)]
    first = store.read_now(followers.reach, alice, limit=5)
    store.transact_now(followers.end, alice, everybody[7].uri, cause="unfollowed")
    second = store.read_now(followers.reach, alice, after_id=first[-1][0], limit=5)
    third = store.read_now(followers.reach, alice, after_id=second[-1][0], limit=5)
    found = [inbox for _, inbox in (*first, *second, *third)]
    assert found == [f"https://h{n}.example/inbox" for n in range(12) if n != 7]
