"""What Mastodon 4.6 accepts of a server that it follows, from its request verifier, its fetch services and its
activity parsers."""

from __future__ import annotations

import re
from datetime import datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tests.peers import signed
from tests.peers.captured import Captured

NAME = "mastodon"
WEBFINGER_ACCEPT = "application/jrd+json, application/json"
ACCEPT = "application/activity+json, application/ld+json"
AS = "https://www.w3.org/ns/activitystreams"
PUBLIC = f"{AS}#Public"
SELF_TYPES = ("application/activity+json", f'application/ld+json; profile="{AS}"')
USERNAME = re.compile(r"[a-z0-9_]+([.-]+[a-z0-9_]+)*", re.IGNORECASE | re.ASCII)
ACTORS = {"Application", "Group", "Organization", "Person", "Service"}
MEDIA = {
    "Image": {"image/jpeg", "image/png", "image/gif", "image/heic", "image/heif", "image/webp", "image/avif"},
    "Video": {"video/webm", "video/mp4", "video/quicktime", "video/ogg"},
    "Audio": {
        "audio/wav", "audio/ogg", "audio/vorbis", "audio/mpeg", "audio/mp3", "audio/webm", "audio/flac", "audio/aac",
        "audio/m4a", "audio/x-m4a", "audio/mp4", "audio/3gpp",
    },
}  # fmt: skip


def check_webfinger(response: httpx2.Response, handle: str) -> str:
    """The `self` link of the account; 410 would suspend a known account."""
    assert response.status_code == 200
    assert 0 < len(response.content) <= 1024 * 1024
    jrd = response.json()
    subject = jrd["subject"].removeprefix("acct:")
    user, at, host = subject.partition("@")
    assert at
    assert user
    assert host
    assert "@" not in host
    assert subject.lower() == handle.lower(), "a second look-up on another subject would be needed"
    links = [link for link in jrd["links"] if link.get("rel") == "self" and link.get("type") in SELF_TYPES]
    assert links, "no self link of an ActivityPub type"
    return str(links[0]["href"])


def check_fetched(response: httpx2.Response, url: str) -> dict[str, Any]:
    """A document that may be read at all."""
    assert response.status_code == 200, f"{url}: {response.status_code}"
    assert len(response.content) <= 1024 * 1024
    kind, _, parameters = response.headers["content-type"].partition(";")
    assert kind == "application/activity+json" or (kind == "application/ld+json" and AS in parameters), kind
    document: dict[str, Any] = response.json()
    context = document["@context"]
    assert AS in (context if isinstance(context, list) else [context]), "not ActivityStreams"
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
    assert USERNAME.fullmatch(actor["preferredUsername"])
    assert len(actor["preferredUsername"]) <= 2048
    for name in ("inbox", "outbox"):
        assert urlsplit(actor[name]).scheme == "https"
    assert urlsplit(actor["url"]).netloc == urlsplit(me).netloc, "the link would fall back to the id"
    assert actor["endpoints"]["sharedInbox"].startswith("https://")
    key = actor["publicKey"]
    assert key["owner"] == me
    assert key["id"].partition("#")[0] == me, "the key would be looked up once more"
    assert isinstance(load_pem_public_key(key["publicKeyPem"].encode()), rsa.RSAPublicKey)
    assert isinstance(actor["name"], str)
    assert len(actor["name"]) <= 2048
    assert len(actor["summary"].encode()) <= 20_000
    check_markup(actor["summary"])
    for name in ("manuallyApprovesFollowers", "discoverable", "indexable", "memorial"):
        assert isinstance(actor.get(name, False), bool)
    for name in ("icon", "image"):
        if name in actor:
            assert actor[name]["type"] == "Image"
            assert actor[name]["mediaType"] in MEDIA["Image"]
            assert actor[name]["url"].startswith("https://")
    assert len(actor.get("attachment", [])) <= 50
    for item in actor.get("attachment", []):
        assert item["type"] == "PropertyValue"
        assert 0 < len(item["name"]) <= 2047
        assert 0 < len(item["value"]) <= 2047
    if "published" in actor:
        moment(actor["published"])


def check_counts(document: dict[str, Any]) -> None:
    """Followers and following: without `first` the network counts as hidden."""
    assert isinstance(document["totalItems"], int)
    assert document["first"]


def check_featured(document: dict[str, Any]) -> None:
    assert document["type"] in ("Collection", "OrderedCollection")
    items = document["orderedItems" if document["type"] == "OrderedCollection" else "items"]
    for item in items:
        assert urlsplit(item["id"]).netloc == urlsplit(document["id"]).netloc
        check_note(item)


