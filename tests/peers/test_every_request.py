"""Every request that a bridge makes, verified by every kind of server as it verifies requests; and bent requests,
which the verifiers must refuse, or their silence would mean nothing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from tests.peers import akkoma, gotosocial, judgement, lemmy, mastodon, misskey, pixelfed, takahe, threads
from tests.peers.captured import Captured
from tests.peers.populated import HOST, House

PEERS = [mastodon, gotosocial, misskey, akkoma, takahe, lemmy, pixelfed, threads]
every_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.NAME)
REFUSED = (AssertionError, KeyError, ValueError, InvalidSignature)


def key_of(house: House, key_id: str) -> str:
    """The key as any server fetches it: unsigned, from the actor that the keyId names."""
    actor = house.get(key_id.partition("#")[0]).json()
    assert actor["publicKey"]["id"] == key_id
    assert actor["publicKey"]["owner"] == actor["id"]
    return str(actor["publicKey"]["publicKeyPem"])


def sent(house: House, method: str) -> list[Captured]:
    found = [request for request in house.watcher.captured if request.method == method]
    assert found
    return found


def key_id_of(request: Captured) -> str:
    return (request.header("signature") or "").partition('keyId="')[2].partition('"')[0]


def activities(house: House) -> list[dict[str, Any]]:
    # What is echoed of the watcher's has an address on loopback, which nobody else would take.
    return [orjson.loads(judgement.translated(request.body)) for request in sent(house, "POST")]


@every_peer
def test_every_delivery_is_verified(house: House, peer: ModuleType) -> None:
    pem = key_of(house, f"{house.uri}#main-key")
    for request in sent(house, "POST"):
        assert peer.check_request(request, pem, urlsplit(house.watcher.base).netloc) == f"{house.uri}#main-key"


@every_peer
def test_every_fetch_is_verified_as_the_servers_own(house: House, peer: ModuleType) -> None:
    for request in sent(house, "GET"):
        key_id = key_id_of(request)
        assert key_id == f"https://{HOST}/actor#main-key"
        peer.check_request(request, key_of(house, key_id), urlsplit(house.watcher.base).netloc)


@every_peer
def test_every_delivered_activity_is_read(house: House, peer: ModuleType) -> None:
    for activity in activities(house):
        try:
            peer.check_activity(activity)
        except REFUSED as error:
            raise AssertionError(f"{peer.NAME} refuses {activity['id']}: {error!r}") from error


def test_all_kinds_of_activities_were_delivered(house: House) -> None:
    assert {activity["type"] for activity in activities(house)} == {"Accept", "Create", "Update", "Delete"}


def test_every_activity_has_an_id_of_its_own_on_our_host(house: House) -> None:
    ids = [activity["id"] for activity in activities(house)]
    assert len(ids) == len(set(ids))
    assert {urlsplit(uri).netloc for uri in ids} == {HOST}


def test_every_body_is_what_is_served_to_others(house: House) -> None:
    """Delivered and fetched notes are the same but for what changed since: figures, edits and what continues them."""
    moving = {"replies", "likes", "shares", "updated", "content", "contentMap", "attachment", "published"}
    for activity in activities(house):
        if activity["type"] == "Create" and activity["object"]["id"] != house.posts["deleted"]:
            served = house.get(activity["object"]["id"]).json()
            for name, value in activity["object"].items():
                assert name in moving or served[name] == value, (activity["id"], name)


def test_no_history_was_delivered(house: House) -> None:
    delivered = {activity["object"]["id"] for activity in activities(house) if activity["type"] == "Create"}
    assert delivered == {uri for name, uri in house.posts.items() if not name.startswith("history")} - {
        house.posts["of_quiet"]
    }


def test_each_activity_is_delivered_once(house: House) -> None:
    seen = [(request.target, orjson.loads(request.body)["id"]) for request in sent(house, "POST")]
    assert len(seen) == len(set(seen))


# ── what the verifiers are worth ─────────────────────────────────────────────────────────────────────────────────


def with_header(request: Captured, name: str, change: Callable[[str], str]) -> Captured:
    return dataclasses.replace(
        request, headers=[(key, change(value) if key == name else value) for key, value in request.headers]
    )


def spaced(request: Captured) -> Captured:
    return with_header(request, "signature", lambda value: value.replace('",', '", '))


def small_digest(request: Captured) -> Captured:
    return with_header(request, "digest", lambda value: value.replace("SHA-256", "sha-256"))


def later(seconds: int) -> Callable[[Captured], Captured]:
    def bend(request: Captured) -> Captured:
        return dataclasses.replace(request, at=request.at + timedelta(seconds=seconds))

    return bend


def without_algorithm(request: Captured) -> Captured:
    return with_header(request, "signature", lambda value: value.replace('algorithm="rsa-sha256",', ""))


def key_without_fragment(request: Captured) -> Captured:
    return with_header(request, "signature", lambda value: value.replace("#main-key", "/main-key"))


def another_type(request: Captured) -> Captured:
    return with_header(request, "content-type", lambda _: "application/json")


def another_host(request: Captured) -> Captured:
    return with_header(request, "host", lambda _: "other.example")


def another_path(request: Captured) -> Captured:
    return dataclasses.replace(request, target=f"{request.target}x")


def another_body(request: Captured) -> Captured:
    return dataclasses.replace(request, body=request.body + b" ")


def another_body_and_digest(request: Captured) -> Captured:
    bent = another_body(request)
    digest = base64.b64encode(hashlib.sha256(bent.body).digest()).decode()
    return with_header(bent, "digest", lambda _: f"SHA-256={digest}")


def unsigned(request: Captured) -> Captured:
    return dataclasses.replace(request, headers=[pair for pair in request.headers if pair[0] != "signature"])


EVERYBODY = {peer.NAME for peer in PEERS}
BENT: list[tuple[Callable[[Captured], Captured], set[str]]] = [
    (spaced, {"misskey", "takahe"}),
    (small_digest, EVERYBODY),
    (later(70), {"takahe"}),
    (later(310), {"takahe", "misskey"}),
    (later(4000), {"takahe", "misskey", "mastodon", "lemmy"}),
    (without_algorithm, {"misskey", "takahe"}),
    (key_without_fragment, {"lemmy"}),
    (another_type, EVERYBODY),
    (another_host, EVERYBODY),
    (another_path, EVERYBODY),
    (another_body, EVERYBODY - {"threads"}),
    (another_body_and_digest, EVERYBODY),
    (unsigned, EVERYBODY),
]


@every_peer
def test_bent_requests_are_refused_by_whom_they_ought_to_be(house: House, peer: ModuleType) -> None:
    pem = key_of(house, f"{house.uri}#main-key")
    host = urlsplit(house.watcher.base).netloc
    for bend, refused_by in BENT:
        request = bend(sent(house, "POST")[0])
        if peer.NAME in refused_by:
            with pytest.raises(REFUSED):
                peer.check_request(request, pem, host)
        else:
            peer.check_request(request, pem, host)


def test_another_key_verifies_nothing(house: House) -> None:
    pem = key_of(house, f"https://{HOST}/actor#main-key")
    for peer in PEERS:
        with pytest.raises(InvalidSignature):
            peer.check_request(sent(house, "POST")[0], pem, urlsplit(house.watcher.base).netloc)
