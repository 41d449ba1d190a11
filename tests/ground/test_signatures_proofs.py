"""Integrity proofs and Multikeys: the published vectors, what is refused, and that any change breaks a proof."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.errors import Invalid, SignatureRefused
from threadbridge.signatures import multikey, proofs, schemes
from threadbridge.signatures.keys import ProofKey, VerifyingKey, proof_key, verifying_key
from threadbridge.signatures.proofs import prove, read_proof

ALICE = "https://server.example/users/alice"
METHOD = f"{ALICE}#ed25519-key"
MADE = datetime(2023, 2, 24, 23, 36, 38, tzinfo=UTC)

# FEP-8b32 (CC0), fep-8b32.feature
SECRET = "z3u2en7t5LR2WtQH5PfFqMqwVHBeXouLzo6haApm8XHqvjxq"
PUBLIC = "z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"
VALUE = "z42ffGu6AUKPCFcFPiabmUvnGLPJzC7e4DGWC52NUasSSH37UMa9c58tdgVszUcZfytxa4fQ5TYHaJENCxUDe9SdL"
DOCUMENT: dict[str, Any] = {
    "@context": ["https://www.w3.org/ns/activitystreams", "https://w3id.org/security/data-integrity/v2"],
    "id": "https://server.example/activities/1",
    "type": "Create",
    "actor": ALICE,
    "object": {
        "id": "https://server.example/objects/1",
        "type": "Note",
        "attributedTo": ALICE,
        "content": "Hello world",
        "location": {"type": "Place", "longitude": -71.184902, "latitude": 25.273962},
    },
}
SIGNED: dict[str, Any] = {
    **DOCUMENT,
    "proof": {
        "@context": DOCUMENT["@context"],
        "type": "DataIntegrityProof",
        "cryptosuite": "eddsa-jcs-2022",
        "verificationMethod": METHOD,
        "proofPurpose": "assertionMethod",
        "proofValue": VALUE,
        "created": "2023-02-24T23:36:38Z",
    },
}


def private() -> ed25519.Ed25519PrivateKey:
    raw = multikey.from_base58btc(SECRET)
    assert raw is not None
    assert raw[:2] == bytes.fromhex("8026")
    return ed25519.Ed25519PrivateKey.from_private_bytes(raw[2:])


def own() -> ProofKey:
    pem = private().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return proof_key(METHOD, pem)


def public() -> VerifyingKey:
    pem = multikey.pem_of(PUBLIC)
    assert pem is not None
    return verifying_key(pem)


def believed(document: dict[str, Any], *, now: datetime = MADE, key: VerifyingKey | None = None) -> bool:
    claim = read_proof(document, now=now)
    assert claim is not None
    try:
        verified = schemes.verify(claim, key or public(), owner=ALICE, asserts=True)
    except SignatureRefused:
        return False
    return (verified.actor, verified.scheme) == (ALICE, "proof")


# ── vectors ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_vector_of_the_proposal_holds() -> None:
    assert believed(SIGNED)
    # A document with another vocabulary in front of everything is another document.
    with pytest.raises(SignatureRefused, match="another @context"):
        believed({**SIGNED, "@context": ["https://elsewhere.example/ns", *DOCUMENT["@context"]]})
    # Vocabulary added behind does not change what was said (Data Integrity EdDSA Cryptosuites, 3.3.2).
    assert believed({**SIGNED, "@context": [*DOCUMENT["@context"], "https://elsewhere.example/ns"]})


def test_ours_is_the_vector_of_the_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "CONTEXT", "https://w3id.org/security/data-integrity/v2")
    assert prove(DOCUMENT, own(), MADE) == SIGNED


def test_keys_are_spelt_as_in_the_proposal() -> None:
    # FEP-521a (CC0), fep-521a.feature
    raw = bytes.fromhex("2e6fcce36701dc791488e0d0b1745cc1e33a4c1c9fcc41c63bd343dbbe0970e6")
    key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    assert multikey.multibase_of(pem) == "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
    assert multikey.pem_of("z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK") == pem
    assert multikey.multibase_of(multikey.pem_of(PUBLIC) or "") == PUBLIC


def test_an_rsa_key_goes_there_and_back() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    spelt = multikey.multibase_of(pem)
    assert spelt.startswith("z4MX")
    back = multikey.pem_of(spelt)
    assert back is not None
    assert verifying_key(back).kind == "rsa"
    assert serialization.load_pem_public_key(back.encode()) == key


def test_what_fedify_leaves_out_of_a_proof_is_read_as_fedify_means_it() -> None:
    """Fedify writes no `@context` into the proof and signs it as if it had the document's."""
    bare = {name: value for name, value in SIGNED["proof"].items() if name != "@context"}
    assert believed({**SIGNED, "proof": bare})
    # One who signs what stands there is read too.
    config = {name: value for name, value in bare.items() if name != "proofValue"}
    value = multikey.base58btc(private().sign(proofs._hashed(config, DOCUMENT)))
    assert believed({**SIGNED, "proof": {**config, "proofValue": value}})


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("https://www.w3.org/ns/activitystreams", ["https://www.w3.org/ns/activitystreams", proofs.CONTEXT]),
        (["https://www.w3.org/ns/activitystreams", {"a": "b"}],
         ["https://www.w3.org/ns/activitystreams", proofs.CONTEXT, {"a": "b"}]),
        (["https://www.w3.org/ns/activitystreams", proofs.CONTEXT],
         ["https://www.w3.org/ns/activitystreams", proofs.CONTEXT]),
    ],
)  # fmt: skip
def test_a_proved_document_names_the_vocabulary_once_and_the_proof_repeats_it(context: Any, expected: Any) -> None:
    made = prove({**DOCUMENT, "@context": context}, own(), MADE)
    assert made["@context"] == made["proof"]["@context"] == expected
    assert "signature" not in made
    assert believed(made)
    assert prove({**DOCUMENT, "@context": context}, own(), MADE) == made  # the same bytes every time


