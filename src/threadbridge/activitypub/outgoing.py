"""Every document and activity that we say, as plain dictionaries, and the one way to make bytes of them.

Rule: each shape satisfies the strictest reader known (Mastodon, GoToSocial, Misskey, Akkoma, Takahē, Lemmy,
Pixelfed), and where two disagree a comment names them. Keys are in a fixed order: the same state gives the same
bytes, so that ETags hold and pollers are answered 304.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from itertools import accumulate
from typing import Any

import orjson

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import PUBLIC, Ids
from threadbridge.activitypub.text import MentionTarget
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Attachment, Post, hashtag_name

Document = dict[str, Any]

ACTIVITY_JSON = "application/activity+json; charset=utf-8"
JRD_JSON = "application/jrd+json; charset=utf-8"
ACTIVITYSTREAMS = "https://www.w3.org/ns/activitystreams"
SECURITY = "https://w3id.org/security/v1"

# Mastodon shows four attachments and drops the rest without a word, so a longer carousel says where the others are.
SHOWN_ATTACHMENTS = 4
SENT_ATTACHMENTS = 16

# Misskey refuses a request of more than 64 KiB and a note that mentions more than twenty people, and keeps 512
# characters of a description. A Create adds to its note a context and the same recipients once more.
NOTE_BYTES_MAX = 57_000
MENTIONS_MAX = 20
SHORT_ALT = 500
CUT_TEXTS = (8_000, 4_000, 2_000, 500)
# Ids of foreign answers may be long; what is listed inside every post is bounded by their length, not their number.
REPLIES_CHARACTERS_MAX = 6_000

_ACTOR_CONTEXT: list[Any] = [
    ACTIVITYSTREAMS,
    SECURITY,
    {
        # Defined here rather than by its address: few readers have that document, and some would fetch it.
        "webfinger": {
            "@id": "https://purl.archive.org/socialweb/webfinger#webfinger",
            "@type": "http://www.w3.org/2001/XMLSchema#string",
        },
        "manuallyApprovesFollowers": "as:manuallyApprovesFollowers",
        "toot": "http://joinmastodon.org/ns#",
        "featured": {"@id": "toot:featured", "@type": "@id"},
        "featuredTags": {"@id": "toot:featuredTags", "@type": "@id"},
        "alsoKnownAs": {"@id": "as:alsoKnownAs", "@type": "@id"},
        "movedTo": {"@id": "as:movedTo", "@type": "@id"},
        "schema": "http://schema.org#",
        "PropertyValue": "schema:PropertyValue",
        "value": "schema:value",
        "discoverable": "toot:discoverable",
        "memorial": "toot:memorial",
        "indexable": "toot:indexable",
        "attributionDomains": {"@id": "toot:attributionDomains", "@container": "@set"},
        "Hashtag": "as:Hashtag",
    },
]

_POST_CONTEXT: list[Any] = [
    ACTIVITYSTREAMS,
    {
        "ostatus": "http://ostatus.org#",
        "conversation": "ostatus:conversation",
        "sensitive": "as:sensitive",
        "toot": "http://joinmastodon.org/ns#",
        "votersCount": "toot:votersCount",
        "blurhash": "toot:blurhash",
        "Hashtag": "as:Hashtag",
        "quote": {"@id": "https://w3id.org/fep/044f#quote", "@type": "@id"},
        "quoteUri": "http://fedibird.com/ns#quoteUri",
        "_misskey_quote": "https://misskey-hub.net/ns#_misskey_quote",
        "gts": "https://gotosocial.org/ns#",
        "interactionPolicy": {"@id": "gts:interactionPolicy", "@type": "@id"},
        "canQuote": {"@id": "gts:canQuote", "@type": "@id"},
        "automaticApproval": {"@id": "gts:automaticApproval", "@type": "@id"},
    },
]


def encode(document: Document) -> bytes:
    """The bytes of a document: made once, kept, signed and sent as they are."""
    return orjson.dumps(document)


def timestamp(moment: datetime) -> str:
    """UTC, whole seconds, 'Z'."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class PostSurroundings:
    """What a post's document needs beyond the post itself.

    `mentions` maps source user names to actors on this server; `continuations` are ids of the owner's own posts
    that continue it; `answers` are ids of received replies; `thread_id` is the first post of the owner's thread;
    `quoted` is (account id, post id) of a quoted post on this server; `parent_gone` says that the post which this one
    continues was deleted.
    """

    mentions: Mapping[str, MentionTarget] = field(default_factory=dict)
    continuations: Sequence[int] = ()
    answers: Sequence[str] = ()
    thread_id: int | None = None
    quoted: tuple[int, int] | None = None
    parent_gone: bool = False


