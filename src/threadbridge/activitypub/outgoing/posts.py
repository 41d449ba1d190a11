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
from threadbridge.domain.rules import Rules

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

SPOILER = "Spoiler"
_QUOTE_REL = "https://misskey-hub.net/ns#_misskey_quote"


_USUAL = Rules()


@dataclass(frozen=True, slots=True)
class QuotedPost:
    """A post in the Fediverse that ours quotes, and may: `stamp` is its author's authorization, None for the author's
    own (which needs none); `url` is its page."""

    uri: str
    url: str
    stamp: str | None = None


@dataclass(frozen=True, slots=True)
class PostSurroundings:
    """What a post's document needs beyond the post itself.

    `mentions` maps source user names to actors on this server; `continuations` are the owner's own posts that
    continue it; `answers` are (row number, id) of received replies; `replies_total` counts both, also those that are
    not listed here; `thread_id` is the first post of the owner's thread; `quote` is what it quotes in the Fediverse;
    `parent_gone` says that the post which this one continues was deleted; `votes` are those of the Fediverse by the
    option's place; `rules` is what the owner chose.
    """

    mentions: Mapping[str, MentionTarget] = field(default_factory=dict)
    continuations: Sequence[int] = ()
    answers: Sequence[tuple[int, str]] = ()
    replies_total: int = 0
    thread_id: int | None = None
    quote: QuotedPost | None = None
    parent_gone: bool = False
    votes: Mapping[int, int] = field(default_factory=dict)
    rules: Rules = _USUAL


def quoting(around: PostSurroundings, quote: QuotedPost) -> PostSurroundings:
    """The same surroundings with what is quoted."""
    return replace(around, quote=quote)


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
        # One string: Pixelfed and Takahē take no list of links here. Mastodon, GoToSocial, Misskey and Akkoma let it
        # be on another host than the id; for forks of Misskey that do not, the owner can choose our page.
        "url": (None if around.rules.own_pages else post.original_url) or ids.page(account.handle, post.id),
        # Never an address that answers 410: Misskey drops a post whose parent it cannot fetch.
        "inReplyTo": ids.post(account.id, post.parent_id) if post.parent_id and not around.parent_gone else None,
        "summary": (around.rules.spoiler_words or SPOILER) if post.spoilers else None,
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
        "context": ids.post_collection(account.id, around.thread_id or post.id, "context"),
        "attachment": [
            *(_attachment(ids, item) for item in _usable(post)[:SENT_ATTACHMENTS]),
            # FEP-8967; Mastodon 4.7 makes its preview of it, Akkoma a file that is none: only if the owner wants it.
            *([{"type": "Link", "href": post.link}] if post.link and around.rules.link_cards else []),
        ],
        "tag": [
            *({"type": "Hashtag", "href": ids.tag(name), "name": f"#{name}"} for name in hashtags),
            *({"type": "Mention", "href": t.href, "name": f"@{t.acct}"} for t in mentioned),
            *([_quote_link(around.quote)] if around.quote else []),
        ],
        "replies": replies(ids, account, post, around, characters_max=REPLIES_CHARACTERS_MAX),
        "likes": count_only(ids.post_collection(account.id, post.id, "likes"), post.likes_count),
        "shares": count_only(ids.post_collection(account.id, post.id, "shares"), post.shares_count),
        "interactionPolicy": policy(ids, account, post, around.rules, mentioned),
    }
    if post.location:
        document["location"] = {"type": "Place", "name": post.location}
    if around.quote:
        # Mastodon and FEP-044f; Misskey; Fedibird and Akkoma; the others that read Misskey's older word.
        keys = ("quote", "_misskey_quote", "quoteUri", "quoteUrl")
        document |= dict.fromkeys(keys, around.quote.uri)
        if around.quote.stamp:
            document["quoteAuthorization"] = around.quote.stamp
    if post.poll and post.poll.votes is not None:
        document |= _question(post, around.votes, now)
    return document


def _quote_link(quote: QuotedPost) -> Document:
    """FEP-e232, as Threads itself says quotes."""
    return {
        "type": "Link",
        "mediaType": f'application/ld+json; profile="{ACTIVITYSTREAMS}"',
        "rel": _QUOTE_REL,
        "href": quote.uri,
        "name": f"RE: {quote.url}",
    }


def policy(ids: Ids, account: Account, post: Post, rules: Rules, mentioned: Sequence[MentionTarget] = ()) -> Document:
    """Who may quote and answer. `canQuote` always: Mastodon 4.5 and later reads its absence as "nobody" (FEP-044f).
    `canReply` only where not everybody may: whoever declares it has to send approvals (GoToSocial 0.21)."""
    me, followers = ids.actor(account.id), ids.collection(account.id, "followers")
    quoting: Document = {
        "everyone": {"automaticApproval": [PUBLIC]},
        "followers": {"automaticApproval": [me, followers]},
        "ask": {"automaticApproval": [me], "manualApproval": [PUBLIC]},
        "nobody": {"automaticApproval": [me]},
    }[rules.who_quotes(post)]
    said: Document = {"canQuote": quoting}
    answering = rules.who_answers(post)
    if answering != "everyone":
        allowed = [me]
        if answering == "followers":
            allowed.append(followers)
        if answering != "nobody":
            allowed += [target.href for target in mentioned if target.href != me]
        said["canReply"] = {"automaticApproval": allowed}
    return said


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
    if around.quote:
        parts.append(text.quote_fallback(around.quote.url))
    parts.append(body.html)
    mentioned = dict.fromkeys(body.mentions)
    if post.long_text:
        more_text = text.render(
            post.long_text, mentions=around.mentions, tag_url=ids.tag, profile_url=threads_profile
        )
        parts.append(more_text.html)
        mentioned |= dict.fromkeys(more_text.mentions)
    if post.poll and post.poll.votes is None:
        parts.append("<ul>" + "".join(f"<li>{escape(option)}</li>" for option in post.poll.options) + "</ul>")
    if post.link and post.link not in post.text:
        parts.append(f"<p>{text.link(post.link)}</p>")
    if post.quoted_url and not around.quote:
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
    return "".join(parts), tuple(mentioned)[:MENTIONS_MAX], tuple(hashtags)


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


def _question(post: Post, from_here: Mapping[int, int], now: datetime) -> Document:
    """The poll with the votes of both sides together: who has voted over there expects to find the vote."""
    assert post.poll is not None
    votes = [
        max(counted, 0) + from_here.get(place, 0)
        for place, (_, counted) in enumerate(zip(post.poll.options, post.poll.votes or (), strict=True))
    ]
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
    known = [
        *((f"p{number}", ids.post(account.id, number)) for number in around.continuations),
        *((f"r{number}", answer) for number, answer in around.answers),
    ]
    lengths = accumulate(len(item) for _, item in known)
    listed = [
        pair for pair, length in zip(known, lengths, strict=True)
        if characters_max is None or length <= characters_max
    ]  # fmt: skip
    total = max(around.replies_total, len(known))
    last = listed[-1][0] if listed else "p0"
    return {
        "id": uri,
        "type": "Collection",
        "totalItems": total,
        "first": replies_page(
            f"{uri}?page=1", uri, [item for _, item in listed], after=last if len(listed) < total else None
        ),
    }


def replies_page(uri: str, part_of: str, items: Sequence[str], *, after: str | None) -> Document:
    """A page of replies; `after` is the place from which the next one goes on, None at the end."""
    page: Document = {"id": uri, "type": "CollectionPage", "partOf": part_of}
    if after is not None:
        page["next"] = f"{part_of}?page=true&after={after}"
    page["items"] = list(items)
    return page


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
