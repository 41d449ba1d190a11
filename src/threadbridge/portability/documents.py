"""The JSON documents of an archive: what is said in public, made to be read from a folder.

Rule: pure. The layout is Mastodon's account archive, which every importer knows; where importers differ, a comment
names them. Addresses of people and posts stay what they are; only files and collections of the archive become local.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids, extension
from threadbridge.activitypub.outgoing import SENT_ATTACHMENTS, Document, PostSurroundings, timestamp
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Attachment, Post
from threadbridge.storage.records import Consent, Holder, Sent, StateChange, Total

FORMAT = "threadbridge-archive"
VERSION = 1

OUTBOX = "outbox.json"
LIKES = "likes.json"
BOOKMARKS = "bookmarks.json"
FOLLOWERS_HEADER = "Account address"
COUNTED_OF_PROFILE = ("fields", "aliases", "former_handles", "pinned")
"""Lists in profile.json whose lengths the manifest tells."""


def media_name(sha256: str, media_type: str) -> str:
    """The member that holds a file; names sort as their hashes do."""
    return f"media_attachments/files/{sha256[:2]}/{sha256[2:4]}/original/{sha256}{extension(media_type)}"


def moment(at: datetime | None) -> str | None:
    """A time as exactly as it is held, UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


def usable(post: Post) -> list[Attachment]:
    """Attachments whose files are held, in order."""
    return [item for item in post.attachments if item.sha256 and item.media_type]


def actor(served: Document, avatar: str | None, header: str | None) -> Document:
    """actor.json, made from the document that is served; `avatar` and `header` are the members with the pictures
    (None: there is none)."""
    document = dict(served)
    for key, member in (("icon", avatar), ("image", header)):
        said = document.pop(key, None)
        if member is not None and said is not None:
            document[key] = said | {"url": member}
    return document | {"outbox": OUTBOX, "likes": LIKES, "bookmarks": BOOKMARKS}


def outbox_item(
    ids: Ids, account: Account, post: Post, around: PostSurroundings, as_of: datetime, lost: Collection[str]
) -> Document:
    """The Create of a post with all of its attachments, each pointing to its file in the archive; the Announce of a
    repost whose original is in the Fediverse.

    `lost` are hashes of files that could not be had: their attachments are left out.
    """
    now = max(as_of, post.published)  # the time that is held, also where the source's clock was ahead
    held = usable(post)
    document = outgoing.create(ids, account, post, around, now)
    if not isinstance(document["object"], dict):
        return document
    links = [item for item in document["object"]["attachment"] if item["type"] == "Link"]
    said: list[Document] = []
    for start in range(0, len(held), SENT_ATTACHMENTS):
        some = replace(post, attachments=tuple(held[start : start + SENT_ATTACHMENTS]))
        said += outgoing.note(ids, account, some, around, now)["attachment"]
    files = [item for item in said if item["type"] != "Link"]
    document["object"]["attachment"] = [
        _local(said_of_it, item) for said_of_it, item in zip(files, held, strict=True) if item.sha256 not in lost
    ] + links
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


_POSTS_HERE = {"post_id": "post", "parent_id": "parent", "thread_id": "thread"}
_AS_JSON = frozenset({"poll", "spoilers", "objects", "findings", "original"})
_OTHERWISE = {"peer_uri": "actor"}


def plain(ids: Ids, account_id: int, row: Mapping[str, Any]) -> Document:
    """A row as it is held, in our own words: times in full, posts of this account by their addresses."""
    said: Document = {}
    for name, value in row.items():
        if name in _POSTS_HERE:
            said[_POSTS_HERE[name]] = ids.post(account_id, value) if value is not None else None
        elif isinstance(value, datetime):
            said[name] = moment(value)
        elif name in _AS_JSON and value is not None:
            said[name] = _fragment(value, value)
        else:
            said[_OTHERWISE.get(name, name)] = value
    return said


