"""What GoToSocial 0.22 accepts: exact ids and content types, an RSA key inline, every GET signed."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "gotosocial"
WEBFINGER_ACCEPT = "application/jrd+json,application/json"
AS = "https://www.w3.org/ns/activitystreams"
ACCEPT = f'application/ld+json; profile="{AS}",application/activity+json'
CONTENT_TYPES = {
    f"{kind}{charset}"
    for kind in ("application/activity+json", f'application/ld+json; profile="{AS}"')
    for charset in ("", "; charset=utf-8")
}
ACTORS = {"Application", "Group", "Organization", "Person", "Service"}
# Posts that declare these are obliged to answer with approvals.
POLICIES_WITH_DUTIES = {"canLike", "canAnnounce"}


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    assert 200 <= response.status_code < 300
    assert response.headers["content-type"].partition(";")[0] in ("application/jrd+json", "application/json")
    jrd = response.json()
    assert jrd["subject"].startswith("acct:")
    assert jrd["subject"].removeprefix("acct:").partition("@")[0] == handle.partition("@")[0], "case counts"
    hrefs = [
        link["href"]
        for link in jrd["links"]
        if link["rel"] == "self"
        and link["type"] in ("application/activity+json", f'application/ld+json; profile="{AS}"')
    ]
    return str(hrefs[0])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    assert response.status_code == 200
    assert response.headers["content-type"].lower() in CONTENT_TYPES, response.headers["content-type"]
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
    assert actor["type"] in ACTORS
    assert actor["preferredUsername"]
    key = actor["publicKey"]
    assert isinstance(key, dict)
    assert key["id"]
    assert key["owner"] == actor["id"]
    assert isinstance(load_pem_public_key(key["publicKeyPem"].encode()), rsa.RSAPublicKey)
    host = urlsplit(me).hostname or ""
    for trusted in (actor["endpoints"]["sharedInbox"], actor.get("featured", me)):
        theirs = urlsplit(trusted).hostname or ""
        assert theirs.split(".")[-2:] == host.split(".")[-2:], "trusted only with two DNS labels in common"
    assert "manuallyApprovesFollowers" in actor, "missing means something else here than elsewhere"
    assert len(actor.get("alsoKnownAs", [])) <= 20


def check_counts(document: dict[str, Any]) -> None:
    assert isinstance(document["totalItems"], int)


def check_featured(document: dict[str, Any]) -> None:
    assert document["type"] == "OrderedCollection"
    assert isinstance(document["orderedItems"], list)
    for note in document["orderedItems"]:
        check_note(note)


def check_note(note: dict[str, Any]) -> None:
    assert note["to"] or note["cc"], "addressed to nobody: malformed"
    published = datetime.fromisoformat(note["published"])
    if "updated" in note:
        assert datetime.fromisoformat(note["updated"]) >= published, "malformed"
    languages = [name for name, text in note.get("contentMap", {}).items() if text == note["content"]]
    assert len(languages) == len(note.get("contentMap", {}))
    for item in note["attachment"]:
        if item["type"] == "Link":
            continue  # skipped, with a line in its log
        assert item["type"] in ("Document", "Image", "Video", "Audio")
        assert isinstance(item["url"], str)
        assert item["mediaType"]
    policy = note.get("interactionPolicy", {})
    assert not POLICIES_WITH_DUTIES & policy.keys()
    if "canReply" in policy:
        # Whoever declares it owes approvals to those whom it lets in: only where not everybody is.
        let_in = policy["canReply"]["automaticApproval"]
        assert note["attributedTo"] in let_in
        assert f"{AS}#Public" not in let_in
    quoting = policy["canQuote"]["automaticApproval"]
    assert quoting, "empty lists are dropped"
    assert set(quoting) <= {f"{AS}#Public", note["attributedTo"], f"{note['attributedTo']}/followers"}
    if note["type"] == "Question":
        assert ("oneOf" in note) != ("anyOf" in note)


def check_activity(activity: dict[str, Any]) -> None:
    assert isinstance(activity["id"], str)
    assert activity["id"], "400 without"
    assert isinstance(activity["actor"], str)
    said = activity["object"]
    match activity["type"]:
        case "Accept" | "Reject" if isinstance(said, str):
            # An interaction that its policy lets in; the authorization is fetched from the same host.
            if activity["type"] == "Accept":
                assert urlsplit(activity["result"]).netloc == urlsplit(activity["actor"]).netloc
        case "Accept" | "Reject" if said["type"] == "Follow":
            assert said["object"] == activity["actor"]
            assert said["id"]
        case "Create":
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Update" if said["type"] in ACTORS:
            assert said["id"] == activity["actor"]
            check_profile(said)
        case "Update":
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Announce":
            assert isinstance(said, str)
            assert activity["to"] or activity["cc"]
            assert datetime.fromisoformat(activity["published"]).tzinfo
        case "Undo":
            assert isinstance(said, dict), "looks into the object for what is undone"
            assert said["actor"] == activity["actor"]
        case "Flag":
            assert any("/" in uri for uri in said), "needs an account or a post of its own among them"


def check_stamp(stamp: dict[str, Any]) -> None:
    """It looks for `LikeAuthorization`, `ReplyAuthorization`, `AnnounceAuthorization`, attributed to whom the policy
    belongs, about exactly these two."""
    assert urlsplit(stamp["id"]).netloc == urlsplit(stamp["attributedTo"]).netloc
    assert isinstance(stamp["interactingObject"], str)
    assert isinstance(stamp["interactionTarget"], str)


def check_request(request: Captured, pem: str, host: str) -> str:
    """Either ActivityPub type on a POST, a User-Agent always, and a signature on a GET as well."""
    assert request.header("user-agent")
    if request.method == "POST":
        assert request.header("content-type") in CONTENT_TYPES
        signed.check_digest(request)
    given: dict[str, str] = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', request.header("signature") or ""))
    names = given["headers"].split(" ")
    needed = {"(request-target)", "host", "date"} | ({"digest"} if request.method == "POST" else set())
    assert needed <= set(names)
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]
