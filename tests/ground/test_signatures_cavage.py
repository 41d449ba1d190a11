"""draft-cavage-12: exactly what we send, and how foreign headers are read."""

from __future__ import annotations

import base64
import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.errors import Invalid, SignatureRefused
from threadbridge.signatures import cavage
from threadbridge.signatures.keys import SigningKey, signing_key

KEY_ID = "https://bridge.example/ap/users/1#main-key"
DATE = datetime(2023, 12, 20, 10, 0, 0, tzinfo=UTC)
# Draft, appendix C: the request that its examples sign.
DRAFT_FIELDS = {
    "host": "example.com",
    "date": "Sun, 05 Jan 2014 21:31:40 GMT",
    "content-type": "application/json",
    "digest": "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
    "content-length": "18",
}


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def key() -> SigningKey:
    pem = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return signing_key(KEY_ID, pem)


def made_over(header: str, signed: bytes) -> bool:
    """Whether the header's signature was made over these bytes, by the library alone."""
    signature = base64.b64decode(header.rpartition('signature="')[2].rstrip('"'))
    rsa_key().public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    return True


def test_a_post_is_signed_in_the_form_that_the_strictest_readers_take() -> None:
    headers = cavage.sign_headers(
        key(),
        method="POST",
        url="https://m.example/inbox",
        body=b"Hello world",
        date=DATE,
        content_type="application/activity+json",
    )
    signature = headers.pop("Signature")
    assert headers == {
        "Host": "m.example",
        "Date": "Wed, 20 Dec 2023 10:00:00 GMT",
        "Digest": "SHA-256=ZOyIygCyaOW6GjVnihtTFtIS9PNmskdyMlNKiuyjfzw=",
        "Content-Type": "application/activity+json",
    }
    assert signature.startswith(
        f'keyId="{KEY_ID}",algorithm="rsa-sha256",'
        'headers="(request-target) host date digest content-type",signature="'
    )
    # Takahē and Misskey split at commas and at the first equals sign.
    naive = dict(part.split("=", 1) for part in signature.split(","))
    assert list(naive) == ["keyId", "algorithm", "headers", "signature"]
    assert made_over(
        signature,
        b"(request-target): post /inbox\n"
        b"host: m.example\n"
        b"date: Wed, 20 Dec 2023 10:00:00 GMT\n"
        b"digest: SHA-256=ZOyIygCyaOW6GjVnihtTFtIS9PNmskdyMlNKiuyjfzw=\n"
        b"content-type: application/activity+json",
    )


def test_a_get_is_signed_with_its_query() -> None:
    headers = cavage.sign_headers(
        key(), method="GET", url="https://m.example/users/a?page=1&x=%20", body=None, date=DATE, content_type=None
    )
    assert list(headers) == ["Host", "Date", "Signature"]
    assert 'headers="(request-target) host date"' in headers["Signature"]
    assert made_over(
        headers["Signature"],
        b"(request-target): get /users/a?page=1&x=%20\nhost: m.example\ndate: Wed, 20 Dec 2023 10:00:00 GMT",
    )


def test_an_empty_body_is_a_body() -> None:
    headers = cavage.sign_headers(
        key(), method="POST", url="https://m.example/inbox", body=b"", date=DATE, content_type=None
    )
    assert headers["Digest"] == "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert 'headers="(request-target) host date digest"' in headers["Signature"]


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("https://m.example", "m.example", "/"),
        ("https://M.Example:443/Inbox", "m.example", "/Inbox"),
        ("http://m.example:80/inbox", "m.example", "/inbox"),
        ("https://m.example:80/inbox", "m.example:80", "/inbox"),
        ("https://m.example:8443/inbox/?a=b#frag", "m.example:8443", "/inbox/?a=b"),
        ("http://127.0.0.1:9000/a//b", "127.0.0.1:9000", "/a//b"),
        ("http://[::1]:9000/inbox", "[::1]:9000", "/inbox"),
        ("https://m.example?q", "m.example", "/?q"),
        ("https://m.example/inbox?", "m.example", "/inbox?"),
    ],
)
def test_host_and_request_target(url: str, host: str, target: str) -> None:
    assert cavage.host_and_target(url) == (host, target)


@pytest.mark.parametrize(
    "url", ["https://m.example/ü", "ftp://m.example/", "https://u@m.example/", "https://m.example/\n"]
)
def test_addresses_that_cannot_be_sent_as_written_are_refused(url: str) -> None:
    with pytest.raises(Invalid):
        cavage.sign_headers(key(), method="GET", url=url, body=None, date=DATE, content_type=None)


