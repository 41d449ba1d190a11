"""Plain text to the markup that Fediverse servers keep, and foreign markup to markup that we may show.

Rule: what leaves uses only elements and classes that Mastodon's strict sanitiser keeps (`p br a span`, classes
`mention hashtag invisible ellipsis quote-inline`, `h- u-` microformats); what arrives is cleaned before it is
stored and nothing else of it is ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from urllib.parse import urlsplit

import nh3

from threadbridge.domain.posts import hashtag_name
from threadbridge.errors import TooLarge

# One pass over the text. Order matters: an address swallows what looks like tags or mentions inside it.
_TOKEN = re.compile(
    r"""
    (?P<url>https?://[^\s<>"'`{}|\\^\u3000-\u303f\uff00-\uff0f]+)
  | (?<![\w@./])[\#＃](?P<tag>\w[\w·]*)
  | (?<![\w@./])@(?P<mention>[A-Za-z0-9_](?:[A-Za-z0-9_.]*[A-Za-z0-9_])?)(?![\w@])
    """,
    re.VERBOSE,
)
_TRAILING = ".,;:!?…'\")]»”’"
_SHOWN = 30

_CLEAN_MAX = 64 * 1024
_ALLOWED_TAGS = {
    "p", "br", "a", "span", "del", "s", "pre", "blockquote", "code", "b", "strong", "u", "i", "em", "ul", "ol", "li",
}  # fmt: skip
# Not `invisible` and `ellipsis`: with them a stranger could hide the half of an address that says where it leads
# (CVE-2023-36462); without them the whole address is shown.
_KEPT_CLASS = re.compile(r"(?:mention|hashtag|quote-inline|[hpu]-[a-z-]+)")


@dataclass(frozen=True, slots=True)
class MentionTarget:
    """Somebody named in a text who is an actor: `href` is the actor id, `url` the page, `acct` is user@host."""

    href: str
    url: str
    acct: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Markup of a text, and what it named, in order of appearance."""

    html: str
    mentions: tuple[MentionTarget, ...]
    hashtags: tuple[str, ...]


def hashtags_in(text: str) -> tuple[str, ...]:
    """The hashtags of a text as written, without '#', each once."""
    found: dict[str, str] = {}
    for match in _TOKEN.finditer(text):
        name = hashtag_name(match["tag"]) if match["tag"] else None
        if name:
            found.setdefault(name.casefold(), name)
    return tuple(found.values())


def mentions_in(text: str) -> tuple[str, ...]:
    """The user names mentioned in a text, lower case, each once."""
    return tuple(dict.fromkeys(m["mention"].lower() for m in _TOKEN.finditer(text) if m["mention"]))


def render(
    text: str,
    *,
    mentions: Mapping[str, MentionTarget],
    tag_url: Callable[[str], str],
    profile_url: Callable[[str], str],
) -> Rendered:
    """A plain text as HTML paragraphs.

    `mentions` maps lower-case source user names to actors; anybody else is linked to `profile_url(name)` without
    being notified. Blank lines divide paragraphs, single newlines become `<br>`.
    """
    named: dict[str, MentionTarget] = {}
    tags: dict[str, str] = {}

    def inline(part: str) -> str:
        out: list[str] = []
        position = 0
        for match in _TOKEN.finditer(part):
            out.append(escape(part[position : match.start()], quote=False))
            position = match.end()
            if match["url"]:
                url, rest = _trim(match["url"])
                out.append(link(url))
                position -= len(rest)
            elif match["tag"]:
                name = hashtag_name(match["tag"])
                if name is None:
                    out.append(escape(match[0], quote=False))
                else:
                    tags.setdefault(name.casefold(), name)
                    out.append(hashtag(match["tag"], tag_url(name)))
            else:
                name = match["mention"]
                target = mentions.get(name.lower())
                if target is not None:
                    named.setdefault(target.href, target)
                out.append(mention(name, target.url if target else profile_url(name)))
        out.append(escape(part[position:], quote=False))
        return "".join(out)

    paragraphs = [part for part in re.split(r"\n[ \t]*\n\s*", text.replace("\r\n", "\n").strip()) if part]
    html = "".join("<p>" + "<br>".join(inline(line) for line in part.split("\n")) + "</p>" for part in paragraphs)
    return Rendered(html, tuple(named.values()), tuple(tags.values()))


def _trim(url: str) -> tuple[str, str]:
    """An address without the punctuation that belongs to the sentence; a closing bracket stays if it was opened."""
    end = len(url)
    while end and url[end - 1] in _TRAILING:
        if url[end - 1] == ")" and url.count("(", 0, end) >= url.count(")", 0, end):
            break
        end -= 1
    return url[:end], url[end:]


def link(url: str) -> str:
    """An address as Mastodon marks it up: complete in the text for servers that drop the classes, short on screen."""
    scheme, _, rest = url.partition("://")
    shown, hidden = rest[:_SHOWN], rest[_SHOWN:]
    shown_class = "ellipsis" if hidden else ""
    return (
        f'<a href="{escape(url)}" rel="nofollow noopener" target="_blank" translate="no">'
        f'<span class="invisible">{escape(scheme)}://</span>'
        f'<span class="{shown_class}">{escape(shown, quote=False)}</span>'
        f'<span class="invisible">{escape(hidden, quote=False)}</span></a>'
    )


def hashtag(shown: str, url: str) -> str:
    """A hashtag link; class and rel keep Mastodon from taking it for the post's preview card."""
    return f'<a href="{escape(url)}" class="mention hashtag" rel="tag">#<span>{escape(shown, quote=False)}</span></a>'


def mention(name: str, url: str) -> str:
    """A mention link as Mastodon writes it."""
    return (
        f'<span class="h-card" translate="no"><a href="{escape(url)}" class="u-url mention">'
        f"@<span>{escape(name, quote=False)}</span></a></span>"
    )


def quote_fallback(url: str) -> str:
    """What servers without quotes show; Mastodon removes it by its class where it shows the quote itself."""
    return f'<p class="quote-inline">RE: {link(url)}</p>'


def clean(html: str) -> str:
    """Foreign markup made safe to show. Raises TooLarge beyond 64 KiB: the cleaner's time grows faster than its
    input on deep nesting, so the size is bounded before it (80 kB of nested `div` took half a second)."""
    if len(html) > _CLEAN_MAX:
        raise TooLarge("The text is too long", detail=f"{len(html)} characters, {_CLEAN_MAX} are read")
    return nh3.clean(
        html,
        tags=_ALLOWED_TAGS,
        clean_content_tags={"script", "style", "svg", "math", "iframe", "template"},
        attributes={"a": {"href", "class"}, "span": {"class"}, "p": {"class"}, "ol": {"start"}, "li": {"value"}},
        attribute_filter=_keep_attribute,
        url_schemes={"http", "https"},
        link_rel="nofollow noopener noreferrer",
    )


def _keep_attribute(_tag: str, name: str, value: str) -> str | None:
    if name == "href":
        # A relative address would lead to a place on this server, in the words of another.
        return value if value.lower().startswith(("https://", "http://")) else None
    if name != "class":
        return value
    kept = [part for part in value.split() if _KEPT_CLASS.fullmatch(part)]
    return " ".join(kept) or None


def plain(html: str) -> str:
    """Markup as plain text, for titles and one-line previews."""
    broken = re.sub(r"<br\s*/?>|</p>", "\n", html)
    stripped = nh3.clean(broken, tags=set())
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&nbsp;", " "), ("&amp;", "&")):
        stripped = stripped.replace(entity, character)
    return stripped.strip()


def shortened(text: str, limit: int) -> str:
    """The beginning of a text on one line, cut at a word where possible."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    return (cut[: cut.rindex(" ")] if " " in cut[limit // 2 :] else cut).rstrip() + "…"


@lru_cache(maxsize=1024)
def host_of(url: str) -> str:
    """Host and port of an address, lower case; '' if it has none."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()