def test_nothing_is_signed_twice() -> None:
    for name in ("proof", "signature"):
        with pytest.raises(Invalid, match="signed already"):
            prove({**DOCUMENT, name: {}}, own(), MADE)


# ── theirs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_proof_there_is_nothing_to_believe() -> None:
    assert read_proof(DOCUMENT, now=MADE) is None


BENT: list[tuple[str, dict[str, Any]]] = [
    ("another kind", {"type": "Ed25519Signature2020"}),
    ("another cryptosuite", {"cryptosuite": "eddsa-rdfc-2022"}),
    ("another purpose", {"proofPurpose": "authentication"}),
    ("no purpose", {"proofPurpose": None}),
    ("a key on another server", {"verificationMethod": "https://evil.example/users/alice#ed25519-key"}),
    ("a key that is no address", {"verificationMethod": "did:key:z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"}),
    ("a key that is a list", {"verificationMethod": [METHOD]}),
    ("no time", {"created": None}),
    ("a time without a zone", {"created": "2023-02-24T23:36:38"}),
    ("a day", {"created": "2023-02-24"}),
    ("a number for a time", {"created": 1677281798}),
    ("the future", {"created": "2023-02-24T23:46:38Z"}),
    ("long ago", {"created": "2023-02-01T00:00:00Z"}),
    ("expired", {"expires": "2023-02-24T23:36:37Z"}),
    ("an end that is no time", {"expires": "never"}),
    ("meant for one reader", {"domain": "other.example"}),
    ("an answer to a challenge", {"challenge": "x"}),
    ("no value", {"proofValue": None}),
    ("a value in another base", {"proofValue": "u" + VALUE[1:]}),
    ("a value that is too short", {"proofValue": VALUE[:-3]}),
    ("a value with a strange letter", {"proofValue": VALUE[:-1] + "0"}),
    ("a value that is too long", {"proofValue": "z" + "2" * 1001}),
]