# ── actors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def actor(ids: Ids, account: Account, public_pem: str) -> Document:
    """The actor document of an account."""
    me = ids.actor(account.id)
    document: Document = {
        "@context": _ACTOR_CONTEXT,
        "id": me,
        "type": "Person",
        "preferredUsername": account.handle,
        "webfinger": ids.acct(account.handle),  # FEP-2c59
        "name": account.name or account.handle,
        "summary": bio_html(ids, account),  # Pixelfed refuses actors without the key
        "url": ids.profile(account.handle),
        "inbox": ids.inbox(account.id),
        "outbox": ids.collection(account.id, "outbox"),
        "followers": ids.collection(account.id, "followers"),
        "following": ids.collection(account.id, "following"),
        "featured": ids.featured(account.id),
        "featuredTags": ids.featured_tags(account.id),
        # Said outright: GoToSocial and Mastodon differ in what absence means.
        "manuallyApprovesFollowers": False,
        "discoverable": account.discoverable,
        "indexable": account.discoverable,
        "memorial": False,
        "published": timestamp(account.joined_at or account.created_at),
        "publicKey": {"id": ids.key(account.id), "owner": me, "publicKeyPem": public_pem},
        "endpoints": {"sharedInbox": ids.shared_inbox},
        "attributionDomains": [ids.authority],
        "attachment": [],
        "tag": [],
    }
    if account.avatar and account.avatar_type:
        document["icon"] = {
            "type": "Image",
            "mediaType": account.avatar_type,
            "url": ids.media(account.avatar, account.avatar_type),
        }
    if account.source_url:
        shown = account.source_url.split("://", 1)[-1]
        document["attachment"].append(
            {
                "type": "PropertyValue",
                "name": "Threads",
                "value": f'<a href="{escape(account.source_url)}" rel="me nofollow noopener noreferrer" '
                f'target="_blank">{escape(shown)}</a>',
            }
        )
    return document


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


def bio_html(ids: Ids, account: Account) -> str:
    """The profile text as markup."""
    return text.render(account.bio, mentions={}, tag_url=ids.tag, profile_url=threads_profile).html


def threads_profile(username: str) -> str:
    """Where a Threads user name leads."""
    return f"https://www.threads.com/@{username}"


def instance_actor(ids: Ids, public_pem: str) -> Document:
    """The server's own actor: signs our GETs, and is readable without a signature by everybody, since servers in
    secure mode need our key to verify the request with which we ask for theirs (Takahē and Mastodon deadlocked)."""
    return {
        "@context": [ACTIVITYSTREAMS, SECURITY, {"manuallyApprovesFollowers": "as:manuallyApprovesFollowers"}],
        "id": ids.instance,
        "type": "Application",
        "preferredUsername": ids.authority,
        "name": ids.authority,
        "summary": "",
        "url": f"{ids.base}/about",
        "inbox": f"{ids.instance}/inbox",
        "outbox": f"{ids.instance}/outbox",
        "manuallyApprovesFollowers": True,
        "endpoints": {"sharedInbox": ids.shared_inbox},
        "publicKey": {"id": ids.instance_key, "owner": ids.instance, "publicKeyPem": public_pem},
    }


# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def note(ids: Ids, account: Account, post: Post, around: PostSurroundings, now: datetime) -> Document:
    """A post as a Note, or as a Question when it is a poll whose counts are known. Without `@context`.

    Never more than `NOTE_BYTES_MAX` bytes: what does not fit is shortened, first what is said twice, then long
    descriptions of pictures, at last the text, which then ends with a link to all of it.
    """
    document = _whole_note(ids, account, post, around, now)
    if len(encode(document)) <= NOTE_BYTES_MAX:
        return document
    document.pop("contentMap", None)
    if len(encode(document)) > NOTE_BYTES_MAX:
        for item in document["attachment"]:
            if "name" in item:
                item["name"] = text.shortened(item["name"], SHORT_ALT)
    for characters in CUT_TEXTS:
        if len(encode(document)) <= NOTE_BYTES_MAX:
            break
        document["content"] = _content(ids, _cut(post, characters, document["url"]), around)[0]
    return document