def test_dates_are_written_in_gmt_wherever_they_come_from() -> None:
    assert cavage.http_date(DATE.astimezone(timezone(timedelta(hours=9)))) == "Wed, 20 Dec 2023 10:00:00 GMT"


def test_the_drafts_own_signing_strings() -> None:
    basic = cavage.signing_string(
        ("(request-target)", "host", "date"),
        method="POST",
        target="/foo?param=value&pet=dog",
        fields=DRAFT_FIELDS,
    )
    assert basic == (
        b"(request-target): post /foo?param=value&pet=dog\nhost: example.com\ndate: Sun, 05 Jan 2014 21:31:40 GMT"
    )
    everything = cavage.signing_string(
        ("(request-target)", "(created)", "(expires)", "host", "digest", "content-length"),
        method="POST",
        target="/foo?param=value&pet=dog",
        fields=DRAFT_FIELDS,
        created=1402170695,
        expires=1402170699,
    )
    assert everything == (
        b"(request-target): post /foo?param=value&pet=dog\n"
        b"(created): 1402170695\n"
        b"(expires): 1402170699\n"
        b"host: example.com\n"
        b"digest: SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=\n"
        b"content-length: 18"
    )


@pytest.mark.parametrize("value", ["a\nhost: b", "a\rb", "a\0b", "snow\u2603"])
def test_a_value_cannot_break_out_of_its_line(value: str) -> None:
    with pytest.raises(SignatureRefused):
        cavage.signing_string(("x",), method="GET", target="/", fields={"x": value})


def test_something_covered_that_is_not_there_is_refused() -> None:
    for name in ("x", "(created)", "(expires)", "(something-else)"):
        with pytest.raises(SignatureRefused, match="does not have"):
            cavage.signing_string((name,), method="GET", target="/", fields={})


PLAIN = 'keyId="https://a.example/u#k",algorithm="rsa-sha256",headers="(request-target) host date",signature="AAEC"'
READ = cavage.CavageSignature(
    "https://a.example/u#k", "rsa-sha256", ("(request-target)", "host", "date"), b"\x00\x01\x02"
)


@pytest.mark.parametrize(
    "header",
    [
        PLAIN,
        PLAIN.replace(",", ", "),
        PLAIN.replace(",", " ,\t"),
        ",".join(reversed(PLAIN.split(","))),
        PLAIN.replace("keyId", "keyid"),
        PLAIN.replace("rsa-sha256", "RSA-SHA256"),
        PLAIN.replace("host date", "Host Date"),
        PLAIN + ',opaque="x"',
        PLAIN + ",",
        " " + PLAIN,
    ],
)
def test_the_same_signature_laid_out_differently(header: str) -> None:
    assert cavage.parse(header) == READ


def test_times_may_be_bare_or_quoted() -> None:
    for header in (
        f'{PLAIN},created=1402170695,expires="1402170699"',
        f'created="1402170695",expires=1402170699,{PLAIN}',
    ):
        read = cavage.parse(header)
        assert (read.created, read.expires) == (1402170695, 1402170699)


def test_no_headers_parameter_covers_nothing() -> None:
    assert cavage.parse('keyId="https://a.example/k",signature="AAEC"').covered == ()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        "Signature " + PLAIN,
        "Bearer " + PLAIN,
        PLAIN + ',keyId="https://b.example/k"',
        PLAIN + ',KEYID="https://b.example/k"',
        PLAIN + ',opaque="1",opaque="2"',
        PLAIN + ',signature="AAEC"',
        PLAIN + ",,",
        PLAIN + ";created=1",
        PLAIN + ",created=1,created=1",
        PLAIN + ",created=-1",
        PLAIN + ",created=1.5",
        PLAIN + ',created="soon"',
        PLAIN + ',created=""',
        PLAIN + ",created=1234567890123",
        PLAIN + ",opaque=1",
        PLAIN.replace('"rsa-sha256"', "rsa-sha256"),
        PLAIN.replace('"AAEC"', "AAEC"),
        PLAIN.replace('"AAEC"', '"AAEC'),
        PLAIN.replace('"AAEC"', '"AA EC"'),
        PLAIN.replace('"AAEC"', '"AAEC="'),
        PLAIN.replace('"AAEC"', '"AAF="'),
        PLAIN.replace('"AAEC"', '""'),
        PLAIN.replace(',signature="AAEC"', ""),
        PLAIN.replace('keyId="https://a.example/u#k",', ""),
        PLAIN.replace("https://a.example/u#k", 'https://a.example/\\"'),
        PLAIN.replace("https://a.example/u#k", ""),
        PLAIN.replace("host date", "host  date"),
        PLAIN.replace("host date", "host host"),
        PLAIN.replace("host date", "host,date"),
        PLAIN.replace("(request-target) host date", ""),
        PLAIN.replace("host date", "host date " + " ".join(f"x{n}" for n in range(80))),
        PLAIN.replace("AAEC", "AAEC" * 3000),
        PLAIN + "\n",
        PLAIN.replace("=", " ="),
    ],
)
def test_headers_that_are_refused(header: str) -> None:
    with pytest.raises(SignatureRefused):
        cavage.parse(header)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from(
                [*PLAIN.split(","), ",", "=", '"', "\\", " ", "created=1", "(created)", "\0", "ü", "keyId="]
            ),
            max_size=12,
        ).map(",".join),
        st.tuples(st.integers(0, len(PLAIN)), st.characters()).map(
            lambda at: PLAIN[: at[0]] + at[1] + PLAIN[at[0] :]
        ),
    )
)
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        read = cavage.parse(header)
    except SignatureRefused:
        return
    assert read.key_id
    assert read.signature
    assert len(set(read.covered)) == len(read.covered)


# ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────

FIXED = b"Wed, 20 Dec 2023 10:00:00 GMT"


def test_headers_and_what_they_cover_have_limits() -> None:
    start = PLAIN + ',opaque="'
    fitting = start + "x" * (8192 - len(start) - 1) + '"'
    assert cavage.parse(fitting) == READ
    with pytest.raises(SignatureRefused, match="too long"):
        cavage.parse(fitting[:-1] + 'x"')

    def covering(number: int) -> str:
        return PLAIN.replace("(request-target) host date", " ".join(f"x{each}" for each in range(number)))

    assert len(cavage.parse(covering(64)).covered) == 64
    with pytest.raises(SignatureRefused):
        cavage.parse(covering(65))


def test_times_have_at_most_twelve_digits() -> None:
    read = cavage.parse(f"{PLAIN},created=123456789012,expires=0")
    assert (read.created, read.expires) == (123456789012, 0)


@pytest.mark.parametrize("name", ["(created", "created)", "()", "(a)b", "a(b)", "(a b)", "ä", "a\x7f"])
def test_names_that_no_header_has(name: str) -> None:
    with pytest.raises(SignatureRefused):
        cavage.parse(PLAIN.replace("date", name))


@pytest.mark.parametrize(
    "header", ['x="1"' + PLAIN, f'"{PLAIN}', f"{PLAIN} x", f",{PLAIN}", f'{PLAIN},1="x"', f'{PLAIN},="x"']
)
def test_nothing_stands_before_between_or_behind(header: str) -> None:
    with pytest.raises(SignatureRefused):
        cavage.parse(header)


def test_unknown_numbers_in_quotes_and_empty_words_are_passed_over() -> None:
    assert cavage.parse(PLAIN + ',opaque="",other="1"') == READ
    assert cavage.parse(PLAIN.replace("rsa-sha256", "")) == dataclasses.replace(READ, algorithm=None)


def test_the_query_is_left_out_where_that_is_asked_for() -> None:
    headers = cavage.sign_headers(
        key(), method="GET", url="https://m.example/a?b?c", body=None, date=DATE, content_type=None, with_query=False
    )
    assert made_over(headers["Signature"], b"(request-target): get /a\nhost: m.example\ndate: " + FIXED)


def test_the_scheme_may_be_in_capitals() -> None:
    assert cavage.host_and_target("HTTPS://m.example:443/a") == ("m.example", "/a")
    assert cavage.host_and_target("HTTP://m.example:80/a#b#c") == ("m.example", "/a")
    assert cavage.host_and_target("https://X.example/X://b") == ("x.example", "/X://b")


def test_a_tab_is_no_control_character_and_all_others_are() -> None:
    def line(value: str) -> bytes:
        return cavage.signing_string(("x",), method="GET", target="/", fields={"x": value})

    for letter in ("\t", " ", "~", "\x7f", "ÿ"):
        assert line(letter) == f"x: {letter}".encode("latin-1")
    for number in [*range(9), *range(10, 32)]:
        with pytest.raises(SignatureRefused):
            line(chr(number))
    with pytest.raises(SignatureRefused):
        cavage.signing_string(("a", "b"), method="GET", target="/", fields={"a": "good", "b": "bad\n"})
