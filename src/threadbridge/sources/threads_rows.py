"""Rows of the Threads API as our nouns: a media object as a post, the answer of `/me` as a profile.

Rule: what Threads sends is believed only as far as its shape goes; what cannot be read is `Invalid`, with words that
name it. Field names follow Meta's reference (developers.facebook.com/docs/threads). Where the documentation leaves
the shape open (`children` expanded or bare ids, `text_entities` as a list or inside `data`, ids as numbers) both are
read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from threadbridge.domain.source import (
    Listing,
    MediaKind,
    SourceMedia,
    SourcePoll,
    SourcePost,
    SourceProfile,
    SourceReference,
)
from threadbridge.errors import Invalid

Row = Mapping[str, Any]

_GHOST_LIFE = timedelta(hours=24)
_ID_MAX = 128
_KINDS: dict[str, MediaKind] = {"IMAGE": "image", "VIDEO": "video", "AUDIO": "audio"}


def profile_from_row(row: Row) -> SourceProfile:
    """The answer of `/me`. Raises Invalid when id or user name are missing."""
    native_id, handle = identifier(row.get("id")), string(row.get("username")).strip()
    if native_id is None or not handle:
        raise Invalid("The profile has no id or no user name")
    picture = _url(row.get("threads_profile_picture_url"))
    # The picture has no id; the path of its signed address stays, query (signature, expiry) and host change.
    avatar = SourceMedia("image", f"avatar:{urlsplit(picture).path}", picture) if picture else None
    return SourceProfile(
        native_id=native_id,
        handle=handle,
        name=string(row.get("name")),
        bio=string(row.get("threads_biography")),
        url=f"https://www.threads.com/@{quote(handle)}",
        avatar=avatar,
    )


def post_from_row(row: Row, kind: Listing) -> SourcePost:
    """A media object as a post; `children`, quoted and reposted posts are read as far as they are expanded.

    Raises Invalid, in words, for an unknown `media_type`, a missing id or time, and a post without any content.
    """
    native_id = identifier(row.get("id"))
    if native_id is None:
        raise Invalid("The post has no id")
    published = moment(row.get("timestamp"))
    if published is None:
        raise Invalid("The post has no readable time")
    text, long_text = string(row.get("text")), mapping_or_empty(row.get("text_attachment"))
    media = _media(row, native_id)
    quoted, reposted = reference(row.get("quoted_post")), reference(row.get("reposted_post"))
    poll, attached = _poll(row.get("poll_attachment")), string(long_text.get("plaintext"))
    link = _url(row.get("link_attachment_url")) or _url(long_text.get("link_attachment_url"))
    repost = row.get("media_type") == "REPOST_FACADE"
    if not (text.strip() or media or quoted or reposted or poll or attached or link or repost):
        raise Invalid("The post is empty")
    parent = reference(row.get("replied_to")) or reference(row.get("root_post"))
    answers = kind == "reply" or row.get("is_reply") is True
    return SourcePost(
        native_id=native_id,
        published=published,
        text=text,
        kind="repost" if repost else "reply" if answers else "post",
        media=media,
        permalink=_url(row.get("permalink")),
        parent=parent if answers else None,
        quoted=quoted,
        reposted=reposted,
        topic=string(row.get("topic_tag")).strip() or None,
        link=link,
        poll=poll,
        spoiler_media=row.get("is_spoiler_media") is True,
        spoilers=_spoilers(row.get("text_entities"), len(text)),
        long_text=attached or None,
        location=_location(row.get("location")),
        audience=string(row.get("reply_audience")).lower() or "everyone",
        country_gated=bool(row.get("allowlisted_country_codes")),
        expires_at=_expiry(row, published),
    )


def _media(row: Row, native_id: str) -> tuple[SourceMedia, ...]:
    """Pictures and videos. Keys are media ids, never addresses; an item without address is known to be missing
    (Meta leaves `media_url` out when a copyright claim stands)."""
    media_type, gif = row.get("media_type"), _url(row.get("gif_url"))
    if media_type in _KINDS:
        return (_one(row, native_id),)
    if media_type == "CAROUSEL_ALBUM":
        rows = [child for child in items(row.get("children")) if isinstance(child, Mapping)]
        return tuple(
            _one(child, identifier(child.get("id")) or f"{native_id}/{position}")
            for position, child in enumerate(rows)
            if child.get("media_type") in _KINDS
        )
    if media_type in {"TEXT_POST", "REPOST_FACADE"}:
        return (SourceMedia("image", f"{native_id}/gif", gif, alt=string(row.get("alt_text"))),) if gif else ()
    raise Invalid(f"The media type {media_type!r} is not known")


def _one(row: Row, key: str) -> SourceMedia:
    return SourceMedia(_KINDS[row["media_type"]], key, _url(row.get("media_url")), alt=string(row.get("alt_text")))


def unknown_children(row: Row) -> list[tuple[str, str]]:
    """Carousel items that were left out, since a post is worth having without them."""
    if row.get("media_type") != "CAROUSEL_ALBUM":
        return []
    children = [child for child in items(row.get("children")) if isinstance(child, Mapping)]
    return [
        (identifier(child.get("id")) or "?", f"A carousel item of type {child.get('media_type')!r} is not known")
        for child in children
        if child.get("media_type") not in _KINDS
    ]


def _poll(value: object) -> SourcePoll | None:
    """Options with counts: Threads gives shares of 0..1 and a total; shares above 1 are read as percent."""
    poll = mapping_or_empty(value)
    letters = [letter for letter in "abcd" if string(poll.get(f"option_{letter}"))]
    if not letters:
        return None
    total = number(poll.get("total_votes"))
    shares = [_share(poll.get(f"option_{letter}_votes_percentage")) for letter in letters]
    known = [share for share in shares if share is not None]
    votes = None
    if total == 0:
        votes = (0,) * len(letters)
    elif total is not None and total > 0 and len(known) == len(letters):
        scale = 100 if max(known) > 1 else 1
        votes = tuple(round(share / scale * total) for share in known)
    options = tuple(string(poll.get(f"option_{letter}")) for letter in letters)
    return SourcePoll(options, votes, moment(poll.get("expiration_timestamp")))


def _spoilers(value: object, length: int) -> tuple[tuple[int, int], ...]:
    """Spoiler ranges as (start, end) in code points, sorted and joined. A spoiler whose place cannot be read hides
    the whole text: hiding too much is the lesser harm."""
    ranges = []
    for item in items(value):
        entity = mapping_or_empty(item)
        if string(entity.get("entity_type")).upper() != "SPOILER":
            continue
        offset, extent = number(entity.get("offset")), number(entity.get("length"))
        start, end = (offset, offset + extent) if offset is not None and extent is not None else (0, length)
        if 0 <= start < min(end, length):
            ranges.append((start, min(end, length)))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _location(value: object) -> str | None:
    place = mapping_or_empty(value)
    parts = [string(place.get(name)).strip() for name in ("name", "city", "country")]
    return ", ".join(dict.fromkeys(part for part in parts if part)) or None


def _expiry(row: Row, published: datetime) -> datetime | None:
    """End of a ghost post. The status is on ghost posts only, and they are archived after a day."""
    told = moment(row.get("ghost_post_expiration_timestamp"))
    return told or (published + _GHOST_LIFE if row.get("ghost_post_status") else None)


def reference(value: object) -> SourceReference | None:
    """`{"id": …}`, with `permalink` and `username` where they are known; a bare id is accepted."""
    row = value if isinstance(value, Mapping) else {"id": value}
    native_id, url = identifier(row.get("id")), _url(row.get("permalink"))
    if native_id is None and url is None:
        return None
    return SourceReference(native_id, url, string(row.get("username")) or None)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def mapping(value: object, what: str) -> Row:
    if not isinstance(value, Mapping):
        raise Invalid(f"Instead of {what} there is {type(value).__name__}")
    return value


def mapping_or_empty(value: object) -> Row:
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Any]:
    """A bare list, or the one inside `{"data": […]}`."""
    inner = value.get("data") if isinstance(value, Mapping) else value
    return inner if isinstance(inner, list) else []


def identifier(value: object) -> str | None:
    """Ids are strings in the documentation and numbers in some answers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value and len(value) <= _ID_MAX else None


def string(value: object) -> str:
    """A string without what no database and no UTF-8 document can hold (NUL, lone surrogates)."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "�").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _url(value: object) -> str | None:
    """An http(s) address; it becomes a link on pages, so no other scheme passes."""
    url = string(value).strip()
    return url if url.startswith(("https://", "http://")) else None


def moment(value: object) -> datetime | None:
    """`2023-10-17T05:42:03+0000` in UTC, or None."""
    try:
        time = datetime.fromisoformat(string(value))
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if 1990 <= time.year <= 9000 else None


def number(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _share(value: object) -> float | None:
    try:
        share = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return share if 0 <= share <= 100 else None