def _cut(post: Post, characters: int, rest_at: str) -> Post:
    """The post with each of its texts cut, and an address where all of it can be read."""
    long_text = post.long_text or ""
    shortened = f"{long_text[:characters].rstrip()}…\n\n{rest_at}" if len(long_text) > characters else long_text
    said = post.text
    if len(said) > characters:
        said = f"{said[:characters].rstrip()}…" + ("" if len(long_text) > characters else f"\n\n{rest_at}")
    return replace(post, text=said, long_text=shortened or None)


def _whole_note(ids: Ids, account: Account, post: Post, around: PostSurroundings, now: datetime) -> Document:
    me, uri = ids.actor(account.id), ids.post(account.id, post.id)
    html, mentioned, hashtags = _content(ids, post, around)
    followers = ids.collection(account.id, "followers")
    document: Document = {
        "id": uri,
        "type": "Note",
        "attributedTo": me,
        "url": post.original_url or ids.page(account.handle, post.id),
        # Never an address that answers 410: Misskey drops a post whose parent it cannot fetch.
        "inReplyTo": ids.post(account.id, post.parent_id) if post.parent_id and not around.parent_gone else None,
        "summary": "Spoiler" if post.spoilers else None,
        "sensitive": post.sensitive,
        "published": timestamp(min(post.published, now)),
    }
    # Strictly later than published, or GoToSocial calls it malformed and Mastodon shows no edit.
    if post.updated and timestamp(post.updated) > document["published"]:
        document["updated"] = timestamp(post.updated)
    document["content"] = html
    if post.language and html:
        # One key only: Mastodon takes the first for the language, and twice the text nears Misskey's 64 KiB.
        document["contentMap"] = {post.language: html}
    document |= {
        "to": [PUBLIC],
        "cc": [followers, *(target.href for target in mentioned)],
        "conversation": f"tag:{ids.authority},2026:threads/{around.thread_id or post.id}",
        "attachment": [_attachment(ids, item) for item in _usable(post)[:SENT_ATTACHMENTS]],
        "tag": [
            *({"type": "Hashtag", "href": ids.tag(name), "name": f"#{name}"} for name in hashtags),
            *({"type": "Mention", "href": t.href, "name": f"@{t.acct}"} for t in mentioned),
        ],
        "replies": replies(ids, account, post, around, characters_max=REPLIES_CHARACTERS_MAX),
        "likes": _count(ids.post_collection(account.id, post.id, "likes"), post.likes_count),
        "shares": _count(ids.post_collection(account.id, post.id, "shares"), post.shares_count),
        # FEP-044f. Mastodon 4.5 and later reads an absent policy as "nobody may quote". Only this sub-policy:
        # declaring more obliges us to send approvals (GoToSocial).
        "interactionPolicy": {"canQuote": {"automaticApproval": [PUBLIC]}},
    }
    if post.location:
        document["location"] = {"type": "Place", "name": post.location}
    if around.quoted and around.quoted[0] == account.id:
        quoted = ids.post(*around.quoted)
        document |= {"quote": quoted, "_misskey_quote": quoted, "quoteUri": quoted}
    if post.poll and post.poll.votes is not None:
        document |= _question(post, now)
    return document


def _content(
    ids: Ids, post: Post, around: PostSurroundings
) -> tuple[str, tuple[MentionTarget, ...], tuple[str, ...]]:
    body = text.render(post.text, mentions=around.mentions, tag_url=ids.tag, profile_url=threads_profile)
    parts: list[str] = []
    hashtags = list(body.hashtags)
    if post.kind == "repost" and post.repost_url:
        parts.append(f"<p>🔁 {text.link(post.repost_url)}</p>")
    elif post.parent_url:
        parts.append(f"<p>↩ {text.link(post.parent_url)}</p>")
    if around.quoted and around.quoted[0] == post.account_id:
        parts.append(text.quote_fallback(ids.post(*around.quoted)))
    parts.append(body.html)
    if post.long_text:
        parts.append(text.render(post.long_text, mentions={}, tag_url=ids.tag, profile_url=threads_profile).html)
    if post.poll and post.poll.votes is None:
        parts.append("<ul>" + "".join(f"<li>{escape(option)}</li>" for option in post.poll.options) + "</ul>")
    if post.link and post.link not in post.text:
        parts.append(f"<p>{text.link(post.link)}</p>")
    if post.quoted_url and not (around.quoted and around.quoted[0] == post.account_id):
        # No quote keys and no quote-inline class: with them Mastodon would show neither quote nor link.
        parts.append(f"<p>RE: {text.link(post.quoted_url)}</p>")
    topic = hashtag_name(post.topic) if post.topic else None
    if topic and topic.casefold() not in {name.casefold() for name in hashtags}:
        hashtags.append(topic)
        parts.append(f"<p>{text.hashtag(topic, ids.tag(topic))}</p>")
    more = len(_usable(post)) - SHOWN_ATTACHMENTS
    if more > 0 and post.original_url:
        pictures = "1 more picture" if more == 1 else f"{more} more pictures"
        parts.append(f"<p>+ {pictures}: {text.link(post.original_url)}</p>")
    return "".join(parts), body.mentions[:MENTIONS_MAX], tuple(hashtags)


