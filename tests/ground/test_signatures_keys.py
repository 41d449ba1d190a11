"""Keys: what is accepted from strangers, what is refused before it costs anything, and ids read in one way only."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.errors import Invalid, SignatureRefused
from threadbridge.signatures.keys import (
    ProofKey,
    SigningKey,
    origin,
    proof_key,
    signing_key,
    strict_base64,
    verifying_key,
)

KEY_ID = "https://bridge.example/ap/users/1#main-key"
SPKI = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def rsa_pem(bits: int, exponent: int = 65537) -> str:
    """A public key of that size; nobody knows its factors, and nobody needs to."""
    number = rsa.RSAPublicNumbers(exponent, (1 << bits) - 159)
    return number.public_key().public_bytes(*SPKI).decode()


def test_what_we_sign_verifies_and_the_key_is_kept_parsed() -> None:
    signing = signing_key(KEY_ID, private_pem(rsa_key()))
    assert signing_key(KEY_ID, private_pem(rsa_key())) is signing
    made = signing.sign(b"data")
    rsa_key().public_key().verify(made, b"data", padding.PKCS1v15(), hashes.SHA256())
    key = verifying_key(rsa_key().public_key().public_bytes(*SPKI).decode())
    assert key.kind == "rsa"
    assert key.verify(made, b"data")
    assert not key.verify(made, b"date")
    assert not key.verify(made[:-1], b"data")
    assert not key.verify(made, b"data", form="pkcs1-sha512")
    assert not key.verify(made, b"data", form="pss-sha512")


def test_a_private_key_is_never_shown() -> None:
    signing = signing_key(KEY_ID, private_pem(rsa_key()))
    assert repr(signing) == f"SigningKey(key_id={KEY_ID!r})"


@pytest.mark.parametrize(
    "key_id", ["", "acct:a@b.example", 'https://b.example/"', "ftp://b.example/k", "https://ü.example/k"]
)
def test_a_key_id_that_could_not_be_written_into_a_header_is_refused(key_id: str) -> None:
    with pytest.raises(Invalid):
        signing_key(key_id, private_pem(rsa_key()))


def test_private_keys_that_cannot_be_used_are_refused_without_quoting_them() -> None:
    secret = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    with pytest.raises(Invalid) as refused:
        signing_key(KEY_ID, secret)
    assert "c2VjcmV0" not in str(refused.value)
    with pytest.raises(Invalid, match="not an RSA key"):
        signing_key(KEY_ID, private_pem(ed25519.Ed25519PrivateKey.generate()))


def test_pkcs1_and_spki_and_ed25519_are_read_with_any_line_ends() -> None:
    public = rsa_key().public_key()
    pkcs1 = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    spki = public.public_bytes(*SPKI).decode()
    assert "RSA PUBLIC KEY" in pkcs1
    made = signing_key(KEY_ID, private_pem(rsa_key())).sign(b"data")
    for pem in (pkcs1, spki, spki.replace("\n", "\r\n"), "\n" + spki.rstrip()):
        assert verifying_key(pem).verify(made, b"data")
    edwards = ed25519.Ed25519PrivateKey.generate()
    key = verifying_key(edwards.public_key().public_bytes(*SPKI).decode())
    assert key.kind == "ed25519"
    assert key.verify(edwards.sign(b"data"), b"data")
    assert not key.verify(edwards.sign(b"data"), b"date")
    assert not key.verify(made, b"data")


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_sizes_that_are_accepted(bits: int) -> None:
    assert verifying_key(rsa_pem(bits)).kind == "rsa"


@pytest.mark.parametrize("bits", [1024, 2047, 4097, 8192, 16384])
def test_rsa_sizes_that_are_refused_with_their_number(bits: int) -> None:
    with pytest.raises(SignatureRefused, match=f"{bits} bits"):
        verifying_key(rsa_pem(bits))


def test_an_enormous_key_is_refused_before_it_costs_anything() -> None:
    pem = rsa_pem(16384)
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        with pytest.raises(SignatureRefused):
            verifying_key(pem)
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.02


@pytest.mark.parametrize("exponent", [3, 17, 65539])
def test_other_exponents_are_refused(exponent: int) -> None:
    with pytest.raises(SignatureRefused, match="exponent"):
        verifying_key(rsa_pem(2048, exponent))


def test_other_kinds_of_key_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*SPKI).decode()
    for pem in (
        curve,
        private_pem(rsa_key()).decode(),
        "",
        "ü",
        "no PEM",
        "x" * 100_000,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ):
        with pytest.raises(SignatureRefused):
            verifying_key(pem)


@settings(max_examples=150, deadline=None)
@given(st.integers(min_value=27, max_value=420), st.sampled_from("ABCDefgh+/=\n -"))
def test_a_damaged_key_is_read_or_refused_and_nothing_else(position: int, char: str) -> None:
    pem = rsa_key().public_key().public_bytes(*SPKI).decode()
    with contextlib.suppress(SignatureRefused):
        verifying_key(pem[:position] + char + pem[position + 1 :])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/users/1", "https://a.example:443"),
        ("https://A.Example:443/", "https://a.example:443"),
        ("HTTP://a.example#key", "http://a.example:80"),
        ("http://127.0.0.1:9000/actor", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/actor", "http://[::1]:9000"),
        ("https://a.example?x=@b.example", "https://a.example:443"),
        ("https://a.example/ü", "https://a.example:443"),
        ("https://threads.net/ap/users/17841400000000001/#likes/1", "https://threads.net:443"),
    ],
)
def test_origins(url: str, expected: str) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example/users/1",
        "//a.example/1",
        "ftp://a.example/",
        "javascript:alert(1)//https://a.example",
        "https://",
        "https:///path",
        "https://user@a.example/",
        "https://user:pass@a.example/",
        "https://a.example@b.example/",
        "https://a.example\\@b.example/",
        "https://a.example\\b",
        "https://a.example /",
        "https://a.example/a b",
        "https://a.example/\n",
        "https://a.example/a\tb",
        "https://a.example/\u2028",
        "https://a.example/\u00a0",
        "https://a.example/\u200b",
        "https://a.example./",
        "https://a..example/",
        "https://.example/",
        "https://-",
        "https://a.example:0/",
        "https://a.example:65536/",
        "https://a.example:/",
        "https://a.example:44３/",
        "https://a%2eexample/",
        "https://a;b/",
        "https://ä.example/",
        "https://a.example/" + "x" * 2048,
        " https://a.example/",
        "https://a.example/ ",
    ],
)
def test_what_is_no_id(url: str) -> None:
    assert origin(url) is None


def test_base64_has_one_form() -> None:
    assert strict_base64("AAE=") == b"\x00\x01"
    for text in ("AAF=", "AAE", "AA E=", "AAE=\n", "AAE==", "A-_=", "ü", "=", "A"):
        assert strict_base64(text) is None


# ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_at_the_edge_of_their_form() -> None:
    longest = "https://a.example/" + "x" * 2030
    assert origin(longest) == origin("https://a.example/" + "ü" * 1015) == "https://a.example:443"
    for url in ("https://a/", "https://ab/", "https://a.example:1/", "https://a.example:65535/"):
        assert origin(url) is not None, url
    for url in (
        longest + "x", "https://a.example/" + "ü" * 1015 + "x", "https://[]/", "https://a.example:000443/",
        "https://a.example:65536/", "https://a.example/\ud800",
    ):  # fmt: skip
        assert origin(url) is None, url


def test_a_public_key_may_stand_in_white_space_of_reasonable_length() -> None:
    pem = rsa_pem(2048)
    assert verifying_key("\n \t" + pem + " " * (8192 - len(pem) - 3)).kind == "rsa"
    for bad in (pem + " " * (8193 - len(pem)), "ü" + pem, pem + "ü"):
        with pytest.raises(SignatureRefused, match="not a PEM of reasonable size"):
            verifying_key(bad)


def test_an_answer_about_a_signature_is_yes_or_no() -> None:
    for key in (rsa_key(), ed25519.Ed25519PrivateKey.generate()):
        public = verifying_key(key.public_key().public_bytes(*SPKI).decode())
        assert public.verify(b"x" * 64, b"data") is False


# PKCS#8 and SPKI under an object identifier that nobody has given to anything.
UNKNOWN_PRIVATE = "302e020100300506032b657f04220420" + "00" * 32
UNKNOWN_PUBLIC = "302a300506032b657f032100" + "00" * 32


def as_pem(label: str, der: str) -> str:
    text = base64.b64encode(bytes.fromhex(der)).decode()
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n"


def test_no_private_key_but_the_right_kind_in_the_open_is_taken() -> None:
    secret = BestAvailableEncryption(b"secret")
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    edwards = ed25519.Ed25519PrivateKey.generate()
    kinds: tuple[tuple[Callable[[str, bytes], SigningKey | ProofKey], Any], ...] = (
        (signing_key, rsa_key()),
        (proof_key, edwards),
    )
    for read, right in kinds:
        assert read(KEY_ID, private_pem(right)).key_id == KEY_ID
        other = private_pem(edwards if right is rsa_key() else rsa_key())
        sealed = right.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
        for bad in (b"nonsense", sealed, other, curve, as_pem("PRIVATE KEY", UNKNOWN_PRIVATE).encode()):
            with pytest.raises(Invalid):
                read(KEY_ID, bad)
    with pytest.raises(Invalid):
        signing_key("https://bridge.example/ü#main-key", private_pem(rsa_key()))


def test_the_arithmetic_of_our_own_keys_is_not_gone_through_again() -> None:
    numbers = rsa_key().private_numbers()
    changed = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d, numbers.dmp1 + 2, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    )
    # Nobody else can give us one: these are sealed and authenticated.
    pem = private_pem(changed.private_key(unsafe_skip_rsa_key_validation=True))
    assert signing_key(KEY_ID, pem).key_id == KEY_ID


def test_public_keys_that_nobody_here_verifies_with_are_refused() -> None:
    exchange = x25519.X25519PrivateKey.generate().public_key().public_bytes(*SPKI).decode()
    for bad in (exchange, as_pem("PUBLIC KEY", UNKNOWN_PUBLIC)):
        with pytest.raises(SignatureRefused):
            verifying_key(bad)
