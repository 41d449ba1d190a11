"""RFC 9421: exactly what we send, how foreign headers are read, and agreement with an independent implementation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, InvalidSignature, algorithms
from http_message_signatures.resolvers import MappingKeyResolver
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.errors import SignatureRefused
from threadbridge.signatures import rfc9421
from threadbridge.signatures.demands import Demand
from threadbridge.signatures.keys import SigningKey, VerifyingKey, signing_key, verifying_key
from threadbridge.signatures.schemes import Request, read_claim, verify

ACTOR = "https://remote.example/users/bob"
KEY_ID = f"{ACTOR}#main-key"
BASE = "https://bridge.example"
DATE = datetime(2023, 12, 20, 10, 0, 0, tzinfo=UTC)
BODY = b"Hello world"
DIGEST = "sha-256=:ZOyIygCyaOW6GjVnihtTFtIS9PNmskdyMlNKiuyjfzw=:"
INPUT = f'sig1=("@method" "@target-uri" "content-digest");created=1703066400;keyid="{KEY_ID}"'


@cache
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def edwards() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@cache
def signer() -> SigningKey:
    return signing_key(KEY_ID, private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def verifier(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> VerifyingKey:
    return verifying_key(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@dataclass
class Message:
    """What the independent implementation signs and verifies."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


def their_keys(key: Any) -> MappingKeyResolver:
    return MappingKeyResolver(public_keys={KEY_ID: key.public_key()}, private_keys={KEY_ID: key})


def request_of(message: Message, body: bytes = b"") -> Request:
    headers = [("host", "bridge.example"), *((name.lower(), value) for name, value in message.headers.items())]
    return Request(message.method, message.url.removeprefix(BASE), headers, body)


def test_a_post_is_signed_over_method_target_and_digest() -> None:
    headers = rfc9421.sign_headers(
        signer(),
        method="POST",
        url="https://m.example/inbox",
        body=BODY,
        date=DATE,
        content_type="application/activity+json",
    )
    parameters = (
        f'("@method" "@target-uri" "content-digest");created=1703066400;keyid="{KEY_ID}";alg="rsa-v1_5-sha256"'
    )
    made = headers.pop("Signature")
    assert headers == {
        "Host": "m.example",
        "Date": "Wed, 20 Dec 2023 10:00:00 GMT",
        "Content-Digest": DIGEST,
        "Content-Type": "application/activity+json",
        "Signature-Input": f"sig1={parameters}",
    }
    read = rfc9421.parse(headers["Signature-Input"], made)
    assert read.parameters == parameters
    expected = (
        '"@method": POST\n'
        '"@target-uri": https://m.example/inbox\n'
        f'"content-digest": {DIGEST}\n'
        f'"@signature-params": {parameters}'
    )
    assert verifier(private()).verify(read.signature, expected.encode())


def test_every_component_of_the_profile_has_its_value() -> None:
    base = rfc9421.signature_base(
        ("@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query", "date"),
        "()",
        method="GET",
        base_url="http://127.0.0.1:8000",
        target="/a%20b/?c=d&e",
        fields={"date": "x"},
    )
    assert base.decode().split("\n") == [
        '"@method": GET',
        '"@target-uri": http://127.0.0.1:8000/a%20b/?c=d&e',
        '"@authority": 127.0.0.1:8000',
        '"@scheme": http',
        '"@request-target": /a%20b/?c=d&e',
        '"@path": /a%20b/',
        '"@query": ?c=d&e',
        '"date": x',
        '"@signature-params": ()',
    ]


@pytest.mark.parametrize("name", ["@status", "@query-param", "@signature-params", "@", "missing"])
def test_components_that_are_not_in_the_profile_are_refused(name: str) -> None:
    with pytest.raises(SignatureRefused, match="does not have"):
        rfc9421.signature_base((name,), "()", method="GET", base_url=BASE, target="/", fields={})


