"""Whatever is thrown at an inbox, it answers 4xx in time and stores nothing: bodies too large, lying, slow, cut off,
no JSON or too much of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.rig import AS, Bridge, Served, Stranger, free_socket, running_bridge
from tests.stories.raw_http import Answer, talk

from threadbridge.web import inbox

Scene = tuple[Bridge, Stranger, str]
CAP = 1_000_000
CLIENT = httpx2.Client(trust_env=False)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A bridge, a stranger and the path of a personal inbox."""
    folder: Path = tmp_path_factory.mktemp("limits")
    with running_bridge(folder, worker=False) as bridge:
        sock = free_socket()
        stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.create_app(), sock)
        account = bridge.account()
        yield bridge, stranger, f"/ap/users/{account.id}/inbox"
        served.stop()


@pytest.fixture(autouse=True)
def nothing_is_stored(request: pytest.FixtureRequest, scene: Scene) -> Iterator[None]:
    before = scene[0].everything()
    yield
    accepted = (
        test_the_cap_itself_is_read, test_an_unknown_member_spoils_nothing,
        test_no_activity_whatever_it_says_is_an_error_of_ours,
    )  # fmt: skip
    if request.function not in accepted:
        assert scene[0].everything() == before


def raw(scene: Scene, body: bytes, *headers: str, seconds: float = 5.0) -> Answer:
    bridge, _, path = scene
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {bridge.authority}",
        "Content-Type: application/activity+json",
        *headers,
    ]
    return talk(bridge.base, "\r\n".join([*lines, "", ""]).encode(), body, seconds=seconds)


def post(scene: Scene, body: bytes, **bent: Any) -> httpx2.Response:
    """Properly signed, so that only the body is wrong."""
    bridge, stranger, path = scene
    url = bridge.base + path
    return CLIENT.post(url, content=body, headers=stranger.signed(url, body, **bent))


def padded(scene: Scene, size: int) -> bytes:
    """A Like of exactly `size` bytes."""
    _, stranger, _ = scene
    activity = stranger.activity("Like", f"{scene[0].base}/ap/users/1/posts/1", padding="")
    return orjson.dumps({**activity, "padding": "x" * (size - len(orjson.dumps(activity)))})


# ── size ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_byte_over_the_cap_is_too_large(scene: Scene) -> None:
    answer = post(scene, padded(scene, CAP + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]


def test_the_cap_itself_is_read(scene: Scene) -> None:
    assert post(scene, padded(scene, CAP)).status_code in (202, 404)


def test_a_declared_size_over_the_cap_is_refused_before_it_is_sent(scene: Scene) -> None:
    began = time.monotonic()
    for size in (str(CAP + 1), str(10**15), "9" * 18):
        assert raw(scene, b"", f"Content-Length: {size}").status == 413
    assert time.monotonic() - began < 3


def test_chunks_over_the_cap_are_refused_while_they_come(scene: Scene) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert raw(scene, chunk * 40, "Transfer-Encoding: chunked").status == 413


@pytest.mark.parametrize("size", ["-1", "x", "1e3", "0x10", "", "+5", "5, 6", "9" * 40])
def test_a_size_that_is_no_number_is_refused(scene: Scene, size: str) -> None:
    assert 400 <= raw(scene, b"{}{}{}", f"Content-Length: {size}").status < 500


def test_two_sizes_or_two_framings_are_refused(scene: Scene) -> None:
    for headers in (
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: 2", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding: gzip",),
    ):
        answer = raw(scene, b"2\r\n{}\r\n0\r\n\r\n", *headers, seconds=2)
        assert answer.status == 0 or 400 <= answer.status < 500, (headers, answer)


def test_a_body_that_is_shorter_than_declared_does_not_hang(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "BODY_SECONDS", 0.3)
    began = time.monotonic()
    for body, header in ((b'{"a":', "Content-Length: 5000"), (b"5\r\n{", "Transfer-Encoding: chunked")):
        answer = raw(scene, body, header)
        assert 400 <= answer.status < 500
    assert time.monotonic() - began < 4


def test_no_body_at_all_is_refused(scene: Scene) -> None:
    assert 400 <= raw(scene, b"", "Content-Length: 0").status < 500
    assert 400 <= post(scene, b"").status_code < 500


# ── kind ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "kind",
    ["", "text/html", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", "/"],
)
def test_another_content_type_is_refused(scene: Scene, kind: str) -> None:
    bridge, stranger, _ = scene
    body = orjson.dumps(stranger.activity("Like", f"{bridge.base}/ap/users/1/posts/1"))
    assert 400 <= post(scene, body, **{"content-type": kind}).status_code < 500


