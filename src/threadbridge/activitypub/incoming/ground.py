"""What every reader of foreign documents asks first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from threadbridge.activitypub.document import (
    kind_of,
    names_activitystreams,
)
from threadbridge.errors import Invalid
from threadbridge.signatures.keys import origin

NAME_MAX = 2048


def is_tombstone(document: Mapping[str, Any]) -> bool:
    """Whether a document says that what it names was deleted."""
    return document.get("type") == "Tombstone"


def same_origin(first: str, second: str) -> bool:
    """Whether two ids live at the same scheme, host and port. False when either is no http(s) URL."""
    return (found := origin(first)) is not None and found == origin(second)


def standing(document: Mapping[str, Any]) -> str:
    """The type of a document that stands by itself."""
    if not names_activitystreams(document):
        raise Invalid("The document does not name ActivityStreams in @context")
    kind = kind_of(document)
    if kind is None:
        raise Invalid("The document has no type")
    return kind


def check_own(named: str, actor: str, what: str) -> None:
    if not same_origin(named, actor):
        raise Invalid(f"{what} is not on the server of the actor")
