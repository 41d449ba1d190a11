"""HTTP Message Signatures (RFC 9421), in the profile that the Fediverse uses.

Rule: one signature per request, over request components without parameters; whatever lies outside is refused rather
than guessed at. `@target-uri` is made from our configured address and the raw target, never from what the connection
or a proxy says.

Why this is our own code although `http-message-signatures` is a good package: its verifier reads the wall clock (here
time is an argument) and says nothing before it has a key, while everything that can be checked without one must be
checked before a stranger can make us fetch one. The profile is small; the tests let both implementations verify each
other in both directions.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from threadbridge.errors import SignatureMalformed, SignatureRefused
from threadbridge.signatures.cavage import COVERED_MAX, HEADER_MAX, host_and_target, http_date, one_line_each
from threadbridge.signatures.demands import LIFE_SECONDS, Demand
from threadbridge.signatures.keys import SigningKey, strict_base64
from threadbridge.signatures.structured import KEY as _KEY
from threadbridge.signatures.structured import STRING as _STRING
from threadbridge.signatures.structured import quoted as _quoted
from threadbridge.signatures.structured import unquoted as _unquoted

_INNER_LIST = re.compile(rf"\( *(?P<items>(?:{_STRING}(?: +{_STRING})*+)?) *\)")
_PARAMETER = re.compile(rf"; *(?P<name>{_KEY})=(?P<value>{_STRING}|-?[0-9]{{1,15}})")
_LABEL = re.compile(rf"(?P<label>{_KEY})=")
_SIGNATURE = re.compile(rf"(?P<label>{_KEY})=:(?P<bytes>[A-Za-z0-9+/=]*):")
_DIGEST = re.compile(rf"(?P<name>{_KEY})=:(?P<bytes>[A-Za-z0-9+/=]*):")
_NAME = re.compile(r"@?[a-z0-9!#$%&'*+.^_`|~-]+")

_INTEGERS = frozenset({"created", "expires"})
_STRINGS = frozenset({"keyid", "alg", "nonce", "tag"})


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """One `Signature-Input` with its `Signature`. `covered` are component names in signing order; `parameters` is
    the value of `@signature-params`, serialised canonically; times are Unix seconds."""

    key_id: str
    algorithm: str | None
    covered: tuple[str, ...]
    signature: bytes
    created: int
    expires: int | None
    parameters: str


def sign_headers(
    key: SigningKey,
    *,
    method: str,
    url: str,
    body: bytes | None,
    date: datetime,
    content_type: str | None,
    demand: Demand | None = None,
) -> dict[str, str]:
    """Headers to send with exactly this request, now; the same arguments as for the older dialect, and what the other
    server asked for in its Accept-Signature.

    With a body (POST): Host, Date, Content-Digest, Content-Type, Signature-Input, Signature; without: the same less
    the body's two. The algorithm is named because some readers would expect RSA-PSS of an RSA key otherwise. Raises
    SignatureRefused for a demand that this request cannot meet.
    """
    host, target = host_and_target(url)
    headers = {"Host": host, "Date": http_date(date)}
    usual = ["@method", "@target-uri"]
    fields = {"host": host, "date": headers["Date"]}
    if body is not None:
        fields["content-digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}:"
        fields["content-length"] = str(len(body))
        headers["Content-Digest"] = fields["content-digest"]
        usual.append("content-digest")
        if content_type is not None:
            headers["Content-Type"] = fields["content-type"] = content_type
    covered = [*demand.components, *(name for name in usual if name not in demand.components)] if demand else usual
    created = int(date.timestamp())
    algorithm = (demand.algorithm if demand else None) or "rsa-v1_5-sha256"
    parameters = f"({' '.join(_quoted(name) for name in covered)});created={created}"
    parameters += f";expires={created + LIFE_SECONDS}" if demand and demand.expires else ""
    parameters += f";keyid={_quoted(key.key_id)};alg={_quoted(algorithm)}"
    for name, value in (("nonce", demand.nonce), ("tag", demand.tag)) if demand else ():
        parameters += f";{name}={_quoted(value)}" if value is not None else ""
    base_url = f"{urlsplit(url).scheme.lower()}://{host}"
    base = signature_base(covered, parameters, method=method.upper(), base_url=base_url, target=target, fields=fields)
    made = key.sign(base, form="pss-sha512" if algorithm == "rsa-pss-sha512" else "pkcs1-sha256")
    label = demand.label if demand else "sig1"
    headers["Signature-Input"] = f"{label}={parameters}"
    headers["Signature"] = f"{label}=:{base64.b64encode(made).decode('ascii')}:"
    return headers


def signature_base(
    covered: Sequence[str], parameters: str, *, method: str, base_url: str, target: str, fields: Mapping[str, str]
) -> bytes:
    """The bytes that are signed (RFC 9421 section 2.5). `base_url` is scheme and authority, `target` the raw path and
    query, `fields` lower-case names with their values. Raises SignatureRefused for a component we do not know."""
    path, _, query = target.partition("?")
    parts = urlsplit(base_url)
    derived = {
        "@method": method,
        "@target-uri": base_url + target,
        "@authority": parts.netloc,
        "@scheme": parts.scheme,
        "@request-target": target,
        "@path": path,
        "@query": f"?{query}",
    }
    lines = []
    for name in covered:
        value = derived.get(name) if name.startswith("@") else fields.get(name)
        if value is None:
            raise SignatureRefused(f"The signature covers {name}, which the request does not have")
        lines.append(f'"{name}": {value}')
    lines.append(f'"@signature-params": {parameters}')
    return one_line_each(lines)


def parse(signature_input: str, signature: str) -> MessageSignature:
    """Read the two headers; raises SignatureMalformed. Exactly one signature, under one label in both; `created` and
    `keyid` are required; unknown parameters, and parameters of components (`;req`, `;sf`, `;bs`), are refused."""
    if len(signature_input) > HEADER_MAX or len(signature) > HEADER_MAX:
        raise SignatureMalformed("The signature headers are too long")
    text = signature_input.strip(" \t")
    label = _LABEL.match(text)
    inner = _INNER_LIST.match(text, label.end()) if label else None
    made = _SIGNATURE.fullmatch(signature.strip(" \t"))
    if label is None or inner is None:
        raise SignatureMalformed("The Signature-Input header is malformed")
    covered = tuple(_unquoted(item) for item in re.findall(_STRING, inner["items"]))
    given, position = _parameters(text, inner.end())
    if position != len(text):
        raise SignatureMalformed("The Signature-Input header must hold exactly one plain signature")
    if made is None or made["label"] != label["label"]:
        raise SignatureMalformed("The Signature header must hold the one signature that Signature-Input names")
    decoded = strict_base64(made["bytes"])
    if not decoded:
        raise SignatureMalformed("The Signature header has no signature in base64")
    if len(covered) > COVERED_MAX or not all(_NAME.fullmatch(name) for name in covered):
        raise SignatureMalformed("The Signature-Input header names components that do not exist")
    if len(set(covered)) != len(covered):
        raise SignatureMalformed("The Signature-Input header names a component twice")
    key_id, created, expires = given.get("keyid"), given.get("created"), given.get("expires")
    algorithm = given.get("alg")
    if not isinstance(key_id, str) or not isinstance(created, int):
        raise SignatureMalformed("The Signature-Input header needs created and keyid")
    serialised = "".join(
        f";{name}={_quoted(value) if isinstance(value, str) else value}" for name, value in given.items()
    )
    return MessageSignature(
        key_id=key_id,
        algorithm=algorithm if isinstance(algorithm, str) else None,
        covered=covered,
        signature=decoded,
        created=created,
        expires=expires if isinstance(expires, int) else None,
        parameters=f"({' '.join(_quoted(name) for name in covered)}){serialised}",
    )


def content_digests(header: str) -> list[tuple[str, str]]:
    """(algorithm, base64) pairs of a `Content-Digest` (RFC 9530); raises SignatureMalformed."""
    pairs = []
    for member in header.split(","):
        match = _DIGEST.fullmatch(member.strip(" \t"))
        if match is None:
            raise SignatureMalformed("The Content-Digest header is malformed")
        pairs.append((match["name"], match["bytes"]))
    return pairs


def _parameters(text: str, position: int) -> tuple[dict[str, str | int], int]:
    """Parameters from `position` on, in order, and where they end."""
    given: dict[str, str | int] = {}
    while match := _PARAMETER.match(text, position):
        name, value = match["name"], match["value"]
        position = match.end()
        if name in given:
            raise SignatureMalformed(f"The Signature-Input header names {name} twice")
        if name not in (_STRINGS if value.startswith('"') else _INTEGERS):
            raise SignatureMalformed(f"The Signature-Input header has an unusable parameter {name}")
        given[name] = _unquoted(value) if value.startswith('"') else int(value)
    return given, position
