"""Authorizations that others give (FEP-044f), looked at with strict eyes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from threadbridge.activitypub.document import kind_of, one_id
from threadbridge.activitypub.incoming.ground import same_origin
from threadbridge.errors import Invalid


def forged_stamp(document: Mapping[str, Any], *, author: str, quoting: str, quoted: str) -> str | None:
    """Why a document, fetched from the address that its id names, does not authorize `quoting` to quote `quoted` by
    `author`; None when it does."""
    if kind_of(document) != "QuoteAuthorization":
        return "it is no authorization to quote"
    try:
        if not same_origin(one_id(document.get("id"), "id"), author):
            return "it is not on the server of whom it quotes"
        for name, wanted, words in (
            ("attributedTo", author, "it is by somebody else"),
            ("interactingObject", quoting, "it is for another post"),
            ("interactionTarget", quoted, "it is about another post"),
        ):
            if one_id(document.get(name), name) != wanted:
                return words
    except Invalid as error:
        return error.public
    return None
