"""Whatever is wrong with a download: it is said in words, and nothing of it is stored."""

from __future__ import annotations

import errno
import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select
from tests.world.download_samples import NOON, POSTS, PROFILE, picture, posts_file, profile_file, single, zip_of

from threadbridge.errors import BadDownload, DiskFull, Unavailable
from threadbridge.media import shelves
from threadbridge.media.store import MediaStore
from threadbridge.portability import imports
from threadbridge.portability.imports import ImportSummary, import_download
from threadbridge.sources.threads_download import open_download
from threadbridge.storage import posts, schema
from threadbridge.storage.posts import MediaRow
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import NewKey, Vault

GOOD: dict[str, str | bytes] = {
    POSTS: posts_file(*(single(f"post {number}", NOON + number) for number in range(500))),
    PROFILE: profile_file(),
}


@pytest.fixture
def media(tmp_path: Path) -> Iterator[MediaStore]:
    with MediaStore(tmp_path / "media", children=1) as opened:
        yield opened


def take_in(store: Store, media: MediaStore, path: Path) -> ImportSummary:
    with open_download([path]) as download:
        return import_download(
            store,
            media,
            Vault(bytes(32)),
            download,
            handle=None,
            dry_run=False,
            new_key=lambda: NewKey("public", b"private"),
            on_progress=lambda progress: None,
        )


def rows(store: Store) -> int:
    def count(tx: Tx) -> int:
        tables = schema.metadata.sorted_tables
        return sum(tx.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)

    return store.read_now(count)


def refused(store: Store, media: MediaStore, path: Path, words: str) -> None:
    with pytest.raises(BadDownload, match=words):
        take_in(store, media, path)
    assert rows(store) == 0
    assert not media.folder.exists()


def test_html_format(store: Store, media: MediaStore, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"your_instagram_activity/threads/threads_and_replies.html": "<html>"})
    refused(store, media, path, "HTML pages")


def test_a_zip_that_is_no_threads_download(store: Store, media: MediaStore, tmp_path: Path) -> None:
    refused(store, media, zip_of(tmp_path / "a.zip", {"photo.jpg": picture()}), "no Threads data download")


def test_a_truncated_zip(store: Store, media: MediaStore, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", GOOD)
    path.write_bytes(path.read_bytes()[:-100])
    refused(store, media, path, "damaged or cut off")


def test_a_zip_bomb(store: Store, media: MediaStore, tmp_path: Path) -> None:
    refused(store, media, zip_of(tmp_path / "a.zip", {POSTS: bytes(60_000_000)}), "threads_and_replies.json")


def test_invalid_json_behind_hundreds_of_good_posts(store: Store, media: MediaStore, tmp_path: Path) -> None:
    content = str(GOOD[POSTS])[:-2] + ', {"media": [}]}'
    refused(store, media, zip_of(tmp_path / "a.zip", {**GOOD, POSTS: content}), "not valid JSON")


def test_damage_behind_hundreds_of_good_posts(store: Store, media: MediaStore, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", GOOD, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"post 499", b"post 49X", 1))  # still JSON, but not what was packed
    refused(store, media, path, "damaged")


def test_a_download_of_nobody(store: Store, media: MediaStore, tmp_path: Path) -> None:
    refused(store, media, zip_of(tmp_path / "a.zip", {POSTS: GOOD[POSTS]}), "does not say whose it is")


@pytest.mark.parametrize("name", ["../media/1.jpg", "/media/1.jpg", "C:\\media\\1.jpg"])
def test_names_that_lead_elsewhere_store_nothing_elsewhere(
    store: Store, media: MediaStore, tmp_path: Path, name: str
) -> None:
    members: dict[str, str | bytes] = {
        POSTS: posts_file(single("x", uri=name)),
        PROFILE: profile_file(),
        name: picture(),
    }
    before = set(tmp_path.rglob("*.jpg"))
    summary = take_in(store, media, zip_of(tmp_path / "a.zip", members))
    assert (summary.posts_new, summary.media_missing, summary.media_found) == (1, 1, 0)
    assert [member for member, _ in summary.unsafe] == [name]
    assert set(tmp_path.rglob("*.jpg")) == before


def hundred_megapixels() -> bytes:
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    return out.getvalue()


def cut_off_video() -> bytes:
    return struct.pack(">I4s4sI4s", 24, b"ftyp", b"isom", 0, b"isom") + bytes(4) + struct.pack(">I4s", 9999, b"mdat")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no picture", "no picture that we serve, but text"),
        (b"<svg onload=alert(1)>", "an SVG drawing"),
        (hundred_megapixels(), "100 megapixels"),
        (picture()[:400], "damaged"),
        (cut_off_video(), "damaged or cut off"),
        (b"", "an empty file"),
    ],
)
def test_a_medium_that_is_none_is_left_out_and_its_post_kept(
    store: Store, media: MediaStore, tmp_path: Path, data: bytes, words: str
) -> None:
    members: dict[str, str | bytes] = {
        POSTS: posts_file(single("text", uri="media/1.jpg")),
        PROFILE: profile_file(),
        "media/1.jpg": data,
    }
    summary = take_in(store, media, zip_of(tmp_path / "a.zip", members))
    assert summary.posts_new == 1
    assert words in next(iter(summary.media_refused))
    assert [path for path in media.folder.rglob("*") if path.is_file()] == []
    assert summary.account_id is not None
    post = store.read_now(posts.newest, summary.account_id, limit=1)[0]
    assert post.text == "text"
    assert words in (post.attachments[0].missing or "")


