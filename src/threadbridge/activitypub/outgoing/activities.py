"""Every activity that we say."""

from __future__ import annotations

from datetime import datetime

from threadbridge.activitypub.ids import PUBLIC, Ids
from threadbridge.activitypub.outgoing.posts import PostSurroundings, note
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    Document,
    timestamp,
)
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Post


def create(ids: Ids, account: Account, post: Post, around: PostSurroundings, now: datetime) -> Document:
    """Create of a post. Recipients of activity and object are equal, or Pleroma's family refuses it. A repost of what
    is in the Fediverse itself is an Announce of that."""
    if post.announced_uri is not None:
        return announce(ids, account, post, now)
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


def recipients(said: Document) -> list[str]:
    """Everybody to whom an activity is addressed by name or by collection."""
    return [*said.get("to", ()), *said.get("cc", ())]


def announce(ids: Ids, account: Account, post: Post, now: datetime) -> Document:
    """Announce of the original of a repost, named by its id: receivers fetch it from its origin."""
    author = [post.announced_author] if post.announced_author else []
    return {
        "id": ids.create(account.id, post.id),
        "type": "Announce",
        "actor": ids.actor(account.id),
        "published": timestamp(min(post.published, now)),
        "to": [PUBLIC],
        "cc": [*author, ids.collection(account.id, "followers")],
        "object": post.announced_uri,
    }


def undo_announce(ids: Ids, account: Account, post: Post, now: datetime) -> Document:
    """Take a repost back; the Announce is embedded, since not everybody remembers its id."""
    made = announce(ids, account, post, now)
    return {
        "@context": ACTIVITYSTREAMS,
        "id": ids.undo_announce(account.id, post.id),
        "type": "Undo",
        "actor": made["actor"],
        "to": made["to"],
        "cc": made["cc"],
        "object": made,
    }


def refresh(ids: Ids, account: Account, post: Post, around: PostSurroundings, now: datetime) -> Document:
    """Update of a post whose text is what it was: new figures of a poll, another policy, an authorization. `updated`
    of the note stays, so that Mastodon takes over the figures and shows no edit."""
    said = note(ids, account, post, around, now)
    return {
        "id": ids.refresh(account.id, post.id, now),
        "type": "Update",
        "actor": ids.actor(account.id),
        "published": timestamp(now),
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


def update_actor(ids: Ids, account_id: int, described: Document, at: datetime) -> Document:
    """Update of an account with its whole actor document: other servers look again by themselves only after a day or
    a week."""
    return {
        "@context": described["@context"],
        "id": ids.update_actor(account_id, at),
        "type": "Update",
        "actor": ids.actor(account_id),
        "published": timestamp(at),
        "to": [PUBLIC],
        "cc": [ids.collection(account_id, "followers")],
        "object": {key: value for key, value in described.items() if key != "@context"},
    }


def delete_actor(ids: Ids, account_id: int) -> Document:
    """Delete of an account: actor and object are the same, which is how every server tells it from a post's."""
    me = ids.actor(account_id)
    return {
        "@context": ACTIVITYSTREAMS,
        "id": ids.delete_actor(account_id),
        "type": "Delete",
        "actor": me,
        "to": [PUBLIC],
        "cc": [],
        "object": me,
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


def reject(ids: Ids, account_id: int, reject_uri: str, follow: Document) -> Document:
    """Reject of a Follow, embedded like in an Accept; at any time it ends the follow over there."""
    return {**accept(ids, account_id, reject_uri, follow), "type": "Reject"}


def follow_relay(ids: Ids, uri: str, object_uri: str) -> Document:
    """A Follow by the server's own actor: of the public collection (Mastodon's way of asking a relay), or of the
    relay's actor (LitePub)."""
    return {"@context": ACTIVITYSTREAMS, "id": uri, "type": "Follow", "actor": ids.instance, "object": object_uri}


def undo_follow_relay(ids: Ids, uri: str, object_uri: str) -> Document:
    """Undo of such a Follow."""
    followed = {key: value for key, value in follow_relay(ids, uri, object_uri).items() if key != "@context"}
    return {
        "@context": ACTIVITYSTREAMS, "id": f"{uri}/undo", "type": "Undo", "actor": ids.instance, "object": followed,
    }  # fmt: skip


def accept_relay(ids: Ids, follow: Document, at: datetime) -> Document:
    """Accept by the server's own actor of a LitePub relay's Follow: those follow back, or send nothing."""
    return {
        "@context": ACTIVITYSTREAMS,
        "id": ids.instance_accept(follow["id"], at),
        "type": "Accept",
        "actor": ids.instance,
        "to": [follow["actor"]],
        "object": follow,
    }


def follow_said(uri: str, peer_uri: str, object_uri: str) -> Document:
    """A received Follow as it is echoed in our Accept."""
    return {"id": uri, "type": "Follow", "actor": peer_uri, "object": object_uri}
