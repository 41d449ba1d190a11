"""What a server says of itself (NodeInfo 2.x), read into small frozen types.

Rule: read are the name and the version of the software alone, as plain short words; they are for people to look at,
and to know bridges by, and open no door to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threadbridge.activitypub.document import listed
from threadbridge.errors import Invalid

SCHEMA = "http://nodeinfo.diaspora.software/ns/schema/2."
WORD_MAX = 64
_LINKS_MAX = 20


@dataclass(frozen=True, slots=True)
class Software:
    """What a server runs: a name in lower case, and a version ('' where it does not say)."""

    name: str
    version: str


def read_nodeinfo_links(document: Mapping[str, Any]) -> list[str]:
    """Where the NodeInfo 2.x documents are, newest form first. (Some write the schema with https.)"""
    links = document.get("links")
    found = [
        (rel, href)
        for link in (listed(links)[:_LINKS_MAX] if isinstance(links, list) else ())
        if isinstance(link, dict)
        and isinstance(rel := link.get("rel"), str)
        and rel.replace("https://", "http://", 1).startswith(SCHEMA)
        and isinstance(href := link.get("href"), str)
    ]
    return [href for _, href in sorted(found, key=lambda link: link[0][-3:], reverse=True)]


def read_nodeinfo(document: Mapping[str, Any]) -> Software:
    """The software in a NodeInfo document. Raises Invalid."""
    software = document.get("software")
    if not isinstance(software, dict) or not (name := _word(software.get("name")).lower()):
        raise Invalid("The NodeInfo names no software")
    return Software(name, _word(software.get("version")))


def _word(value: Any) -> str:
    words = " ".join(value[:WORD_MAX].split()) if isinstance(value, str) else ""
    return words if words.isprintable() else ""
