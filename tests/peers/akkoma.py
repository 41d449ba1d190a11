"""What Akkoma (and Pleroma) accept: host-meta before WebFinger, no redirect anywhere, recipients of an activity and
its object equal."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "akkoma"
WEBFINGER_ACCEPT = "application/xrd+xml,application/jrd+json"
AS = "https://www.w3.org/ns/activitystreams"
ACCEPT = f'application/activity+json, application/ld+json; profile="{AS}"'


def check_host_meta(response: httpx2.Response, base: str) -> None:
    """`//Link[@rel='lrdd']/@template`, whatever the namespace, with a place for the address."""
    assert response.status_code == 200
    root = ET.fromstring(response.content)
    links = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Link"]
    templates = [link.get("template") or "" for link in links if link.get("rel") == "lrdd"]
    assert len(templates) == 1
    assert "{uri}" in templates[0]
    assert templates[0].startswith(f"{base}/.well-known/webfinger?resource=")


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    assert response.status_code == 200
    kind = response.headers["content-type"].partition(";")[0]
    assert kind in ("application/jrd+json", "application/json"), kind
    jrd = response.json()
    assert jrd["subject"].startswith("acct:")
    assert jrd["subject"].rpartition("@")[2] == handle.rpartition("@")[2], "its host would have to answer as well"
    links = [
        link["href"]
        for link in jrd["links"]
        if link["rel"] == "self"
        and link["type"] in ("application/activity+json", f'application/ld+json; profile="{AS}"')
    ]
    return str(links[0])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    assert response.status_code == 200, "redirects are refused for canonical ids"
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
    assert isinstance(actor["inbox"], str)
    if actor["type"] == "Person":
        for name in ("followers", "following"):
            assert actor[name].startswith(f"{me}/")
    assert actor["publicKey"]["publicKeyPem"].startswith("-----BEGIN PUBLIC KEY-----\n")
    assert isinstance(actor.get("attachment", []), list)


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    assert document["type"] == "OrderedCollection"
    for note in document["orderedItems"]:
        check_note(note)


def check_note(note: dict[str, Any]) -> None:
    for name in ("to", "cc", "tag", "attachment"):
        assert isinstance(note[name], list), name
    assert all(isinstance(person, str) for person in note["to"] + note["cc"])
    assert len(note["content"]) <= 100_000
    assert isinstance(note["conversation"], str)
    assert isinstance(note["replies"]["first"], dict), "a page that is only named is fetched, for every post"
    for item in note["attachment"]:
        if item["type"] == "Link":
            continue  # shown as a file that is none: why they are sent only where the owner wants them
        assert "href" not in item
        assert isinstance(item["mediaType"], str)
    assert not {"bto", "bcc"} & note.keys()


def check_activity(activity: dict[str, Any]) -> None:
    assert urlsplit(activity["id"]).netloc == urlsplit(activity["actor"]).netloc
    assert not {"bto", "bcc"} & activity.keys()
    said = activity["object"]
    match activity["type"]:
        case "Create" | "Update" if "attributedTo" in said:
            assert activity["to"] == said["to"]
            assert activity["cc"] == said["cc"]
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Update":
            assert said["id"] == activity["actor"]
            check_profile(said)
        case "Delete":
            assert isinstance(said, str) or said["id"]
        case "Announce":
            assert isinstance(said, str)
            assert activity["to"], "an Announce to nobody is invalid"
            assert isinstance(activity["cc"], list)
        case "Accept" | "Reject":
            assert isinstance(said, str) or said["id"]
        case "Undo":
            assert said["id"], "found by the id of what is undone"
        case "Flag":
            assert isinstance(said, list)
            assert isinstance(activity["content"], str)


def check_request(request: Captured, pem: str, host: str) -> str:
    given: dict[str, str] = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', request.header("signature") or ""))
    names = given["headers"].split(" ")
    needed = {"(request-target)", "host", "date"} | ({"digest"} if request.method == "POST" else set())
    assert needed <= set(names)
    assert -2400 <= signed.age(request) <= 7200
    if request.method == "POST":
        signed.check_digest(request)
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]
