"""What Misskey 2025 accepts: one host for everything of an actor, https everywhere, a literal signature parser, five
minutes, 64 KiB."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "misskey"
WEBFINGER_ACCEPT = "application/jrd+json, application/json"
AS = "https://www.w3.org/ns/activitystreams"
ACCEPT = f'application/activity+json, application/ld+json; profile="{AS}"'
USERNAME = re.compile(r"\w([\w\-.]*\w)?", re.ASCII)
ACTORS = {"Person", "Service", "Group", "Organization", "Application"}
POSTS = {"Note", "Question", "Article", "Audio", "Document", "Image", "Page", "Video", "Event"}
# Its parser is a state machine: after a comma a name must begin at once.
SIGNATURE = re.compile(r'[A-Za-z]+=(?:"[^"]*"|[0-9]+)(?:,[A-Za-z]+=(?:"[^"]*"|[0-9]+))*')


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    assert response.status_code == 200
    assert len(response.content) <= 256 * 1024
    return str(next(link for link in response.json()["links"] if link["rel"] == "self")["href"])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    assert response.status_code == 200
    assert len(response.content) <= 256 * 1024
    kind = response.headers["content-type"]
    assert kind.startswith(("application/activity+json", f'application/ld+json; profile="{AS}"'))
    document: dict[str, Any] = response.json()
    context = document["@context"]
    assert AS in (context if isinstance(context, list) else [context])
    assert urlsplit(document["id"]).netloc == urlsplit(url).netloc
    return document


def check_actor(response: httpx2.Response, url: str) -> dict[str, Any]:
    actor = check_fetched(response, url)
    check_profile(actor)
    return actor


def check_profile(actor: dict[str, Any]) -> None:
    """An actor, fetched or told of by an Update."""
    me = actor["id"]
    assert actor["type"] in ACTORS
    host = urlsplit(me).netloc
    collections = [actor[name] for name in ("outbox", "followers", "following", "featured") if name in actor]
    for same in (
        actor["id"],
        actor["inbox"],
        actor["endpoints"]["sharedInbox"],
        actor["publicKey"]["id"],
        *collections,
    ):
        assert isinstance(same, str)
        assert urlsplit(same).netloc == host, f"{same} is not on {host}"
    assert USERNAME.fullmatch(actor["preferredUsername"])
    assert len(actor["preferredUsername"]) <= 128
    for name in ("name", "summary"):
        assert actor.get(name) is None or isinstance(actor[name], str), f"{name} must be a string or null"
    assert isinstance(actor["publicKey"], dict), "an actor with a list of keys is refused"
    assert actor["url"].startswith("https://")
    for field in actor.get("attachment", []):
        assert isinstance(field["name"], str)
        assert isinstance(field["value"], str)
    for name in ("icon", "image"):
        if name in actor:
            assert actor[name]["url"].startswith("https://")


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    """The first five are read."""
    assert document["type"] in ("Collection", "OrderedCollection")
    for note in (document.get("orderedItems") or document.get("items") or [])[:5]:
        check_note(note)


def check_note(note: dict[str, Any]) -> None:
    assert note["type"] in POSTS
    assert note["id"].startswith("https://")
    assert note["url"].startswith("https://")
    assert urlsplit(note["id"]).netloc == urlsplit(note["attributedTo"]).netloc
    assert sum(tag["type"] == "Mention" for tag in note["tag"]) <= 20, "rejected"
    for item in note["attachment"]:
        if item["type"] == "Link":
            continue  # no file: its resolver finds no `url`
        assert isinstance(item["url"], str)
        assert item["url"].startswith("https://")
        assert item["mediaType"]
    assert note["inReplyTo"] is None or isinstance(note["inReplyTo"], str)
    if "quote" in note:
        assert note["_misskey_quote"] == note["quote"]


def check_activity(activity: dict[str, Any]) -> None:
    assert isinstance(activity["id"], str)
    assert urlsplit(activity["id"]).netloc == urlsplit(activity["actor"]).netloc
    said = activity["object"]
    match activity["type"]:
        case "Accept" | "Reject" if isinstance(said, dict) and said["type"] == "Follow":
            assert said["actor"], "looked for there"
        case "Create":
            check_note(said)
        case "Update" if said["type"] in ACTORS:
            check_profile(said)
        case "Update" if said["type"] == "Question":
            check_note(said)
        case "Announce":
            assert isinstance(said, str)
            assert activity["published"]
        case "Undo":
            assert said["type"] in ("Accept", "Follow", "Like", "Announce", "Block")
            assert said["actor"] == activity["actor"], "invalid actor"
        case "Flag":
            assert isinstance(said, list)


def check_request(request: Captured, pem: str, host: str) -> str:
    header = request.header("signature") or ""
    assert SIGNATURE.fullmatch(header), "the parser stops at white space after a comma"
    pairs: list[tuple[str, str]] = re.findall(r'([A-Za-z]+)=("[^"]*"|[0-9]+)', header)
    given = {name: value.strip('"') for name, value in pairs}
    assert given["algorithm"] in ("rsa-sha256", "rsa-sha512", "hs2019")
    names = given["headers"].split(" ")
    assert all(name == name.lower() for name in names)
    assert {"(request-target)", "host", "date"} <= set(names)
    assert request.header("host") == host
    assert abs(signed.age(request)) <= 300
    if request.method == "POST":
        assert "digest" in names
        assert len(request.body) <= 64 * 1024
        signed.check_digest(request)
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]
