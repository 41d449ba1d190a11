"""Graph's errors become ours, in words, and the token is in none of them."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from threadbridge.errors import (
    AddressRefused,
    BadAnswer,
    NetworkError,
    NoSuchObject,
    RateLimited,
    SignInAgain,
    SourceError,
    SourceUnavailable,
    ThreadbridgeError,
    TimedOut,
)
from threadbridge.sources.threads_api import ThreadsApi

TOKEN = "THQVJsecret+/token"
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def answering(status: int, body: Any, headers: Mapping[str, str] | None = None) -> ThreadsApi:
    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        return status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode()

    return ThreadsApi(fetch, "https://graph.test", TOKEN, now=lambda: NOW)


def refusal(code: int, subcode: int | None = None, **fields: Any) -> dict[str, Any]:
    error = {"message": f"Refused for {TOKEN}", "type": "OAuthException", "code": code, **fields}
    return {"error": error if subcode is None else {**error, "error_subcode": subcode}}


def raised(source: ThreadsApi, call: str = "page") -> SourceError:
    async def ask() -> None:
        if call == "page":
            await source.page("post", None, 25)
        elif call == "replies":
            await source.page("reply", None, 25)
        else:
            await source.profile()

    with pytest.raises(SourceError) as caught:
        asyncio.run(ask())
    words = "".join(traceback.format_exception(caught.value)) + str(vars(caught.value))
    assert TOKEN not in words
    assert "THQVJsecret" not in words
    return caught.value


TABLE: list[tuple[int, dict[str, Any], type[SourceError]]] = [
    (401, refusal(190), SignInAgain),
    (400, refusal(190, 463, is_transient=True), SignInAgain),
    (429, refusal(4, is_transient=True), RateLimited),
    (403, refusal(17), RateLimited),
    (403, refusal(32), RateLimited),
    (400, refusal(613), RateLimited),
    (400, refusal(100, 33), NoSuchObject),
    (400, refusal(100), SourceError),
    (403, refusal(10), SourceError),
    (500, refusal(1), SourceUnavailable),
    (500, refusal(2), SourceUnavailable),
    (400, refusal(2), SourceUnavailable),
    (400, refusal(9999, is_transient=True), SourceUnavailable),
    (503, {"error": {"message": "down"}}, SourceUnavailable),
    (400, refusal(1, 4279013, is_transient=True), SourceError),
    (400, refusal(24, 4279009), SourceError),
    (200, refusal(190), SignInAgain),
    (400, refusal("190"), SignInAgain),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("status", "body", "expected"), TABLE)
def test_an_error_body_becomes_its_kind(status: int, body: dict[str, Any], expected: type[SourceError]) -> None:
    error = raised(answering(status, body))
    assert type(error) is expected
    assert raised(answering(status, body), "profile").code == error.code


def test_the_pause_that_was_asked_for_is_kept() -> None:
    assert raised(answering(429, refusal(4), {"Retry-After": "90"})).retry_after == 90
    assert raised(answering(429, refusal(4))).retry_after is None
    assert type(raised(answering(429, b"slow down", {"retry-after": "5"}))) is RateLimited


def test_a_missing_permission_is_named() -> None:
    assert "threads_basic" in str(raised(answering(403, refusal(10))))
    assert "threads_read_replies" in str(raised(answering(403, refusal(10)), "replies"))


def test_a_restricted_account_is_never_temporary_trouble() -> None:
    error = raised(answering(500, refusal(2, 4279013, is_transient=True)))
    assert type(error) is SourceError
    assert error.subcode == 4279013


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\xff", b"[]", b'"x"', b"null", b"{}", b'{"data":{}}', b'{"data":null}', b"[" * 100_000,
     b'{"data":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_trouble_over_there(body: bytes) -> None:
    assert type(raised(answering(200, body))) is SourceUnavailable


def test_something_else_at_that_address_is_said_to_be_something_else() -> None:
    error = raised(answering(404, b"<html>not found</html>"))
    assert type(error) is SourceError
    assert "graph URL" in str(error)


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (TimedOut(f"no answer from https://graph.test/?access_token={TOKEN}"), SourceUnavailable),
        (NetworkError("connection reset", detail=TOKEN), SourceUnavailable),
        (BadAnswer("body too large"), SourceUnavailable),
        (AddressRefused("10.0.0.1 is private"), SourceError),
    ],
)
def test_a_network_that_fails_is_the_sources_trouble(trouble: ThreadbridgeError, expected: type[SourceError]) -> None:
    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        raise trouble

    error = raised(ThreadsApi(fetch, "https://graph.test", TOKEN, now=lambda: NOW))
    assert type(error) is expected


def test_exists_is_false_only_when_the_source_says_so() -> None:
    assert asyncio.run(answering(200, {"id": "5"}).exists("5")) is True
    assert asyncio.run(answering(400, refusal(100, 33)).exists("5")) is False
    for status, body in ((400, refusal(100)), (401, refusal(190)), (500, b"")):
        with pytest.raises(SourceError):
            asyncio.run(answering(status, body).exists("5"))


def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    asked = []

    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        asked.append(url)
        return 200, {}, b'{"id":"1"}'

    asyncio.run(ThreadsApi(fetch, "https://graph.test", TOKEN, now=lambda: NOW).exists("../me?fields=x"))
    assert asked == ["https://graph.test/v1.0/..%2Fme%3Ffields%3Dx"]


def test_usage_is_the_highest_figure_of_the_last_answer() -> None:
    headers = {"X-App-Usage": '{"call_count":28,"total_cpu_time":91,"total_time":12}'}
    source = answering(200, {"data": []}, headers)
    assert source.usage == 0
    asyncio.run(source.page("post", None, 25))
    assert source.usage == 91


def test_usage_is_known_after_a_refusal_too_and_survives_nonsense() -> None:
    limited = answering(429, refusal(4), {"x-app-usage": '{"call_count":100}'})
    raised(limited)
    assert limited.usage == 100
    for header in ("{", "[]", '{"call_count":"many"}'):
        source = answering(200, {"data": []}, {"x-app-usage": header})
        asyncio.run(source.page("post", None, 25))
        assert source.usage == 0
