"""After a deletion a signed certificate says who was told, when, and what each answered; a changed one is refused."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select, update
from tests.browser.site import Site
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.command_line import CommandLine
from tests.stories.crowd import Reply, crowd, drained, follow, publish, retract

from threadbridge.domain.accounts import Account
from threadbridge.federation import farewell
from threadbridge.portability import certificates
from threadbridge.signatures.multikey import from_base58btc
from threadbridge.storage import farewells, ledger, rollups, schema
from threadbridge.storage.store import Tx

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "erasure-certificate.schema.json").read_text())


def valid(made: dict[str, Any]) -> None:
    """By the schema in the documents, and by the public key in it, with nobody's code but the libraries'."""
    pytest.importorskip("jsonschema").validate(made, SCHEMA)
    proof = dict(made["proof"])
    signature = from_base58btc(proof.pop("proofValue"))
    raw = from_base58btc(made["key"]["publicKeyMultibase"])
    assert signature is not None
    assert raw is not None
    plain = {name: value for name, value in made.items() if name != "proof"}
    hashed = hashlib.sha256(rfc8785.dumps(proof)).digest() + hashlib.sha256(rfc8785.dumps(plain)).digest()
    try:
        Ed25519PublicKey.from_public_bytes(raw[2:]).verify(signature, hashed)
    except InvalidSignature:
        pytest.fail("the proof does not hold")


def of_post(bridge: Bridge, account: Account, number: int) -> dict[str, Any]:
    with Site(bridge).signed_in(account) as client:
        answer = client.get(f"/owner/posts/{number}/certificate.json")
        assert answer.status_code == 200, answer.text
        assert "no-store" in answer.headers["cache-control"]
        made: dict[str, Any] = answer.json()
    valid(made)
    assert certificates.check(made).problems == ()
    return made


def test_a_deleted_post_has_a_certificate_that_only_its_owner_gets(bridge: Bridge) -> None:
    account, other = bridge.account("alice"), bridge.account("other")
    with crowd(bridge.loop) as well, crowd(bridge.loop) as away:
        for people, name in ((well, "ann"), (away, "ben")):
            follow(bridge, account, people, name)
        number, stays = publish(bridge, account, "Regretted"), publish(bridge, account, "Stays")
        drained(bridge)
        away.script = lambda _: Reply(503)
        retract(bridge, account, number)
        eventually(lambda: len(well.of_kind("Delete")) == 1 and len(away.deliveries("Delete")) == 1)
        eventually(lambda: of_post(bridge, account, number)["counts"] == {"delivered": 1, "waiting": 1})
        made = of_post(bridge, account, number)
        said = next(one["object"] for one in well.of_kind("Create") if "Regretted" in one["object"]["content"])
        (object_,) = made["objects"]
        assert object_["id"] == said["id"]
        assert object_["sha256"] == hashlib.sha256(rfc8785.dumps(said)).hexdigest()
        assert made["subject"] == {"type": "post", "id": said["id"]}
        assert not made["complete"]
        told, waits = sorted(made["hosts"], key=lambda entry: str(entry["state"]))
        assert (told["host"], told["status"]) == (well.base.removeprefix("http://"), 202)
        assert (waits["state"], waits["status"]) == ("waiting", 503)
        assert waits["triedUntil"] > waits["nextTryAt"] > made["deletedAt"]
        published = bridge.get("/actor").json()["assertionMethod"]
        keys = [key["publicKeyMultibase"] for key in (published if isinstance(published, list) else [published])]
        assert made["key"]["publicKeyMultibase"] in keys
        before = bridge.everything()
        with Site(bridge).signed_in(other) as stranger:
            assert stranger.get(f"/owner/posts/{number}/certificate.json").status_code == 404
        with Site(bridge).signed_in(account) as client:
            assert client.get(f"/owner/posts/{stays}/certificate.json").status_code == 404
        assert bridge.get(f"/owner/posts/{number}/certificate.json", "text/html").status_code == 401
        signing_in = {"sessions": 0, "sign_in_links": 0}
        assert {**bridge.everything(), **signing_in} == {**before, **signing_in}

        def give_up(tx: Tx) -> None:
            d = schema.deliveries
            tx.execute(
                update(d).where(d.c.state == "waiting").values(state="given_up", ended_at=tx.now, leased_until=None)
            )

        bridge.stop_worker()
        bridge.ground.store.transact_now(give_up)
        ended = of_post(bridge, account, number)
        assert ended["complete"]
        assert ended["counts"] == {"delivered": 1, "given_up": 1}
        aged(bridge)
        assert bridge.count("deliveries", post_id=number) == 0
        later = of_post(bridge, account, number)
        assert {entry["host"]: entry["state"] for entry in later["hosts"]} == {
            entry["host"]: entry["state"] for entry in ended["hosts"]
        }
        assert later["objects"][0]["sha256"] == object_["sha256"], "also when the words are erased"
        assert of_post(bridge, account, number) == later, "the same bytes for ever"


def aged(bridge: Bridge) -> None:
    """Thirty-one days go by, and what ended goes into the roll-ups."""

    def age(tx: Tx) -> None:
        a, d = schema.activities, schema.deliveries
        tx.execute(update(a).values(created_at=tx.now - timedelta(days=31)))
        tx.execute(update(d).where(d.c.ended_at.is_not(None)).values(ended_at=tx.now - timedelta(days=31)))
        rollups.step(tx, 0)

    bridge.ground.store.transact_now(age)


def test_a_deleted_account_has_a_certificate_behind_its_code(bridge: Bridge, tmp_path: Path) -> None:
    account = bridge.account("alice", name="Unmistakable Name", bio="unmistakable bio")
    store, vault, ids = bridge.ground.store, bridge.ground.vault, bridge.ground.ids
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "ann")
        publish(bridge, account, "unmistakable words")
        drained(bridge)
        store.transact_now(farewell.ask, account.id, "test", timedelta(0))
        code = store.read_now(certificates.code, vault, account.id)
        path = f"/certificates/{account.id}/{code}"
        eventually(lambda: len(people.of_kind("Delete")) == 1)
        drained(bridge)
        before = bridge.everything()
        wrong = (f"{path}x", f"/certificates/{account.id + 1}/{code}", f"/certificates/{account.id}/{'a' * 32}")
        assert [bridge.get(address).status_code for address in wrong] == [404, 404, 404]
        first = bridge.get(path).json()
        assert bridge.everything() == before
        eventually(lambda: phase_hurried(bridge, account.id) == "done", 20)
        answer = bridge.get(path)
    made = answer.json()
    valid(made)
    assert made["complete"]
    assert made["subject"] == {"type": "account", "id": ids.actor(account.id)}
    assert made["counts"] == {"delivered": 1}
    assert made["objects"] == first["objects"], "also when the words are erased"
    assert len(made["objects"]) == 1
    assert "unmistakable" not in answer.text.lower()
    assert "users/ann" not in answer.text
    file = tmp_path / "certificate.json"
    file.write_bytes(answer.content)
    report = certificates.verify(file)
    assert (report.ok, report.subject, report.complete) == (True, ids.actor(account.id), True)


def phase_hurried(bridge: Bridge, account_id: int) -> str:
    """The phase of a deletion whose key is kept no longer."""

    def now(tx: Tx) -> None:
        w, j = schema.farewells, schema.jobs
        tx.execute(update(w).where(w.c.told_at.is_not(None)).values(told_at=tx.now - timedelta(days=2)))
        tx.execute(update(j).where(j.c.kind == "farewell", j.c.leased_until.is_(None)).values(due_at=tx.now))

    bridge.ground.store.transact_now(now)
    held = bridge.ground.store.read_now(farewells.of_account, account_id)
    return held.phase if held else ""


def test_a_changed_certificate_is_refused_and_the_place_is_named(tmp_path: Path) -> None:
    with running_bridge(tmp_path / "data", worker=False) as bridge:
        site, account = Site(bridge), bridge.account("alice")
        number = site.post(account, "Hello", silent=False)
        site.delivered(account, number, [("delivered", None)] * 3)
        retract(bridge, account, number)
        delete = bridge.ground.store.transact_now(lambda tx: ledger.by_uri(tx, _delete_of(tx)))
        assert delete is not None
        inboxes = [(f"https://server{n}.example/inbox", f"server{n}.example") for n in range(3)]
        bridge.ground.store.transact_now(ledger.add_deliveries, delete, inboxes, lane=ledger.LANE_CHANGE)
        shell = CommandLine(tmp_path, settings={"BASE_URL": bridge.base, "DATA_DIR": str(tmp_path / "data")})
        shell.run("certificate", "alice", str(number + 1)).refused("no certificate", status=1)
    file = tmp_path / "certificate.json"
    assert "3 waiting" in shell.run("certificate", "alice", str(number), "--output", file).went_well().out
    made = json.loads(file.read_bytes())
    valid(made)
    good = shell.run("verify", file).went_well().out
    assert f"the erasure of {made['subject']['id']}" in good
    assert made["key"]["publicKeyMultibase"] in good

    def changed(where: str, *path: Any, to: Any) -> None:
        bent = copy.deepcopy(made)
        place = bent
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to
        problems = certificates.check(bent).problems
        assert where in [problem.where for problem in problems], (path, problems)
        assert "proof" in [problem.where for problem in problems] or where in ("key", "proof", path[0]), problems

    changed("hosts[1]", "hosts", 1, "state", to="delivered")
    changed("hosts[2]", "hosts", 2, "host", to="other.example")
    changed("hosts", "hosts", to=made["hosts"][:-1])
    changed("objects[0]", "objects", 0, "sha256", to="0" * 64)
    changed("subject", "subject", "id", to="https://other.example/1")
    changed("counts", "counts", "waiting", to=2)
    changed("proof", "asOf", to="2020-01-01T00:00:00Z")
    changed("proof", "deletedAt", to="2020-01-01T00:00:00Z")
    changed("complete", "complete", to=True)
    changed("proof", "digests", "subject", to=made["digests"]["hosts"][0])
    changed("key", "key", "id", to="https://other.example/actor#key")
    changed("proof", "actor", to="https://other.example/actor")
    changed("more", "more", to=1)
    changed("proof", "proof", "created", to="2020-01-01T00:00:00Z")
    # With its digest changed alike, the signature does not hold all the same.
    bent = copy.deepcopy(made)
    bent["hosts"][0]["state"] = "delivered"
    bent["counts"] = {"delivered": 1, "waiting": 2}
    bent["digests"]["hosts"][0] = hashlib.sha256(rfc8785.dumps(bent["hosts"][0])).hexdigest()[:16]
    assert [problem.where for problem in certificates.check(bent).problems] == ["proof"]
    file.write_bytes(orjson.dumps(bent))
    shown = shell.run("verify", file)
    assert shown.status == 1
    assert "proof: The signature does not hold" in shown.out
    for broken in (b"{", b'{"type":"ErasureCertificate","type":"x"}', b"{}", b'{"a":NaN}', b"{" * 100_000):
        file.write_bytes(broken)
        assert not certificates.verify(file).ok
    assert not certificates.verify(tmp_path / "nothing.json").ok


def _delete_of(tx: Tx) -> str:
    a = schema.activities
    uri: str = tx.execute(select(a.c.uri).where(a.c.kind == "Delete")).scalar_one()
    return uri