def held_post(ids: Ids, account_id: int, row: Mapping[str, Any]) -> Document:
    """A line of posts.json: the post as it is held, with what it said before and what its sources call it."""
    about = dict(row)
    number, quoted, quoted_of = about.pop("id"), about.pop("quoted_id"), about.pop("quoted_of")
    around = {
        name: [plain(ids, account_id, each) for each in about.pop(name)]
        for name in ("attachments", "sources", "edits", "quoting")
    }
    tags = [each["shown"] for each in about.pop("tags")]
    return {
        "id": ids.post(account_id, number),
        **plain(ids, account_id, about),
        "quoted": ids.post(quoted_of, quoted) if quoted is not None and quoted_of is not None else None,
        "tags": tags,
        **around,
    }


def held_profile(ids: Ids, account_id: int, said: Mapping[str, Any]) -> Document:
    """profile.json: what the owner put on the profile and chose, beyond what actor.json says in public."""
    lists = {name: [plain(ids, account_id, row) for row in rows] for name, rows in said.items() if name != "account"}
    return {"account": plain(ids, account_id, said["account"]), **lists}


def received_quote(ids: Ids, account_id: int, row: Mapping[str, Any]) -> Document:
    """A post that quotes one of the account's; with the address of the authorization while there is one."""
    about = dict(row)
    stamp = ids.quote_stamp(account_id, about.pop("id"))
    return plain(ids, account_id, about) | {"authorization": stamp if about["state"] == "accepted" else None}


def received_approval(ids: Ids, account_id: int, row: Mapping[str, Any]) -> Document:
    """An answer that was let through, with the address of its authorization."""
    about = dict(row)
    return {"authorization": ids.reply_stamp(account_id, about.pop("id"))} | plain(ids, account_id, about)


def received_text(ids: Ids, account_id: int, row: Mapping[str, Any]) -> Document:
    """An answer or a mention: the object as its own server sent it, and what else is known of it and its author."""
    about = ids.post(account_id, row["post_id"]) if "post_id" in row else ids.actor(account_id)
    more = {name: row[name] for name in ("shown", "copy_of", "in_reply_to") if row.get(name)}
    return {
        "type": "Create",
        "actor": row["peer_uri"],
        "published": timestamp(row["published"]),
        "updated": timestamp(row["updated"]) if row["updated"] else None,
        "target": about,
        "public": row["public"],
        "received": moment(row["received_at"]),
        "hidden": row["hidden"],
        **more,
        "author": {"address": row["address"], "name": row["name"], "url": row["profile"]},
        "uri": row["uri"],
        "url": row["url"],
        "object": _fragment(row["original"], {"id": row["uri"], "url": row["url"], "content": row["html"]}),
    }


def _fragment(written: str, otherwise: Any) -> Any:
    try:
        orjson.loads(written)
    except orjson.JSONDecodeError:
        return otherwise
    return orjson.Fragment(written)


def received_reaction(ids: Ids, account_id: int, row: Mapping[str, Any]) -> Document:
    """A like or boost, with the id under which it came; `for` is whom a bridge says that the actor stands for."""
    return {
        "id": row["activity_uri"],
        "type": str(row["kind"]).capitalize(),
        "actor": row["peer_uri"],
        "published": timestamp(row["at"]),
        "object": ids.post(account_id, row["post_id"]),
        **({"content": row["emoji"]} if row["emoji"] else {}),
        **({"for": row["person"]} if row["person"] != row["peer_uri"] else {}),
        **({"hidden": row["parked"]} if row["parked"] else {}),
        "author": {"address": row["address"], "name": row["name"], "url": row["profile"]},
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


def delivery_total(total: Total) -> Document:
    """A line of the roll-ups."""
    return {
        "activity": total.activity_uri,
        "kind": total.kind,
        "state": total.state,
        "reason": total.reason or None,
        "count": total.count,
        "first_at": moment(total.first_at),
        "last_at": moment(total.last_at),
    }


def holder(ids: Ids, account_id: int, held: Holder) -> Document:
    """A server that a post was addressed to."""
    return {"post": ids.post(account_id, held.post_id), "host": held.host, "state": held.state}


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