def check_note(note: dict[str, Any], *, asking: bool = False) -> None:
    """Shown as it was meant: neither converted nor dropped, public, with all its media and in one language."""
    assert note["type"] in ("Note", "Question"), "others are shown as a title and a link"
    assert isinstance(note["attributedTo"], str)
    assert urlsplit(note["id"]).netloc == urlsplit(note["attributedTo"]).netloc
    assert visibility(note) == "public"
    published = moment(note["published"])
    if "updated" in note:
        assert moment(note["updated"]) > published, "not shown as an edit"
    assert isinstance(note["content"], str)
    check_markup(note["content"])
    languages = note.get("contentMap", {})
    assert list(languages.values()) in ([], [note["content"]])
    assert all(re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", name) and name != "und" for name in languages)
    assert note["summary"] is None or (isinstance(note["summary"], str) and note["summary"] and note["sensitive"])
    assert isinstance(note["sensitive"], bool)
    assert note["inReplyTo"] is None or isinstance(note["inReplyTo"], str)
    for item in note["attachment"]:
        if item["type"] == "Link":
            # FEP-8967; the card of 4.7, passed over before.
            assert item["href"].startswith(("https://", "http://"))
            continue
        assert item["mediaType"] in MEDIA[item["type"]]
        assert item["url"].startswith("https://")
        assert "href" not in item, "would be taken for a link"
        assert len(item.get("name", "")) <= 10_000
    for tag in note["tag"]:
        assert tag["type"] in ("Hashtag", "Mention", "Link"), "passed over"
        if tag["type"] == "Link":
            assert tag["href"] in (note["quote"], note["_misskey_quote"]), "FEP-e232 and FEP-044f disagree"
        elif tag["type"] == "Hashtag":
            assert re.fullmatch(r"#[\w·]*[^\W\d_][\w·]*", tag["name"]), tag["name"]
        else:
            assert tag["href"] in note["to"] + note["cc"], "mentioned and not addressed: not notified"
            assert re.fullmatch(r"@[^@\s]+@[^@\s]+", tag["name"])
    assert isinstance(note["replies"]["first"]["items"], list)
    for name in ("likes", "shares"):
        assert isinstance(note[name]["totalItems"], int)
    if "quote" in note:
        own = note["quote"].startswith(f"{note['attributedTo']}/")
        assert own or asking or "quoteAuthorization" in note, "an unapproved quote is blanked, and its link removed"
    else:
        assert "_misskey_quote" in note or "quote-inline" not in note["content"], (
            "would be removed without a quote in its place"
        )
    if note["type"] == "Question":
        check_poll(note)


def check_poll(note: dict[str, Any]) -> None:
    options = note.get("oneOf") or note["anyOf"]
    assert 2 <= len(options) <= 500
    for option in options:
        assert option["name"]
        assert isinstance(option["replies"]["totalItems"], int)
    assert isinstance(note["votersCount"], int)
    if "closed" in note:
        assert moment(note["closed"]) <= datetime.now().astimezone()


def visibility(note: dict[str, Any]) -> str:
    if PUBLIC in note["to"]:
        return "public"
    return "unlisted" if PUBLIC in note["cc"] else "private"


def check_activity(activity: dict[str, Any]) -> None:
    """What its activity parsers make of it; those that it would pass over are named as such."""
    context = activity["@context"]
    assert AS in (context if isinstance(context, list) else [context])
    host = urlsplit(activity["actor"]).netloc
    assert urlsplit(activity["id"]).netloc == host
    said = activity["object"]
    match activity["type"]:
        case "Create":
            assert said["attributedTo"] == activity["actor"]
            check_note(said)
        case "Update" if said["type"] in ACTORS:
            assert said["id"] == activity["actor"], "only one's own account can be updated"
            check_profile(said)
        case "Update":
            assert said["attributedTo"] == activity["actor"]
            # Without a newer `updated` only figures, poll and quote are refreshed.
            check_note(said)
        case "Delete":
            assert urlsplit(id_of(said)).netloc == host
        case "Announce":
            assert isinstance(said, str), "a private self-boost may embed, everybody else names"
            moment(activity["published"])
            assert visibility(activity) == "public", "addressed to nobody whom it would be shown to"
        case "Accept" | "Reject":
            check_answer(activity)
        case "Follow":
            assert isinstance(said, str)
            assert activity["actor"] != said
        case "Undo":
            assert said["type"] in ("Announce", "Accept", "Follow", "Like", "Block"), "not undone"
            assert said["actor"] == activity["actor"]
            assert said["id"]
        case "Flag":
            assert all(isinstance(uri, str) for uri in said), "found by their ids"
            assert isinstance(activity.get("content", ""), str)
        case "QuoteRequest":
            assert isinstance(said, str)
            check_note({"@context": context, **activity["instrument"]}, asking=True)
            assert activity["instrument"]["attributedTo"] == activity["actor"]
            assert activity["instrument"].get("quote") == said, "the instrument quotes something else"
        case "Move":
            assert said == activity["actor"]
            assert isinstance(activity["target"], str)
        case other:
            raise AssertionError(f"Mastodon would ignore {other}")


def check_answer(activity: dict[str, Any]) -> None:
    """Accept and Reject: of a Follow by what is embedded, of a QuoteRequest by its id, with the authorization on the
    same host; an Accept of a reply (GoToSocial's way) finds nothing to accept and does no harm."""
    asked = activity["object"]
    if isinstance(asked, str):
        return
    assert asked["id"]
    assert asked["type"] in ("Follow", "QuoteRequest", "ReplyRequest")
    if asked["type"] == "Follow":
        assert asked["object"] == activity["actor"]
        assert asked["actor"]
    if asked["type"] == "QuoteRequest" and activity["type"] == "Accept":
        assert urlsplit(activity["result"]).netloc == urlsplit(activity["actor"]).netloc
        assert isinstance(asked["instrument"], str)


def check_stamp(stamp: dict[str, Any]) -> None:
    """What it fetches before it shows a quote; it compares all three."""
    assert stamp["type"] == "QuoteAuthorization"
    assert urlsplit(stamp["id"]).netloc == urlsplit(stamp["attributedTo"]).netloc
    assert isinstance(stamp["interactingObject"], str)
    assert urlsplit(stamp["interactionTarget"]).netloc == urlsplit(stamp["attributedTo"]).netloc


def id_of(thing: Any) -> str:
    return str(thing["id"] if isinstance(thing, dict) else thing)


def check_request(request: Captured, pem: str, host: str) -> str:
    """The `Signature` header as its parser reads it; returns the keyId."""
    given: dict[str, str] = dict(re.findall(r'([A-Za-z]+)="([^"]*)"', request.header("signature") or ""))
    names = given["headers"].split()
    assert "date" in names or "(created)" in names
    if request.method == "POST":
        assert "digest" in names, "requires the Digest header to be signed when doing a POST request"
        signed.check_digest(request)
    else:
        assert "host" in names
    assert "digest" in names or "(request-target)" in names
    assert given.get("algorithm", "hs2019") in ("rsa-sha256", "hs2019")
    assert -3600 <= signed.age(request) <= 3900
    signed.check_rsa(request, request.target, names, given["signature"], pem)
    return given["keyId"]


def moment(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    assert read.tzinfo is not None
    assert 0 < read.year <= 9999
    return read


# ── its strict sanitiser ─────────────────────────────────────────────────────────────────────────────────────────

ELEMENTS = {
    "p", "br", "span", "a", "del", "s", "pre", "blockquote", "code", "b", "strong", "u", "i", "em", "ul", "ol", "li",
    "ruby", "rt", "rp",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "rel", "class", "translate", "target"},
    "span": {"class", "translate"},
    "p": {"class"},
    "ol": {"start", "reversed"},
    "li": {"value"},
}
CLASSES = re.compile(r"(h|p|u|dt|e)-.*|mention|hashtag|ellipsis|invisible|quote-inline")
SCHEMES = {"http", "https", "dat", "dweb", "ipfs", "ipns", "ssb", "gopher", "xmpp", "magnet", "gemini"}


class _Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, f"<{tag}> would be taken away"
        if tag != "br":
            self.open.append(tag)
        for name, value in attrs:
            assert name in ATTRIBUTES.get(tag, set()) | {"lang"}, f"{tag} {name} would be taken away"
            if name == "class":
                assert all(CLASSES.fullmatch(part) for part in (value or "").split()), value
            if name == "href":
                assert urlsplit(value or "").scheme in SCHEMES, value
            if name == "translate":
                assert value == "no"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def check_markup(html: str) -> None:
    """Everything in it is kept: nothing is cleaned away, and nothing is left open."""
    parser = _Strict()
    parser.feed(html)
    parser.close()
    assert not parser.open, f"left open: {parser.open}"
