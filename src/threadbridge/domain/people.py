"""People on other servers: the actors we have met, what they did with our posts, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ReactionKind = Literal["like", "announce"]


@dataclass(frozen=True, slots=True)
class PeerKey:
    """A public key that an actor's document lists: PEM, and whether it is good for integrity proofs (it stands in
    `assertionMethod`)."""

    id: str
    pem: str
    asserts: bool = False

    @property
    def kind(self) -> Literal["rsa", "ed25519"]:
        """What it says it is; nothing is verified before `signatures.keys.verifying_key` has measured it."""
        return "ed25519" if "MCowBQYDK2VwAyEA" in self.pem else "rsa"


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
    keys: tuple[PeerKey, ...] = ()
    """All keys of its document, in its order; `key_id` and `key_pem` are the one that it was met with. Empty where
    only that one is known."""

    @property
    def asserts_with_key(self) -> bool:
        """Whether the key that it was met with is published for integrity proofs."""
        return any(key.id == self.key_id and key.asserts for key in self.keys)

    original: str | None = None
    """Whom a bridge says that this actor stands for."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A remote actor that follows one of our accounts."""

    peer_uri: str
    handle: str
    name: str
    url: str | None
    since: datetime


@dataclass(frozen=True, slots=True)
class FollowRequest:
    """Somebody who waits for the owner to let them follow."""

    peer_uri: str
    handle: str
    name: str
    url: str | None
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Mention:
    """A post that names an account of ours and answers none of its posts. `html` is sanitised."""

    uri: str
    peer_uri: str
    handle: str
    name: str
    author_url: str | None
    url: str | None
    html: str
    in_reply_to: str | None
    published: datetime
    updated: datetime | None
    public: bool


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that the operator subscribed to; `state` is 'waiting', 'accepted', 'rejected' or 'removed'."""

    address: str
    inbox: str
    actor_uri: str | None
    follow_uri: str
    state: str
    asked_at: datetime
    changed_at: datetime


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
    emoji: str = ""
    """'' for a plain like; `:name:` where the emoji is a picture."""


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


QuoteState = Literal["unasked", "waiting", "accepted", "refused", "revoked"]


@dataclass(frozen=True, slots=True)
class Quote:
    """A post that quotes one of ours: `uri` is the quoting post, by somebody elsewhere (`peer_uri`) or by an account
    here (`by_post_id`). 'unasked': it came with the older keys, which ask nobody. `html` is sanitised."""

    id: int
    account_id: int
    post_id: int
    uri: str
    peer_uri: str | None
    by_post_id: int | None
    request_uri: str | None
    state: QuoteState
    handle: str
    name: str
    author_url: str | None
    url: str | None
    html: str
    public: bool
    at: datetime
    ended_at: datetime | None

    @property
    def stamped(self) -> bool:
        """Whether its authorization stands."""
        return self.state == "accepted" and self.ended_at is None