@pytest.mark.parametrize("change", [change for _, change in BENT], ids=[name for name, _ in BENT])
def test_a_proof_that_is_none_is_refused_before_a_key_is_asked_for(change: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        read_proof({**SIGNED, "proof": {**SIGNED["proof"], **change}}, now=MADE)


@pytest.mark.parametrize("proof", ["z", 1, [], [SIGNED["proof"], SIGNED["proof"]], True])
def test_there_is_one_proof_and_it_is_an_object(proof: Any) -> None:
    with pytest.raises(SignatureRefused):
        read_proof({**SIGNED, "proof": proof}, now=MADE)


def test_an_ld_signature_beside_a_proof_makes_both_worthless() -> None:
    with pytest.raises(SignatureRefused, match="LD signature"):
        read_proof({**SIGNED, "signature": {"type": "RsaSignature2017"}}, now=MADE)


@pytest.mark.parametrize("keyword", ["@graph", "@included", "@reverse", "@nest"])
def test_what_rearranges_a_document_is_invalid_wherever_it_stands(keyword: str) -> None:
    at_depth: dict[str, Any] = {"a": [{"b": {keyword: []}}]}
    renamed = [*DOCUMENT["@context"], {"items": keyword}]
    behind = [*DOCUMENT["@context"], {"items": {"@id": "as:items", "@container": [keyword]}}]
    reversed_ = [*DOCUMENT["@context"], {"items": {keyword: "as:items"}}]
    in_contexts: list[dict[str, Any]] = [{"@context": found} for found in (renamed, behind, reversed_)]
    changes: list[dict[str, Any]] = [{keyword: []}, {"object": at_depth}, *in_contexts]
    for change in changes:
        with pytest.raises(Invalid):
            read_proof({**SIGNED, **change}, now=MADE)
    # In what people write it is only a word.
    claim = read_proof({**SIGNED, "summary": keyword}, now=MADE)
    assert claim is not None


def test_an_old_proof_is_worthless_before_its_activity_is_forgotten() -> None:
    assert timedelta(days=30) > proofs.PAST
    assert believed(SIGNED, now=MADE + proofs.PAST)
    with pytest.raises(SignatureRefused):
        read_proof(SIGNED, now=MADE + proofs.PAST + timedelta(seconds=1))


def test_only_the_actors_own_ed25519_key_verifies() -> None:
    claim = read_proof(SIGNED, now=MADE)
    assert claim is not None
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    for key in (other, rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()):
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(SignatureRefused) as caught:
            schemes.verify(claim, verifying_key(pem.decode()), owner=ALICE, asserts=True)
        assert caught.value.refetch  # a newer key might
    for owner in ("https://server.example/users/bob", "https://evil.example/users/alice"):
        with pytest.raises(SignatureRefused):
            schemes.verify(claim, public(), owner=owner, asserts=True)
    with pytest.raises(SignatureRefused, match="not published for that purpose") as caught:
        schemes.verify(claim, public(), owner=ALICE)
    assert caught.value.refetch
    rsa_public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = rsa_public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureRefused, match="not Ed25519"):
        schemes.verify(claim, verifying_key(pem.decode()), owner=ALICE, asserts=True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for name, member in value.items() for found in leaves(member, (*path, name))]
    if isinstance(value, list):
        return [found for number, member in enumerate(value) for found in leaves(member, (*path, number))]
    return [path]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_anywhere_breaks_it(data: st.DataObject) -> None:
    bent = copy.deepcopy(SIGNED)
    path = data.draw(st.sampled_from(leaves(bent)))
    place: Any = bent
    for name in path[:-1]:
        place = place[name]
    before = place[path[-1]]
    new = data.draw(st.one_of(st.text(max_size=60), st.integers(-10, 10), st.none(), st.floats(-1e6, 1e6)))
    if json.dumps(new) == json.dumps(before):
        return
    place[path[-1]] = new
    try:
        claim = read_proof(bent, now=MADE)
    except (Invalid, SignatureRefused):
        return
    assert claim is not None
    with pytest.raises(SignatureRefused):
        schemes.verify(claim, public(), owner=ALICE, asserts=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JSON, st.text(min_size=1, max_size=8))
