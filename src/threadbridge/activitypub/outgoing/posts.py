"""A post as a Note or Question, and what stands in its place when it is deleted.

Rule: each shape satisfies the strictest reader known (Mastodon, GoToSocial, Misskey, Akkoma, Takahē, Lemmy,
Pixelfed), and where two disagree a comment names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from html import escape
from itertools import accumulate

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import PUBLIC, Ids
from threadbridge.activitypub.outgoing.actors import threads_profile
from threadbridge.activitypub.outgoing.collections import count_only
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    POST_CONTEXT,
    Document,
    encode,
    timestamp,
)
from threadbridge.activitypub.text import MentionTarget
from threadbridge.domain.accounts import Account
from threadbridge.domain.posts import Attachment, Post, hashtag_name

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
        "likes": count_only(ids.post_collection(account.id, post.id, "likes"), post.likes_count),
        "shares": count_only(ids.post_collection(account.id, post.id, "shares"), post.shares_count),
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


def with_context(document: Document) -> Document:
    """A post, or an activity about one, as a document of its own."""
    return {"@context": POST_CONTEXT, **document}


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
