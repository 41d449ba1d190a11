"""Untrusted JSON: a strict decoder for whole documents, and tolerant readers for single properties of them.

Rule: a document is plain JSON with names that we know. `@context` is looked at only to see that ActivityStreams is
meant; contexts are never fetched, and JSON-LD that would say something else to another reader (`@graph`, `@reverse`,
`@included`: CVE-2026-42462 and its kin) is refused. Whatever the bytes are, the only exception is Invalid.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote

from threadbridge.activitypub.ids import PUBLIC
from threadbridge.errors import Invalid, TooLarge
from threadbridge.signatures.keys import origin

SIZE_MAX = 1_000_000
DEPTH_MAX = 32
NODES_MAX = 10_000
MEMBERS_MAX = 1_000
INTEGER_MAX = 2**53
NUMBER_LENGTH_MAX = 64

_CONTEXT = "@context"
# Inboxes are in the ledger's indexes, together with other columns; PostgreSQL holds 2,704 bytes in one entry.
ADDRESS_MAX = 1000
_CARRIED = frozenset({"@type", "@id"})
# Inboxes are in the ledger's indexes, together with other columns; PostgreSQL holds 2,704 bytes in one entry.
ADDRESS_MAX = 1000
_CARRIED = frozenset({"@type", "@id"})
_ACTIVITYSTREAMS = frozenset(
    f"{scheme}://www.w3.org/ns/activitystreams{end}" for scheme in ("https", "http") for end in ("", "#")
)
# A whole string (the closing quote may be missing, then it reaches to the end) or one bracket. The possessive
# quantifiers keep it linear for every input.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}(?::\d{2})?)(\.\d{1,12})?([Zz]|[+-]\d{2}:?\d{2})?", re.ASCII
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_URL_SAFE = "".join(chr(code) for code in range(33, 127))

# ── whole documents ──────────────────────────────────────────────────────────────────────────────────────────────


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises Invalid (TooLarge over 1,000,000 bytes) with the rule that it breaks.

    Refused, beside what is no JSON: a byte order mark, other encodings than UTF-8, nesting deeper than 32 (counted
    before anything is decoded), duplicate names, NaN and infinities however written, integers beyond ±2⁵³, numbers
    of absurd length, lone surrogates and U+0000 (databases choke on them), more than 10,000 values or 1,000 members
    in one object or list, names beginning with `@` other than `@context`.
    """
    if len(body) > SIZE_MAX:
        raise TooLarge(f"The document is larger than {SIZE_MAX} bytes")
    if body.startswith(b"\xef\xbb\xbf"):
        raise Invalid("The document begins with a byte order mark; JSON has none")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("The document is not UTF-8", detail=f"at byte {error.start}") from None
    _check_depth(body)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise Invalid("The document is not valid JSON", detail=f"{error.msg} at character {error.pos}") from None
    if not isinstance(document, dict):
        raise Invalid("The document is not a JSON object")
    _check_values(document)
    return document


def names_activitystreams(document: Mapping[str, Any]) -> bool:
    """Whether `@context` names ActivityStreams, by itself or in a list. Mastodon reads no document without."""
    context = document.get(_CONTEXT)
    named = context if isinstance(context, list) else [context]
    return any(isinstance(name, str) and name in _ACTIVITYSTREAMS for name in named)


def _check_depth(body: bytes) -> None:
    depth = 0
    for match in _BRACKETS.finditer(body):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            if depth > DEPTH_MAX:
                raise Invalid(f"The document is nested deeper than {DEPTH_MAX} levels")
        elif token in (b"}", b"]"):
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Readers disagree on which of two counts; a signature check and a handler must not.
        raise Invalid("The document has an object with a duplicate name")
    return members


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > INTEGER_MAX:
        raise Invalid("The document has an integer beyond 2^53")
    return value


def _float(text: str) -> float:
    if len(text) > NUMBER_LENGTH_MAX or not math.isfinite(value := float(text)):
        raise Invalid("The document has a number that cannot be represented")
    return value


def _constant(text: str) -> NoReturn:
    raise Invalid(f"The document has {text}, which is not JSON")


