"""What somebody brings from another one counts as said by its author when it has a proof that holds, and in no other
case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.rig import AS, Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge

from threadbridge.signatures.keys import proof_key
from threadbridge.signatures.multikey import multibase_of
from threadbridge.signatures.proofs import prove
from threadbridge.storage.vault import NewKey, new_ed25519_key


@dataclass
class Prover(Stranger):
    """A stranger whose documents are proved (as Mitra's are)."""

    proving: NewKey = field(default_factory=new_ed25519_key)
    method: str = "assertionMethod"

    def actor(self) -> dict[str, Any]:
        listed = {
            "id": f"{self.uri}#ed25519-key",
            "type": "Multikey",
            "controller": self.uri,
            "publicKeyMultibase": multibase_of(self.proving.public_pem),
        }
        return {**super().actor(), self.method: [listed]}

    def proved(
        self, document: dict[str, Any], *, key: NewKey | None = None, at: datetime | None = None, method: str = ""
    ) -> dict[str, Any]:
        private = (key or self.proving).private_pem
        return prove(document, proof_key(method or f"{self.uri}#ed25519-key", private), at or datetime.now(UTC))


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


@pytest.fixture
def alice(bridge: Bridge) -> Iterator[Prover]:
    """The author, on a server of their own."""
    sock = free_socket()
    somebody = Prover(f"http://127.0.0.1:{sock.getsockname()[1]}", name="alison", key=a_key(1))
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


@pytest.fixture
def relay(bridge: Bridge) -> Iterator[Stranger]:
    """Somebody who brings what others said."""
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name="relay", key=a_key(2))
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def test_it_counts_whoever_brings_it_and_once(bridge: Bridge, alice: Prover, relay: Stranger) -> None:
    account = bridge.account()
    me, post, inbox = bridge.ground.ids.actor(account.id), bridge.post(account), f"{bridge.base}/ap/inbox"

    def brought(said: dict[str, Any]) -> None:
        assert relay.post(inbox, alice.proved(said)).status_code == 202

    like, boost = alice.activity("Like", post), alice.activity("Announce", post)
    for said in (like, boost, alice.activity("Create", alice.note(post)), alice.activity("Follow", me)):
        brought(said)
        brought(said)
    assert bridge.count("reactions", undone_at=None, peer_uri=alice.uri) == 2
    assert bridge.count("replies", deleted_at=None, peer_uri=alice.uri) == 1
    assert bridge.count("followers", ended_at=None, peer_uri=alice.uri) == 1
    eventually(lambda: alice.of_kind("Accept"))  # the answer goes to the author
    # The object was not asked for: what is proved needs no origin. The key was asked for once.
    assert alice.fetched == ["/users/alison"]
    brought(alice.activity("Undo", like))
    brought(alice.activity("Undo", boost))
    assert bridge.count("reactions", undone_at=None) == 0
    # Played again by anybody: it was heard already.
    brought(like)
    assert relay.post(inbox, alice.proved(like)).status_code == 202
    assert bridge.count("reactions", undone_at=None) == 0
    # The one who brings it has said nothing.
    assert bridge.count("followers", peer_uri=relay.uri) == 0


Forgery = Callable[[Prover, Stranger, dict[str, Any]], dict[str, Any]]


