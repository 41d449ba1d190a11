"""Whether somebody may answer or quote a post, by what its owner chose and what the source says.

Rule: nothing is written here. "Mentioned" lets nobody else in: who can be mentioned at the source and is in the
Fediverse is an account of this server, whose words do not come through the inbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from threadbridge.storage import followers, rules
from threadbridge.storage.store import Tx


@dataclass(frozen=True, slots=True)
class Let:
    """They may; `restricted` when not everybody may, so that it has to be said that these may."""

    restricted: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """They may not; `reason` in words for the owner."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The owner decides."""


_ANYBODY = Let(restricted=False)


def answering(tx: Tx, account_id: int, post_id: int, peer_uri: str) -> Let | Refuse:
    """Whether this actor may answer this post."""
    rule = rules.for_answers(tx, post_id)
    if rule == "everyone":
        return _ANYBODY
    if rule == "nobody":
        return Refuse("nobody may answer this post")
    if rule == "mentioned":
        return Refuse("only who is mentioned may answer this post")
    if followers.follow_uri(tx, account_id, peer_uri) is None:
        return Refuse("only followers may answer this post")
    return Let(restricted=True)


def quoting(tx: Tx, account_id: int, post_id: int, peer_uri: str | None) -> Let | Refuse | Ask:
    """Whether this actor may quote this post; None stands for another account of this server."""
    rule = rules.for_quotes(tx, post_id)
    if rule == "everyone":
        return _ANYBODY
    if rule == "ask":
        return Ask()
    if rule == "nobody":
        return Refuse("nobody may quote this post")
    if peer_uri is None or followers.follow_uri(tx, account_id, peer_uri) is None:
        return Refuse("only followers may quote this post")
    return Let(restricted=True)
