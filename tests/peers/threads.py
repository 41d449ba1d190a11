"""What is known of Threads as a reader: it signs its own requests plainly and wants ours signed over the request
target, host and date; its people see name, picture and text."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "threads"
WEBFINGER_ACCEPT = "application/json"
ACCEPT = 'application/ld+json; profile="https://www.w3.org/ns/activitystreams"'


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    assert response.status_code == 200
    links = [link for link in response.json()["links"] if link.get("rel") == "self"]
    assert len(links) == 1
    return str(links[0]["href"])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    assert response.status_code == 200
    assert "json" in response.headers["content-type"]
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
    assert actor["publicKey"]["id"].startswith(f"{me}#")
    for name in ("inbox", "outbox"):
        assert urlsplit(actor[name]).netloc == urlsplit(me).netloc


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    assert document["type"] == "OrderedCollection"


def check_note(note: dict[str, Any]) -> None:
    assert note["type"] in ("Note", "Question")
    assert note["content"] is not None
    assert "https://www.w3.org/ns/activitystreams#Public" in note["to"]


def check_activity(activity: dict[str, Any]) -> None:
    assert urlsplit(activity["id"]).netloc == urlsplit(activity["actor"]).netloc
    if activity["type"] == "Create":
        check_note(activity["object"])


def check_request(request: Captured, pem: str, host: str) -> str:
    given: dict[str, str] = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', request.header("signature") or ""))
    names = given["headers"].split(" ")
    assert {"(request-target)", "host", "date"} <= set(names)
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]
