"""People on other servers: the actors we have met, what they did with our posts, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ReactionKind = Literal["like", "announce"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A remote actor as its own server described it. Identity is `uri` and nothing else: neither the profile's
    address nor the inbox's host ever speaks for who somebody is (bird.makeup trusted `url` and let
    one server speak for another's people)."""

    uri: str
    inbox: str
    shared_inbox: str | None
    handle: str
    name: str
    url: str | None
    key_id: str
    key_pem: str
    kind: str = "Person"
    moved_to: str | None = None


@dataclass(frozen=True, slots=True)
class Follower:
    """A remote actor that follows one of our accounts."""

    peer_uri: str
    handle: str
    name: str
    url: str | None
    since: datetime


@dataclass(frozen=True, slots=True)
class Reaction:
    """A like or boost of one of our posts, one per person and kind."""

    kind: ReactionKind
    post_id: int
    peer_uri: str
    handle: str
    name: str
    url: str | None
    activity_uri: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer from the Fediverse to one of our posts. `html` is sanitised."""

    uri: str
    post_id: int
    peer_uri: str
    handle: str
    name: str
    author_url: str | None
    url: str | None
    html: str
    published: datetime
    updated: datetime | None
    public: bool
