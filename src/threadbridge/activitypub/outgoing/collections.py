"""Collections and their pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    POST_CONTEXT,
    Document,
)

_KINDS = frozenset({"Collection", "OrderedCollection", "CollectionPage", "OrderedCollectionPage"})


def stands_alone(document: Document) -> bool:
    """Whether a document is one that somebody may bring to others: not a list of what is proved by itself, nor a
    part of another."""
    return "@context" in document and document.get("type") not in _KINDS


def ordered_collection(uri: str, total: int, *, first: str | None = None, last: str | None = None) -> Document:
    """A paged collection's head. Without `first` Mastodon takes the network for hidden."""
    document: Document = {
        "@context": ACTIVITYSTREAMS, "id": uri, "type": "OrderedCollection", "totalItems": total,
    }  # fmt: skip
    if first:
        document["first"] = first
    if last:
        document["last"] = last
    return document


def ordered_page(
    uri: str,
    part_of: str,
    items: Sequence[Any],
    *,
    total: int | None = None,
    next_page: str | None = None,
    previous_page: str | None = None,
    posts: bool = False,
) -> Document:
    """One page; `orderedItems` is a list also when it has one item or none."""
    document: Document = {
        "@context": POST_CONTEXT if posts else ACTIVITYSTREAMS,
        "id": uri,
        "type": "OrderedCollectionPage",
        "partOf": part_of,
    }
    if total is not None:
        document["totalItems"] = total
    if next_page:
        document["next"] = next_page
    if previous_page:
        document["prev"] = previous_page
    document["orderedItems"] = list(items)
    return document


def featured(ids: Ids, account_id: int, notes: Sequence[Document]) -> Document:
    """The posts on top of a profile, inline: the only history a new follower on Mastodon sees."""
    return {
        "@context": POST_CONTEXT,
        "id": ids.featured(account_id),
        "type": "OrderedCollection",
        "totalItems": len(notes),
        "orderedItems": list(notes),
    }


def featured_tags(ids: Ids, account_id: int, tags: Sequence[str]) -> Document:
    """The hashtags of a profile."""
    return {
        "@context": [ACTIVITYSTREAMS, {"Hashtag": "as:Hashtag"}],
        "id": ids.featured_tags(account_id),
        "type": "Collection",
        "totalItems": len(tags),
        "items": [{"type": "Hashtag", "href": ids.tag(tag), "name": f"#{tag}"} for tag in tags],
    }


def reactions(uri: str, total: int, said: Sequence[str], *, after: int = 0, last: int | None = None) -> Document:
    """Likes or shares, by the ids of the activities: the head with its first page inside, or the page that begins
    after a number. `last` is the number that the next page begins after."""
    page: Document = {"id": f"{uri}?page=true&after={after}", "type": "CollectionPage", "partOf": uri}
    if last is not None:
        page["next"] = f"{uri}?page=true&after={last}"
    page["items"] = list(said)
    if after:
        return {"@context": ACTIVITYSTREAMS, **page}
    return {"@context": ACTIVITYSTREAMS, **count_only(uri, total), "first": page}


def context_collection(
    uri: str, owner: str, total: int, items: Sequence[str], *, next_page: str | None = None
) -> Document:
    """The ids of a conversation in order of time, with its first page inside (FEP-7888, FEP-f228)."""
    return {
        "@context": ACTIVITYSTREAMS,
        "id": uri,
        "type": "OrderedCollection",
        "attributedTo": owner,
        "totalItems": total,
        "first": {
            "id": f"{uri}?page=1",
            "type": "OrderedCollectionPage",
            "partOf": uri,
            **({"next": next_page} if next_page else {}),
            "orderedItems": list(items),
        },
    }


def first_page(whole: Document) -> Document:
    """The first page of a collection as a document of its own."""
    return {"@context": ACTIVITYSTREAMS, **whole["first"]}


def count_only(uri: str, total: int) -> Document:
    """A collection inside a document of which only the size is said."""
    return {"id": uri, "type": "Collection", "totalItems": total}
