"""Whether a web page links to somebody with rel=me (https://microformats.org/wiki/rel-me), be the page hostile.

Rule: the page is read piece by piece by a parser that keeps nothing, and reading ends when something stands open for
too long: an endless comment or tag would otherwise be looked through again with every piece.
"""

from __future__ import annotations

from collections.abc import Collection
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

_PIECE = 4096
_OPEN_MAX = 16 * 1024
"""No real tag or comment is longer; a script may be."""
_SCRIPT_MAX = 512 * 1024


def links_back(page: str, page_url: str, to: Collection[str]) -> bool:
    """Whether `page` (fetched from `page_url`) has an `a` or `link` with rel=me that leads to one of the addresses
    in `to`. At most a megabyte should be given."""
    reader = _Reader(page_url, {_comparable(url) for url in to})
    for start in range(0, len(page), _PIECE):
        reader.feed(page[start : start + _PIECE])
        limit = _SCRIPT_MAX if reader.cdata_elem is not None else _OPEN_MAX
        if reader.found or len(reader.rawdata) > limit:
            break
    return reader.found


class _Reader(HTMLParser):
    """Remembers whether what it looks for was there; nothing else."""

    def __init__(self, page_url: str, wanted: set[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._page_url = page_url
        self._wanted = wanted
        self.found = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("a", "link") or self.found:
            return
        given = {name: value or "" for name, value in reversed(attrs)}  # of a doubled attribute the first counts
        if "me" in given.get("rel", "").lower().split() and given.get("href"):
            self.found = _comparable(given["href"], self._page_url) in self._wanted

    handle_startendtag = handle_starttag


def _comparable(url: str, page_url: str = "") -> str:
    """An address without what makes no difference: the case of scheme and host, a last slash, a fragment."""
    try:
        parts = urlsplit(urljoin(page_url, url.strip()) if page_url else url)
    except ValueError:
        return ""
    path = parts.path.rstrip("/")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}" + (f"?{parts.query}" if parts.query else "")
