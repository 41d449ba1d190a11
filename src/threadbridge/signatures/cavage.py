"""draft-cavage-http-signatures-12, the dialect that every server of the Fediverse speaks.

Rule: this file knows how the dialect is written, `schemes` knows what is good enough. What leaves here satisfies the
strictest readers (Misskey and Takahē split the header naively: no white space after commas, `algorithm` and `headers`
always named, `SHA-256=` in capitals); what arrives may be laid out as its sender likes, but never be ambiguous.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from threadbridge.errors import Invalid, SignatureMalformed, SignatureRefused
from threadbridge.signatures.keys import SigningKey, origin, strict_base64

HEADER_MAX = 8192
COVERED_MAX = 64

_PARAMETER = re.compile(r"[ \t]*([A-Za-z]+)=(?:\"([^\"\\]*)\"|([0-9]+))[ \t]*(?:,|\Z)")
_COVERED_NAME = re.compile(r"\([a-z-]+\)|[a-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f]")
_INTEGER = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class CavageSignature:
    """One `Signature` header. `covered` are lower-case names in signing order; `created` and `expires` are Unix
    seconds; `algorithm` is the sender's word, None when not given."""

    key_id: str
    algorithm: str | None
    covered: tuple[str, ...]
    signature: bytes
    created: int | None = None
    expires: int | None = None


def host_and_target(url: str) -> tuple[str, str]:
    """(`Host` value, request target) with which a client asks for `url`: no default port, no fragment, `/` for an
    empty path. Raises Invalid for an address that cannot be sent exactly as it is written."""
    if origin(url) is None or not url.isascii():
        raise Invalid("Only a plain http(s) URL in ASCII can be signed for", detail=repr(url[:200]))
    scheme, _, rest = url.partition("#")[0].partition("://")
    end = next((position for position, char in enumerate(rest) if char in "/?"), len(rest))
    host, target = rest[:end].lower(), rest[end:]
    default = ":443" if scheme.lower() == "https" else ":80"
    return host.removesuffix(default), target if target.startswith("/") else f"/{target}"


def http_date(moment: datetime) -> str:
    """IMF-fixdate (RFC 9110 section 5.6.7) of an aware datetime."""
    return _in_words(int(moment.timestamp()))


@lru_cache(maxsize=16)
def _in_words(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


@lru_cache(maxsize=64)
def _digest(body: bytes) -> str:
    """The Digest of a body; the same body goes to a thousand hosts."""
    return f"SHA-256={base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}"


def sign_headers(
    key: SigningKey,
    *,
    method: str,
    url: str,
    body: bytes | None,
    date: datetime,
    content_type: str | None,
    with_query: bool = True,
) -> dict[str, str]:
    """Headers to send with exactly this request, now: Misskey believes a date for 300 seconds, Takahē for 60.

    With a body (POST): Host, Date, Digest, Content-Type, Signature; without (GET): Host, Date, Signature. `date` is
    aware. The query is part of the request target, as the draft says, unless `with_query` is False: some readers look
    at the path alone.
    """
    host, target = host_and_target(url)
    if not with_query:
        target = target.partition("?")[0]
    headers = {"Host": host, "Date": http_date(date)}
    if body is not None:
        headers["Digest"] = _digest(body)
        if content_type is not None:
            headers["Content-Type"] = content_type
    covered = ["(request-target)", *(name.lower() for name in headers)]
    fields = {name.lower(): value for name, value in headers.items()}
    made = key.sign(signing_string(covered, method=method, target=target, fields=fields))
    headers["Signature"] = (
        f'keyId="{key.key_id}",algorithm="rsa-sha256",headers="{" ".join(covered)}",'
        f'signature="{base64.b64encode(made).decode("ascii")}"'
    )
    return headers


def signing_string(
    covered: Sequence[str],
    *,
    method: str,
    target: str,
    fields: Mapping[str, str],
    created: int | None = None,
    expires: int | None = None,
) -> bytes:
    """The bytes that are signed (section 2.3 of the draft). `fields` maps lower-case names to values as received.

    Raises SignatureRefused when something covered is not there, or could break out of its line.
    """
    lines = []
    for name in covered:
        match name:
            case "(request-target)":
                value: object = f"{method.lower()} {target}"
            case "(created)":
                value = created
            case "(expires)":
                value = expires
            case _:
                value = fields.get(name)
        if value is None:
            raise SignatureRefused(f"The signature covers {name}, which the request does not have")
        lines.append(f"{name}: {value}")
    return one_line_each(lines)


def one_line_each(lines: Sequence[str]) -> bytes:
    """The lines of a signing string as the bytes that stood on the wire; refuses whatever a header cannot hold."""
    if any(_CONTROL.search(line) for line in lines):
        raise SignatureRefused("A signed header holds control characters")
    try:
        return "\n".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        raise SignatureRefused("A signed header holds characters that HTTP does not carry") from None


def parse(header: str) -> CavageSignature:
    """Read a `Signature` header; raises SignatureMalformed for everything that could be read in two ways.

    Spaces after commas, any order, quoted or bare numbers are taken; unknown parameters are passed over, as the draft
    demands. A scheme word in front, escapes in strings, a parameter or covered name given twice are refused.
    """
    given = _parameters(header)
    key_id, signature = given.get("keyid"), strict_base64(given.get("signature", ""))
    if not key_id:
        raise SignatureMalformed("The Signature header has no keyId")
    if not signature:
        raise SignatureMalformed("The Signature header has no signature in base64")
    # Without `headers` the draft covers (created) only (older drafts: date only): never enough, and never guessed.
    covered = tuple(given["headers"].lower().split(" ")) if "headers" in given else ()
    if len(covered) > COVERED_MAX or not all(_COVERED_NAME.fullmatch(name) for name in covered):
        raise SignatureMalformed("The Signature header does not say properly which headers it covers")
    if len(set(covered)) != len(covered):
        raise SignatureMalformed("The Signature header covers a header twice")
    algorithm = given.get("algorithm")
    return CavageSignature(
        key_id=key_id,
        algorithm=algorithm.lower() if algorithm else None,
        covered=covered,
        signature=signature,
        created=_seconds(given, "created"),
        expires=_seconds(given, "expires"),
    )


def _parameters(header: str) -> dict[str, str]:
    if len(header) > HEADER_MAX:
        raise SignatureMalformed("The Signature header is too long")
    given: dict[str, str] = {}
    position = 0
    while position < len(header):
        match = _PARAMETER.match(header, position)
        if match is None:
            raise SignatureMalformed("The Signature header is malformed", detail=f"at character {position}")
        name = match[1].lower()
        if name in given:
            raise SignatureMalformed(f"The Signature header names {match[1]} twice")
        if match[3] is not None and name not in ("created", "expires"):
            raise SignatureMalformed(f"The Signature header has {match[1]} without quotes")
        given[name] = match[2] if match[3] is None else match[3]
        position = match.end()
    return given


def _seconds(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise SignatureMalformed(f"{name} in the Signature header is not a time in seconds")
    return int(text)