def _check_values(document: dict[str, Any]) -> None:
    """Limits and forbidden characters everywhere; forbidden names everywhere but inside `@context`, whose term
    definitions hold `@id` and `@type` by nature, and inside `attachment` and `tag`, where schema.org's own things are
    carried and nothing is read by its `@type`. What rearranges a document is refused everywhere."""
    count = 0
    waiting: list[tuple[Any, frozenset[str] | None]] = [(document, frozenset())]
    while waiting:
        value, allowed = waiting.pop()
        count += 1
        if count > NODES_MAX:
            raise Invalid(f"The document has more than {NODES_MAX} values")
        if isinstance(value, str):
            _check_characters(value)
        elif isinstance(value, (dict, list)):
            if len(value) > MEMBERS_MAX:
                raise Invalid(f"The document has an object or list with more than {MEMBERS_MAX} members")
            if isinstance(value, list):
                waiting.extend((item, allowed) for item in value)
                continue
            for name, member in value.items():
                _check_characters(name)
                if name.startswith("@") and name != _CONTEXT and allowed is not None and name not in allowed:
                    raise Invalid(f"The document uses {name[:40]}; only plain ActivityStreams names are read here")
                if name == _CONTEXT or allowed is None:
                    waiting.append((member, None))
                else:
                    waiting.append((member, _CARRIED if name in ("attachment", "tag") else allowed))


def _check_characters(text: str) -> None:
    if "\0" in text or (not text.isascii() and _SURROGATE.search(text)):
        raise Invalid("The document has text with U+0000 or a lone surrogate")


# ── single properties ────────────────────────────────────────────────────────────────────────────────────────────


def listed(value: Any) -> Sequence[Any]:
    """A property's values: ActivityStreams writes none, one and several as nothing, a value and a list."""
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def is_id(value: Any) -> bool:
    """Whether `value` is an http(s) URL that may name something; see `signatures.keys.origin`."""
    return isinstance(value, str) and origin(value) is not None


def id_of(document: Mapping[str, Any]) -> str:
    """The id by which a document names itself; '' when it has none."""
    named = document.get("id")
    return named if isinstance(named, str) else ""


def one_id(value: Any, what: str) -> str:
    """The one id in `value`, a string or an object with `id`; raises Invalid naming `what`. Lists are refused, since
    readers differ in which item they take."""
    found = value.get("id") if isinstance(value, dict) else value
    if not isinstance(found, str) or origin(found) is None:
        raise Invalid(f"{what} must be one http(s) URL, or an object with such an id")
    return found


def dated(document: Mapping[str, Any]) -> datetime | None:
    """When a document was last changed, or else made, as it says itself."""
    return moment(document.get("updated")) or moment(document.get("published"))


def kind_of(value: Any) -> str | None:
    """The `type` of an object, one string; None when there is none. Of a list the one name that is ActivityStreams'
    own is taken (ActivityPods writes `["foaf:Person", "Person"]`); with several of those, readers would differ, so
    that is Invalid, like everything else."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, list):
        plain = [name for name in kind if isinstance(name, str) and ":" not in name]
        kind = plain[0] if len(plain) == 1 and len(kind) <= 10 else kind
    if kind is not None and (not isinstance(kind, str) or not 0 < len(kind) <= 100):
        raise Invalid("type must be one short string")
    return kind


def line(value: Any, limit: int) -> str:
    """One line of plain text, cut to `limit` characters; empty when it is no string."""
    return _CONTROLS.sub(" ", value[: limit + 1]).strip()[:limit] if isinstance(value, str) else ""


def moment(value: Any) -> datetime | None:
    """A time in UTC; None when it cannot be understood. Threads writes `+0000`, others fractions of any length; a
    time without a zone is UTC."""
    match = _MOMENT.fullmatch(value) if isinstance(value, str) and len(value) <= 64 else None
    if match is None:
        return None
    date, time, fraction, zone = match.groups()
    try:
        read = datetime.fromisoformat(f"{date}T{time}{(fraction or '')[:7]}{(zone or 'Z').upper()}")
        return read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def web_link(value: Any) -> str | None:
    """The http(s) address for people in `url`: a string, a Link, or a list of them, of which `text/html` is the best
    (Threads puts an app link first). None when there is none."""
    found = None
    for item in listed(value):
        address = item.get("href") if isinstance(item, dict) else item
        if not is_id(address):
            continue
        if isinstance(item, dict) and item.get("mediaType") == "text/html":
            return str(address)
        found = found or str(address)
    return found


def address(value: Any, what: str) -> str:
    """An http(s) address to send to, in ASCII; raises Invalid naming `what`. An address is not an identity: letters
    outside ASCII in its path are percent-encoded, as every client does before sending."""
    if not isinstance(value, str) or origin(value) is None:
        raise Invalid(f"{what} must be one http(s) URL")
    encoded = quote(value, safe=_URL_SAFE)
    if len(encoded) > ADDRESS_MAX:
        raise Invalid(f"{what} is longer than {ADDRESS_MAX} bytes")
    return encoded


def audience(value: Any) -> tuple[str, ...]:
    """The ids in `to` or `cc`, with the three spellings of the public collection made one; others are passed over."""
    found = []
    for item in listed(value):
        named = item.get("id") if isinstance(item, dict) else item
        if named in ("Public", "as:Public", PUBLIC):
            found.append(PUBLIC)
        elif is_id(named):
            found.append(str(named))
    return tuple(dict.fromkeys(found))
