"""What the fuzzers begin with, made here by hand, and how they bend it."""

# ruff: noqa: E501

from __future__ import annotations

import copy
import json
import random
from typing import Any

AS = "https://www.w3.org/ns/activitystreams"
PUBLIC = f"{AS}#Public"


def activities(actor: str, post: str, us: str) -> list[dict[str, Any]]:
    """One of every kind that an inbox hears, by `actor`, about our `post` and our actor `us`."""
    base = actor.rpartition("/users/")[0]
    note = {
        "id": f"{base}/notes/1", "type": "Note", "attributedTo": actor, "content": "<p>Hi <b>you</b> &amp; all</p>",
        "contentMap": {"en": "<p>Hi</p>"}, "inReplyTo": post, "published": "2026-11-01T10:00:00Z", "to": [PUBLIC],
        "cc": [us], "url": f"{base}/@bob/1", "sensitive": False, "summary": None, "conversation": f"{base}/c/1",
        "tag": [{"type": "Mention", "href": us, "name": "@alice"}, {"type": "Hashtag", "name": "#x", "href": base}],
        "attachment": [{"type": "Image", "mediaType": "image/png", "url": f"{base}/1.png", "name": "alt"}],
        "replies": {"type": "Collection", "first": {"type": "CollectionPage", "items": []}},
        "quote": post, "interactionPolicy": {"canQuote": {"automaticApproval": [PUBLIC]}},
    }  # fmt: skip
    vote = {"id": f"{base}/v/1", "type": "Note", "attributedTo": actor, "name": "Yes", "inReplyTo": post, "to": [us]}
    profile = {
        "id": actor, "type": "Person", "preferredUsername": "bob", "name": "Bob", "summary": "<p>x</p>",
        "inbox": f"{actor}/inbox", "outbox": f"{actor}/outbox", "endpoints": {"sharedInbox": f"{base}/inbox"},
        "alsoKnownAs": [f"{base}/users/rob"], "publicKey": {"id": f"{actor}#main-key", "owner": actor},
        "attachment": [{"type": "PropertyValue", "name": "a", "value": "b"}],
    }  # fmt: skip
    follow = {"id": f"{base}/f/1", "type": "Follow", "actor": actor, "object": us}
    like = {"id": f"{base}/l/1", "type": "Like", "actor": actor, "object": post}

    def said(kind: str, object_: Any, **more: Any) -> dict[str, Any]:
        return {"@context": [AS, {"toot": "http://joinmastodon.org/ns#"}], "id": f"{base}/a/{kind}", "type": kind,
                "actor": actor, "object": object_, **more}  # fmt: skip

    return [
        said("Create", note, to=[PUBLIC], cc=[us]),
        said("Create", vote),
        said("Update", note),
        said("Update", profile),
        said("Delete", {"id": note["id"], "type": "Tombstone"}),
        said("Delete", actor),
        said("Follow", us),
        said("Undo", follow),
        said("Undo", like),
        said("Accept", follow),
        said("Reject", follow),
        said("Like", post),
        said(
            "EmojiReact", post, content="🎉", tag=[{"type": "Emoji", "name": ":x:", "icon": {"url": f"{base}/x.png"}}]
        ),
        said("Announce", post, published="2026-11-01T10:00:00Z", to=[PUBLIC]),
        said("Block", us),
        said("Flag", [us, post], content="spam"),
        said("Move", actor, target=f"{base}/users/rob"),
        said("Add", note["id"], target=f"{actor}/featured"),
        said("Remove", note["id"], target=f"{actor}/featured"),
        said("QuoteRequest", post, instrument=note),
        said("ReplyRequest", post, instrument=note),
    ]


ODD: list[Any] = [
    None, True, False, 0, -1, 1e308, 2**53, 2**63, 10**40, "", " ", "\x00", "\u202e", "\ud800", "a" * 5000, "💥" * 300,
    [], {}, [[]], [None], [{}], {"@id": "x"}, {"@value": 1}, {"@graph": []}, {"id": None}, {"type": []},
    "http://", "https://", "https://[::1", "https://user:pw@h.example/", "https://h.example:99999/", "//h", "javascript:1",
    "https://xn--.example/", "https://ⓔ.example/", "data:,x", "did:ap:key:z6Mk", "as:Public", PUBLIC,
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "2026-02-30T00:00:00Z", "2026-11-22", "-1-1-1T", "1e999",
    ["Note", "Question"], {"type": "Note"}, [{"type": "Link", "href": 7}], {"en": {}}, {"": ""},
]  # fmt: skip
TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\u0000", b"\\ud800", b"\\", b"NaN", b"-Infinity", b"1e400", b"-0",
    b"0" * 80, b"[" * 60, b'{"a":' * 60, b'"@graph":[', b'"@reverse":{', b'"type":"Create",', b'"id":null,', b"\xff\xfe",
    b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"null", b"true", b'"actor":"https://other.example/u",', b"\n" * 50,
]  # fmt: skip

