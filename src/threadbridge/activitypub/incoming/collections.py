"""Collections of answers from elsewhere, read into a small frozen type.

Rule: of what stands in a collection only the ids are taken: each post is believed as its own origin tells it. Shapes
that are met: Mastodon and GoToSocial put a first page into `replies`; Misskey's family and WordPress name one there;
PeerTube has `comments`; FEP-7888 and FEP-f228 put a whole conversation behind `context`, as posts or as activities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threadbridge.activitypub.document import is_id, listed
from threadbridge.errors import Invalid

COLLECTION_KINDS = frozenset({"Collection", "OrderedCollection", "CollectionPage", "OrderedCollectionPage"})
ITEMS_MAX = 200
_ACTIVITIES = frozenset({"Create", "Announce", "Add"})
_HOLDERS = ("replies", "comments", "context")


@dataclass(frozen=True, slots=True)
class IncomingPage:
    """What a collection or a page of one leads to: `items` are ids of posts, each once; `first` and `next` lead on,
    as an address or as the page itself."""

    items: tuple[str, ...]
    first: str | Mapping[str, Any] | None
    next: str | None


def read_page(document: Mapping[str, Any]) -> IncomingPage:
    """A collection or a page of one; raises Invalid for anything else."""
    kind = document.get("type")
    if kind not in COLLECTION_KINDS:
        raise Invalid("The document is not a collection", detail=f"its type is {str(kind)[:100]}")
    held = [*listed(document.get("orderedItems")), *listed(document.get("items"))]
    found = (_item(item) for item in held[:ITEMS_MAX])
    first, onward = document.get("first"), document.get("next")
    onward = onward.get("id") if isinstance(onward, dict) else onward
    return IncomingPage(
        items=tuple(dict.fromkeys(uri for uri in found if uri is not None)),
        first=first if isinstance(first, dict) or is_id(first) else None,
        next=onward if is_id(onward) else None,
    )


def related_collections(document: Mapping[str, Any]) -> tuple[str | Mapping[str, Any], ...]:
    """Where a post's document says that the posts around it are: addresses, or collections that stand inside."""
    found: list[str | Mapping[str, Any]] = []
    for name in _HOLDERS:
        value = document.get(name)
        inside = isinstance(value, dict) and value.get("type") in COLLECTION_KINDS
        if isinstance(value, (str, dict)) and (inside or is_id(value)):
            found.append(value)
    return tuple(found)


def _item(item: Any) -> str | None:
    """The post's id, also where the item is the activity that said it (FEP-f228's `contextHistory`)."""
    if isinstance(item, dict) and item.get("type") in _ACTIVITIES:
        item = item.get("object")
    found = item.get("id") if isinstance(item, dict) else item
    return found if is_id(found) else None
