"""What a Content-Type says, read as RFC 9110 writes it.

Rule: substrings decide nothing, and what is malformed means nothing.
"""

from __future__ import annotations

import re

from threadbridge.activitypub.outgoing.wording import ACTIVITYSTREAMS

JRD = frozenset({"application/jrd+json", "application/json"})
"""What WebFinger may be answered with (RFC 7033 says the first; static files are often served as the second)."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ESSENCE = re.compile(rf"[ \t]*({_WORD}/{_WORD})[ \t]*", re.ASCII)
_PARAMETER = re.compile(rf';[ \t]*(?:({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*+)"))?[ \t]*', re.ASCII)


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """The media type, lower case, and its parameters (RFC 9110 section 8.3.1); ("", {}) for what is malformed or has
    a parameter twice. Substrings decide nothing: `text/html; application/activity+json` is HTML."""
    match = _ESSENCE.match(content_type)
    if match is None:
        return "", {}
    position, parameters = match.end(), {}
    while position < len(content_type):
        parameter = _PARAMETER.match(content_type, position)
        if parameter is None:
            return "", {}
        position = parameter.end()
        if parameter[1] is None:
            continue
        name = parameter[1].lower()
        if name in parameters:
            return "", {}
        parameters[name] = parameter[2] if parameter[3] is None else re.sub(r"\\(.)", r"\1", parameter[3])
    return match[1].lower(), parameters


def is_activity_json(content_type: str) -> bool:
    """Whether a Content-Type means ActivityPub (section 3.2 there), as Mastodon tells it. Upload folders serve
    `application/json` and `application/ld+json` alike; only these two were written by a server that means it."""
    essence, parameters = media_type(content_type)
    if essence == "application/activity+json":
        return True
    return essence == "application/ld+json" and ACTIVITYSTREAMS in parameters.get("profile", "").split()
