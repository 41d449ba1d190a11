"""Every media object of the Threads API becomes the post that it says it is: fixture pairs in one loop.

A pair is `wire/threads_<case>.api.json` (a row as answered, with the objects that may be asked for by id) and
`threads_<case>.post.json` (the fields of the post that differ from their defaults, or what was skipped and why).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from threadbridge.domain.source import Source, SourceMedia, SourcePage, SourcePost
from threadbridge.sources.threads_api import ThreadsApi
from threadbridge.sources.threads_rows import profile_from_row

WIRE = Path(__file__).parents[1] / "wire"
CASES = sorted(path.name.removesuffix(".api.json") for path in WIRE.glob("threads_*.api.json"))
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
UNKNOWN = {
    "error": {"message": "Unsupported get request", "type": "OAuthException", "code": 100, "error_subcode": 33}
}


def read(case: dict[str, Any]) -> SourcePage:
    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        path = url.removeprefix("https://graph.test/v1.0/")
        if path == {"post": "me/threads", "reply": "me/replies"}[case["listing"]]:
            return 200, {}, json.dumps({"data": [case["row"]]}).encode()
        found = case.get("objects", {}).get(path)
        return (200 if found else 400), {}, json.dumps(found or UNKNOWN).encode()

    source: Source = ThreadsApi(fetch, "https://graph.test", "T0KEN", now=lambda: NOW)
    return asyncio.run(source.page(case["listing"], None, 25))


def lean(value: Any) -> Any:
    """A dataclass as JSON without the fields that have their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        kept = {field.name: getattr(value, field.name) for field in fields}
        if isinstance(value, SourcePost | SourceMedia) or "native_id" in kept:
            kept = {field.name: kept[field.name] for field in fields if kept[field.name] != field.default}
        return {name: lean(inner) for name, inner in kept.items()}
    if isinstance(value, tuple):
        return [lean(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime) else value


@pytest.mark.parametrize("case", CASES)
def test_a_row_becomes_its_post(case: str) -> None:
    asked = json.loads((WIRE / f"{case}.api.json").read_text(encoding="utf-8"))
    expected = json.loads((WIRE / f"{case}.post.json").read_text(encoding="utf-8"))
    page = read(asked)
    assert [lean(post) for post in page.posts] == ([expected["post"]] if "post" in expected else [])
    assert [list(pair) for pair in page.skipped] == expected.get("skipped", [])


def test_there_are_pairs_for_every_media_type() -> None:
    rows = [json.loads((WIRE / f"{case}.api.json").read_text(encoding="utf-8"))["row"] for case in CASES]
    seen = {row.get("media_type") for row in rows if isinstance(row, dict)}
    assert seen >= {"TEXT_POST", "IMAGE", "VIDEO", "CAROUSEL_ALBUM", "AUDIO", "REPOST_FACADE"}


def test_the_profile_and_the_key_of_its_picture_outlives_the_signature() -> None:
    row = {"id": 17841400000000001, "username": "mira", "name": "Mira", "threads_biography": "Hi"}
    first = profile_from_row({**row, "threads_profile_picture_url": "https://a.cdn/v/1_n.jpg?oh=1&oe=2"})
    second = profile_from_row({**row, "threads_profile_picture_url": "https://b.cdn/v/1_n.jpg?oh=3&oe=4"})
    assert (first.native_id, first.handle, first.name, first.bio) == ("17841400000000001", "mira", "Mira", "Hi")
    assert first.url == "https://www.threads.com/@mira"
    assert first.avatar is not None
    assert second.avatar is not None
    assert first.avatar.key == second.avatar.key
    assert first.avatar.url != second.avatar.url