@pytest.mark.parametrize(
    "url", ["https://m.example/inbox", "https://m.example/users/a/inbox?x=1&y=%20", "https://m.example"]
)
@pytest.mark.parametrize("body", [BODY, b"", None])
def test_the_independent_implementation_verifies_ours(url: str, body: bytes | None) -> None:
    now = datetime.now(UTC)
    method = "GET" if body is None else "POST"
    headers = rfc9421.sign_headers(signer(), method=method, url=url, body=body, date=now, content_type=None)
    theirs = HTTPMessageVerifier(signature_algorithm=algorithms.RSA_V1_5_SHA256, key_resolver=their_keys(private()))
    target = url if "/" in url.removeprefix("https://") else f"{url}/"
    message = Message(method, target, headers)
    required = ("@method", "@target-uri") + (("content-digest",) if body is not None else ())
    (result,) = theirs.verify(message, require_components=required, body=body, max_age=timedelta(minutes=5))
    assert result.parameters["keyid"] == KEY_ID
    with pytest.raises(InvalidSignature):
        theirs.verify(Message(method, target + "x", headers), require_components=required)


CASES = [
    (algorithms.RSA_V1_5_SHA256, "rsa"),
    (algorithms.RSA_PSS_SHA512, "rsa"),
    (algorithms.ED25519, "ed25519"),
]


@pytest.mark.parametrize(("algorithm", "kind"), CASES)
@pytest.mark.parametrize(
    "components",
    [
        ("@method", "@target-uri", "content-digest"),
        ("content-digest", "@target-uri", "@method"),
        ("@method", "@target-uri", "@authority", "host", "date", "content-digest"),  # Fedify
        ("@method", "@authority", "@path", "@query", "content-digest"),
    ],
)
def test_we_verify_the_independent_implementation(algorithm: Any, kind: str, components: tuple[str, ...]) -> None:
    key: Any = private() if kind == "rsa" else edwards()
    message = Message(
        "POST",
        f"{BASE}/ap/inbox?x=1",
        {"Host": "bridge.example", "Date": "Wed, 20 Dec 2023 10:00:00 GMT", "Content-Digest": DIGEST},
    )
    theirs = HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=their_keys(key))
    theirs.sign(
        message,
        key_id=KEY_ID,
        created=DATE,
        expires=DATE + timedelta(minutes=5),
        nonce='a"b\\c',
        tag="fediverse",
        label="sig-b21",
        covered_component_ids=components,
        use_existing_digest=True,
    )
    message.headers.pop("Host")
    claim = read_claim(request_of(message, BODY), base_url=BASE, now=DATE)
    assert (claim.scheme, claim.key_id) == ("rfc9421", KEY_ID)
    assert claim.covered == set(components)
    assert verify(claim, verifier(key), owner=ACTOR).actor == ACTOR
    other = verifier(edwards() if kind == "rsa" else private())
    with pytest.raises(SignatureRefused, match="but the key is"):
        verify(claim, other, owner=ACTOR)


def test_without_alg_the_key_decides() -> None:
    for key, algorithm in ((private(), algorithms.RSA_V1_5_SHA256), (edwards(), algorithms.ED25519)):
        message = Message("GET", f"{BASE}/actor", {})
        theirs = HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=their_keys(key))
        theirs.sign(
            message, key_id=KEY_ID, created=DATE, include_alg=False, covered_component_ids=("@method", "@target-uri")
        )
        claim = read_claim(request_of(message), base_url=BASE, now=DATE)
        assert claim.algorithm is None
        assert verify(claim, verifier(key), owner=ACTOR).scheme == "rfc9421"


@pytest.mark.parametrize(
    "written",
    [
        INPUT,
        INPUT.replace("=(", "=( ").replace('" "', '"   "').replace(");", " );"),
        INPUT.replace(";", "; "),
        f"  {INPUT}\t",
        INPUT.replace("sig1", "*a.b-c_d"),
    ],
)
def test_layout_does_not_matter_and_parameters_are_serialised_canonically(written: str) -> None:
    read = rfc9421.parse(written, "*a.b-c_d=:AAEC:" if "*a" in written else "sig1=:AAEC:")
    assert read.parameters == INPUT.removeprefix("sig1=")
    assert read.covered == ("@method", "@target-uri", "content-digest")
    assert (read.key_id, read.created, read.expires, read.algorithm) == (KEY_ID, 1703066400, None, None)
    assert read.signature == b"\x00\x01\x02"