def test_a_medium_damaged_inside_the_zip_is_left_out(store: Store, media: MediaStore, tmp_path: Path) -> None:
    members: dict[str, str | bytes] = {
        POSTS: posts_file(single("text", uri="media/1.jpg")),
        PROFILE: profile_file(),
        "media/1.jpg": picture(),
    }
    path = zip_of(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(picture()[-60:], bytes(60)))
    summary = take_in(store, media, path)
    assert (summary.posts_new, sum(summary.media_refused.values())) == (1, 1)


def test_a_disk_that_fills_half_way_keeps_what_is_whole_and_goes_on_later(
    store: Store, media: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH", 10)
    count = 30
    entries = [single(f"post {number}", NOON + number, f"media/{number}.jpg") for number in range(count)]
    pictures = {f"media/{number}.jpg": picture("PNG", size=(10 + number, 10)) for number in range(count)}
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(*entries), PROFILE: profile_file(), **pictures})
    flushed = 0
    flush = shelves.flush

    def full(target: Path) -> None:
        nonlocal flushed
        flushed += 1
        if flushed > 30:  # two per file: within the second batch
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(target)

    monkeypatch.setattr(shelves, "flush", full)
    with pytest.raises(DiskFull, match="No space"):
        take_in(store, media, path)
    assert list((media.folder / "incoming").iterdir()) == []
    held = rows_of(store, "posts")
    assert held == 10
    monkeypatch.setattr(shelves, "flush", flush)
    summary = take_in(store, media, path)
    assert (summary.posts_known, summary.posts_new, summary.media_found) == (10, 20, 20)
    assert rows_of(store, "attachments") == rows_of(store, "media") == count


def rows_of(store: Store, table: str) -> int:
    def count(tx: Tx) -> int:
        found: int = tx.execute(select(func.count()).select_from(schema.metadata.tables[table])).scalar_one()
        return found

    return store.read_now(count)


def test_a_database_that_is_full_takes_nothing_of_a_batch(
    store: Store, media: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = posts.add
    calls = 0

    def full(tx: Tx, *args: Any, **more: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 250:
            raise DiskFull("No space is left for the database")
        return add(tx, *args, **more)

    monkeypatch.setattr(posts, "add", full)
    with pytest.raises(DiskFull):
        take_in(store, media, zip_of(tmp_path / "a.zip", GOOD))
    assert rows_of(store, "posts") == rows_of(store, "origins") == imports.BATCH
    monkeypatch.undo()
    summary = take_in(store, media, tmp_path / "a.zip")
    assert (summary.posts_known, summary.posts_new) == (imports.BATCH, 500 - imports.BATCH)


def test_a_child_that_cannot_be_started_is_no_refusal(
    store: Store, media: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members: dict[str, str | bytes] = {
        POSTS: posts_file(single("text", uri="media/1.jpg")),
        PROFILE: profile_file(),
        "media/1.jpg": picture(),
    }

    def broken(*args: object, **more: object) -> MediaRow:
        raise Unavailable("Pictures cannot be read now")

    monkeypatch.setattr(media, "ingest_stream", broken)
    with pytest.raises(Unavailable):
        take_in(store, media, zip_of(tmp_path / "a.zip", members))
    assert rows_of(store, "posts") == 0
