"""Strict JSON: a hostile corpus, limits to the byte, and only Invalid whatever arrives."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.activitypub import document
from threadbridge.activitypub.ids import PUBLIC
from threadbridge.errors import Invalid, TooLarge

AS = "https://www.w3.org/ns/activitystreams"

HOSTILE = {
    "nothing": b"",
    "white space": b" \n",
    "no object": b"[]",
    "a string": b'"x"',
    "a number": b"1",
    "null": b"null",
    "two documents": b"{}{}",
    "trailing comma": b'{"a":1,}',
    "comments": b'{"a":1}//x',
    "single quotes": b"{'a':1}",
    "unterminated": b'{"a":"',
    "unterminated escape": b'{"a":"\\',
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-16 without mark": '{"a":1}'.encode("utf-16-le"),
    "utf-32": '{"a":1}'.encode("utf-32"),
    "latin-1": '{"a":"ü"}'.encode("latin-1"),
    "overlong": b'{"a":"\xc0\x80"}',
    "cesu surrogates": b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}',
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":"\\udc00"}',
    "swapped surrogates": b'{"a":"\\udc00\\ud800"}',
    "surrogate in a name": b'{"\\ud800":1}',
    "surrogate in a list": b'{"a":["x",["\\udfff"]]}',
    "U+0000 escaped": b'{"a":"\\u0000"}',
    "U+0000 in a name": b'{"a\\u0000":1}',
    "U+0000 raw": b'{"a":"\0"}',
    "raw newline in a string": b'{"a":"\n"}',
    "duplicate name": b'{"a":1,"a":1}',
    "duplicate name deep": b'{"x":[{"a":1,"b":2,"a":3}]}',
    "duplicate name by escape": b'{"a":1,"\\u0061":2}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":[-Infinity]}',
    "1e400": b'{"a":1e400}',
    "-1e400": b'{"a":-1e400}',
    "integer": b'{"a":9007199254740993}',
    "negative integer": b'{"a":-9007199254740993}',
    "very long integer": b'{"a":' + b"9" * 5000 + b"}",
    "very long zero": b'{"a":0.' + b"0" * 5000 + b"}",
    "hexadecimal": b'{"a":0x10}',
    "leading zero": b'{"a":01}',
    "deep list": b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
    "deep object": b'{"a":' * 40 + b"1" + b"}" * 40,
    "very deep": b"[" * 200_000,
    "@graph": b'{"@graph":[]}',
    "@included": b'{"a":{"@included":[]}}',
    "@reverse": b'{"a":[{"@reverse":{}}]}',
    "@id": b'{"@id":"https://a.example/"}',
    "@type": b'{"object":{"@type":"Note"}}',
    "@ alone": b'{"@":1}',
    "@CONTEXT": b'{"@CONTEXT":1}',
    "@context escaped @graph": b'{"\\u0040graph":[]}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_documents_are_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        document.decode(body)
    assert refused.value.public


def test_a_byte_order_mark_is_called_by_its_name() -> None:
    with pytest.raises(Invalid, match="byte order mark"):
        document.decode(b"\xef\xbb\xbf{}")


def test_what_is_said_again_is_what_was_said() -> None:
    body = {
        "@context": [AS, {"toot": "http://joinmastodon.org/ns#", "x": {"@id": "toot:x", "@type": "@id"}}],
        "text": 'a "quoted" [bracket] {brace} \\ \u2028 😀 \U0010ffff',
        "numbers": [0, -1, 9007199254740992, -9007199254740992, 1.5, 1e300, -71.184902],
        "nothing": [None, True, False, "", [], {}],
    }
    assert document.decode(json.dumps(body).encode()) == body
    assert document.decode(json.dumps(body, ensure_ascii=False, indent=1).encode()) == body


def test_brackets_in_strings_are_no_depth() -> None:
    text = '[{"' * 100 + "\\" * 9
    assert document.decode(json.dumps({"a": text, "b": [text, {text: text}]}).encode())["a"] == text


def test_depth_to_the_level() -> None:
    assert document.decode(b'{"a":' + b"[" * 31 + b"]" * 31 + b"}")
    with pytest.raises(Invalid, match="deeper than 32"):
        document.decode(b'{"a":' + b"[" * 32 + b"]" * 32 + b"}")


def test_members_and_values_to_the_number() -> None:
    assert document.decode(json.dumps({"a": [1] * 1000}).encode())
    assert document.decode(json.dumps({str(n): 1 for n in range(1000)}).encode())
    for wide in ({"a": [1] * 1001}, {str(n): 1 for n in range(1001)}, {"@context": [1] * 1001}):
        with pytest.raises(Invalid, match="1000 members"):
            document.decode(json.dumps(wide).encode())
    full: dict[str, list[Any]] = {"a": [[1] * 998 for _ in range(10)], "b": [1] * 7}  # 1 + 1 + 10 * 999 + 8 = 10,000
    assert document.decode(json.dumps(full).encode())
    full["b"].append([])
    with pytest.raises(Invalid, match="10000 values"):
        document.decode(json.dumps(full).encode())


def test_size_to_the_byte() -> None:
    body = b'{"a":"' + b"x" * (1_000_000 - 8) + b'"}'
    assert len(body) == 1_000_000
    assert document.decode(body)
    with pytest.raises(TooLarge):
        document.decode(body + b" ")


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 499_000,
        b'{"a":"' + b'\\"' * 499_000,
        b'"' * 999_999,
        b"{" * 999_999,
        b"[]" * 499_999,
        b"\\" * 999_999,
        b'{"a":[' + b"{}," * 300_000,
        b'{"a":' + b"1" * 999_000 + b"}",
        b'{"a":1.' + b"1" * 999_000 + b"}",
    ],
)
def test_no_document_takes_long(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(Invalid):
        document.decode(body)
    assert time.perf_counter() - began < 5.0  # quadratic would be minutes


PLAIN = b'{"@context":"x","id":["a",{"b":1.5}],"c":"\\u00e9"}'


@settings(max_examples=800, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b'"',
                    b"\\",
                    b",",
                    b":",
                    b"1",
                    b"-",
                    b"e9",
                    b"NaN",
                    b'"a"',
                    b'"a":',
                    b"\\u0000",
                    b"\\ud800",
                    b"\xff",
                    b" ",
                    b"null",
                    b'"@id":1',
                    b'{"a":',
                    b"\0",
                ]
            ),
            max_size=14,
        ).map(b"".join),
        st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=3)).map(
            lambda at: PLAIN[: at[0]] + at[1] + PLAIN[at[0] :]
        ),
    )
)
def test_any_bytes_are_decoded_or_invalid(body: bytes) -> None:
    try:
        decoded = document.decode(body)
    except Invalid:
        return
    # What we take, every other decoder takes, and understands in the same way; it can be stored as UTF-8.
    assert decoded == json.loads(body)
    json.dumps(decoded, ensure_ascii=False, allow_nan=False).encode("utf-8")


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0@")
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(CHARACTERS, max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(CHARACTERS, max_size=6), inner, max_size=4),
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(CHARACTERS, max_size=6), JSON, max_size=5))
def test_every_reasonable_document_is_decoded(made: dict[str, Any]) -> None:
    assert document.decode(json.dumps(made).encode()) == made


@pytest.mark.parametrize(
    ("context", "named"),
    [
        (AS, True),
        (AS + "#", True),
        ("http://www.w3.org/ns/activitystreams", True),
        ([AS], True),
        (["https://akkoma.example/schemas/litepub-0.1.jsonld", {"@language": "und"}, AS], True),
        (None, False),
        ("https://w3id.org/security/v1", False),
        ({"as": AS}, False),
        ([{"@vocab": AS}], False),
        ([[AS]], False),
        (AS + "/evil", False),
        (1, False),
    ],
)
def test_activitystreams_must_be_named(context: object, named: bool) -> None:
    assert document.names_activitystreams({"@context": context}) is named


def test_no_context_names_nothing() -> None:
    assert not document.names_activitystreams({})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-10-05T15:00:00Z", datetime(2026, 10, 5, 15, tzinfo=UTC)),
        ("2026-10-05T15:00:00+0000", datetime(2026, 10, 5, 15, tzinfo=UTC)),
        ("2026-10-05T17:00:00+02:00", datetime(2026, 10, 5, 15, tzinfo=UTC)),
        ("2026-10-05T15:00:00", datetime(2026, 10, 5, 15, tzinfo=UTC)),
        ("2026-10-05t15:00:00z", datetime(2026, 10, 5, 15, tzinfo=UTC)),
        ("2026-10-05T15:00Z", datetime(2026, 10, 5, 15, tzinfo=UTC)),
        ("2026-10-05T15:00:00.5Z", datetime(2026, 10, 5, 15, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-10-05T15:00:00.123Z", datetime(2026, 10, 5, 15, 0, 0, 123_000, tzinfo=UTC)),
        ("2026-10-05T15:00:00.123456789Z", datetime(2026, 10, 5, 15, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-10-05", None),
        ("2026-13-05T15:00:00Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("9999-12-31T23:59:59-23:00", None),
        ("2026-10-05T15:00:00+99:99", None),
        ("٢٠٢٦-10-05T15:00:00Z", None),
        ("now", None),
        ("", None),
        (None, None),
        (1759676400, None),
        (["2026-10-05T15:00:00Z"], None),
    ],
)
def test_moments(written: object, expected: datetime | None) -> None:
    assert document.moment(written) == expected


LINK = {"type": "Link", "href": "https://www.threads.net/@f/post/x", "mediaType": "text/html"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/@f/1", "https://a.example/@f/1"),
        ([{"type": "Link", "href": "threads://post/x", "mediaType": "application/x-threads"}, LINK], LINK["href"]),
        (["https://a.example/1", LINK], LINK["href"]),
        (LINK, LINK["href"]),
        ([{"href": "https://a.example/v.mp4", "mediaType": "video/mp4"}], "https://a.example/v.mp4"),
        (["javascript:alert(1)"], None),
        ("javascript:alert(1)", None),
        ({"href": "data:text/html,x", "mediaType": "text/html"}, None),
        ([[LINK]], None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_links_for_people(url: object, expected: str | None) -> None:
    assert document.web_link(url) == expected


def test_ids() -> None:
    assert document.one_id("https://a.example/1", "x") == "https://a.example/1"
    assert document.one_id({"id": "https://a.example/1", "type": "Note"}, "x") == "https://a.example/1"
    for wrong in (
        None,
        "",
        1,
        [],
        ["https://a.example/1"],
        {},
        {"id": {"id": "https://a.example/1"}},
        "acct:a@b.example",
    ):
        with pytest.raises(Invalid, match="the thing must be one"):
            document.one_id(wrong, "the thing")


def test_addresses_are_made_ready_to_be_sent_to() -> None:
    assert document.address("https://a.example/ü/in%20box?x=[1]", "x") == "https://a.example/%C3%BC/in%20box?x=[1]"
    for wrong in (None, "", "file:///x", ["https://a.example/"], {"id": "https://a.example/"}):
        with pytest.raises(Invalid):
            document.address(wrong, "inbox")


def test_audiences() -> None:
    several = ["as:Public", "Public", PUBLIC, {"id": "https://a.example/f"}, "https://a.example/f", 3, None, "x"]
    assert document.audience(several) == (PUBLIC, "https://a.example/f")
    assert document.audience("as:Public") == (PUBLIC,)
    assert document.audience(None) == ()


def test_lines() -> None:
    assert document.line(" a\r\nb\t\x00c\u2028d ", 100) == "a b c d"
    assert document.line("x" * 50, 10) == "x" * 10
    assert document.line(["x"], 10) == ""


def test_kinds() -> None:
    assert document.kind_of({"type": "Note"}) == "Note"
    assert document.kind_of({}) is None
    assert document.kind_of("https://a.example/1") is None
    assert document.kind_of({"type": ["foaf:Person", "Person"]}) == "Person"
    for wrong in (["Note", "Article"], [], ["a:b"], 1, "", "x" * 101, {"id": "Note"}):
        with pytest.raises(Invalid):
            document.kind_of({"type": wrong})
