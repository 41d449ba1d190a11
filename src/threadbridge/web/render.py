"""Templates to answers: one place that makes HTML, with its headers.

Rule: every template escapes by itself, and no template can say otherwise; markup that is shown as markup comes as
`Markup` from `web/shown.py` (our own renderer, or the cleaner) and from nowhere else. An address is shown as a link
only if `web_url` lets it through. Public answers carry a strong ETag of their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account
from threadbridge.errors import BadConfiguration

HTML = "text/html; charset=utf-8"

# Pages show figures of likes and replies, which are promised to be five seconds old at most.
CACHE_PAGE = "public, max-age=5"
CACHE_FEED = "public, max-age=60"
CACHE_STYLE = "public, max-age=3600"
CACHE_NEVER = "no-store"

_KIB = 1024


def template_folder() -> Path:
    """Where the templates are: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "web" / "templates", package.parents[1] / "templates"):
        if (folder / "layout.html").is_file():
            return folder
    raise BadConfiguration("The page templates are missing", hint="Install threadbridge again.")


def web_url(url: str | None) -> str:
    """An http(s) address as it is, anything else (`javascript:`, `data:`, nonsense) as ''."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def moment(at: datetime) -> Markup:
    """A time as `<time>`, in words people read and the form machines read."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} {}, {} UTC</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%SZ"), utc.day, utc.strftime("%b %Y"), utc.strftime("%H:%M")
    )


def day(at: datetime) -> Markup:
    """The day of a time as `<time>`."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} {}</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%SZ"), utc.day, utc.strftime("%b %Y")
    )


def iso(at: datetime) -> str:
    """A time for machines: UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counted(number: int, one: str, many: str) -> str:
    """'1 reply', '1,204 replies'."""
    return f"{number:,} {one if number == 1 else many}"


def bytes_in_words(size: int) -> str:
    """'812 bytes', '3.4 MB'."""
    if size < _KIB:
        return counted(size, "byte", "bytes")
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= _KIB
        if amount < _KIB:
            return f"{amount:.1f} {unit}"
    return f"{amount / _KIB:.1f} TB"


def initial(account: Account) -> str:
    """The letter that stands for an account without a picture."""
    return (account.name or account.handle)[:1].upper()


def etag_of(body: bytes) -> str:
    """A strong ETag."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def unchanged(request: Request, etag: str) -> bool:
    """Whether If-None-Match names this ETag. Weak ones count, since compressing proxies weaken them
    (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    return any(part.strip().removeprefix("W/") in (etag, "*") for part in given.split(","))


def answer(
    request: Request, body: bytes, media_type: str, *, cache: str, headers: Mapping[str, str] | None = None
) -> Response:
    """200 with a strong ETag, or 304 when the caller holds these very bytes."""
    etag = etag_of(body)
    sent = {"etag": etag, "cache-control": cache, **(headers or {})}
    if unchanged(request, etag):
        return Response(status_code=304, headers=sent)
    return Response(body, headers=sent, media_type=media_type)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    folder = template_folder()
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        style_url=f"/style.css?v={hashlib.sha256(style_sheet()).hexdigest()[:8]}",
        counted=counted,
        initial=initial,
        site=None,
    )
    environment.filters.update(moment=moment, day=day, iso=iso, web_url=web_url, bytes_in_words=bytes_in_words)
    return environment


@lru_cache(maxsize=1)
def style_sheet() -> bytes:
    """The one style sheet."""
    return (template_folder() / "style.css").read_bytes()


def error_page(
    status: int,
    words: str,
    *,
    detail: str | None = None,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A page that says what is wrong and what to do. Kept by nobody."""
    html = (
        _environment()
        .get_template("problem.html")
        .render(status=status, title=_TITLES.get(status, "That did not work"), words=words, detail=detail, hint=hint)
    )
    sent = {"cache-control": CACHE_NEVER, "vary": "Accept, Cookie", "referrer-policy": "same-origin"}
    return Response(html, status, {**sent, **(headers or {})}, HTML)


_TITLES = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Nothing here",
    405: "Not possible here",
    410: "Gone",
    413: "Too large",
    503: "Not now",
}


class Renderer:
    """The templates, for one server."""

    def __init__(self, ids: Ids) -> None:
        self._environment = _environment()
        self._ids = ids

    def text(self, template: str, **values: Any) -> str:
        """A template filled in."""
        return self._environment.get_template(template).render(ids=self._ids, site=self._ids.authority, **values)

    def public(
        self, request: Request, template: str, *, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """A public page. `Vary: Accept`, since the same addresses answer with ActivityPub documents."""
        body = self.text(template, **values).encode()
        return answer(request, body, HTML, cache=CACHE_PAGE, headers={"vary": "Accept", **(headers or {})})

    def private(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page for one person: kept by nobody. Its address, which may hold a one-time token, is told to no other
        site; `no-referrer` would make browsers send `Origin: null` with our own forms, so it is `same-origin`."""
        headers = {"cache-control": CACHE_NEVER, "referrer-policy": "same-origin", "vary": "Cookie"}
        return Response(self.text(template, **values), status, headers, HTML)
