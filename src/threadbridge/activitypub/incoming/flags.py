"""Flag: somebody elsewhere complains about an account of ours or its posts.

Rule: it is signed by a server's own actor (Mastodon, GoToSocial, Misskey hide in this way who complained) and names
the account and the posts in one list; nothing but ids and plain words is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threadbridge.activitypub import text
from threadbridge.activitypub.document import is_id, listed
from threadbridge.errors import Invalid

NAMED_MAX = 200
"""Mastodon sends as many posts as the complaint names; more than this is read as this many."""
WORDS_MAX = 5000
_MARKUP_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Flag:
    """`objects` are ids of actors and posts, each once; `content` is plain text, cut to 5,000 characters."""

    id: str
    actor: str
    objects: tuple[str, ...]
    content: str


def read_flag(activity_id: str, actor: str, document: Mapping[str, Any]) -> Flag:
    """Raises Invalid when nothing is named."""
    named = [
        value.get("id") if isinstance(value, dict) else value for value in listed(document.get("object"))[:NAMED_MAX]
    ]
    objects = tuple(dict.fromkeys(value for value in named if isinstance(value, str) and is_id(value)))
    if not objects:
        raise Invalid("The Flag names nothing", detail="object is an id or a list of ids")
    content = document.get("content")
    words = text.plain(content[:_MARKUP_MAX]) if isinstance(content, str) else ""
    return Flag(activity_id, actor, objects, words[:WORDS_MAX])
