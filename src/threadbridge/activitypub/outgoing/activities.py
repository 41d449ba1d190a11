"""Every activity that we say."""

from __future__ import annotations

from datetime import datetime

from threadbridge.activitypub.ids import PUBLIC, Ids
from threadbridge.activitypub.outgoing.actors import actor
from threadbridge.activitypub.outgoing.posts import PostSurroundings, note
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    Document,
    timestamp,
)
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Post


def create(ids: Ids, account: Account, post: Post, around: PostSurroundings, now: datetime) -> Document:
    """Create of a post. Recipients of activity and object are equal, or Pleroma's family refuses it."""
    said = note(ids, account, post, around, now)
    return {
        "id": ids.create(account.id, post.id),
        "type": "Create",
        "actor": ids.actor(account.id),
        "published": said["published"],
        "to": said["to"],
        "cc": said["cc"],
        "object": said,
    }


def update(ids: Ids, account: Account, post: Post, around: PostSurroundings, now: datetime) -> Document:
    """Update of an edited post; each has an id of its own, or receivers drop it as seen."""
    said = note(ids, account, post, around, now)
    assert post.updated is not None
    return {
        "id": ids.update(account.id, post.id, post.updated),
        "type": "Update",
        "actor": ids.actor(account.id),
        "published": timestamp(post.updated),
        "to": said["to"],
        "cc": said["cc"],
        "object": said,
    }


def delete(ids: Ids, account_id: int, post_id: int) -> Document:
    """Delete of a post, naming it by a Tombstone as Mastodon does."""
    return {
        "@context": ACTIVITYSTREAMS,
        "id": ids.delete(account_id, post_id),
        "type": "Delete",
        "actor": ids.actor(account_id),
        "to": [PUBLIC],
        "cc": [ids.collection(account_id, "followers")],
        "object": {"id": ids.post(account_id, post_id), "type": "Tombstone"},
    }


def update_actor(ids: Ids, account: Account, public_pem: str) -> Document:
    """Update of an account whose profile changed, with the whole actor document: other servers look again by
    themselves only after a day or a week."""
    me = ids.actor(account.id)
    described = actor(ids, account, public_pem)
    return {
        "@context": described.pop("@context"),
        "id": ids.update_actor(account.id, account.changed_at),
        "type": "Update",
        "actor": me,
        "published": timestamp(account.changed_at),
        "to": [PUBLIC],
        "cc": [ids.collection(account.id, "followers")],
        "object": described,
    }


def accept(ids: Ids, account_id: int, accept_uri: str, follow: Document) -> Document:
    """Accept of a Follow, which is embedded with its own id: Misskey and GoToSocial look for it there."""
    return {
        "@context": ACTIVITYSTREAMS,
        "id": accept_uri,
        "type": "Accept",
        "actor": ids.actor(account_id),
        "to": [follow["actor"]],
        "object": follow,
    }


def follow_said(uri: str, peer_uri: str, object_uri: str) -> Document:
    """A received Follow as it is echoed in our Accept."""
    return {"id": uri, "type": "Follow", "actor": peer_uri, "object": object_uri}
