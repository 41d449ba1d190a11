"""The sample person is told twice, as a download and as an account, and both say the same."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from PIL import ExifTags, Image
from starlette.testclient import TestClient

from threadbridge.domain.source import SourcePost
from threadbridge.sandbox import drawing, sample
from threadbridge.sandbox.app import create_app
from threadbridge.sandbox.network import Network
from threadbridge.sources.threads_api import ThreadsApi

POSTS = "your_instagram_activity/threads/threads_and_replies.json"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Everything in the numbered ZIPs."""
    found: dict[str, bytes] = {}
    for path in sample.write_download(tmp_path_factory.mktemp("down load")):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            found |= {name: archive.read(name) for name in archive.namelist()}
    return found


@pytest.fixture(scope="module")
def connected() -> list[SourcePost]:
    """All posts and replies of the seeded account, read as the bridge reads them."""
    network = Network()
    person = sample.seed(network)
    web = TestClient(create_app(network, "http://sandbox.test"), base_url="http://sandbox.test")

    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        answer = web.get(f"{url}?{urlencode(params)}")
        return answer.status_code, answer.headers, answer.content

    async def read() -> list[SourcePost]:
        source = ThreadsApi(fetch, "http://sandbox.test", person.token, now=lambda: datetime.now(UTC))
        kinds: tuple[Literal["post", "reply"], ...] = ("post", "reply")
        return [post for kind in kinds async for page in source.history(kind) for post in page.posts]

    return asyncio.run(read())


def mended(value: Any) -> Any:
    """The reader's half of the agreement, for strings and keys."""
    if isinstance(value, str):
        return value.encode("latin-1").decode("utf-8")
    if isinstance(value, dict):
        return {mended(key): mended(inner) for key, inner in value.items()}
    return [mended(inner) for inner in value] if isinstance(value, list) else value


def exported(members: Mapping[str, bytes]) -> list[Any]:
    rows: list[Any] = mended(json.loads(members[POSTS]))["text_post_app_text_posts"]
    return rows


def text_and_second(row: Any) -> tuple[str, int]:
    first = row["media"][0]
    return row.get("title") or first["title"], row.get("creation_timestamp") or first["creation_timestamp"]


def test_download_and_account_agree_on_every_text_and_second(
    members: dict[str, bytes], connected: list[SourcePost]
) -> None:
    downloaded = [text_and_second(row) for row in exported(members)]
    read = [(post.text, int(post.published.timestamp())) for post in connected]
    assert len(downloaded) >= 60
    assert sorted(downloaded) == sorted(read)
    assert sorted(downloaded) == sorted((post.text, int(post.at.timestamp())) for post in sample.posts())


def test_texts_are_broken_exactly_as_meta_breaks_them(members: dict[str, bytes]) -> None:
    raw = members[POSTS]
    assert max(raw) < 128
    assert rb"\u00e6\u0097\u00a5\u00e6\u009c\u00ac" in raw  # 日本
    assert rb"\u00f0\u009f\u00a7\u00b5" in raw  # 🧵
    profile = members["your_instagram_activity/threads/personal_information.json"]
    assert rb'"Anv\u00c3\u00a4ndarnamn"' in profile
    assert sample.broken_as_meta_does("é") == "Ã©"


def test_replies_are_marked_as_in_newer_files(members: dict[str, bytes], connected: list[SourcePost]) -> None:
    marked = {
        text_and_second(row)[0] for row in exported(members) if row["media"][0]["text_app_post"].get("is_reply")
    }
    assert marked == {post.text for post in connected if post.kind == "reply"}


def test_every_picture_named_is_in_one_of_the_zips(members: dict[str, bytes]) -> None:
    uris = [item["uri"] for row in exported(members) for item in row["media"] if item["uri"]]
    assert len(uris) >= 16
    assert set(uris) <= set(members)
    for uri in uris:
        with Image.open(io.BytesIO(members[uri])) as picture:
            assert picture.format == {"jpg": "JPEG", "webp": "WEBP"}[uri.rpartition(".")[2]]


def test_the_shapes_are_mixed(members: dict[str, bytes]) -> None:
    rows = exported(members)
    assert any(len(row["media"]) == 6 and row["title"] for row in rows)
    assert any("title" not in row and row["media"][0]["uri"] for row in rows)
    assert any("photo_metadata" in row["media"][0]["media_metadata"] for row in rows)
    assert any("is_reply" not in row["media"][0]["text_app_post"] for row in rows)
    assert "your_instagram_activity/media/posts_1.json" in members


def test_two_pictures_tell_where_they_were_taken(members: dict[str, bytes]) -> None:
    places = []
    for name, body in members.items():
        if name.endswith((".jpg", ".webp")):
            with Image.open(io.BytesIO(body)) as picture:
                places.append(dict(picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)))
    assert len([place for place in places if ExifTags.GPS.GPSLatitude in place]) == 2


def test_the_account_has_all_that_the_bridge_can_show(connected: list[SourcePost]) -> None:
    by_text = {post.text: post for post in connected}
    assert max(len(post.media) for post in connected) == 6
    assert all(item.alt for post in connected for item in post.media)
    assert len({post.native_id for post in connected}) == len(connected)
    assert any(post.poll and sum(post.poll.votes or ()) == 250 for post in connected)
    assert any(post.topic and " " in post.topic for post in connected)
    assert any(post.spoiler_media for post in connected)
    hidden = [post.text[start:end] for post in connected for start, end in post.spoilers]
    assert hidden == ["The gardener was the narrator all along"]
    quoting = [post for post in connected if post.quoted]
    assert len(quoting) == 2
    assert all(post.quoted and post.quoted.url for post in quoting)
    ids = {post.native_id: post for post in connected}
    last = next(post for text, post in by_text.items() if text.startswith("7/7"))
    length = 1
    while last.parent and last.parent.native_id in ids:
        last, length = ids[last.parent.native_id], length + 1
    assert length == 7


def test_the_download_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    first = [hashlib.sha256(path.read_bytes()).digest() for path in sample.write_download(tmp_path / "a")]
    second = [hashlib.sha256(path.read_bytes()).digest() for path in sample.write_download(tmp_path / "b")]
    assert first == second
    assert all(sample.picture.__wrapped__(name) == sample.picture(name) for name in ("harbour", "snow"))
    names = [path.name for path in sorted((tmp_path / "a").iterdir())]
    assert names == [f"instagram-mira.draws-2026-09-15-Qx7LmT2v-{number}.zip" for number in (1, 2)]


def test_every_scene_can_be_drawn_small() -> None:
    assert len(drawing.SCENES) >= 10
    bodies = {drawing.encode(drawing.draw(scene, size=(48, 40))) for scene in drawing.SCENES}
    assert len(bodies) == len(drawing.SCENES)