def test_whatever_is_proved_is_believed_in_any_order_and_nothing_but_two_errors_comes(value: Any, name: str) -> None:
    named = name if name not in ("proof", "signature", "actor", "@context") else "x"
    document = {"@context": ["https://www.w3.org/ns/activitystreams"], "actor": ALICE, named: value}
    made = json.loads(json.dumps(prove(document, own(), MADE)))
    shuffled = dict(reversed(list(made.items())))
    try:
        assert believed(shuffled)
    except Invalid:
        assert "@" in json.dumps(document)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_input_leads_to_another_error(proof: Any) -> None:
    for bent in ({**DOCUMENT, "proof": proof}, {**SIGNED, "proof": {**SIGNED["proof"], "created": proof}},
                 {**SIGNED, "@context": proof}, {**SIGNED, "actor": proof}):  # fmt: skip
        try:
            read_proof(bent, now=MADE)
        except (Invalid, SignatureRefused):
            continue


@given(st.binary(max_size=80))
def test_base58_has_one_spelling(data: bytes) -> None:
    spelt = multikey.base58btc(data)
    assert multikey.from_base58btc(spelt) == data


@pytest.mark.parametrize("text", ["", "m", "zO", "z0", "zl", "z ", "z1" * 600, "Z" + PUBLIC[1:], PUBLIC[1:]])
def test_what_is_no_base58_is_none(text: str) -> None:
    assert multikey.from_base58btc(text) is None or text == "z"


@pytest.mark.parametrize(
    "data", [b"", b"\xed\x01", b"\xed\x01" + b"x" * 31, b"\xed\x01" + b"x" * 33, b"\xe7\x01" + b"x" * 33]
)
def test_other_keys_are_not_read(data: bytes) -> None:
    assert multikey.pem_of(multikey.base58btc(data)) is None


# ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────

SPKI = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def with_proof(**change: Any) -> dict[str, Any]:
    return {**SIGNED, "proof": {**SIGNED["proof"], **change}}


def test_our_own_proofs_name_the_vocabulary_and_say_the_time_in_utc() -> None:
    assert proofs.CONTEXT == "https://w3id.org/security/data-integrity/v1"
    elsewhere = MADE.astimezone(timezone(timedelta(hours=9)))
    assert prove({"actor": ALICE}, own(), elsewhere)["proof"]["created"] == "2023-02-24T23:36:38Z"


def test_a_proof_is_good_for_fourteen_days_and_five_minutes_of_a_wrong_clock() -> None:
    for late in (timedelta(days=14), -timedelta(minutes=5)):
        assert believed(SIGNED, now=MADE + late)
    for late in (timedelta(days=14, seconds=1), -timedelta(minutes=5, seconds=1)):
        with pytest.raises(SignatureRefused):
            read_proof(SIGNED, now=MADE + late)
    for expires in ("2023-02-24T23:36:38Z", "2023-02-24T23:36:39Z"):
        assert read_proof(with_proof(expires=expires), now=MADE) is not None
    # (The last one's end lies in a year that has five digits here.)
    for bad in ("2023-02-24T23:36:37Z", "soon", None, "9999-12-31T23:59:59-01:00"):
        with pytest.raises(SignatureRefused):
            read_proof(with_proof(expires=bad), now=MADE)


def test_which_time_is_wrong_is_named() -> None:
    for name in ("created", "expires"):
        with pytest.raises(SignatureRefused, match=rf"when it was made: {name}\b"):
            read_proof(with_proof(**{name: "soon"}), now=MADE)


def test_what_is_kept_and_not_sent_has_no_age() -> None:
    for change in ({"created": "1999-01-01T00:00:00Z"}, {"created": None}, {"expires": "1999-01-01T00:00:00Z"}):
        kept = with_proof(**change)
        with pytest.raises(SignatureRefused):
            read_proof(kept, now=MADE)
        assert read_proof(kept, now=None) is not None
    claim = read_proof(SIGNED, now=None)
    assert claim is not None
    assert schemes.verify(claim, public(), owner=ALICE, asserts=True).actor == ALICE
    # Everything else speaks against it as ever.
    for change in ({"proofPurpose": "authentication"}, {"proofValue": None}, {"verificationMethod": "urn:key"}):
        with pytest.raises(SignatureRefused):
            read_proof(with_proof(**change), now=None)