SIGNATURES = [
    'keyId="https://b.example/users/bob#main-key",algorithm="rsa-sha256",headers="(request-target) host date digest",'
    'signature="c2lnbmF0dXJl"',
    'keyId="https://b.example/users/bob#main-key",algorithm="hs2019",created=1793000000,expires=1793000300,'
    'headers="(request-target) (created) (expires) host digest",signature="c2ln"',
]
INPUTS = [
    'sig1=("@method" "@target-uri" "content-digest");created=1793000000;keyid="https://b.example/users/bob#main-key"',
    'sig1=("@method" "@authority" "@path" "@query" "content-digest" "date");created=1793000000;expires=1793000300;'
    'keyid="https://b.example/u#k";alg="rsa-v1_5-sha256";nonce="x";tag="y"',
]
HEADER_TOKENS = [
    '"', ",", ";", "=", "(", ")", " ", "\t", "\\", "keyId=", 'headers=""', "signature=", "(created)", '"@query";req',
    "created=99999999999999999999", "created=-1", "sha-256=", ":", "SHA-256=", "é", "\x7f", "x" * 3000, "sig2=()", "?0",
    '";alg="none', "@signature-params", "keyid=keyid", "1e5", "\u0000",
]  # fmt: skip

HTML = [
    '<p>Hello <a href="https://example.org/?a=1&amp;b=2" class="u-url mention" rel="me">@<span>bob</span></a><br>x</p>',
    '<span class="invisible">https://</span><span class="ellipsis">example.org/abc</span>',
    '<img src=x onerror=alert(1)><svg/onload=alert(1)><math><mi xlink:href="javascript:alert(1)">x</mi></math>',
    "<script>alert(1)</script><style>*{}</style><template><b></template><noscript><p title='</noscript><img src=x>'>",
    '<a href="&#106;avascript:alert(1)">x</a><a href=" javascript:x">y</a><a href="//h">z</a><a href=data:text/html,x>w</a>',
    "<ul><li value=3>one</li></ul><ol start=2><li>x</ol><blockquote><pre><code>x</code></pre></blockquote><h1>t</h1>",
    "<!-- <p> --><![CDATA[<b>]]><?php x ?><p/><b><i></b></i><table><td><form><input></form></td></table>",
    "<ruby>漢<rp>(</rp><rt>kan</rt></ruby>\u202ertl\u0000<p dir=rtl style='x:expression(1)' lang=ar>سلام</p>",
]
HTML_TOKENS = [
    "<", ">", "</", "/>", '"', "'", "&", "&#", "&#x0;", "<!--", "-->", "<![CDATA[", "<svg>", "<math>", "<style>", "<a href=",
    "javascript:", "<div>" * 200, "<b>" * 500, "\x00", "\u2028", "<p ", "class=", "onclick=x", "<annotation-xml>",
    "<mglyph>", "<plaintext>", "<xmp>", "<noembed>", "<iframe srcdoc='", "\ud800".encode("utf-8", "replace").decode(),
]  # fmt: skip


def bent_bytes(body: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The body with one to four things wrong with it."""
    made = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(6):
            case 0 if made:
                made[min(at, len(made) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                del made[at : at + rng.randint(1, 40)]
            case 2:
                made[at:at] = rng.choice(TOKENS)
            case 3:
                made[at:at] = made[at : at + rng.randint(1, 200)] * rng.randint(1, 3)
            case 4:
                made = made[:at] + bytearray(rng.choice(others))[at:]
            case _:
                made = made[:at]
    return bytes(made)


def bent_text(text: str, tokens: list[str], rng: random.Random) -> str:
    """The text with one to five things wrong with it."""
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(tokens) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 12) :]
            case 2:
                text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0xD7FF)))) + text[at + 1 :]
            case _:
                text = text[:at] + text[at : at + rng.randint(1, 60)] * 2 + text[at:]
    return text


def bent_value(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The document, still a document, with one to three values of another kind, gone, doubled or moved."""
    made = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(made))
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del holder[key]
            case 1:
                holder[key] = [holder[key]]
            case 2:
                other, name = rng.choice(places)
                if name in other if isinstance(other, dict) else name < len(other):
                    holder[key] = copy.deepcopy(other[name])
            case _:
                holder[key] = copy.deepcopy(rng.choice(ODD))
        if not made:
            return {"@context": AS}
    return made


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        held = todo.pop()
        keys = list(held) if isinstance(held, dict) else range(len(held))
        for key in keys:
            found.append((held, key))
            if isinstance(held[key], dict | list) and held[key]:
                todo.append(held[key])
    return found


def encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
