"""Every public address of ours, made and read in one place.

Rule: ids never change and never redirect; they are made from permanent numbers, never from handle, text or time
(`docs/decisions/0001`). No inbox address has a query, since implementations disagree on whether a
signature covers it (Mastodon tries both, Fedify and Takahē sign the path only).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import quote, urlsplit

PUBLIC = "https://www.w3.org/ns/activitystreams#Public"

ActorCollection = Literal["outbox", "followers", "following"]
PostCollection = Literal["replies", "likes", "shares", "context"]

_ACTOR = re.compile(r"/ap/users/([1-9][0-9]{0,17})")
_POST = re.compile(r"/ap/users/([1-9][0-9]{0,17})/posts/([1-9][0-9]{0,17})")
_PROFILE = re.compile(r"/@([^/]+)")
_PAGE = re.compile(r"/@([^/]+)/([1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Ids:
    """Addresses under one base URL (`https://host`, no trailing slash)."""

    base: str

    @property
    def authority(self) -> str:
        """Host, with the port if there is one: what stands after the @ of our handles."""
        return urlsplit(self.base).netloc

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def instance(self) -> str:
        return f"{self.base}/actor"

    @property
    def instance_key(self) -> str:
        return f"{self.instance}#main-key"

    @property
    def shared_inbox(self) -> str:
        return f"{self.base}/ap/inbox"

    # ── actors ───────────────────────────────────────────────────────────────────────────────────────────────────

    def actor(self, account_id: int) -> str:
        return f"{self.base}/ap/users/{account_id}"

    def key(self, account_id: int) -> str:
        return f"{self.actor(account_id)}#main-key"

    def inbox(self, account_id: int) -> str:
        return f"{self.actor(account_id)}/inbox"

    def collection(self, account_id: int, name: ActorCollection) -> str:
        return f"{self.actor(account_id)}/{name}"

    def featured(self, account_id: int) -> str:
        return f"{self.actor(account_id)}/collections/featured"

    def featured_tags(self, account_id: int) -> str:
        return f"{self.actor(account_id)}/collections/tags"

    def accept(self, account_id: int, follow_uri: str, at: datetime) -> str:
        """Id of an Accept: a digest of the Follow that it answers, and the time, since each Follow gets its own."""
        digest = hashlib.sha256(follow_uri.encode()).hexdigest()[:16]
        return f"{self.actor(account_id)}#accepts/{digest}-{_microseconds(at)}"

    def instance_accept(self, follow_uri: str, at: datetime) -> str:
        """Id of an Accept by the server's own actor."""
        digest = hashlib.sha256(follow_uri.encode()).hexdigest()[:16]
        return f"{self.instance}#accepts/{digest}-{_microseconds(at)}"

    def relay_follow(self, address: str, at: datetime) -> str:
        """Id of the Follow with which a relay is asked to let us in."""
        digest = hashlib.sha256(address.encode()).hexdigest()[:16]
        return f"{self.instance}#follows/{digest}-{_microseconds(at)}"

    def update_actor(self, account_id: int, changed: datetime) -> str:
        return f"{self.actor(account_id)}#updates/{_microseconds(changed)}"

    def delete_actor(self, account_id: int) -> str:
        return f"{self.actor(account_id)}#delete"

    # ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def post(self, account_id: int, post_id: int) -> str:
        return f"{self.actor(account_id)}/posts/{post_id}"

    def create(self, account_id: int, post_id: int) -> str:
        return f"{self.post(account_id, post_id)}/activity"

    def update(self, account_id: int, post_id: int, updated: datetime) -> str:
        return f"{self.post(account_id, post_id)}#updates/{_microseconds(updated)}"

    def delete(self, account_id: int, post_id: int) -> str:
        return f"{self.post(account_id, post_id)}#delete"

    def refresh(self, account_id: int, post_id: int, at: datetime) -> str:
        """Id of an Update that changes no text: figures, a policy, an authorization."""
        return f"{self.post(account_id, post_id)}#refreshes/{_microseconds(at)}"

    def undo_announce(self, account_id: int, post_id: int) -> str:
        return f"{self.create(account_id, post_id)}#undo"

    def quote_request(self, account_id: int, post_id: int) -> str:
        return f"{self.post(account_id, post_id)}#quote-request"

    def quote_stamp(self, account_id: int, number: int) -> str:
        """Where it is said that a post may be quoted by another one (FEP-044f)."""
        return f"{self.actor(account_id)}/quotes/{number}"

    def reply_stamp(self, account_id: int, number: int) -> str:
        """Where it is said that an answer was let through."""
        return f"{self.actor(account_id)}/approvals/{number}"

    def reject(self, account_id: int, refused_uri: str, at: datetime) -> str:
        digest = hashlib.sha256(refused_uri.encode()).hexdigest()[:16]
        return f"{self.actor(account_id)}#rejects/{digest}-{_microseconds(at)}"

    def post_collection(self, account_id: int, post_id: int, name: PostCollection) -> str:
        return f"{self.post(account_id, post_id)}/{name}"

    # ── for people ───────────────────────────────────────────────────────────────────────────────────────────────

    def profile(self, handle: str) -> str:
        return f"{self.base}/@{handle}"

    def page(self, handle: str, post_id: int) -> str:
        return f"{self.base}/@{handle}/{post_id}"

    def tag(self, tag: str) -> str:
        return f"{self.base}/tags/{quote(tag.casefold())}"

    def media(self, sha256: str, media_type: str) -> str:
        return f"{self.base}/media/{sha256}{extension(media_type)}"

    def acct(self, handle: str, domain: str | None = None) -> str:
        """`handle@authority`, or `handle@domain` for an account with a domain of its own; without a leading @."""
        return f"{handle}@{domain or self.authority}"

    # ── reading them back ────────────────────────────────────────────────────────────────────────────────────────

    def _path(self, uri: str) -> str | None:
        if not uri.startswith(self.base + "/"):
            return None
        return uri[len(self.base) :]

    def is_ours(self, uri: str) -> bool:
        return self._path(uri) is not None

    def account_id(self, uri: str) -> int | None:
        """The account whose actor id `uri` is, exactly; None for anything else."""
        path = self._path(uri)
        match = _ACTOR.fullmatch(path) if path else None
        return int(match[1]) if match else None

    def post_ids(self, uri: str) -> tuple[int, int] | None:
        """(account id, post id) of one of our post ids, exactly; None for anything else."""
        path = self._path(uri)
        match = _POST.fullmatch(path) if path else None
        return (int(match[1]), int(match[2])) if match else None

    def page_ids(self, uri: str) -> tuple[str, int] | None:
        """(handle, post id) of one of our human post pages; people and some servers answer to those."""
        path = self._path(uri)
        match = _PAGE.fullmatch(path) if path else None
        return (match[1], int(match[2])) if match else None

    def profile_handle(self, uri: str) -> str | None:
        path = self._path(uri)
        match = _PROFILE.fullmatch(path) if path else None
        return match[1] if match else None


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


_EXTENSIONS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
}


def extension(media_type: str) -> str:
    """File extension, with the dot, of a media type that we serve."""
    return _EXTENSIONS[media_type]


def media_type_of(extension_: str) -> str | None:
    """The media type that we serve under an extension (with the dot)."""
    for media_type, ending in _EXTENSIONS.items():
        if ending == extension_:
            return media_type
    return None