@pytest.mark.parametrize(
    "created",
    ["2023-02-24 23:36:38Z", "2023-02-24T23:36:38", "T", "TTTT", "2023-02-24T25:36:38Z", "0001-01-01T00:00:00+23:59",
     "2023-02-24T23:36:38." + "0" * 20 + "Z"],
)  # fmt: skip
def test_a_time_that_is_not_written_as_it_should_be_is_refused(created: str) -> None:
    with pytest.raises(SignatureRefused):
        read_proof(with_proof(created=created), now=MADE)


def test_times_may_have_fractions_and_zones() -> None:
    for created in ("2023-02-24T23:36:38." + "0" * 19 + "Z", "2023-02-25T08:36:38+09:00"):
        assert read_proof(with_proof(created=created), now=MADE) is not None


def test_a_proof_in_a_list_of_one_is_a_proof() -> None:
    assert believed({**SIGNED, "proof": [SIGNED["proof"]]})


def test_contexts_are_compared_as_lists() -> None:
    one = "https://www.w3.org/ns/activitystreams"
    for whole, own_one in ((one, [one]), ([one, "https://b.example"], one), ([one, "https://b.example"], [one])):
        assert read_proof({**with_proof(**{"@context": own_one}), "@context": whole}, now=MADE) is not None
    for whole, own_one in ((one, ["https://b.example"]), ([one], "https://b.example"), ([one], [one, one])):
        with pytest.raises(SignatureRefused, match="another @context"):
            read_proof({**with_proof(**{"@context": own_one}), "@context": whole}, now=MADE)


def test_what_is_no_address_is_nobodys_server() -> None:
    with pytest.raises(SignatureRefused, match="not on the actor's server"):
        read_proof({**with_proof(verificationMethod="urn:key"), "actor": "urn:alice"}, now=MADE)


def test_what_has_no_canonical_form_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for content in (2**60, float("nan"), "\ud800", deep):
        with pytest.raises(SignatureRefused, match="no canonical form"):
            read_proof({**SIGNED, "content": content}, now=MADE)
        with pytest.raises(SignatureRefused, match="no canonical form"):
            proofs.digest({"content": content})


def test_a_digest_is_of_the_canonical_form() -> None:
    # RFC 8785 section 3.2.3: names in the order of their UTF-16 code units, no white space.
    canonical = '{"a":[1,"\u20ac"],"b":null}'
    expected = hashlib.sha256(canonical.encode()).hexdigest()
    assert proofs.digest({"b": None, "a": [1.0, "\u20ac"]}) == expected
    assert proofs.digest({"b": None, "a": [1.0, "\u20ad"]}) != expected


def test_multikeys_have_a_limit_and_a_strict_form() -> None:
    assert multikey.from_base58btc("z" + "1" * 999) == bytes(999)
    assert multikey.from_base58btc("z" + "1" * 1000) is None
    assert multikey.pem_of("nonsense") is None
    # As long as an Ed25519 key, and something else.
    assert multikey.pem_of(multikey.base58btc(b"\xec\x01" + bytes(32))) is None
    pem = private().public_key().public_bytes(*SPKI).decode()
    assert multikey.pem_of(multikey.multibase_of(pem)) == pem
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pkcs1 = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
    assert multikey.pem_of(multikey.multibase_of(pkcs1)) == pkcs1


def test_keys_of_other_kinds_are_not_published() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*SPKI).decode()
    # An Ed25519 key under an object identifier that nobody has given to anything.
    unknown = base64.b64encode(bytes.fromhex("302a300506032b657f032100") + bytes(32)).decode()
    for pem in (curve, "nonsense", f"-----BEGIN PUBLIC KEY-----\n{unknown}\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(Invalid):
            multikey.multibase_of(pem)
