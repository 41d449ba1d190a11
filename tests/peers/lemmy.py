"""What Lemmy 1.0 accepts: one of three content types to the letter, typed documents with nothing missing, a `#` in
every keyId."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "lemmy"
WEBFINGER_ACCEPT = "*/*"
ACCEPT = "application/activity+json"
CONTENT_TYPES = {
    "application/activity+json",
    "application/activity+json; charset=utf-8",
    'application/ld+json; profile="https://www.w3.org/ns/activitystreams"',
}


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    """Links are tried from the last to the first; whichever comes first must be the actor."""
    assert response.status_code == 200
    links = [link for link in response.json()["links"] if (link.get("type") or "").startswith("application/")]
    assert links
    return str(links[-1]["href"])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    assert response.status_code == 200
    assert response.headers["content-type"].lower() in CONTENT_TYPES, response.headers["content-type"]
    assert len(response.content) <= 1024 * 1024
    document: dict[str, Any] = response.json()
    assert document["id"] == url
    return document


def check_actor(response: httpx2.Response, url: str) -> dict[str, Any]:
    actor = check_fetched(response, url)
    check_profile(actor)
    return actor


def check_profile(actor: dict[str, Any]) -> None:
    """An actor, fetched or told of by an Update."""
    me = actor["id"]
    assert actor["type"] in ("Person", "Service", "Organization", "Application")
    assert isinstance(actor["preferredUsername"], str)
    for name in ("inbox", "outbox"):
        assert urlsplit(actor[name]).scheme == "https", f"{name} is needed"
        assert urlsplit(actor[name]).port is None, "explicit ports are refused"
    key = actor["publicKey"]
    assert {"id", "owner", "publicKeyPem"} <= key.keys()
    assert key["owner"] == me
    assert "#" in key["id"]
    if "icon" in actor:
        assert isinstance(actor["icon"]["url"], str)
    if "published" in actor:
        assert datetime.fromisoformat(actor["published"]).tzinfo


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    assert document["type"] == "OrderedCollection"
    assert isinstance(document["totalItems"], int)
    assert isinstance(document["orderedItems"], list)


def check_note(note: dict[str, Any]) -> None:
    for name in ("id", "attributedTo"):
        assert urlsplit(note[name]).scheme == "https"
    for name in ("to", "cc"):
        assert all(urlsplit(person).scheme == "https" for person in note[name])
    assert isinstance(note["content"], str)
    assert datetime.fromisoformat(note["published"]).tzinfo
    if "updated" in note:
        assert datetime.fromisoformat(note["updated"]).tzinfo


def check_activity(activity: dict[str, Any]) -> None:
    for name in ("id", "actor"):
        assert urlsplit(activity[name]).scheme == "https"
    assert urlsplit(activity["id"]).netloc == urlsplit(activity["actor"]).netloc
    said = activity["object"]
    match activity["type"]:
        case "Create" | "Update" if "attributedTo" in said:
            check_note(said)
        case "Update":
            check_profile(said)
        case "Accept" | "Reject" if isinstance(said, dict) and said["type"] == "Follow":
            for name in ("id", "actor", "object"):
                assert urlsplit(said[name]).scheme == "https"
        case "Undo":
            assert {"id", "type", "actor", "object"} <= said.keys(), "typed, with nothing missing"


def check_request(request: Captured, pem: str, host: str) -> str:
    given: dict[str, str] = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', request.header("signature") or ""))
    assert "#" in given["keyId"]
    names = given["headers"].split(" ")
    assert signed.age(request) <= 3600
    if request.method == "POST":
        assert "digest" in names
        signed.check_digest(request)
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]
