"""`Accept-Signature`: what another server asks for is read or passed over, and given beside what we always sign."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.errors import SignatureRefused
from threadbridge.signatures import demands, knocking, rfc9421
from threadbridge.signatures.demands import Demand
from threadbridge.signatures.keys import SigningKey, VerifyingKey, signing_key, verifying_key
from threadbridge.signatures.knocking import USUAL, Knock, Manner, onward
from threadbridge.signatures.schemes import Request, read_claim, sign, verify

BASE = "https://m.example"
INBOX = f"{BASE}/inbox?a=b"
ACTOR = "https://bridge.example/ap/users/1"
KEY_ID = f"{ACTOR}#main-key"
NOW = datetime(2023, 12, 20, 10, 0, 0, tzinfo=UTC)


@cache
def pair() -> tuple[SigningKey, VerifyingKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return signing_key(KEY_ID, private), verifying_key(public)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # RFC 9421 section 5.1, less the cache-control that our requests do not have.
        (
            'sig1=("@method" "@target-uri" "@authority" "content-digest");keyid="test-key";created;tag="app-123"',
            Demand(
                "sig1",
                ("@method", "@target-uri", "@authority", "content-digest"),
                key_id="test-key",
                tag="app-123",
            ),
        ),
        ('sig1=("@method");created;nonce="n-1"', Demand("sig1", ("@method",), nonce="n-1")),
        ("sig1=();created", Demand("sig1", ())),
        ('a=( "@path"  "host" );created=?1;expires', Demand("a", ("@path", "host"), expires=True)),
        ('a=("date");alg="rsa-pss-sha512"', Demand("a", ("date",), algorithm="rsa-pss-sha512")),
        ('a=("date");keyid;alg', Demand("a", ("date",))),
        # The first that we can give; others may ask for what we have not.
        ('a=("@query-param";name="x");created, b=("@query");created', Demand("b", ("@query",))),
        ('a=("cache-control"), b=("host")', Demand("b", ("host",))),
        ('a=("host");alg="ed25519" ,\tb=("host")', Demand("b", ("host",))),
        ('a=("cache-control"),b=("host")', Demand("b", ("host",))),
        (' \tb=("host")\t ', Demand("b", ("host",))),
        ('b=("host");tag=""', Demand("b", ("host",), tag="")),
        (f'b=("host");tag="{"x" * 498}"', Demand("b", ("host",), tag="x" * 498)),
        (f'{"l" * 64}=("host")', Demand("l" * 64, ("host",))),
        ('b=("host")' + " " * 4086, Demand("b", ("host",))),
        # Whatever stands there in the form of structured fields does not hide the one that we can give.
        *(
            (f'a=("host";p={value}), b=("host")', Demand("b", ("host",)))
            for value in ("1", "-1", "123456789012345", "1.123", "?0", ":AAEC:", "::", "token", "*", "a:/b", '"a b"')
        ),
    ],
)
def test_what_is_asked_for(header: str, expected: Demand) -> None:
    assert demands.read(header)[0] == expected


@pytest.mark.parametrize(
    "header",
    [
        None, "", "sig1", "sig1=", 'sig1="@method"', 'sig1=("@method"', 'sig1=("@method"),', ',sig1=("@method")',
        'sig1=("@method") sig2=("@path")', 'sig1=("@method");created=?0', 'sig1=("@method");nonce=7',
        'sig1=("@method" "@method")', 'sig1=("x-unknown")', 'sig1=("@status")', 'sig1=("host";sf)',
        'sig1=("host";req)',
        'sig1=("host");whatever', 'sig1=("host");tag="a\nb"', 'sig1=("host");alg="hmac-sha256"',
        'sig1=("host");tag="' + "x" * 600 + '"', 'sig1=("host")' + " " * 5000, ", ".join(['a=("host")'] * 9),
        "l" * 100 + '=("host")', 'S=("host")', "l" * 65 + '=("host")', 'sig1=("host")' + " " * 4084,
        'Xsig1=("host")', 'sig1=("host""date")', 'sig1=("host") x, b=("host")', 'sig1=("host");created;created',
        'sig1=("host");whatever="x"', f'sig1=("host");tag="{"x" * 499}"',
        *(f'a=("host";p={bad}), b=("host")' for bad in ("1234567890123456", "1.1234", "?2", "1.", ":ä:", ":", "(")),
    ],
)  # fmt: skip
def test_what_we_cannot_give_or_read_is_passed_over(header: str | None) -> None:
    assert demands.read(header) == ()


@given(st.text(alphabet=st.sampled_from('sig1=();"@method host,created?:\\ \t'), max_size=200))
@settings(max_examples=500)
def test_any_header_is_read_or_passed_over(header: str) -> None:
    for demand in demands.read(header):
        assert demands.read(demand.lasting) == (demand,) if demand.nonce is None else True


def test_reading_takes_time_in_proportion() -> None:
    hostile = 'a=("@method"' + ";a" * 1500 + ' "host"' + ";b=1" * 100
    assert demands.read(hostile) == ()


def test_a_demand_is_kept_without_its_nonce() -> None:
    (demand,) = demands.read(
        's=("host" "@path");created;expires;nonce="n";tag="t\\"q";keyid="k";alg="rsa-v1_5-sha256"'
    )
    assert demand.lasting == 's=("host" "@path");created;expires;keyid="k";alg="rsa-v1_5-sha256";tag="t\\"q"'
    (kept,) = demands.read(demand.lasting)
    assert Manner("rfc9421", demand).lasting == Manner("rfc9421", kept)


def test_our_own_demands_are_met_by_our_own_signatures() -> None:
    for method, body in (("POST", b"{}"), ("GET", None)):
        (ours,) = demands.read(demands.ours(method)["Accept-Signature"])
        assert ours.can_be_met(KEY_ID, body=body is not None)
        headers = signed(ours, method=method, body=body)
        assert verify(
            read_claim(received(headers, method, body or b""), base_url=BASE, now=NOW), pair()[1], owner=ACTOR
        )
    assert "digest" not in str(demands.ours("GET"))


def test_what_we_ask_for_beside_a_401() -> None:
    assert demands.ours("POST") == {
        "Accept-Signature": 'sig1=("@method" "@target-uri" "content-digest");created',
        "WWW-Authenticate": 'Signature realm="ActivityPub",headers="(request-target) host date digest"',
    }
    for method in ("GET", "HEAD", "get", "head"):
        assert demands.ours(method) == {
            "Accept-Signature": 'sig1=("@method" "@target-uri");created',
            "WWW-Authenticate": 'Signature realm="ActivityPub",headers="(request-target) host date"',
        }


# ── giving ───────────────────────────────────────────────────────────────────────────────────────────────────────


def signed(demand: Demand, *, method: str = "POST", body: bytes | None = b"{}") -> dict[str, str]:
    return sign(
        "rfc9421", pair()[0], method=method, url=INBOX, body=body, date=NOW, content_type="application/activity+json",
        demand=demand,
    )  # fmt: skip


def received(headers: dict[str, str], method: str, body: bytes) -> Request:
    return Request(method, "/inbox?a=b", [(name.lower(), value) for name, value in headers.items()], body)


def test_everything_that_can_be_asked_for_is_given_and_proves_who_asks() -> None:
    (demand,) = demands.read(
        'their-label=("content-type" "@path" "@query" "@authority" "host" "date" "content-length" "@scheme" '
        '"@request-target");expires;nonce="n-7";tag="app";keyid="' + KEY_ID + '"'
    )
    headers = signed(demand)
    assert headers["Signature-Input"] == (
        'their-label=("content-type" "@path" "@query" "@authority" "host" "date" "content-length" "@scheme" '
        '"@request-target" "@method" "@target-uri" "content-digest");created=1703066400;expires=1703066700;'
        f'keyid="{KEY_ID}";alg="rsa-v1_5-sha256";nonce="n-7";tag="app"'
    )
    assert headers["Signature"].startswith("their-label=:")
    sent = received({**headers, "Content-Length": "2"}, "POST", b"{}")
    assert verify(read_claim(sent, base_url=BASE, now=NOW), pair()[1], owner=ACTOR).actor == ACTOR


def test_less_than_what_we_always_sign_is_never_given() -> None:
    """Or a server could have a signature made that is good for other requests, at other servers."""
    for asked in ("sig1=();created", 'sig1=("@method");created', 'sig1=("date");created'):
        (demand,) = demands.read(asked)
        covered = rfc9421.parse(signed(demand)["Signature-Input"], signed(demand)["Signature"]).covered
        assert {"@method", "@target-uri", "content-digest"} <= set(covered)


def test_the_algorithm_that_is_asked_for_signs() -> None:
    (demand,) = demands.read('sig1=("@authority");alg="rsa-pss-sha512";created')
    headers = signed(demand)
    read = rfc9421.parse(headers["Signature-Input"], headers["Signature"])
    assert read.algorithm == "rsa-pss-sha512"
    base = rfc9421.signature_base(
        read.covered, read.parameters, method="POST", base_url=BASE, target="/inbox?a=b",
        fields={"content-digest": headers["Content-Digest"]},
    )  # fmt: skip
    assert pair()[1].verify(read.signature, base, form="pss-sha512")
    assert not pair()[1].verify(read.signature, base)
    assert verify(read_claim(received(headers, "POST", b"{}"), base_url=BASE, now=NOW), pair()[1], owner=ACTOR)


def test_a_demand_about_a_body_is_not_for_a_get() -> None:
    for name in ("content-type", "content-length", "content-digest"):
        (demand,) = demands.read(f'sig1=("{name}");created;keyid="{KEY_ID}"')
        assert demand.can_be_met(KEY_ID, body=True)
        assert not demand.can_be_met(KEY_ID, body=False)
        assert not demand.can_be_met(f"{KEY_ID}2", body=True)
    with pytest.raises(SignatureRefused):
        signed(demand, method="GET", body=None)


# ── which comes next ─────────────────────────────────────────────────────────────────────────────────────────────

RFC = Manner("rfc9421")
BARE = Manner("cavage", with_query=False)
ASKED = Manner("rfc9421", Demand("s", ("host",), nonce="1"))
ASKED_AGAIN = Manner("rfc9421", Demand("s", ("host",), nonce="2"))
KEPT = ASKED.lasting


def asks(manner: Manner) -> str:
    assert manner.demand is not None
    return manner.demand.lasting + (f';nonce="{manner.demand.nonce}"' if manner.demand.nonce else "")


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([Knock(USUAL, 202)], None),
        ([Knock(USUAL, 403)], None),
        ([Knock(USUAL, 404)], None),
        ([Knock(USUAL, 500)], None),
        ([Knock(USUAL, 429)], None),
        ([Knock(USUAL, 401)], RFC),
        ([Knock(USUAL, 400)], RFC),
        ([Knock(RFC, 401)], USUAL),
        ([Knock(USUAL, 401), Knock(RFC, 401)], None),
        ([Knock(USUAL, 401), Knock(RFC, 202)], None),
        ([Knock(USUAL, 401, asks(ASKED))], ASKED),
        ([Knock(USUAL, 401, 'sig1=("x-unknown")')], RFC),
        ([Knock(USUAL, 401, "nonsense")], RFC),
        # As asked is RFC 9421: the plain form has less, and need not be tried.
        ([Knock(USUAL, 401, asks(ASKED)), Knock(ASKED, 401)], None),
        ([Knock(USUAL, 401, asks(ASKED)), Knock(ASKED, 401, asks(ASKED_AGAIN))], None),
        ([Knock(USUAL, 401), Knock(RFC, 401, asks(ASKED))], ASKED),
        # Remembered, but the nonce is another one each time.
        ([Knock(KEPT, 401, asks(ASKED))], ASKED),
        ([Knock(KEPT, 401)], USUAL),
        ([Knock(KEPT, 401, asks(ASKED)), Knock(ASKED, 401, asks(ASKED_AGAIN))], USUAL),
        ([Knock(USUAL, 401, 's=("host");keyid="https://elsewhere.example/key"')], RFC),
        ([Knock(USUAL, 401, 's=("content-digest")')], Manner("rfc9421", Demand("s", ("content-digest",)))),
        # What was just refused is not tried again because it is asked for again.
        ([Knock(KEPT, 401, asks(KEPT))], USUAL),
    ],
)
def test_which_signature_is_tried_next(tried: list[Knock], expected: Manner | None) -> None:
    assert onward(tried, key_id=KEY_ID) == expected


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([Knock(USUAL, 401)], BARE),
        ([Knock(BARE, 401)], USUAL),
        ([Knock(USUAL, 401), Knock(BARE, 401)], RFC),
        ([Knock(BARE, 401), Knock(USUAL, 401)], RFC),
        ([Knock(USUAL, 401), Knock(BARE, 401), Knock(RFC, 401)], None),
        ([Knock(USUAL, 401, asks(ASKED))], ASKED),
        ([Knock(USUAL, 401, 's=("content-digest")')], BARE),
        ([Knock(RFC, 401)], USUAL),
    ],
)
def test_which_is_next_for_an_address_with_a_query(tried: list[Knock], expected: Manner | None) -> None:
    assert onward(tried, key_id=KEY_ID, body=False, query=True) == expected


def test_it_always_ends() -> None:
    for first in (USUAL, RFC, BARE, KEPT):
        tried = [Knock(first, 401, asks(ASKED))]
        while (manner := onward(tried, key_id=KEY_ID, body=False, query=True)) is not None:
            tried.append(Knock(manner, 401, f's=("host");nonce="{len(tried)}"'))
        assert len(tried) <= 4
        assert len({knock.manner for knock in tried}) == len(tried)


def test_what_was_kept_is_read_back() -> None:
    assert knocking.WITHOUT_QUERY == BARE
    for manner in (USUAL, RFC, BARE, KEPT):
        assert knocking.remembered(*manner.kept) == manner
    assert knocking.remembered(*ASKED.kept) == KEPT
    assert knocking.remembered("cavage", None) == USUAL
    assert knocking.remembered(None, None) == USUAL
    assert knocking.remembered("rfc9421", None) == RFC
    assert knocking.remembered("rfc9421", asks(KEPT)) == KEPT
    assert knocking.remembered("rfc9421", "nonsense") == RFC


def test_the_evidence_is_in_words() -> None:
    words = knocking.evidence([Knock(USUAL, 401, said="Verification failed"), Knock(BARE, 400), Knock(ASKED, 200)])
    assert re.sub(r"\s+", " ", words) == (
        "cavage: 401 (Verification failed); cavage without the query: 400; rfc9421 as asked: 200"
    )
    assert knocking.evidence([Knock(USUAL, 401, said="x" * 121)]) == f"cavage: 401 ({'x' * 120})"