def _usable(post: Post) -> list[Attachment]:
    return [item for item in post.attachments if item.sha256 and item.media_type]


def _attachment(ids: Ids, item: Attachment) -> Document:
    assert item.sha256 is not None
    assert item.media_type is not None
    document: Document = {
        "type": item.kind.capitalize(),
        "mediaType": item.media_type,
        "url": ids.media(item.sha256, item.media_type),
    }
    if item.alt:
        document["name"] = item.alt
    if item.width and item.height:
        document |= {"width": item.width, "height": item.height}
    if item.blurhash:
        document["blurhash"] = item.blurhash
    if item.duration:
        document["duration"] = f"PT{item.duration:.3f}S"
    return document


def _question(post: Post, now: datetime) -> Document:
    assert post.poll is not None
    votes = post.poll.votes or ()
    document: Document = {
        "type": "Question",
        "oneOf": [
            {"type": "Note", "name": name, "replies": {"type": "Collection", "totalItems": count}}
            for name, count in zip(post.poll.options, votes, strict=True)
        ],
        "votersCount": sum(votes),
    }
    if post.poll.closes_at:
        document["endTime"] = timestamp(post.poll.closes_at)
        if post.poll.closes_at <= now:
            document["closed"] = timestamp(post.poll.closes_at)
    return document


def replies(
    ids: Ids, account: Account, post: Post, around: PostSurroundings, *, characters_max: int | None = None
) -> Document:
    """The replies collection with its first page inside: Akkoma fetches a page that is only named, for every post.

    `characters_max` bounds the length of all listed ids together.
    """
    uri = ids.post_collection(account.id, post.id, "replies")
    known = [*(ids.post(account.id, number) for number in around.continuations), *around.answers]
    lengths = accumulate(len(item) for item in known)
    fits = [characters_max is None or length <= characters_max for length in lengths]
    items = [item for item, fit in zip(known, fits, strict=True) if fit]
    return {
        "id": uri,
        "type": "Collection",
        "totalItems": len(known),
        "first": {"id": f"{uri}?page=1", "type": "CollectionPage", "partOf": uri, "items": items},
    }


def _count(uri: str, total: int) -> Document:
    return {"id": uri, "type": "Collection", "totalItems": total}


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


def with_context(document: Document) -> Document:
    """A post, or an activity about one, as a document of its own."""
    return {"@context": _POST_CONTEXT, **document}


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


def tombstone(ids: Ids, post: Post) -> Document:
    """What stands at the address of a deleted post, with status 410: receivers confirm forwarded Deletes by it."""
    assert post.deleted_at is not None
    return {
        "@context": ACTIVITYSTREAMS,
        "id": ids.post(post.account_id, post.id),
        "type": "Tombstone",
        "formerType": "Note",
        "published": timestamp(post.published),
        "deleted": timestamp(post.deleted_at),
    }


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── collections ──────────────────────────────────────────────────────────────────────────────────────────────────


def ordered_collection(uri: str, total: int, *, first: str | None = None, last: str | None = None) -> Document:
    """A paged collection's head. Without `first` Mastodon takes the network for hidden."""
    document: Document = {
        "@context": ACTIVITYSTREAMS, "id": uri, "type": "OrderedCollection", "totalItems": total,
    }  # fmt: skip
    if first:
        document["first"] = first
    if last:
        document["last"] = last
    return document


def ordered_page(
    uri: str,
    part_of: str,
    items: Sequence[Any],
    *,
    total: int | None = None,
    next_page: str | None = None,
    previous_page: str | None = None,
    posts: bool = False,
) -> Document:
    """One page; `orderedItems` is a list also when it has one item or none."""
    document: Document = {
        "@context": _POST_CONTEXT if posts else ACTIVITYSTREAMS,
        "id": uri,
        "type": "OrderedCollectionPage",
        "partOf": part_of,
    }
    if total is not None:
        document["totalItems"] = total
    if next_page:
        document["next"] = next_page
    if previous_page:
        document["prev"] = previous_page
    document["orderedItems"] = list(items)
    return document


