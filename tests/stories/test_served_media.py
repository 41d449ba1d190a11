"""Media come from our own address, for ever the same: in parts, not again to who has them, and as media only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from tests.rig import running_bridge


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, bytes]]:
    """The address of a picture, and its bytes as stored."""
    folder: Path = tmp_path_factory.mktemp("media")
    with running_bridge(folder / "data", worker=False) as bridge:
        file = folder / "picture.jpg"
        Image.effect_noise((300, 200), 80).convert("RGB").save(file)
        row = bridge.ground.media.ingest(file, kind_hint="image")
        kept = bridge.ground.media.path(row.sha256, row.media_type).read_bytes()
        yield bridge.ground.ids.media(row.sha256, row.media_type), kept


def get(url: str, **headers: str) -> httpx2.Response:
    return httpx2.get(url, headers=headers, trust_env=False)


def test_a_picture_is_what_its_address_says_and_may_be_kept_for_ever(served: tuple[str, bytes]) -> None:
    url, kept = served
    answer = get(url)
    assert answer.status_code == 200
    assert answer.content == kept
    assert hashlib.sha256(answer.content).hexdigest() in url
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == str(len(kept))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_picture_that_is_also_something_else_stays_a_picture(served: tuple[str, bytes]) -> None:
    answer = get(served[0])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_who_has_it_is_told_so(served: tuple[str, bytes]) -> None:
    url, _ = served
    etag = get(url).headers["etag"]
    assert not etag.startswith("W/")
    for held in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = get(url, **{"If-None-Match": held})
        assert answer.status_code == 304, held
        assert answer.content == b""
        assert answer.headers["etag"] == etag
        assert "immutable" in answer.headers["cache-control"]
    assert get(url, **{"If-None-Match": '"x"'}).status_code == 200


def test_parts_are_served(served: tuple[str, bytes]) -> None:
    url, kept = served
    size = len(kept)
    for wanted, first, last in (("0-99", 0, 99), ("100-", 100, size - 1), ("-50", size - 50, size - 1)):
        answer = get(url, Range=f"bytes={wanted}")
        assert answer.status_code == 206
        assert answer.content == kept[first : last + 1]
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    assert get(url, Range=f"bytes={size}-").status_code == 416
    stale = get(url, **{"Range": "bytes=0-9", "If-Range": '"other"'})
    assert stale.status_code == 200
    assert stale.content == kept


@pytest.mark.parametrize("wanted", ["bytes=5-2", "bytes=x", "lines=1-2", "bytes=", "bytes=" + "0-1," * 3000 + "0-1"])
def test_odd_ranges_are_no_trouble(served: tuple[str, bytes], wanted: str) -> None:
    assert get(served[0], Range=wanted).status_code in (200, 206, 400, 416)


def test_head_says_the_same(served: tuple[str, bytes]) -> None:
    url, kept = served
    answer = httpx2.head(url, trust_env=False)
    assert answer.content == b""
    assert answer.headers["content-length"] == str(len(kept))
    assert answer.headers["etag"] == get(url).headers["etag"]


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace(".jpg", ".png"),
        lambda url: url.replace(".jpg", ".html"),
        lambda url: url.replace(".jpg", ""),
        lambda url: url.replace(".jpg", ".jpg/"),
        lambda url: url.rpartition("/")[0] + "/" + "0" * 64 + ".jpg",
        lambda url: url.rpartition("/")[0] + "/..%2F..%2Fsecret.key",
        lambda url: url.rpartition("/")[0] + "/" + "%2e%2e/secret.key",
        lambda url: url.replace("/media/", "/media/" + url.rpartition("/")[2][:2] + "/"),
        lambda url: url.rpartition("/")[0] + "/" + url.rpartition("/")[2].upper(),
    ],
)
def test_nothing_else_is_there(served: tuple[str, bytes], change: object) -> None:
    assert callable(change)
    answer = get(str(change(served[0])), Accept="application/json")
    assert answer.status_code == 404
    assert answer.json()["error"]
