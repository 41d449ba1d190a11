"""Published test vectors: RFC 9421 appendix B.2, the draft's appendix C, and the requests of Mastodon's own suite."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from threadbridge.errors import SignatureMalformed, SignatureRefused
from threadbridge.signatures import cavage, rfc9421
from threadbridge.signatures.keys import SigningKey, VerifyingKey, signing_key, verifying_key
from threadbridge.signatures.schemes import Request, read_claim, verify

# ── RFC 9421, appendix B ─────────────────────────────────────────────────────────────────────────────────────────

RSA_PSS = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----
"""
ED25519 = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
"""
FIELDS = {
    "host": "example.com",
    "date": "Tue, 20 Apr 2021 02:07:55 GMT",
    "content-type": "application/json",
    "content-digest": "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm"
    "+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    "content-length": "18",
}
BODY = b'{"hello": "world"}'
B21 = (
    'sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"',
    "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXa"
    "JMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mK"
    "ZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C"
    "8ssinQ98Xw9Q==:",
)
B22 = (
    'sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss"'
    ';tag="header-example"',
    "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB"
    "4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl"
    "+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaV"
    "e4bXTugEjHSw==:",
)
B23 = (
    'sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length")'
    ';created=1618884473;keyid="test-key-rsa-pss"',
    "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrC"
    "Ub38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC"
    "1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIz"
    "tsDZKEgM4cUA==:",
)
B25 = (
    'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
    "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
)
B26 = (
    'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473'
    ';keyid="test-key-ed25519"',
    "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
)


def holds(vector: tuple[str, str], pem: str, **changed: str) -> bool:
    read = rfc9421.parse(*vector)
    target = changed.pop("target", "/foo?param=Value&Pet=dog")
    base = rfc9421.signature_base(
        read.covered,
        read.parameters,
        method=changed.pop("method", "POST"),
        base_url="https://example.com",
        target=target,
        fields={**FIELDS, **{name.replace("_", "-"): value for name, value in changed.items()}},
    )
    return verifying_key(pem).verify(read.signature, base, form="pss-sha512")


@pytest.mark.parametrize(("vector", "pem"), [(B21, RSA_PSS), (B23, RSA_PSS), (B26, ED25519)])
def test_the_signatures_of_the_rfc_hold(vector: tuple[str, str], pem: str) -> None:
    assert holds(vector, pem)


def test_they_do_not_hold_for_anything_else() -> None:
    assert not holds(B23, RSA_PSS, method="PUT")
    assert not holds(B23, RSA_PSS, target="/foo?param=value&Pet=dog")
    assert not holds(B23, RSA_PSS, content_length="19")
    assert not holds(B26, ED25519, date="Tue, 20 Apr 2021 02:07:56 GMT")
    assert not holds((B23[0].replace("1618884473", "1618884474"), B23[1]), RSA_PSS)
    assert not holds((B23[0], B23[1].replace("bbN8", "bbN9")), RSA_PSS)
    assert not holds((B21[0].replace("b3k2", "b3k3"), B21[1]), RSA_PSS)


@pytest.mark.parametrize("vector", [B21, B22, B23, B25, B26])
def test_none_of_them_signs_enough_to_be_believed_by_a_server(vector: tuple[str, str]) -> None:
    """Key ids that are no addresses, no method, digests that are not covered, parameters of components: each is more
    than one reason."""
    headers = [*FIELDS.items(), ("signature-input", vector[0]), ("signature", vector[1])]
    request = Request("POST", "/foo?param=Value&Pet=dog", headers, BODY)
    with pytest.raises(SignatureRefused):
        read_claim(request, base_url="https://example.com", now=datetime.fromtimestamp(1618884473, UTC))


def test_a_component_with_parameters_is_malformed_to_us() -> None:
    with pytest.raises(SignatureMalformed):
        rfc9421.parse(*B22)


# ── draft-cavage-http-signatures-12, appendix C ──────────────────────────────────────────────────────────────────


def test_the_digest_and_strings_of_the_draft() -> None:
    fields = {
        "host": "example.com",
        "date": "Sun, 05 Jan 2014 21:31:40 GMT",
        "content-type": "application/json",
        "digest": "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
        "content-length": "18",
    }
    assert fields["digest"] == "SHA-256=" + base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    basic = cavage.signing_string(
        ("(request-target)", "host", "date"), method="POST", target="/foo?param=value&pet=dog", fields=fields
    )
    assert basic == (
        b"(request-target): post /foo?param=value&pet=dog\nhost: example.com\ndate: Sun, 05 Jan 2014 21:31:40 GMT"
    )
    default = cavage.signing_string(("date",), method="POST", target="/foo", fields=fields)
    assert default == b"date: Sun, 05 Jan 2014 21:31:40 GMT"


# ── the requests of Mastodon's suite, with a key of our own ──────────────────────────────────────────────────────

HOST, KEY_ID = "www.example.com", "https://remote.domain/users/bob#main-key"
NOW = datetime(2023, 12, 20, 10, 0, 0, tzinfo=UTC)
DATE = "Wed, 20 Dec 2023 10:00:00 GMT"
HELLO = b"Hello world"
DIGEST = "ZOyIygCyaOW6GjVnihtTFtIS9PNmskdyMlNKiuyjfzw="
CREATED = 1703066400


@cache
def pair() -> tuple[SigningKey, VerifyingKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return (
        signing_key(KEY_ID, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        verifying_key(public),
    )


def draft(covered: str, *, method: str = "GET", target: str = "/activitypub/success", body: bytes = b"") -> Request:
    headers = [("host", HOST), ("date", DATE)]
    headers += [("digest", f"SHA-256={DIGEST}")] if body else []
    signed = cavage.signing_string(covered.split(), method=method, target=target, fields=dict(headers))
    made = base64.b64encode(pair()[0].sign(signed)).decode()
    signature = f'keyId="{KEY_ID}",algorithm="rsa-sha256",headers="{covered}",signature="{made}"'
    return Request(method, target, [*headers, ("signature", signature)], body)


def message(
    covered: Sequence[str], *, method: str = "GET", target: str = "/activitypub/success", body: bytes = b""
) -> Request:
    fields = {"content-digest": f"sha-256=:{DIGEST}:"} if body else {}
    names = " ".join(f'"{name}"' for name in covered)
    parameters = f'({names});created={CREATED};keyid="{KEY_ID}"'
    base = rfc9421.signature_base(
        covered, parameters, method=method, base_url=f"https://{HOST}", target=target, fields=fields
    )
    made = base64.b64encode(pair()[0].sign(base)).decode()
    headers = [("host", HOST), *fields.items(), ("signature-input", f"sig1={parameters}"),
               ("signature", f"sig1=:{made}:")]  # fmt: skip
    return Request(method, target, headers, body)


def believed(request: Request, now: datetime = NOW) -> bool:
    try:
        claim = read_claim(request, base_url=f"https://{HOST}", now=now)
        return verify(claim, pair()[1], owner="https://remote.domain/users/bob").key_id == KEY_ID
    except SignatureRefused:
        return False


GET_DRAFT = draft("date host (request-target)")
POST_DRAFT = draft("host date digest (request-target)", method="POST", body=HELLO)
GET_MESSAGE = message(("@method", "@target-uri"))
POST_MESSAGE = message(("@method", "@target-uri", "content-digest"), method="POST", body=HELLO)


@pytest.mark.parametrize(
    "request_",
    [
        GET_DRAFT,
        POST_DRAFT,
        GET_MESSAGE,
        POST_MESSAGE,
        draft("date host (request-target)", target="/activitypub/success?foo=42"),
        message(("@method", "@target-uri"), target="/activitypub/success?foo=42"),
        # "With an additional query string that was not signed": Mastodon's quirk, kept for its own old versions.
        replace(GET_DRAFT, raw_target="/activitypub/success?foo=42"),
    ],
)
def test_what_mastodon_believes(request_: Request) -> None:
    assert believed(request_)


def without(request: Request, name: str) -> Request:
    return replace(request, headers=[pair_ for pair_ in request.headers if pair_[0] != name])


def with_(request: Request, name: str, value: str) -> Request:
    return replace(request, headers=[*without(request, name).headers, (name, value)])


@pytest.mark.parametrize(
    "request_",
    [
        without(GET_DRAFT, "date"),
        with_(GET_DRAFT, "date", "wrong date"),
        with_(GET_DRAFT, "date", "Wed, 20 Dec 2023 10:00:01 GMT"),
        replace(draft("date host (request-target)", target="/activitypub/success?foo=42"),
                raw_target="/activitypub/success?foo=43"),
        replace(message(("@method", "@target-uri"), target="/activitypub/success?foo=42"),
                raw_target="/activitypub/success?foo=43"),
        replace(GET_MESSAGE, raw_target="/activitypub/success?foo=42"),
        replace(GET_DRAFT, raw_target="/activitypub/failure"),
        replace(GET_MESSAGE, raw_target="/activitypub/failure"),
        replace(GET_DRAFT, method="POST"),
        replace(GET_MESSAGE, method="POST"),
        draft("host date (request-target)", method="POST", body=HELLO),
        message(("@method", "@target-uri"), method="POST", body=HELLO),
        replace(POST_DRAFT, body=b"Hello World"),
        replace(POST_MESSAGE, body=b"Hello World"),
        with_(POST_DRAFT, "digest", "SHA-256=wFNeS+K3n/2TKRMFQ2v4iTFOSj+uwF7P/Lt98xrZ5Ro="),
        with_(POST_MESSAGE, "content-digest", "SHA-256=ZOyIygCyaOW6GjVnihtTFtIS9PNmskdyMlNKiuyjfzw="),
        without(POST_MESSAGE, "signature-input"),
        without(POST_MESSAGE, "signature"),
    ],
)  # fmt: skip
def test_what_mastodon_refuses(request_: Request) -> None:
    assert not believed(request_)


@pytest.mark.parametrize("request_", [GET_DRAFT, POST_DRAFT, GET_MESSAGE, POST_MESSAGE])
def test_what_is_two_days_old_is_refused(request_: Request) -> None:
    assert believed(request_, NOW + timedelta(minutes=64))
    assert not believed(request_, NOW + timedelta(days=2))
    assert not believed(request_, NOW - timedelta(minutes=6))
