"""What a document says that it is a copy of.

Rule: the claim is the bridge's own, and believed only against itself: what calls itself a copy may be counted less,
never more, and nothing is taken from the original. Read are FEP-fffd's `proxyOf` (Mostr and others: the original's
address, or an object with `proxied`) and its Links with rel=canonical in `url`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from threadbridge.activitypub.document import listed

ADDRESS_MAX = 2048
_LOOKED_AT = 20


def copy_of(document: Mapping[str, Any]) -> str | None:
    """The address (of any scheme: `at://`, `nostr:`) of what an actor or a post is a copy of; None when it claims
    nothing of the kind, or to be a copy of itself."""
    for item in listed(document.get("proxyOf"))[:_LOOKED_AT]:
        value = item.get("proxied", item.get("id")) if isinstance(item, dict) else item
        if _usable(value, document):
            return str(value)
    for item in listed(document.get("url"))[:_LOOKED_AT]:
        if isinstance(item, dict) and "canonical" in listed(item.get("rel")) and _usable(item.get("href"), document):
            return str(item["href"])
    return None


def _usable(value: Any, document: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value.encode()) <= ADDRESS_MAX
        and ":" in value
        and value.isprintable()
        and value != document.get("id")
    )
