"""The one entrance to signatures: what a request claims, whether a key proves it, and how ours are signed.

Rule: nothing is half believed. `read_claim` refuses everything that can be refused without a key, so that a stranger
cannot make us fetch one for a request that would be turned away in any case; `verify` is the only maker of a
`Verified`, and there is no way around it.

What a request must sign is stricter than the laxest peer and met by all of them: the request target, the host, the
time, and with a body its digest. (Mastodon asks for the host on GET only, bridgy-fed for the digest only; a signature
without the host is good at every server that the same body is sent to.)
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, final
from urllib.parse import urlsplit

from threadbridge.errors import SignatureMalformed, SignatureRefused
from threadbridge.signatures import cavage, rfc9421
from threadbridge.signatures.demands import Demand
from threadbridge.signatures.keys import RsaForm, SigningKey, VerifyingKey, origin, strict_base64
from threadbridge.signatures.proofs import ProofClaim

Scheme = Literal["cavage", "rfc9421"]

# Mastodon: five minutes of life and an hour of margin in the past. Nobody honest is further in the future than a
# badly set clock takes him.
PAST = timedelta(hours=1, minutes=5)
FUTURE = timedelta(minutes=5)

# Given twice, two readers (a proxy and we, our server's two parsers) may each believe another one.
_ONCE = frozenset(
    {
        "host",
        "date",
        "digest",
        "content-digest",
        "signature",
        "signature-input",
        "content-type",
        "content-length",
        "authorization",
    }
)
_TARGET = re.compile(r"/[!-~]*")
_METHOD = re.compile(r"[A-Z]{1,20}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_IMF_FIXDATE = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{{2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)

# What each word for an algorithm lets a key do; a pair that is not here is refused. `hs2019` and no word at all mean
# "what the key says": GoToSocial and others hash with SHA-256 under it, older libraries with SHA-512.
_FORMS: Mapping[tuple[Scheme, str | None, str], tuple[RsaForm, ...]] = {
    ("cavage", "rsa-sha256", "rsa"): ("pkcs1-sha256",),
    ("cavage", "hs2019", "rsa"): ("pkcs1-sha256", "pkcs1-sha512"),
    ("cavage", None, "rsa"): ("pkcs1-sha256", "pkcs1-sha512"),
    ("cavage", "hs2019", "ed25519"): ("pkcs1-sha256",),
    ("cavage", "ed25519", "ed25519"): ("pkcs1-sha256",),
    ("cavage", None, "ed25519"): ("pkcs1-sha256",),
    ("rfc9421", "rsa-v1_5-sha256", "rsa"): ("pkcs1-sha256",),
    ("rfc9421", "rsa-pss-sha512", "rsa"): ("pss-sha512",),
    ("rfc9421", None, "rsa"): ("pkcs1-sha256",),
    ("rfc9421", "ed25519", "ed25519"): ("pkcs1-sha256",),
    ("rfc9421", None, "ed25519"): ("pkcs1-sha256",),
}
_ALGORITHMS = frozenset((scheme, algorithm) for scheme, algorithm, _ in _FORMS)

_MADE_BY_VERIFY = object()


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over the wire. `raw_target` is the path and query as received, not decoded; `headers` are
    all occurrences in order, names in lower case, values decoded as Latin-1; `body` the exact bytes."""

    method: str
    raw_target: str
    headers: Sequence[tuple[str, str]]
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about its sender: everything about it is in order, only the key has not spoken yet.

    `signing_strings` are the readings under which the signature may hold (two only for a GET with a query, which some
    peers leave out of what they sign). `algorithm` is the sender's word for it, or None; `covered` the signed names.
    """

    key_id: str
    scheme: Scheme
    algorithm: str | None
    covered: frozenset[str]
    signing_strings: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Verified:
    """Proof that `actor` sent the request, or, where `scheme` is "proof", said the document in it: the inbox takes
    nothing else.

    Only `verify` can make one: the constructor wants a token that does not leave this module, and there is no
    other constructor, for tests and debugging neither. (Sign a request; it takes 0.2 ms.)
    """

    key_id: str
    actor: str
    scheme: Scheme | Literal["proof"]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_BY_VERIFY:
            raise TypeError("A Verified is made by signatures.schemes.verify and by nothing else")


def sign(
    scheme: Scheme,
    key: SigningKey,
    *,
    method: str,
    url: str,
    body: bytes | None,
    date: datetime,
    content_type: str | None,
    demand: Demand | None = None,
    with_query: bool = True,
) -> dict[str, str]:
    """All headers with which to send `body` (None: nothing, as for GET) to `url` at `date`, an aware datetime.

    Sign right before each attempt, redirects included, and send the header values and body bytes as they are.
    `demand` is what an Accept-Signature asked for (RFC 9421 only); `with_query` False leaves the query out of what is
    signed (draft-cavage only). Raises Invalid for a URL that cannot be signed for, SignatureRefused for a demand that
    this request cannot meet.
    """
    if scheme == "cavage":
        return cavage.sign_headers(
            key, method=method, url=url, body=body, date=date, content_type=content_type, with_query=with_query
        )
    return rfc9421.sign_headers(
        key, method=method, url=url, body=body, date=date, content_type=content_type, demand=demand
    )


def read_claim(request: Request, *, base_url: str, now: datetime) -> Claim:
    """What `request` claims, after all checks that need no key; raises SignatureRefused, whatever the input.

    `base_url` is our configured `scheme://authority`, `now` an aware datetime. RFC 9421 is read when there is a
    Signature-Input, draft-cavage otherwise.
    """
    fields = _fields(request)
    if not _METHOD.fullmatch(request.method) or not _TARGET.fullmatch(request.raw_target):
        raise SignatureRefused("The request line cannot be signed", detail="path and query in plain ASCII are needed")
    if "signature" not in fields:
        raise SignatureRefused("Request not signed")
    _check_host(fields, base_url)
    if "signature-input" in fields:
        return _read_rfc9421(request, fields, base_url, now)
    return _read_cavage(request, fields, now)


def verify(claim: Claim | ProofClaim, key: VerifyingKey, *, owner: str, asserts: bool = False) -> Verified:
    """The proof that `owner`, the actor to whom `key` belongs, made `claim` (of a request, or of a document by its
    integrity proof); raises SignatureRefused.

    `refetch` is set on the refusal when a newer key could change it. Whether `key` really is the one published under
    `claim.key_id` by `owner` is for the caller to know, and whether it `asserts` (is good for integrity proofs);
    that both live at the same origin is checked here.
    """
    if origin(owner) is None or origin(owner) != origin(claim.key_id):
        raise SignatureRefused("The key of this request is not on its owner's server", detail=claim.key_id)
    if isinstance(claim, ProofClaim):
        return _verify_proof(claim, key, owner, asserts)
    forms = _FORMS.get((claim.scheme, claim.algorithm, key.kind), ())
    if not forms:
        raise SignatureRefused(
            f"The signature says {claim.algorithm}, but the key is {key.kind}", detail=claim.key_id, refetch=True
        )
    for data in claim.signing_strings:
        for form in forms:
            if key.verify(claim.signature, data, form=form):
                return Verified(key_id=claim.key_id, actor=owner, scheme=claim.scheme, made_by=_MADE_BY_VERIFY)
    raise SignatureRefused(f"Verification failed for {owner} {claim.key_id}", refetch=True)


def _verify_proof(claim: ProofClaim, key: VerifyingKey, owner: str, asserts: bool) -> Verified:
    if not asserts:
        # FEP-521a: what proves documents stands in `assertionMethod`. A key that only signs requests may be in the
        # hands of a proxy.
        raise SignatureRefused(
            "The key of the integrity proof is not published for that purpose", detail=claim.key_id, refetch=True
        )
    if owner != claim.actor:
        raise SignatureRefused("The integrity proof is by somebody else than the actor", detail=claim.key_id)
    if key.kind != "ed25519":
        raise SignatureRefused("The key of the integrity proof is not Ed25519", detail=claim.key_id, refetch=True)
    if any(key.verify(claim.signature, data) for data in claim.signing_strings):
        return Verified(key_id=claim.key_id, actor=owner, scheme="proof", made_by=_MADE_BY_VERIFY)
    raise SignatureRefused(f"The integrity proof does not hold for {owner} {claim.key_id}", refetch=True)


# ── the two dialects ────────────────────────────────────────────────────────────────────────────────────────────────


def _read_cavage(request: Request, fields: Mapping[str, str], now: datetime) -> Claim:
    read = cavage.parse(fields["signature"])
    covered = frozenset(read.covered)
    _check_claimed("cavage", read.key_id, read.algorithm)
    timed = covered & {"(created)", "(expires)"}
    if timed and read.algorithm not in (None, "hs2019"):
        raise SignatureRefused(f"{' and '.join(sorted(timed))} can be signed under hs2019 only")
    needed = {"(request-target)", "host"} | ({"digest"} if _has_content(request) else set())
    if not covered & {"date", "(created)"}:
        needed.add("date")
    _check_coverage(covered, needed)
    if "date" in covered:
        _check_window(_http_date(fields.get("date", "")), now)
    if "(created)" in covered and read.created is not None:
        _check_window(_unix_time(read.created), now)
    _check_expiry(read.expires, now)
    if "digest" in covered:
        _check_digest(_digests(fields.get("digest", "")), request.body)
    targets = [request.raw_target]
    if request.method in ("GET", "HEAD") and "?" in request.raw_target:
        targets.append(request.raw_target.partition("?")[0])
    strings = tuple(
        cavage.signing_string(
            read.covered,
            method=request.method,
            target=target,
            fields=fields,
            created=read.created,
            expires=read.expires,
        )
        for target in targets
    )
    return Claim(read.key_id, "cavage", read.algorithm, covered, strings, read.signature)


def _read_rfc9421(request: Request, fields: Mapping[str, str], base_url: str, now: datetime) -> Claim:
    read = rfc9421.parse(fields["signature-input"], fields["signature"])
    covered = frozenset(read.covered)
    _check_claimed("rfc9421", read.key_id, read.algorithm)
    needed = {"@method"} | ({"content-digest"} if _has_content(request) else set())
    if "@target-uri" not in covered:
        # The same thing in its parts; the query may be left out only where there is none.
        parts = {"@authority", "@path"} | ({"@query"} if "?" in request.raw_target else set())
        needed |= parts if covered & parts else {"@target-uri"}
    _check_coverage(covered, needed)
    _check_window(_unix_time(read.created), now)
    _check_expiry(read.expires, now)
    if "content-digest" in covered:
        _check_digest(rfc9421.content_digests(fields.get("content-digest", "")), request.body)
    base = rfc9421.signature_base(
        read.covered,
        read.parameters,
        method=request.method,
        base_url=base_url,
        target=request.raw_target,
        fields=fields,
    )
    return Claim(read.key_id, "rfc9421", read.algorithm, covered, (base,), read.signature)


# ── one check each ──────────────────────────────────────────────────────────────────────────────────────────────────


def _fields(request: Request) -> dict[str, str]:
    """Header values by name, several joined as HTTP does; refuses what must not come twice."""
    fields: dict[str, str] = {}
    for name, value in request.headers:
        key, trimmed = name.lower(), value.strip(" \t")
        if key in fields and key in _ONCE:
            raise SignatureMalformed(f"The header {key} came twice")
        fields[key] = f"{fields[key]}, {trimmed}" if key in fields else trimmed
    return fields


def _has_content(request: Request) -> bool:
    return request.method not in ("GET", "HEAD") or bool(request.body)


def _check_host(fields: Mapping[str, str], base_url: str) -> None:
    """A signature for another server's host must not be good here."""
    ours = urlsplit(base_url)
    default = ":443" if ours.scheme == "https" else ":80"
    if fields.get("host", "").lower().removesuffix(default) != ours.netloc.lower().removesuffix(default):
        raise SignatureRefused(f"This request is meant for another host, here is {ours.netloc}")