# In the place of a whole body, or as one more member of an activity that would be accepted without it.
BROKEN: dict[str, bytes] = {
    "no json": b"hello",
    "html": b"<!doctype html>",
    "a list": b"[]",
    "a string": b'"Like"',
    "null": b"null",
    "utf-16": '{"type":"Like"}'.encode("utf-16"),
    "very deep": b"[" * 400_000 + b"]" * 400_000,
    "deep and open": b'{"a":' * 100_000,
}
SPOILT: dict[str, bytes] = {
    "half": b'"a": ',
    "more behind": b'"a": 1} {"a": 1',
    "nan": b'"a": NaN',
    "infinity": b'"a": -Infinity',
    "infinite by exponent": b'"a": 1e999',
    "huge integer": b'"a": ' + b"9" * 4000,
    "large integer": b'"a": 9007199254740993',
    "huge fraction": b'"a": 0.' + b"1" * 4000,
    "duplicate names": b'"type": "Follow"',
    "duplicate names inside": b'"a": {"id": 1, "id": 2}',
    "duplicate by escape": b'"\\u0074ype": "Like"',
    "lone surrogate": b'"a": "\\ud800"',
    "lone surrogate in a name": b'"\\udc00": 1',
    "nul": b'"a": "\\u0000"',
    "no utf-8": b'"a": "\xff"',
    "deep": b'"a":' + b'{"a":' * 32 + b"1" + b"}" * 32,
    "many values": b'"a":[' + b",".join([b"[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"] * 600) + b"]",
    "many members": b'"a":{' + b",".join(b'"%d":1' % number for number in range(2000)) + b"}",
    "rearranged": b'"@graph": []',
    "reversed": b'"a": {"@reverse": {}}',
}


def like(scene: Scene) -> bytes:
    bridge, stranger, _ = scene
    return orjson.dumps(stranger.activity("Like", f"{bridge.base}/ap/users/1/posts/1"))


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_json_object_is_a_bad_request(scene: Scene, body: bytes) -> None:
    refused_at_once(scene, body)


@pytest.mark.parametrize("member", SPOILT.values(), ids=SPOILT)
def test_one_spoilt_member_spoils_an_activity(scene: Scene, member: bytes) -> None:
    refused_at_once(scene, like(scene)[:-1] + b"," + member + b"}")


def test_a_byte_order_mark_is_no_json(scene: Scene) -> None:
    refused_at_once(scene, b"\xef\xbb\xbf" + like(scene))


def test_an_unknown_member_spoils_nothing(scene: Scene) -> None:
    assert post(scene, like(scene)[:-1] + b',"a": {"b": [1, 2.5, null]}}').status_code == 202


def refused_at_once(scene: Scene, body: bytes) -> None:
    began = time.monotonic()
    answer = post(scene, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert time.monotonic() - began < 2


# ── anything ─────────────────────────────────────────────────────────────────────────────────────────────────────

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "@context",
    "id",
    "type",
    "actor",
    "object",
    "to",
    "cc",
    "content",
    "inReplyTo",
    "published",
    "tag",
    "target",
)
KINDS = (
    "Create",
    "Update",
    "Delete",
    "Follow",
    "Undo",
    "Like",
    "Announce",
    "Block",
    "Accept",
    "Move",
    "Flag",
    "Note",
)


def addresses(scene_words: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.sampled_from(scene_words) | values


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_activity_whatever_it_says_is_an_error_of_ours(scene: Scene, data: st.DataObject) -> None:
    """Properly signed by its actor, so that every verb is reached; the ids of activities are never on our host, and
    only Likes and the like of posts that do not exist are known words."""
    bridge, stranger, _ = scene
    words = (stranger.uri, f"{bridge.base}/ap/users/1", f"{bridge.base}/ap/users/1/posts/7", f"{stranger.base}/x", AS)
    inner = st.dictionaries(st.sampled_from(NAMES), addresses(words) | st.sampled_from(KINDS), max_size=6)
    activity = data.draw(st.dictionaries(st.sampled_from(NAMES), addresses(words) | inner | values, max_size=8))
    activity["type"] = data.draw(st.sampled_from(KINDS) | values)
    activity["actor"] = data.draw(st.sampled_from([stranger.uri, f"{stranger.uri}/", None, [stranger.uri]]))
    body = _json(activity)
    url = f"{bridge.base}/ap/inbox"
    answer = CLIENT.post(url, content=body, headers=stranger.signed(url, body))
    assert 400 <= answer.status_code < 500 or answer.status_code == 202, (activity, answer.text)


def _json(value: Any) -> bytes:
    """JSON as a careless sender writes it: with NaN, with lone surrogates."""
    return json.dumps(value).encode()


header_values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80)
signatures = st.one_of(
    header_values,
    st.lists(
        st.tuples(
            st.sampled_from(["keyId", "algorithm", "headers", "signature", "created", "expires", "x"]), header_values
        ),
        max_size=6,
    ).map(lambda pairs: ",".join(f'{name}="{value}"' for name, value in pairs)),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    body=st.binary(max_size=200) | values.map(_json),
    headers=st.dictionaries(
        st.sampled_from(
            ["signature", "signature-input", "digest", "content-digest", "date", "content-type", "accept", "x-odd"]
        ),
        signatures,
        max_size=6,
    ),
)
@example(
    body=b"{}", headers={"signature": 'keyId="http://[::1",algorithm="x",headers="(request-target)",signature="="'}
)
@example(
    body=b"{}", headers={"signature-input": 'sig1=("@method");created=99999999999999999999', "signature": "sig1=:=:"}
)
def test_no_request_whatever_its_headers_is_an_error_of_ours(
    scene: Scene, body: bytes, headers: dict[str, str]
) -> None:
    bridge, _, path = scene
    sent = {"content-type": "application/activity+json", **headers}
    raw_headers = [(name.encode(), value.strip().encode("latin-1")) for name, value in sent.items()]
    answer = CLIENT.post(bridge.base + path, content=body, headers=raw_headers)
    assert 400 <= answer.status_code < 500, answer.text
