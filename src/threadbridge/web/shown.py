"""A post as pages and feeds show it: markup made, addresses checked, what it quotes fetched.

Rule: text becomes markup here and only here, through the renderer that also writes our ActivityPub documents; foreign
markup is cleaned once more on its way out, so that a row written by an older cleaner does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from threadbridge.activitypub import outgoing, text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import PostSurroundings
from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Reply
from threadbridge.domain.posts import Attachment, Post, hashtag_name
from threadbridge.domain.source import MediaKind
from threadbridge.errors import TooLarge
from threadbridge.storage import surroundings, views
from threadbridge.storage.store import Tx
from threadbridge.web.render import web_url

_TITLE = 80
_UNTITLED: dict[MediaKind, str] = {"image": "Picture", "video": "Video", "audio": "Recording"}
_MISSING_WORDS: dict[MediaKind, str] = {
    "image": "A picture is missing here",
    "video": "A video is missing here",
    "audio": "A recording is missing here",
}


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture, video or recording that is here. `url` is absolute."""

    kind: MediaKind
    url: str
    media_type: str
    alt: str
    size: int | None
    width: int | None
    height: int | None
    duration: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One option of a poll; `votes` is None where the source does not say."""

    name: str
    votes: int | None
    percent: int | None
    from_here: int = 0
    """Votes from the Fediverse, which the source knows nothing of."""


@dataclass(frozen=True, slots=True)
class Poll:
    """A poll; `total` votes are known or None."""

    choices: tuple[Choice, ...]
    total: int | None
    closes_at: datetime | None
    from_here: int = 0


@dataclass(frozen=True, slots=True)
class ShownPost:
    """Everything a template needs of one post. Markup is safe to show; addresses are http(s) or ''."""

    post: Post
    account: Account
    url: str
    uri: str
    title: str
    body: Markup
    long_body: Markup
    topic: Markup
    media: tuple[Medium, ...]
    missing: tuple[str, ...]
    poll: Poll | None
    quoted: ShownPost | None
    quoted_url: str
    repost_url: str
    announced_url: str
    answers_url: str
    link: str
    parent: str
    """The page of the owner's own post that this one continues."""
    continued: bool

    @property
    def hidden(self) -> bool:
        """Whether the whole post waits behind a spoiler mark."""
        return bool(self.post.spoilers)

    @property
    def preview(self) -> Medium | None:
        """The picture for link previews; none for what is marked sensitive."""
        if self.post.sensitive:
            return None
        return next((medium for medium in self.media if medium.kind == "image"), None)


def gather(tx: Tx, ids: Ids, posts: Sequence[Post], accounts: Mapping[int, Account]) -> list[ShownPost]:
    """Posts of these accounts ({account id: account}), ready to be shown, in a fixed number of queries."""
    around = surroundings.of_posts(tx, ids, posts)
    quoted = views.by_ids(tx, {post.quoted_id for post in posts if post.quoted_id})
    return [show(ids, accounts[post.account_id], post, around[post.id], quoted) for post in posts]


def show(
    ids: Ids,
    account: Account,
    post: Post,
    around: PostSurroundings,
    quoted: Mapping[int, tuple[Post, Account]],
) -> ShownPost:
    """One post ready to be shown. `quoted` holds posts of this server by id; what they quote in turn is left out."""
    body = _markup(ids, post.text, around)
    topic = hashtag_name(post.topic) if post.topic else None
    named = {name.casefold() for name in text.hashtags_in(post.text)}
    inner = quoted.get(post.quoted_id) if post.quoted_id else None
    return ShownPost(
        post=post,
        account=account,
        url=ids.page(account.handle, post.id),
        uri=ids.post(account.id, post.id),
        title=title(account, post),
        body=body,
        long_body=_markup(ids, post.long_text or "", around),
        topic=Markup(text.hashtag(topic, ids.tag(topic)))  # noqa: S704 (made and escaped by our own renderer)
        if topic and topic.casefold() not in named
        else Markup(),
        media=tuple(_medium(ids, item) for item in post.attachments if item.sha256 and item.media_type),
        missing=tuple(_missing(item) for item in post.attachments if not (item.sha256 and item.media_type)),
        poll=_poll(post, around.votes),
        quoted=show(ids, inner[1], inner[0], PostSurroundings(), {}) if inner else None,
        quoted_url=web_url(post.quoted_url) if inner is None else "",
        repost_url=web_url(post.repost_url),
        announced_url=web_url(post.announced_uri),
        answers_url=web_url(post.parent_url),
        link=web_url(post.link) if post.link and post.link not in post.text else "",
        parent=ids.page(account.handle, post.parent_id) if post.parent_id else "",
        continued=bool(around.continuations),
    )


def _markup(ids: Ids, plain: str, around: PostSurroundings) -> Markup:
    html = text.render(plain, mentions=around.mentions, tag_url=ids.tag, profile_url=outgoing.threads_profile).html
    return Markup(html)  # noqa: S704 (made and escaped by our own renderer)


def bio(ids: Ids, account: Account) -> Markup:
    """A profile text as markup."""
    return Markup(outgoing.bio_html(ids, account))  # noqa: S704 (made and escaped by our own renderer)


def foreign(html: str) -> Markup:
    """Markup from elsewhere, cleaned (again) before it is shown."""
    try:
        return Markup(text.clean(html))  # noqa: S704 (this is the cleaner)
    except TooLarge:
        return Markup("<p>{}</p>").format("This text is too long to be shown here.")


def name_of(reply: Reply) -> str:
    """What an answer's author is called: the name, else the handle, else the address."""
    return reply.name or reply.handle or reply.peer_uri


def title(account: Account, post: Post) -> str:
    """A post in a few words, for titles and lists."""
    words = "Spoiler" if post.spoilers else text.shortened(post.text, _TITLE)
    if words:
        return words
    first = post.attachments[0].kind if post.attachments else None
    return _UNTITLED[first] if first else "Post"


def _medium(ids: Ids, item: Attachment) -> Medium:
    assert item.sha256 is not None
    assert item.media_type is not None
    return Medium(
        kind=item.kind,
        url=ids.media(item.sha256, item.media_type),
        media_type=item.media_type,
        alt=item.alt,
        size=item.size,
        width=item.width,
        height=item.height,
        duration=item.duration,
    )


def _missing(item: Attachment) -> str:
    words = _MISSING_WORDS[item.kind]
    return f"{words}: {item.alt}" if item.alt else f"{words}."


def _poll(post: Post, from_here: Mapping[int, int]) -> Poll | None:
    if post.poll is None:
        return None
    votes = post.poll.votes
    total = sum(votes) if votes is not None else None
    return Poll(
        choices=tuple(
            Choice(
                name,
                votes[index] if votes is not None and index < len(votes) else None,
                round(100 * votes[index] / total) if votes is not None and total and index < len(votes) else None,
                from_here.get(index, 0),
            )
            for index, name in enumerate(post.poll.options)
        ),
        total=total,
        closes_at=post.poll.closes_at,
        from_here=sum(from_here.values()),
    )
