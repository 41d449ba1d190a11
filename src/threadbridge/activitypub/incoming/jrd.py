"""What WebFinger answers (RFC 7033), read into a small frozen type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threadbridge.activitypub.content_types import is_activity_json
from threadbridge.activitypub.document import listed


@dataclass(frozen=True, slots=True)
class IncomingJrd:
    """`subject` as it stands there ('' if it is no text), and the addresses of all its links to an ActivityPub actor,
    in order."""

    subject: str
    actors: tuple[str, ...]

    @property
    def handle(self) -> str:
        """The subject as `user@host`."""
        return self.subject.removeprefix("acct:").removeprefix("@")


def read_jrd(document: Mapping[str, Any]) -> IncomingJrd:
    """An answer to WebFinger. What a link lacks makes it no link to an actor; nothing is an error."""
    subject, links = document.get("subject"), document.get("links")
    found = [
        link["href"]
        for link in (listed(links) if isinstance(links, list) else ())
        if isinstance(link, dict)
        and link.get("rel") == "self"
        and isinstance(link.get("href"), str)
        and is_activity_json(str(link.get("type", "")))
    ]
    return IncomingJrd(subject if isinstance(subject, str) else "", tuple(found))
