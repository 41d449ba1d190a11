"""`Accept-Signature` (RFC 9421 section 5): which signature another server asks for, and which ones we ask for.

Rule: what is asked for is given in addition to what we always sign, never instead of it. A server that could have the
target or the digest left out would get a signature of ours that is good for other requests elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from threadbridge.signatures.structured import ITEM_VALUE, KEY, STRING, quoted, unquoted

HEADER_MAX = 4096
DEMANDS_MAX = 8
COMPONENTS_MAX = 32
WORDS_MAX = 500
"""Longest nonce and tag, in characters."""
LIFE_SECONDS = 300
"""How long a signature is good when an end is asked for."""

GIVEN = frozenset(
    {
        "@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query",
        "host", "date", "content-digest", "content-type", "content-length",
    }
)  # fmt: skip
"""Components that requests of ours have."""
OF_A_BODY = frozenset({"content-digest", "content-type", "content-length"})
ALGORITHMS = frozenset({"rsa-v1_5-sha256", "rsa-pss-sha512"})
"""What an RSA key of ours can do."""

_PARAMETER = rf"; *{KEY}(?:={ITEM_VALUE})?"
_COMPONENT = rf"{STRING}(?:{_PARAMETER})*+"
_MEMBER = re.compile(
    rf"(?P<label>{KEY})=\( *(?P<items>(?:{_COMPONENT}(?: +{_COMPONENT})*+)?) *\)(?P<parameters>(?:{_PARAMETER})*+)"
)
_EACH_COMPONENT = re.compile(rf"(?P<name>{STRING})(?P<parameters>(?:{_PARAMETER})*+)")
_EACH_PARAMETER = re.compile(rf"; *(?P<name>{KEY})(?:=(?P<value>{ITEM_VALUE}))?")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_WORDS = frozenset({"keyid", "alg", "nonce", "tag"})


@dataclass(frozen=True, slots=True)
class Demand:
    """One signature that is asked for. `created` is not here: it is always given. `key_id` and `algorithm` are None
    where any will do."""

    label: str
    components: tuple[str, ...]
    expires: bool = False
    key_id: str | None = None
    algorithm: str | None = None
    nonce: str | None = None
    tag: str | None = None

    def can_be_met(self, key_id: str, *, body: bool) -> bool:
        """Whether a request of ours, signed with the RSA key of this id, with a body or without, can have it all."""
        return self.key_id in (None, key_id) and (body or not OF_A_BODY & set(self.components))

    @property
    def lasting(self) -> str:
        """The demand as a header, without the nonce (which is good once): what to expect of this server again."""
        written = f"{self.label}=({' '.join(map(quoted, self.components))});created"
        written += ";expires" if self.expires else ""
        for name, value in (("keyid", self.key_id), ("alg", self.algorithm), ("tag", self.tag)):
            written += f";{name}={quoted(value)}" if value is not None else ""
        return written


def read(header: str | None) -> tuple[Demand, ...]:
    """The demands in an `Accept-Signature` that requests of ours can have, in the order given. Nothing for a header
    that is malformed: it is advice, and bad advice is not followed."""
    if not header or len(header) > HEADER_MAX:
        return ()
    found: list[Demand | None] = []
    text, position = header.strip(" \t"), 0
    while True:
        match = _MEMBER.match(text, position)
        if match is None or len(found) == DEMANDS_MAX:
            return ()
        found.append(_demand(match))
        position = match.end()
        if position == len(text):
            break
        comma = _COMMA.match(text, position)
        if comma is None:
            return ()
        position = comma.end()
    return tuple(demand for demand in found if demand is not None)


def _demand(match: re.Match[str]) -> Demand | None:
    """None for what we cannot give: components that our requests do not have, or not in that form."""
    components = []
    for each in _EACH_COMPONENT.finditer(match["items"]):
        # `;req` speaks of answers, `;sf`, `;bs`, `;key` and `;name` of forms that nobody in the Fediverse reads.
        if each["parameters"] or unquoted(each["name"]) not in GIVEN:
            return None
        components.append(unquoted(each["name"]))
    if len(set(components)) != len(components) or len(components) > COMPONENTS_MAX or len(match["label"]) > 64:
        return None
    given: dict[str, str | None] = {}
    for each in _EACH_PARAMETER.finditer(match["parameters"]):
        if each["name"] in given:
            return None
        given[each["name"]] = each["value"]
    # These are asked for by their presence (and we always say when, by which key and how).
    bare = {name for name in ("created", "expires", "keyid", "alg") if given.get(name, "") in (None, "?1")}
    words = {}
    for name in given.keys() - bare:
        value = given[name]
        if name not in _WORDS or value is None or not value.startswith('"') or len(value) > WORDS_MAX:
            return None
        words[name] = unquoted(value)
    if words.get("alg", "rsa-v1_5-sha256") not in ALGORITHMS:
        return None
    return Demand(
        match["label"],
        tuple(components),
        "expires" in bare,
        words.get("keyid"),
        words.get("alg"),
        words.get("nonce"),
        words.get("tag"),
    )


def ours(method: str) -> dict[str, str]:
    """The headers with which we say, beside a 401, what a request of this method has to sign."""
    body = method.upper() not in ("GET", "HEAD")
    message = '"@method" "@target-uri"' + (' "content-digest"' if body else "")
    draft = "(request-target) host date" + (" digest" if body else "")
    return {
        "Accept-Signature": f"sig1=({message});created",
        "WWW-Authenticate": f'Signature realm="ActivityPub",headers="{draft}"',
    }
