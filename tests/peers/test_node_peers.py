"""Programs of others agree with ours: `activitypub-testing` passes an actor, and Fedify finds, reads, signs, verifies
and proves with us, in both dialects of signatures and in both directions."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.peers.captured import Captured
from tests.peers.node_peer import Fedify, installed
from tests.peers.populated import Watcher, every_kind
from tests.rig import AS, PUBLIC, Bridge, Served, a_key, eventually, free_socket, running_bridge

from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account
from threadbridge.storage import posts
from threadbridge.storage.store import Tx

PASSED = {
    "actor-must-serve-as2-object-to-get",
    "actor-objects-must-have-inbox-outbox-properties",
    "outbox-must-be-an-orderedcollection",
    "followers-collection-must-be-a-collection",
    "following-collection-must-be-a-collection",
}
SPECS = ("draft-cavage-http-signatures-12", "rfc9421")


@pytest.fixture(scope="module")
def folder() -> Path:
    return installed()


@pytest.fixture(scope="module")
def fedify(folder: Path) -> Iterator[Fedify]:
    running = Fedify(folder)
    yield running
    running.close()


@pytest.fixture(scope="module")
def bridge(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """It stands after `folder`: without Node there is nothing to start it for."""
    with running_bridge(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture(scope="module")
def account(bridge: Bridge) -> Account:
    return bridge.account(bio="Bio with #tag", source_url="https://www.threads.com/@alice")


@pytest.fixture
def watcher(bridge: Bridge) -> Iterator[Watcher]:
    sock = free_socket()
    somebody = Watcher(f"http://127.0.0.1:{sock.getsockname()[1]}", "bob", a_key(1))
    served = Served(bridge.loop, somebody.watching(), sock)
    yield somebody
    served.stop()


@pytest.fixture(scope="module")
def said(bridge: Bridge, account: Account) -> dict[str, str]:
    """A post of every kind that needs no file; {what is special: id}."""

    def add(tx: Tx) -> dict[str, int]:
        made = {
            name: posts.add(tx, account.id, what, [], silent=True)
            for name, (what, media) in every_kind().items()
            if not media
        }
        text, _ = every_kind()["text"]
        quoting = {"quoted_id": made["text"], "quoted_url": "https://www.threads.com/@alice/post/1"}
        made["quote"] = posts.add(tx, account.id, type(text)(**{**_fields(text), **quoting}), [], silent=True)
        return made

    return {
        name: bridge.ground.ids.post(account.id, number)
        for name, number in bridge.ground.store.transact_now(add).items()
    }


def _fields(content: Any) -> dict[str, Any]:
    return {name: getattr(content, name) for name in content.__dataclass_fields__}


# ── activitypub-testing ──────────────────────────────────────────────────────────────────────────────────────────


def test_activitypub_testing_finds_no_fault(folder: Path, bridge: Bridge, account: Account) -> None:
    command = ["node", "--no-warnings", str(folder / "node_modules/activitypub-testing/src/cli.js")]
    actor = bridge.ground.ids.actor(account.id)
    done = subprocess.run([*command, "test", "actor", actor], capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    outcomes = {test["test"]["slug"]: test["result"]["outcome"] for test in told}
    assert len(outcomes) == 15, done.stdout[:2000]
    # "inapplicable" are the tests of client-to-server, which is answered with 405 here.
    assert set(outcomes.values()) == {"passed", "inapplicable"}, outcomes
    assert {slug for slug, outcome in outcomes.items() if outcome == "passed"} >= PASSED


# ── finding and reading ──────────────────────────────────────────────────────────────────────────────────────────


def test_fedify_finds_the_actor_by_every_name(bridge: Bridge, account: Account, fedify: Fedify) -> None:
    uri = bridge.ground.ids.actor(account.id)
    for found in (
        fedify.ask("find", handle=f"alice@{bridge.authority}"),
        fedify.ask("find", handle=f"ALICE@{bridge.authority}"),
        fedify.ask("lookup", what=uri),
        fedify.ask("lookup", what=f"{bridge.base}/@alice"),
    ):
        assert found["kind"] == "Person"
        assert found["id"] == uri
        assert found["handle"] == "alice"
        assert found["inbox"] == f"{uri}/inbox"
        assert found["sharedInbox"] == f"{bridge.base}/ap/inbox"
        assert {"id": f"{uri}#main-key", "owner": uri} in found["keys"]
    server = fedify.ask("lookup", what=f"{bridge.base}/actor")
    assert server["kind"] == "Application"
    assert server["keys"] == [{"id": f"{bridge.base}/actor#main-key", "owner": f"{bridge.base}/actor"}]


def test_fedify_reads_every_kind_of_post(
    bridge: Bridge, account: Account, fedify: Fedify, said: dict[str, str]
) -> None:
    for name, uri in said.items():
        found = fedify.ask("lookup", what=uri)
        assert found["kind"] == ("Question" if name in ("poll", "poll_over") else "Note"), name
        assert found["id"] == uri
        assert found["author"] == bridge.ground.ids.actor(account.id)
        assert found["content"] == bridge.get(uri).json()["content"]
        # By the page's address as well, which has another `url` than its own.
        page = f"{bridge.base}/@alice/{uri.rpartition('/')[2]}"
        assert fedify.ask("lookup", what=page)["id"] == uri
    assert fedify.ask("lookup", what=said["quote"])["quote"] == said["text"]


def test_fedify_reads_every_collection(
    bridge: Bridge, account: Account, fedify: Fedify, said: dict[str, str]
) -> None:
    actor = bridge.get(bridge.ground.ids.actor(account.id)).json()
    for name in ("outbox", "followers", "following", "featured"):
        found = fedify.ask("lookup", what=actor[name])
        assert found["kind"] == "OrderedCollection", name
        assert isinstance(found["total"], int)
    outbox_page = bridge.get(bridge.get(actor["outbox"]).json()["first"]).json()
    read = fedify.ask("read", document=outbox_page)
    assert read["kind"] == "OrderedCollectionPage"
    for activity in outbox_page["orderedItems"]:
        create = fedify.ask("read", document={"@context": outbox_page["@context"], **activity})
        assert create["kind"] == "Create"
        assert create["actor"] == actor["id"]
    for name in ("replies", "likes", "shares"):
        assert fedify.ask("lookup", what=f"{said['text']}/{name}")["kind"] == "Collection"


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spec", SPECS)
def test_what_fedify_signs_is_taken_and_what_is_bent_is_not(
    bridge: Bridge, account: Account, fedify: Fedify, said: dict[str, str], watcher: Watcher, spec: str
) -> None:
    signer = {"spec": spec, "privatePem": watcher.key.private_pem.decode(), "keyId": watcher.key_id, "method": "POST"}

    def send(url: str, activity: dict[str, Any], **more: Any) -> dict[str, Any]:
        body = base64.b64encode(orjson.dumps(activity)).decode()
        answer: dict[str, Any] = fedify.ask("send", url=url, body=body, **{**signer, **more})
        assert ("signature-input" in answer["headers"]) == (spec == "rfc9421")
        return answer

    before = bridge.everything()
    like = watcher.activity("Like", said["text"])
    inbox = f"{bridge.base}/ap/inbox"
    other = base64.b64encode(orjson.dumps({**like, "object": said["poll"]})).decode()
    assert send(inbox, like, bent=other)["status"] == 401
    assert send(inbox, like, privatePem=a_key(3).private_pem.decode())["status"] == 401
    assert {**bridge.everything(), "peers": 0} == {**before, "peers": 0}
    assert send(inbox, like)["status"] == 202
    assert bridge.everything()["reactions"] == before["reactions"] + 1
    follow = watcher.activity("Follow", bridge.ground.ids.actor(account.id))
    assert send(f"{bridge.ground.ids.actor(account.id)}/inbox", follow)["status"] == 202
    eventually(lambda: watcher.of_kind("Accept"))


def judged(fedify: Fedify, base: str, request: Captured) -> Any:
    spec = SPECS[1] if request.header("signature-input") else SPECS[0]
    return fedify.ask(
        "verify", method=request.method, url=f"{base}{request.target}", headers=request.headers, spec=spec,
        body=base64.b64encode(request.body).decode(),
    )  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_fedify_verifies_every_request_of_ours(
    bridge: Bridge, account: Account, fedify: Fedify, watcher: Watcher, spec: str
) -> None:
    uri = bridge.ground.ids.actor(account.id)
    if spec == "rfc9421":
        watcher.answer = lambda number: 202 if watcher.captured[-1].header("signature-input") else 401
    assert watcher.post(f"{uri}/inbox", watcher.activity("Follow", uri)).status_code == 202
    eventually(lambda: watcher.of_kind("Accept"))

    def publish(tx: Tx) -> None:
        for what, media in every_kind().values():
            if not media:
                outbox.publish(
                    tx, bridge.ground.ids, account, posts.add(tx, account.id, what, [], silent=False)
                )  # fmt: skip

    bridge.ground.store.transact_now(publish)
    wanted = sum(not media for _, media in every_kind().values())
    eventually(lambda: len(watcher.of_kind("Create")) >= wanted)
    requests = [request for request in watcher.captured if spec == SPECS[0] or request.header("signature-input")]
    assert {request.method for request in watcher.captured} == {"GET", "POST"}
    assert len(requests) > wanted
    for request in requests:
        signer = f"{bridge.base}/actor" if request.method == "GET" else uri
        assert judged(fedify, watcher.base, request) == {"id": f"{signer}#main-key", "owner": signer}
    post = next(request for request in requests if request.method == "POST")
    bent = Captured(post.method, post.target, post.headers, post.body + b" ", post.at)
    assert judged(fedify, watcher.base, bent) is None
    elsewhere = Captured(post.method, f"{post.target}x", post.headers, post.body, post.at)
    assert judged(fedify, watcher.base, elsewhere) is None
    for activity in watcher.received:
        assert fedify.ask("read", document=activity)["kind"] == activity["type"]
    assert watcher.post(f"{uri}/inbox", watcher.activity("Undo", watcher.activity("Follow", uri))).status_code == 202


# ── integrity proofs ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Prover(Watcher):
    """Somebody whose actor publishes an Ed25519 key for integrity proofs (FEP-521a)."""

    multibase: str = ""

    @property
    def method(self) -> str:
        return f"{self.uri}#ed25519-key"

    def actor(self) -> dict[str, Any]:
        key = {"id": self.method, "type": "Multikey", "controller": self.uri, "publicKeyMultibase": self.multibase}
        return {
            **super().actor(),
            "@context": [AS, "https://w3id.org/security/v1", "https://w3id.org/security/multikey/v1"],
            "assertionMethod": [key],
        }


def test_fedify_finds_our_proofs_good(
    bridge: Bridge, account: Account, fedify: Fedify, said: dict[str, str], watcher: Watcher
) -> None:
    uri = bridge.ground.ids.actor(account.id)
    (method,) = fedify.ask("lookup", what=uri)["methods"]
    assert method["controller"] == uri
    assert method["algorithm"] == "Ed25519"
    assert watcher.post(f"{uri}/inbox", watcher.activity("Follow", uri)).status_code == 202
    eventually(lambda: watcher.of_kind("Accept"))
    documents = [*watcher.received, bridge.get(uri).json(), *(bridge.get(post).json() for post in said.values())]
    proved = [document for document in documents if "proof" in document]
    assert any(document["type"] == "Accept" for document in proved)
    assert any(document["type"] == "Note" for document in proved)
    for document in proved:
        assert fedify.ask("proven", document=document) == [method["id"]], document["id"]
        bent = {**document, "actor" if "actor" in document else "name": "https://other.example/actor"}
        assert fedify.ask("proven", document=bent) == []


def test_what_fedify_proved_is_believed_whoever_brings_it(
    bridge: Bridge, fedify: Fedify, said: dict[str, str], watcher: Watcher
) -> None:
    sock = free_socket()
    prover = Prover(f"http://127.0.0.1:{sock.getsockname()[1]}", "carol", a_key(2))
    prover.multibase = fedify.ask("proofKey")["multibase"]
    served = Served(bridge.loop, prover.watching(), sock)
    try:
        inbox = f"{bridge.base}/ap/inbox"
        answer = prover.activity("Create", prover.note(said["text"], "<p>proved</p>"), to=[PUBLIC])
        document = fedify.ask("prove", document=answer, keyId=prover.method)
        assert document["proof"]["cryptosuite"] == "eddsa-jcs-2022"
        before = bridge.everything()
        forged = {**document, "object": {**document["object"], "content": "<p>forged</p>"}}
        assert watcher.post(inbox, forged).status_code in (202, 401, 403)
        assert bridge.count("replies") == before["replies"]
        prover.captured.clear()
        assert watcher.post(inbox, document).status_code == 202
        assert bridge.count("replies", html="<p>proved</p>") == 1
        # Nobody had to be asked for the post itself.
        assert not [request for request in prover.captured if "/notes/" in request.target]
    finally:
        served.stop()