@pytest.mark.parametrize(
    ("signature_input", "signature"),
    [
        ("", ""),
        (INPUT, ""),
        ("", "sig1=:AAEC:"),
        (INPUT, "sig2=:AAEC:"),
        (INPUT, "sig1=AAEC"),
        (INPUT, 'sig1="AAEC"'),
        (INPUT, "sig1=::"),
        (INPUT, "sig1=:AAF=:"),
        (INPUT, "sig1=:AAE:"),
        (INPUT, "sig1=:AAEC:;x=1"),
        (INPUT, "sig1=:AAEC:, sig2=:AAEC:"),
        (INPUT, "sig1=:AAEC:, sig1=:AAEC:"),
        (f"{INPUT}, {INPUT.replace('sig1', 'sig2')}", "sig1=:AAEC:"),
        (f"{INPUT}, {INPUT}", "sig1=:AAEC:"),
        (f"{INPUT},", "sig1=:AAEC:"),
        (f"{INPUT};created=1", "sig1=:AAEC:"),
        (f'{INPUT};unknown="x"', "sig1=:AAEC:"),
        (f"{INPUT};nonce=1", "sig1=:AAEC:"),
        (f"{INPUT};expires", "sig1=:AAEC:"),
        (f'{INPUT};expires="1"', "sig1=:AAEC:"),
        (f"{INPUT};expires=1.5", "sig1=:AAEC:"),
        (f"{INPUT};expires=1234567890123456", "sig1=:AAEC:"),
        (f"{INPUT};alg=rsa-v1_5-sha256", "sig1=:AAEC:"),
        (f"{INPUT};", "sig1=:AAEC:"),
        (INPUT.replace(";created=1703066400", ""), "sig1=:AAEC:"),
        (INPUT.replace(f';keyid="{KEY_ID}"', ""), "sig1=:AAEC:"),
        (INPUT.replace('"@method"', '"@method";req'), "sig1=:AAEC:"),
        (INPUT.replace('"content-digest"', '"content-digest";key="sha-256"'), "sig1=:AAEC:"),
        (INPUT.replace('"content-digest"', '"content-digest";sf'), "sig1=:AAEC:"),
        (INPUT.replace('"@method"', '"@method" "@method"'), "sig1=:AAEC:"),
        (INPUT.replace('"@method"', '"@Method"'), "sig1=:AAEC:"),
        (INPUT.replace('"@method"', "@method"), "sig1=:AAEC:"),
        (INPUT.replace('"@method"', '""'), "sig1=:AAEC:"),
        (INPUT.replace('"@method"', '"a\\nb"'), "sig1=:AAEC:"),
        (INPUT.replace('"@method" "', '"@method""'), "sig1=:AAEC:"),
        (INPUT.replace("(", "").replace(")", ""), "sig1=:AAEC:"),
        (INPUT.replace("sig1", "SIG1"), "SIG1=:AAEC:"),
        (INPUT.replace("sig1=", ""), "sig1=:AAEC:"),
        (INPUT + "x" * 9000, "sig1=:AAEC:"),
        ("sig1=(" + " ".join(f'"x{n}"' for n in range(80)) + f');created=1;keyid="{KEY_ID}"', "sig1=:AAEC:"),
    ],
)
def test_headers_that_are_refused(signature_input: str, signature: str) -> None:
    with pytest.raises(SignatureRefused):
        rfc9421.parse(signature_input, signature)


@pytest.mark.parametrize(
    "header", ["", "sha-256", "sha-256=x", "sha-256=:x", "SHA-256=:AA==:", "sha-256=:AA==:;a=1", ","]
)
def test_malformed_content_digests(header: str) -> None:
    with pytest.raises(SignatureRefused):
        rfc9421.content_digests(header)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.tuples(st.integers(0, len(INPUT)), st.characters()).map(
            lambda at: INPUT[: at[0]] + at[1] + INPUT[at[0] :]
        ),
        st.tuples(st.integers(0, len(INPUT)), st.integers(1, 30)).map(lambda at: INPUT[: at[0]] + INPUT[sum(at) :]),
    ),
    st.one_of(st.just("sig1=:AAEC:"), st.text(max_size=20)),
)
def test_any_headers_are_read_or_refused(signature_input: str, signature: str) -> None:
    try:
        read = rfc9421.parse(signature_input, signature)
    except SignatureRefused:
        return
    # Whatever was taken says the same when it is written canonically and read again.
    again = rfc9421.parse(f"sig1={read.parameters}", "sig1=:AAEC:")
    assert (again.covered, again.key_id, again.created) == (read.covered, read.key_id, read.created)
    assert again.parameters == read.parameters


# ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_headers_have_a_limit_and_white_space_around_them_counts() -> None:
    made = "sig1=:AAEC:"
    for before, after in (("", ""), (" \t", "\t "), ("", " " * (8192 - len(INPUT)))):
        assert rfc9421.parse(before + INPUT + after, made).key_id == KEY_ID
    for padded in (f"\t {made} \t", made + " " * (8192 - len(made))):
        assert rfc9421.parse(INPUT, padded).key_id == KEY_ID
    for signature_input, signature in (
        (INPUT + " " * (8193 - len(INPUT)), made),
        (INPUT, made + " " * (8193 - len(made))),
    ):
        with pytest.raises(SignatureRefused, match="too long"):
            rfc9421.parse(signature_input, signature)


@pytest.mark.parametrize(
    ("signature_input", "signature"),
    [
        ("!" + INPUT, "sig1=:AAEC:"),
        ("X" + INPUT, "sig1=:AAEC:"),
        (INPUT + "X", "sig1=:AAEC:"),
        (INPUT, "Xsig1=:AAEC:"),
        (INPUT, "sig1=:AAEC:X"),
        (INPUT.replace("=(", "=x("), "sig1=:AAEC:"),
        (INPUT.replace(");created", ")x;created"), "sig1=:AAEC:"),
        (INPUT.replace(";keyid", "x;keyid"), "sig1=:AAEC:"),
        (INPUT.replace("@method", "a b"), "sig1=:AAEC:"),
    ],
)
def test_nothing_stands_before_between_or_behind(signature_input: str, signature: str) -> None:
    with pytest.raises(SignatureRefused):
        rfc9421.parse(signature_input, signature)


def test_at_most_64_components_are_covered() -> None:
    def covering(number: int) -> str:
        return "sig1=(" + " ".join(f'"x{each}"' for each in range(number)) + f');created=1;keyid="{KEY_ID}"'

    assert len(rfc9421.parse(covering(64), "sig1=:AAEC:").covered) == 64
    with pytest.raises(SignatureRefused):
        rfc9421.parse(covering(65), "sig1=:AAEC:")


def test_white_space_around_digests_and_nothing_else() -> None:
    digest = f" \t{DIGEST} ,\tsha-512=:AAEC:\t"
    assert rfc9421.content_digests(digest) == [("sha-256", DIGEST[9:-1]), ("sha-512", "AAEC")]
    for bad in (f"X{DIGEST}", f"{DIGEST}X"):
        with pytest.raises(SignatureRefused):
            rfc9421.content_digests(bad)


def test_only_the_first_question_mark_begins_the_query() -> None:
    base = rfc9421.signature_base(
        ("@path", "@query"), "()", method="GET", base_url=BASE, target="/a?b?c", fields={}
    )  # fmt: skip
    assert base == b'"@path": /a\n"@query": ?b?c\n"@signature-params": ()'


def test_the_method_is_signed_in_capitals_and_an_end_only_where_it_is_asked_for() -> None:
    headers = rfc9421.sign_headers(
        signer(), method="post", url=f"{BASE}/inbox", body=BODY, date=DATE, content_type=None,
        demand=Demand("sig1", ("host",)),
    )  # fmt: skip
    assert "expires" not in headers["Signature-Input"]
    sent = request_of(Message("POST", f"{BASE}/inbox", headers), BODY)
    sent = replace(sent, headers=[("host", "bridge.example"), *sent.headers[2:]])
    assert verify(read_claim(sent, base_url=BASE, now=DATE), verifier(private()), owner=ACTOR).actor == ACTOR