def featured(ids: Ids, account_id: int, notes: Sequence[Document]) -> Document:
    """The posts on top of a profile, inline: the only history a new follower on Mastodon sees."""
    return {
        "@context": _POST_CONTEXT,
        "id": ids.featured(account_id),
        "type": "OrderedCollection",
        "totalItems": len(notes),
        "orderedItems": list(notes),
    }


def featured_tags(ids: Ids, account_id: int, tags: Sequence[str]) -> Document:
    """The hashtags of a profile."""
    return {
        "@context": [ACTIVITYSTREAMS, {"Hashtag": "as:Hashtag"}],
        "id": ids.featured_tags(account_id),
        "type": "Collection",
        "totalItems": len(tags),
        "items": [{"type": "Hashtag", "href": ids.tag(tag), "name": f"#{tag}"} for tag in tags],
    }


def post_collection(uri: str, total: int) -> Document:
    """Likes and shares: how many, not who."""
    return {"@context": ACTIVITYSTREAMS, **_count(uri, total)}


# ── discovery ────────────────────────────────────────────────────────────────────────────────────────────────────


def webfinger(ids: Ids, account: Account) -> Document:
    """The JRD of an account: one `self` link, before all others of its kind (Misskey takes the first)."""
    links: list[Document] = [
        {"rel": "self", "type": "application/activity+json", "href": ids.actor(account.id)},
        {
            "rel": "http://webfinger.net/rel/profile-page",
            "type": "text/html",
            "href": ids.profile(account.handle),
        },
    ]
    if account.avatar and account.avatar_type:
        links.append(
            {
                "rel": "http://webfinger.net/rel/avatar",
                "type": account.avatar_type,
                "href": ids.media(account.avatar, account.avatar_type),
            }
        )
    return {
        "subject": f"acct:{ids.acct(account.handle)}",
        "aliases": [ids.profile(account.handle), ids.actor(account.id)],
        "links": links,
    }


def instance_webfinger(ids: Ids) -> Document:
    """The JRD of the server's own actor; FEP-d556 asks for it by the server's address."""
    return {
        "subject": f"acct:{ids.authority}@{ids.authority}",
        "aliases": [ids.instance],
        "links": [
            {"rel": "self", "type": "application/activity+json", "href": ids.instance},
            {"rel": f"{ACTIVITYSTREAMS}#Service", "type": "application/activity+json", "href": ids.instance},
        ],
    }


def host_meta_xml(ids: Ids) -> bytes:
    """XRD with the LRDD template: Akkoma and Takahē ask for it before WebFinger."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0">\n'
        f'  <Link rel="lrdd" template="{escape(ids.base)}/.well-known/webfinger?resource={{uri}}"/>\n'
        "</XRD>\n"
    ).encode()


def host_meta(ids: Ids) -> Document:
    """The same as JSON (RFC 6415)."""
    return {"links": [{"rel": "lrdd", "template": f"{ids.base}/.well-known/webfinger?resource={{uri}}"}]}


def nodeinfo_links(ids: Ids) -> Document:
    """Where the NodeInfo documents are; the last link is FEP-2677."""
    schema = "http://nodeinfo.diaspora.software/ns/schema"
    return {
        "links": [
            {"rel": f"{schema}/2.0", "href": f"{ids.base}/nodeinfo/2.0"},
            {"rel": f"{schema}/2.1", "href": f"{ids.base}/nodeinfo/2.1"},
            {"rel": f"{ACTIVITYSTREAMS}#Application", "href": ids.instance},
        ]
    }


def nodeinfo(version: str, *, software_version: str, users: int, posts: int, name: str) -> Document:
    """NodeInfo 2.0 or 2.1."""
    software: Document = {"name": "threadbridge", "version": software_version}
    return {
        "version": version,
        "software": software,
        "protocols": ["activitypub"],
        "services": {"inbound": [], "outbound": []},
        "openRegistrations": False,
        "usage": {
            "users": {"total": users, "activeMonth": users, "activeHalfyear": users},
            "localPosts": posts,
        },
        "metadata": {"nodeName": name, "nodeDescription": "A bridge: Threads accounts in the Fediverse"},
    }