def changed_after(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return {**alice.proved(said), "summary": "changed on the way"}


def with_an_object_put_in(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return {**alice.proved({**said, "object": f"{said['object']}0"}), "object": said["object"]}


def by_another_key(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return alice.proved(said, key=new_ed25519_key())


def by_the_key_of_the_one_who_brings_it(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return alice.proved(said, key=new_ed25519_key(), method=f"{relay.uri}#ed25519-key")


def by_a_key_of_nobody_there(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return alice.proved(said, method=f"{alice.uri}#other-key")


def by_a_key_for_requests(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return alice.proved(said, method=f"{alice.uri}#main-key")


def long_ago(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return alice.proved(said, at=datetime.now(UTC) - timedelta(days=20))


def in_the_future(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return alice.proved(said, at=datetime.now(UTC) + timedelta(hours=1))


def for_another_purpose(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    made = alice.proved(said)
    return {**made, "proof": {**made["proof"], "proofPurpose": "authentication"}}


def by_another_cryptosuite(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    made = alice.proved(said)
    return {**made, "proof": {**made["proof"], "cryptosuite": "none"}}


def expired(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    made = alice.proved(said)
    return {**made, "proof": {**made["proof"], "expires": "2020-01-01T00:00:00Z"}}


def twice(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    made = alice.proved(said)
    return {**made, "proof": [made["proof"], made["proof"]]}


def inside_only(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    made = alice.proved(said)
    return {**said, "object": {"id": said["object"], "proof": made["proof"]}}


def with_an_ld_signature(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return {**alice.proved(said), "signature": {"type": "RsaSignature2017", "signatureValue": "x"}}


def without_any(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    return said


def rearranged(alice: Prover, relay: Stranger, said: dict[str, Any]) -> dict[str, Any]:
    # Its author really said so; what it says depends on who reads it.
    return alice.proved({**said, "@context": [said["@context"], {"items": "@included"}]})


FORGERIES: list[Forgery] = [
    changed_after, with_an_object_put_in, by_another_key, by_the_key_of_the_one_who_brings_it,
    by_a_key_of_nobody_there, by_a_key_for_requests, long_ago, in_the_future, for_another_purpose,
    by_another_cryptosuite, expired, twice, inside_only, with_an_ld_signature, without_any, rearranged,
]  # fmt: skip


def test_a_forged_one_changes_nothing(bridge: Bridge, alice: Prover, relay: Stranger) -> None:
    account = bridge.account()
    me, post, inbox = bridge.ground.ids.actor(account.id), bridge.post(account), f"{bridge.base}/ap/inbox"
    # Both are known: there is nothing left to be met, and stored, on the way to a refusal.
    for somebody in (alice, relay):
        assert somebody.post(inbox, somebody.activity("Block", me)).status_code == 202
    before = bridge.contents()
    for forge in FORGERIES:
        for kind, about in (("Like", post), ("Announce", post), ("Follow", me)):
            said = alice.activity(kind, about)
            answer = relay.post(inbox, forge(alice, relay, said))
            assert answer.status_code in (400, 401, 403), (forge.__name__, kind, answer.text)
    assert bridge.contents() == before
    # And the rule is not that nothing is believed.
    assert relay.post(inbox, alice.proved(alice.activity("Like", post))).status_code == 202
    assert bridge.count("reactions", undone_at=None) == 1


def test_a_key_that_is_not_for_assertions_asserts_nothing(bridge: Bridge, alice: Prover, relay: Stranger) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    before = bridge.contents()
    # It stands elsewhere in the document, or it is an Ed25519 key for requests.
    alice.method = "authentication"
    assert relay.post(inbox, alice.proved(alice.activity("Like", post))).status_code == 403
    alice.key = alice.proving
    like = alice.activity("Like", post)
    assert relay.post(inbox, alice.proved(like, method=f"{alice.uri}#main-key")).status_code == 403
    assert bridge.contents() == before


def test_a_proof_does_not_make_up_for_a_bad_request(bridge: Bridge, alice: Prover, relay: Stranger) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    before = bridge.contents()
    said = alice.proved(alice.activity("Like", post))
    assert relay.post(inbox, said, key=a_key(3)).status_code == 401
    assert relay.post(inbox, said, at=datetime.now(UTC) - timedelta(hours=3)).status_code == 401
    assert bridge.contents() == before


def test_what_has_no_proof_is_asked_for_at_its_origin_as_before(
    bridge: Bridge, alice: Prover, relay: Stranger
) -> None:
    post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
    note = alice.note(post, "<p>what the origin says</p>")
    alice.objects[note["id"]] = note
    lied = alice.proved(alice.activity("Create", {**note, "content": "<p>lies</p>"}), key=new_ed25519_key())
    assert relay.post(inbox, lied).status_code == 202
    (kept,) = bridge.ground.store.read_now(
        lambda tx: [row.html for row in tx.connection.exec_driver_sql("SELECT html FROM replies")]
    )
    assert kept == "<p>what the origin says</p>"


def test_what_does_not_concern_us_costs_nobody_a_request(bridge: Bridge, alice: Prover, relay: Stranger) -> None:
    bridge.account()
    inbox = f"{bridge.base}/ap/inbox"
    said = alice.proved(alice.activity("Like", "https://elsewhere.example/posts/1"))
    assert relay.post(inbox, said).status_code == 403
    assert alice.fetched == []
    assert AS in said["@context"]
