"""The JSON documents of an archive: what is said in public, made to be read from a folder.

Rule: pure. The layout is Mastodon's account archive, which every importer knows; where importers differ, a comment
names them. Addresses of people and posts stay what they are; only files and collections of the archive become local.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids, extension
from threadbridge.activitypub.outgoing import SENT_ATTACHMENTS, Document, PostSurroundings, timestamp
from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Reaction, Reply
from threadbridge.domain.posts import Attachment, Post
from threadbridge.storage.records import Consent, Sent, StateChange

FORMAT = "threadbridge-archive"
VERSION = 1

OUTBOX = "outbox.json"
LIKES = "likes.json"
BOOKMARKS = "bookmarks.json"
FOLLOWERS_HEADER = "Account address"


def media_name(sha256: str, media_type: str) -> str:
    """The member that holds a file; names sort as their hashes do."""
    return f"media_attachments/files/{sha256[:2]}/{sha256[2:4]}/original/{sha256}{extension(media_type)}"


def moment(at: datetime | None) -> str | None:
    """A time as exactly as it is held, UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


def usable(post: Post) -> list[Attachment]:
    """Attachments whose files are held, in order."""
    return [item for item in post.attachments if item.sha256 and item.media_type]


def actor(ids: Ids, account: Account, public_pem: str, avatar: str | None) -> Document:
    """actor.json; `avatar` is the member with the picture, None when there is none."""
    document = outgoing.actor(ids, account, public_pem)
    if avatar is None:
        document.pop("icon", None)
    else:
        document["icon"] = {"type": "Image", "mediaType": account.avatar_type, "url": avatar}
    return document | {"outbox": OUTBOX, "likes": LIKES, "bookmarks": BOOKMARKS}


def outbox_item(
    ids: Ids, account: Account, post: Post, around: PostSurroundings, as_of: datetime, lost: Collection[str]
) -> Document:
    """The Create of a post with all of its attachments, each pointing to its file in the archive.

    `lost` are hashes of files that could not be had: their attachments are left out.
    """
    now = max(as_of, post.published)  # the time that is held, also where the source's clock was ahead
    held = usable(post)
    document = outgoing.create(ids, account, post, around, now)
    said: list[Document] = document["object"]["attachment"]
    for start in range(SENT_ATTACHMENTS, len(held), SENT_ATTACHMENTS):
        rest = replace(post, attachments=tuple(held[start : start + SENT_ATTACHMENTS]))
        said += outgoing.note(ids, account, rest, around, now)["attachment"]
    document["object"]["attachment"] = [
        _local(said_of_it, item) for said_of_it, item in zip(said, held, strict=True) if item.sha256 not in lost
    ]
    return document


def _local(said: Document, item: Attachment) -> Document:
    assert item.sha256 is not None
    assert item.media_type is not None
    return {
        "type": "Document",  # as Mastodon writes them; what it is stands in mediaType
        "mediaType": said["mediaType"],
        # With the slash: WordPress puts it behind a folder's name, Mitra looks for exactly this beginning.
        "url": "/" + media_name(item.sha256, item.media_type),
        "name": said.get("name"),
    } | {key: value for key, value in said.items() if key not in ("type", "mediaType", "url", "name")}


def collection_head(name: str, context: Any) -> Document:
    """The beginning of a collection that lies in a file."""
    return {"@context": context, "id": name, "type": "OrderedCollection"}


def received_reply(ids: Ids, account_id: int, reply: Reply, original: str) -> Document:
    """An answer: the object as its own server sent it, and what is known of it and its author besides."""
    return {
        "type": "Create",
        "actor": reply.peer_uri,
        "published": timestamp(reply.published),
        "updated": timestamp(reply.updated) if reply.updated else None,
        "target": ids.post(account_id, reply.post_id),
        "public": reply.public,
        "author": {"address": reply.handle, "name": reply.name, "url": reply.author_url},
        "object": _as_it_came(reply, original),
    }


def _as_it_came(reply: Reply, original: str) -> Any:
    try:
        orjson.loads(original)
    except orjson.JSONDecodeError:
        return {"id": reply.uri, "url": reply.url, "content": reply.html}
    return orjson.Fragment(original)


def received_reaction(ids: Ids, account_id: int, reaction: Reaction) -> Document:
    """A like or boost, with the id under which it came."""
    return {
        "id": reaction.activity_uri,
        "type": reaction.kind.capitalize(),
        "actor": reaction.peer_uri,
        "published": timestamp(reaction.at),
        "object": ids.post(account_id, reaction.post_id),
        "author": {"address": reaction.handle, "name": reaction.name, "url": reaction.url},
    }


def delivery(sent: Sent) -> Document:
    """A line of the ledger."""
    return {
        "activity": sent.activity_uri,
        "kind": sent.kind,
        "host": sent.host,
        "state": sent.state,
        "attempts": sent.attempts,
        "status": sent.status,
        "reason": sent.reason,
        "created_at": moment(sent.created_at),
        "ended_at": moment(sent.ended_at),
    }


def consent(given: Consent) -> Document:
    """What was agreed to, and when."""
    return {"kind": given.kind, "wording": given.wording, "at": moment(given.at)}


def state_change(change: StateChange) -> Document:
    """A state of the account, why, and since when."""
    return {"state": change.state, "cause": change.cause, "at": moment(change.at)}


def manifest_head(ids: Ids, account: Account, software_version: str, counts: dict[str, int]) -> Document:
    """What manifest.json says before its lists of omissions and members."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "account": {
            "id": ids.actor(account.id),
            "handle": ids.acct(account.handle),
            "profile": ids.profile(account.handle),
            "state": account.state.value,
        },
        "base_url": ids.base,
        "as_of": moment(account.changed_at),
        "software": {"name": "threadbridge", "version": software_version},
        "counts": counts,
    }
