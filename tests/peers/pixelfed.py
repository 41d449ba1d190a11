"""What Pixelfed accepts: keys that must be there even when they say nothing, https everywhere."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "pixelfed"
WEBFINGER_ACCEPT = "application/json"
AS = "https://www.w3.org/ns/activitystreams"
ACCEPT = f'application/ld+json; profile="{AS}"'


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    assert response.status_code == 200
    jrd = response.json()
    assert jrd["subject"]
    assert jrd["aliases"]
    return str(next(link for link in jrd["links"] if link.get("rel") == "self")["href"])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    assert response.status_code == 200
    kind, _, parameters = response.headers["content-type"].partition(";")
    assert kind == "application/activity+json" or (kind == "application/ld+json" and AS in parameters)
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
    for name in ("id", "type", "preferredUsername", "inbox", "outbox", "publicKey", "summary", "url"):
        assert actor.get(name) is not None, f"{name} is read without asking whether it is there"
    assert "manuallyApprovesFollowers" in actor
    assert isinstance(actor["name"], str)
    if "icon" in actor:
        assert actor["icon"]["url"].startswith("https://")
        assert actor["icon"]["mediaType"] in ("image/jpeg", "image/png", "image/webp", "image/gif")
    assert urlsplit(actor["publicKey"]["id"]).netloc == urlsplit(me).netloc


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    assert isinstance(document["orderedItems"], list)


def check_note(note: dict[str, Any]) -> None:
    for name in ("id", "url", "attributedTo"):
        assert note[name].startswith("https://")
    assert isinstance(note["to"], list)
    assert isinstance(note["cc"], list)
    assert "content" in note
    assert "sensitive" in note
    assert "summary" in note
    for item in note["attachment"]:
        if item["type"] == "Link":
            continue  # no medium of its types
        assert item["type"] in ("Document", "Image", "Video", "Audio")
        assert item["url"].startswith("https://")
        assert item["mediaType"]
        assert item.get("name") is None or isinstance(item["name"], str)


def check_activity(activity: dict[str, Any]) -> None:
    assert activity["id"].startswith("https://")
    assert activity["actor"].startswith("https://")
    said = activity["object"]
    match activity["type"]:
        case "Create":
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Update" if said["type"] == "Person":
            check_profile(said)
        case "Announce":
            assert isinstance(said, str)
        case "Accept" if isinstance(said, dict) and said["type"] == "Follow":
            assert said["actor"].startswith("https://")
            assert said["object"] == activity["actor"]
        case "Undo":
            assert said["type"] in ("Accept", "Announce", "Block", "Follow", "Like")
            assert said["actor"] == activity["actor"]
        case "Delete":
            assert isinstance(said, str) or said["type"] in ("Person", "Tombstone", "Story", "QuoteAuthorization")


def check_request(request: Captured, pem: str, host: str) -> str:
    given: dict[str, str] = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', request.header("signature") or ""))
    names = given["headers"].split(" ")
    assert abs(signed.age(request)) <= 12 * 3600
    if request.method == "POST":
        signed.check_digest(request)
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]
