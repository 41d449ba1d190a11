"""Twenty thousand requests, each a genuine one with something changed on the way: none is believed.

The changes are made where they matter: single bits and bytes of every covered part, of the signature and of the body;
parts left out, doubled, exchanged with those of another genuine request, written otherwise.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.errors import SignatureRefused
from threadbridge.signatures import cavage, rfc9421
from threadbridge.signatures.keys import SigningKey, VerifyingKey, signing_key, verifying_key
from threadbridge.signatures.schemes import Request, read_claim, sign, verify

BASE = "https://bridge.example"
ACTOR = "https://remote.example/users/bob"
KEY_ID = f"{ACTOR}#main-key"
NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
KIND = "application/activity+json"
BODY = b'{"id":"https://remote.example/1","type":"Follow","actor":"https://remote.example/users/bob"}'
OTHER_BODY = b'{"id":"https://remote.example/2","type":"Undo","actor":"https://remote.example/users/bob"}'
EACH = 2_600
"""Mutations of each of the eight genuine requests."""


@cache
def rsa_pair() -> tuple[SigningKey, VerifyingKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return signing_key(KEY_ID, private), verifying_key(public)


@cache
def edwards() -> tuple[ed25519.Ed25519PrivateKey, VerifyingKey]:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return key, verifying_key(public)


def by_rsa(scheme: str, method: str, target: str, body: bytes, at: datetime = NOW) -> Request:
    headers = sign(
        "cavage" if scheme == "cavage" else "rfc9421", rsa_pair()[0], method=method, url=BASE + target,
        body=body or None, date=at, content_type=KIND,
    )  # fmt: skip
    return Request(method, target, [(name.lower(), value) for name, value in headers.items()], body)


def by_edwards(scheme: str, method: str, target: str, body: bytes, at: datetime = NOW) -> Request:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    key, created = edwards()[0], int(at.timestamp())
    if scheme == "cavage":
        fields = {"host": "bridge.example", "digest": f"SHA-256={digest}"}
        covered = ["(request-target)", "host", "(created)", "(expires)", *(["digest"] if body else [])]
        text = cavage.signing_string(
            covered, method=method, target=target, fields=fields, created=created, expires=created + 60
        )
        made = base64.b64encode(key.sign(text)).decode()
        signature = (
            f'keyId="{KEY_ID}",algorithm="hs2019",created={created},expires={created + 60},'
            f'headers="{" ".join(covered)}",signature="{made}"'
        )
        kept = [("host", fields["host"]), *([("digest", fields["digest"])] if body else []), ("signature", signature)]
        return Request(method, target, kept, body)
    fields = {"content-digest": f"sha-256=:{digest}:"} if body else {}
    covered = ["@method", "@authority", "@path", "@query", *fields]
    names = " ".join(f'"{name}"' for name in covered)
    parameters = f'({names});created={created};expires={created + 60};keyid="{KEY_ID}";alg="ed25519";nonce="n"'
    base = rfc9421.signature_base(covered, parameters, method=method, base_url=BASE, target=target, fields=fields)
    made = base64.b64encode(key.sign(base)).decode()
    headers = [("host", "bridge.example"), *fields.items(), ("signature-input", f"s={parameters}"),
               ("signature", f"s=:{made}:")]  # fmt: skip
    return Request(method, target, headers, body)


Make = Callable[[str, str, str, bytes, datetime], Request]
GENUINE = [
    (make, scheme, method, target, body)
    for make in (by_rsa, by_edwards)
    for scheme in ("cavage", "rfc9421")
    for method, target, body in (("POST", "/ap/users/1/inbox", BODY), ("GET", "/ap/users/1/outbox?page=true", b""))
]
COVERED = {"host", "date", "digest", "content-type", "content-digest", "signature", "signature-input"}


def believed(request: Request, make: Make) -> bool:
    """Through the real entrance, as whoever holds the right key; anything but a refusal is a failure of its own."""
    try:
        claim = read_claim(request, base_url=BASE, now=NOW)
        if claim.key_id != KEY_ID:
            return False  # nobody has a key of that name (draft-cavage does not sign it)
        verify(claim, (rsa_pair() if make is by_rsa else edwards())[1], owner=ACTOR)
    except SignatureRefused:
        return False
    return True


# ── the changes ──────────────────────────────────────────────────────────────────────────────────────────────────


def flipped(data: bytes, random_: random.Random) -> bytes:
    position = random_.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << random_.randrange(8)]) + data[position + 1 :]


def with_header(request: Request, at: int, value: str | None) -> Request:
    headers = list(request.headers)
    if value is None:
        del headers[at]
    else:
        headers[at] = (headers[at][0], value)
    return dataclasses.replace(request, headers=headers)


def covered_header(request: Request, random_: random.Random) -> int:
    """One of the headers that a claim rests on. RFC 9421 requests here sign neither Date nor Content-Type."""
    names = [name for name, _ in request.headers]
    resting = COVERED - ({"date", "content-type"} if "signature-input" in names else set())
    return random_.choice([number for number, name in enumerate(names) if name in resting])


def bit_of_a_header(request: Request, twin: Request, random_: random.Random) -> Request:
    at = covered_header(request, random_)
    value = request.headers[at][1].encode("latin-1")
    return with_header(request, at, flipped(value, random_).decode("latin-1"))


def byte_into_a_header(request: Request, twin: Request, random_: random.Random) -> Request:
    at = covered_header(request, random_)
    value = request.headers[at][1]
    position = random_.randrange(1, len(value))
    return with_header(request, at, value[:position] + chr(random_.randrange(33, 127)) + value[position:])


def byte_out_of_a_header(request: Request, twin: Request, random_: random.Random) -> Request:
    at = covered_header(request, random_)
    value = request.headers[at][1]
    position = random_.randrange(len(value))
    return with_header(request, at, value[:position] + value[position + 1 :])


def without_a_header(request: Request, twin: Request, random_: random.Random) -> Request:
    return with_header(request, covered_header(request, random_), None)


def header_of_the_twin(request: Request, twin: Request, random_: random.Random) -> Request:
    at = covered_header(request, random_)
    return with_header(request, at, dict(twin.headers)[request.headers[at][0]])


def header_twice(request: Request, twin: Request, random_: random.Random) -> Request:
    at = covered_header(request, random_)
    name, value = request.headers[at]
    again = (name if random_.random() < 0.5 else name.title(), random_.choice([value, dict(twin.headers)[name], ""]))
    headers = list(request.headers)
    headers.insert(random_.randrange(len(headers) + 1), again)
    return dataclasses.replace(request, headers=headers)


def another_target(request: Request, twin: Request, random_: random.Random) -> Request:
    target = request.raw_target
    position = random_.randrange(1, len(target))
    changed = random_.choice(
        [
            target[:position] + chr(random_.randrange(33, 127)) + target[position:],
            target[:position] + target[position + 1 :],
            target[:position] + f"%{ord(target[position]):02x}" + target[position + 1 :],
            target + "?" if "?" not in target else target + "&",
            target + "/", "/" + target, target.upper(), twin.raw_target,
            flipped(target.encode(), random_).decode("latin-1"),
        ]
    )  # fmt: skip
    return dataclasses.replace(request, raw_target=changed)


def another_method(request: Request, twin: Request, random_: random.Random) -> Request:
    return dataclasses.replace(
        request, method=random_.choice([m for m in ("GET", "POST", "PUT", "HEAD", "DELETE") if m != request.method])
    )


def another_body(request: Request, twin: Request, random_: random.Random) -> Request:
    body = request.body
    if not body:
        return dataclasses.replace(request, body=random_.randbytes(random_.randrange(1, 40)))
    changed = random_.choice(
        [flipped(body, random_), body[:-1], body + b" ", b" " + body, b"", twin.body, body[::-1]]
    )
    return dataclasses.replace(request, body=changed)


def words_of_the_signature(request: Request, twin: Request, random_: random.Random) -> Request:
    """Its own words say something else: another key, algorithm, time, fewer or other parts."""
    at = random_.choice([n for n, (name, _) in enumerate(request.headers) if name.startswith("signature")])
    value = request.headers[at][1]
    old, new = random_.choice(
        [
            ("users/bob", "users/eve"), ("remote.example", "remote.example.evil.example"), ("#main-key", "#other"),
            ("rsa-sha256", "hs2019"), ("rsa-sha256", "rsa-sha512"), ("rsa-sha256", "hmac-sha256"),
            ("hs2019", "ed25519x"),
            ("rsa-v1_5-sha256", "rsa-pss-sha512"), ("rsa-v1_5-sha256", "hmac-sha256"),
            ('"ed25519"', '"rsa-v1_5-sha256"'),
            (" digest", ""), (" host", ""), (" date", ""), ("(request-target) ", ""), (' "content-digest"', ""),
            (' "@target-uri"', ""), ('"@method" ', ""), (' "@query"', ""), (' "@path"', ""), (' "@authority"', ""),
            ('"@target-uri"', '"@path"'), ("(created) ", ""), (" (expires)", ""),
            ("created=", "created=1"), ("expires=", "expires=9"), ("created=17", "created=18"), (";nonce", ";tag"),
            ('nonce="n"', 'nonce="m"'), ("keyId=", "keyid2="), ("signature=", "signature=x"), ("sig1=", "sig2="),
            ('headers="', 'headers="x-extra '), (';keyid="', ';keyid="x'), (":", "::"), ("=", "=="), (",", ", ,"),
        ]
    )  # fmt: skip
    return with_header(request, at, value.replace(old, new))


CHANGES = (
    bit_of_a_header, bit_of_a_header, bit_of_a_header, byte_into_a_header, byte_out_of_a_header, without_a_header,
    header_of_the_twin, header_twice, another_target, another_method, another_body, words_of_the_signature,
    words_of_the_signature,
)  # fmt: skip


def says_the_same(request: Request, original: Request) -> bool:
    """Whether a change is none: another way of writing the signature's own header (white space around commas, order,
    parameters that nobody knows), the word for an algorithm where the key decides, the host in capitals where it is
    not signed as it stands, an empty query for none in a dialect that cannot tell them apart."""
    if (request.method, request.body) != (original.method, original.body):
        return False
    theirs = {name: value.strip(" \t") for name, value in original.headers}
    given_ = {name.lower(): value.strip(" \t") for name, value in request.headers}
    if len(request.headers) != len(original.headers) or theirs.keys() != given_.keys():
        return False
    message = "signature-input" in theirs
    if message:
        theirs["host"], given_["host"] = theirs["host"].lower(), given_["host"].lower()
    if request.raw_target.removesuffix("?" if message else "") != original.raw_target:
        return False
    own = {"signature", "signature-input"}
    if any(theirs[name] != given_[name] for name in theirs.keys() - own):
        return False
    try:
        if message:
            return rfc9421.parse(given_["signature-input"], given_["signature"]) == rfc9421.parse(
                theirs["signature-input"], theirs["signature"]
            )
        mine, its = cavage.parse(given_["signature"]), cavage.parse(theirs["signature"])
        return dataclasses.replace(mine, algorithm=None) == dataclasses.replace(its, algorithm=None)
    except SignatureRefused:
        return False


def mutated(
    make: Make, scheme: str, method: str, target: str, body: bytes, seed: int
) -> Iterator[tuple[str, Request]]:
    """EACH requests that say something else than the genuine one."""
    random_ = random.Random(seed)
    genuine = make(scheme, method, target, body, NOW)
    other = OTHER_BODY if body else b""
    twin = make(scheme, method, target.replace("1", "2"), other, NOW - timedelta(minutes=7))
    found = 0
    while found < EACH:
        change = random_.choice(CHANGES)
        request = change(genuine, twin, random_)
        if random_.random() < 0.2:
            request = random_.choice((another_body, another_target, another_method))(request, twin, random_)
        if not says_the_same(request, genuine):
            found += 1
            yield change.__name__, request


@pytest.mark.parametrize("number", range(len(GENUINE)))
def test_no_mutated_request_is_believed(number: int) -> None:
    make, scheme, method, target, body = GENUINE[number]
    assert believed(make(scheme, method, target, body, NOW), make), "the genuine twin"
    tried: Counter[str] = Counter()
    for change, request in mutated(make, scheme, method, target, body, seed=number):
        tried[change] += 1
        assert not believed(request, make), (change, request)
    assert sum(tried.values()) == EACH
    assert min(tried.values()) > 50, tried


def test_there_are_more_than_twenty_thousand() -> None:
    assert EACH * len(GENUINE) >= 20_000


# ── any bit of what is signed ────────────────────────────────────────────────────────────────────────────────────


def bits_of(request: Request) -> list[tuple[str, int]]:
    """(part, bits) of a request as it is on the wire: the target, the body, and each header that a claim rests on."""
    resting = COVERED - ({"date", "content-type"} if "signature-input" in dict(request.headers) else set())
    named = [(name, value.encode("latin-1")) for name, value in request.headers if name in resting]
    parts = [("(target)", request.raw_target.encode("latin-1")), ("(body)", request.body), *named]
    return [(part, len(data) * 8) for part, data in parts if data]


def with_bit(request: Request, part: str, bit: int) -> Request:
    """The request with one bit of one part turned."""

    def turned(data: bytes) -> bytes:
        return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]

    if part == "(body)":
        return dataclasses.replace(request, body=turned(request.body))
    if part == "(target)":
        target = turned(request.raw_target.encode("latin-1")).decode("latin-1")
        return dataclasses.replace(request, raw_target=target)
    at = [name for name, _ in request.headers].index(part)
    return with_header(request, at, turned(request.headers[at][1].encode("latin-1")).decode("latin-1"))


@pytest.mark.parametrize("number", range(len(GENUINE)))
def test_any_bit_of_a_request_matters(number: int) -> None:
    """Every single bit of the target and of each header that counts, and of the body, one after the other."""
    make, scheme, method, target, body = GENUINE[number]
    genuine = make(scheme, method, target, body, NOW)
    assert believed(genuine, make), "the genuine twin"
    tried = 0
    for part, bits in bits_of(genuine):
        for bit in range(bits):
            changed = with_bit(genuine, part, bit)
            if not says_the_same(changed, genuine):
                tried += 1
                assert not believed(changed, make), (part, bit)
    assert tried > 1_500, tried


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([each for each in GENUINE if each[4]]), st.data())
def test_any_bit_of_the_body_matters(genuine: tuple[Make, str, str, str, bytes], data: st.DataObject) -> None:
    make, scheme, method, target, body = genuine
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = body[: bit // 8] + bytes([body[bit // 8] ^ 1 << bit % 8]) + body[bit // 8 + 1 :]
    assert not believed(dataclasses.replace(make(scheme, method, target, body, NOW), body=changed), make)
