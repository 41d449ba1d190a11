"""What Takahē accepts: host-meta before WebFinger, one spelling of the `self` link's type, a `Signature` header taken
apart by `split`, and sixty seconds."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import datetime
from typing import Any

import httpx2
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "takahe"
WEBFINGER_ACCEPT = "application/json"
HOST_META_ACCEPT = "application/xml"
ACCEPT = 'application/activity+json,application/ld+json; profile="https://www.w3.org/ns/activitystreams"'
XRD = "{http://docs.oasis-open.org/ns/xri/xrd-1.0}"


def check_host_meta(response: httpx2.Response, base: str) -> None:
    assert response.status_code == 200
    root = ET.fromstring(response.content)
    assert root.tag == f"{XRD}XRD"
    template = next(link.get("template") for link in root.iter(f"{XRD}Link") if link.get("rel") == "lrdd")
    assert template is not None
    assert template.replace("{uri}", "acct:x@y") == f"{base}/.well-known/webfinger?resource=acct:x@y"


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    assert response.status_code == 200
    jrd = response.json()
    assert jrd["subject"].startswith("acct:")
    links = [link["href"] for link in jrd["links"] if link.get("type") == "application/activity+json"]
    assert jrd["links"][0]["rel"] == "self" or links
    return str(links[0])


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
    for name in ("inbox", "preferredUsername", "name", "summary"):
        assert isinstance(actor[name], str), name
    assert actor["publicKey"]["publicKeyPem"]
    assert actor["publicKey"]["id"]
    assert isinstance(actor.get("manuallyApprovesFollowers"), bool)
    for item in actor.get("attachment", []):
        assert item["type"] == "PropertyValue"
        assert item["name"]
        assert item["value"]


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    assert document["type"] in ("OrderedCollection", "OrderedCollectionPage")
    for note in document["orderedItems"]:
        check_note(note)


def check_note(note: dict[str, Any]) -> None:
    assert isinstance(note["attributedTo"], str)
    assert isinstance(note["content"], str)
    assert note["published"].endswith("Z")
    datetime.strptime(note["published"], "%Y-%m-%dT%H:%M:%SZ")
    for tag in note["tag"]:
        # Any other kind is passed over ("Link in FEP-e232 Object Links", its source says).
        assert tag["type"] in ("Mention", "Hashtag", "Emoji", "Link")
        assert tag["name"]
    for item in note["attachment"]:
        if item["type"] == "Link":
            continue
        assert item["mediaType"]
        assert item["url"]
        assert item.get("focalPoint") is None or len(item["focalPoint"]) == 2
    if note["type"] == "Question":
        for option in note["oneOf"]:
            assert option["name"]
            assert isinstance(option["replies"]["totalItems"], int)


def check_activity(activity: dict[str, Any]) -> None:
    """Sorted into what it knows by `type` and `object.type`; both must be there where it looks."""
    assert activity["actor"]
    said = activity["object"]
    match activity["type"]:
        case "Create":
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Update" if "attributedTo" in said:
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Update":
            assert said["type"].lower() in ("person", "service", "organization", "group", "application")
            check_profile(said)
        case "Accept" | "Reject":
            # Anything but a Follow is an error in its log, and nothing else.
            assert isinstance(said, str) or said["type"] in ("Follow", "QuoteRequest", "ReplyRequest")
        case "Announce":
            assert isinstance(said, str)
            assert activity["published"].endswith("Z")
        case "Undo":
            assert said["type"] in ("Follow", "Like", "Announce", "Block")
        case "Flag":
            assert said, "about nobody"


def check_request(request: Captured, pem: str, host: str) -> str:
    given: dict[str, str] = {}
    for item in (request.header("signature") or "").split(","):
        name, value = item.split("=", 1)
        assert name == name.strip(), "a name with white space is not found again"
        given[name.lower()] = value.strip('"')
    assert given["algorithm"] in ("rsa-sha256", "hs2019")
    names = given["headers"].split()
    assert abs(signed.age(request)) <= 60
    if request.method == "POST":
        assert {"(request-target)", "date", "digest"} <= set(names)
        signed.check_digest(request)
    signed.check_rsa(request, signed.path_of(request.target), names, given["signature"], pem)
    return given["keyid"]
