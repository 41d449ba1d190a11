"""Posts from elsewhere, read into a small frozen type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from threadbridge.activitypub.document import (
    audience,
    is_id,
    kind_of,
    line,
    listed,
    moment,
    one_id,
    web_link,
)
from threadbridge.activitypub.ids import PUBLIC
from threadbridge.activitypub.incoming.copies import copy_of
from threadbridge.activitypub.incoming.ground import NAME_MAX, check_own
from threadbridge.errors import Invalid

NOTE_KINDS = frozenset({"Note", "Question", "Article", "Page"})
MENTIONS_MAX = 200
_QUOTE_RELATIONS = frozenset(
    {
        "https://misskey-hub.net/ns#_misskey_quote",
        "http://fedibird.com/ns#quoteUri",
        "https://w3id.org/fep/044f#quote",
        "https://www.w3.org/ns/activitystreams#quoteUrl",
    }
)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3}")


@dataclass(frozen=True, slots=True)
class IncomingNote:
    """A post from elsewhere. `html` is as it came: not sanitised, not limited. Times are UTC; `to` and `cc` spell the
    public collection in full; `public` is true for quiet public posts too; `name` is the answer of a poll vote."""

    id: str
    kind: str
    author: str
    html: str
    in_reply_to: str | None
    published: datetime | None
    updated: datetime | None
    url: str | None
    to: tuple[str, ...]
    cc: tuple[str, ...]
    public: bool
    name: str | None
    language: str | None
    attachments: int
    mentioned: tuple[str, ...] = ()
    """Whom its `tag` mentions, by id, however they are addressed."""
    copy_of: str | None = None
    """What a bridge says that this is a copy of."""
    quotes: str | None = None
    """What it quotes, by id, in whichever of the words for it."""


def read_note(made: Mapping[str, Any], *, to: Any = None, cc: Any = None) -> IncomingNote:
    """A post, embedded or fetched; raises Invalid. `to` and `cc` are those of the activity around it, for a post that
    has none of its own. Its author must live where it lives."""
    note_id, kind = one_id(made.get("id"), "object.id"), kind_of(made)
    if kind not in NOTE_KINDS:
        raise Invalid("The object is not a post", detail=f"its type is {kind}")
    author = author_of(made.get("attributedTo"))
    check_own(note_id, author, "The post")
    own_to, own_cc = made.get("to"), made.get("cc")
    if own_to is None and own_cc is None:
        own_to, own_cc = to, cc
    direct, copied = audience(own_to), audience(own_cc)
    html, language = _content(made)
    return IncomingNote(
        id=note_id,
        kind=kind,
        author=author,
        html=html,
        in_reply_to=_in_reply_to(made.get("inReplyTo")),
        published=moment(made.get("published")),
        updated=moment(made.get("updated")),
        url=web_link(made.get("url")),
        to=direct,
        cc=copied,
        public=PUBLIC in direct or PUBLIC in copied,
        name=line(made.get("name"), NAME_MAX) or None,
        language=language,
        attachments=sum(isinstance(item, dict) for item in listed(made.get("attachment"))),
        mentioned=_mentioned(made.get("tag")),
        copy_of=copy_of(made),
        quotes=quoted_by(made),
    )


def quoted_by(made: Mapping[str, Any]) -> str | None:
    """What a post quotes: the first of the words in the order in which Mastodon reads them (FEP-044f, Misskey,
    Akkoma, Fedibird), else an object link (FEP-e232); None for what is no id."""
    for name in ("quote", "_misskey_quote", "quoteUrl", "quoteUri"):
        value = made.get(name)
        found = value.get("id") if isinstance(value, dict) else value
        if isinstance(found, str) and is_id(found):
            return found
    for tag in listed(made.get("tag"))[:MENTIONS_MAX]:
        if not isinstance(tag, dict) or tag.get("type") != "Link":
            continue
        relations = [rel for rel in listed(tag.get("rel")) if isinstance(rel, str)]
        href = tag.get("href")
        if isinstance(href, str) and is_id(href) and _QUOTE_RELATIONS.intersection(relations):
            return href
    return None


def _mentioned(value: Any) -> tuple[str, ...]:
    tags = (item for item in listed(value)[:MENTIONS_MAX] if isinstance(item, dict) and item.get("type") == "Mention")
    return tuple(dict.fromkeys(tag["href"] for tag in tags if is_id(tag.get("href"))))


def author_of(value: Any) -> str:
    """The author in `attributedTo`. PeerTube lists the person and the channel: the first that is a person, or else
    the first that is named, counts."""
    several = listed(value)
    if not several:
        raise Invalid("attributedTo is missing")
    person = next((item for item in several if isinstance(item, dict) and item.get("type") == "Person"), several[0])
    return one_id(person, "attributedTo")


def _in_reply_to(value: Any) -> str | None:
    several = listed(value)
    if len(several) > 1:
        raise Invalid("inReplyTo must be one id")
    if not several or (isinstance(several[0], str) and not is_id(several[0])):
        # OStatus-era `tag:` URIs, Friendica's empty string: an answer to nothing that we could know.
        return None
    return one_id(several[0], "inReplyTo")


def _content(made: Mapping[str, Any]) -> tuple[str, str | None]:
    """(HTML, language): `content`, with the language under which `contentMap` has the same text, or the first text of
    the map when there is no `content`."""
    content, mapped = made.get("content"), made.get("contentMap")
    texts = (
        {tag: text for tag, text in mapped.items() if isinstance(text, str) and _LANGUAGE.fullmatch(tag)}
        if isinstance(mapped, dict)
        else {}
    )
    if isinstance(content, str):
        return content, next((tag for tag, text in texts.items() if text == content), None)
    tag, text = next(iter(texts.items()), (None, ""))
    return text, tag