def _check_claimed(scheme: Scheme, key_id: str, algorithm: str | None) -> None:
    if origin(key_id) is None:
        raise SignatureRefused("The keyId of the signature must be an http(s) URL")
    if (scheme, algorithm) not in _ALGORITHMS:
        raise SignatureRefused("The signature names an algorithm that is not accepted here", detail=repr(algorithm))


def _check_coverage(covered: frozenset[str], needed: set[str]) -> None:
    missing = sorted(needed - covered)
    if missing:
        raise SignatureRefused(f"The signature must also cover {', '.join(missing)}")


def _check_window(moment: datetime, now: datetime) -> None:
    if not -FUTURE <= now - moment <= PAST:
        raise SignatureRefused(
            f"Signed request date outside acceptable time window: the request is dated {_shown(moment)}, "
            f"this server's clock says {_shown(now)}: one of the two clocks is wrong, or the request is too old"
        )


def _check_expiry(expires: int | None, now: datetime) -> None:
    if expires is not None and _unix_time(expires) < now:
        raise SignatureRefused(
            f"The signature expired at {_shown(_unix_time(expires))}, this server's clock says {_shown(now)}"
        )


def _check_digest(pairs: Sequence[tuple[str, str]], body: bytes) -> None:
    """Exactly one SHA-256 value, equal to what the body really has. A missing one is a refusal, not a pass:
    Misskey answered 401 to it and went on (CVE-2026-28432)."""
    given = [value for name, value in pairs if name.lower() == "sha-256"]
    if len(given) != 1:
        raise SignatureRefused("The digest of the body must hold exactly one SHA-256 value")
    claimed = strict_base64(given[0])
    if claimed is None or not hmac.compare_digest(claimed, hashlib.sha256(body).digest()):
        raise SignatureRefused("The digest does not belong to the body that arrived")


def _digests(header: str) -> list[tuple[str, str]]:
    """(algorithm, base64) pairs of a `Digest` header (RFC 3230)."""
    pairs = (member.strip(" \t").partition("=") for member in header.split(","))
    return [(name, value) for name, _, value in pairs]


def _http_date(text: str) -> datetime:
    """IMF-fixdate, the only form that anybody sends."""
    match = _IMF_FIXDATE.fullmatch(text)
    if match is None:
        raise SignatureRefused("The Date header is not a date such as 'Wed, 20 Dec 2023 10:00:00 GMT'")
    day, month, year, hour, minute, second = match.groups()
    try:
        return datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError:
        raise SignatureRefused("The Date header names a time that does not exist") from None


def _unix_time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise SignatureRefused("The signature names a time that does not exist") from None


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
