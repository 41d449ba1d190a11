"""Hostile and broken archives: refused, or their unsafe members left out and named; quickly, with bounded memory."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.world.download_samples import (
    POSTS,
    PROFILE,
    THREADS,
    folder_of,
    posts_file,
    profile_file,
    single,
    zip_of,
)

from threadbridge.domain.source import SourcePost
from threadbridge.errors import BadDownload
from threadbridge.sources import archive_reader, threads_download
from threadbridge.sources.threads_download import open_download

GOOD = {POSTS: posts_file(single("hello")), PROFILE: profile_file()}


@pytest.fixture(autouse=True)
def quick_and_small() -> Iterator[None]:
    """Seconds and megabytes, whatever the archive pretends to be."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


def refused(path: Path, words: str) -> BadDownload:
    with pytest.raises(BadDownload, match=words) as caught:
        open_download([path])
    return caught.value


def unsafe(path: Path) -> dict[str, str]:
    """What was left out of a download whose one post is still read."""
    with open_download([path]) as download:
        assert [post.text for post in download.posts() if isinstance(post, SourcePost)] == ["hello"]
        return dict(download.unsafe)


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "missing.zip", "no file or folder")
    refused(folder_of(tmp_path / "empty", {"x.txt": ""}), "no Threads data download")
    with pytest.raises(BadDownload, match="No file"):
        open_download([])


def test_an_html_download_says_how_to_ask_for_json(tmp_path: Path) -> None:
    members = {"start_here.html": "<html>", f"{THREADS}/threads_and_replies.html": "<html>"}
    for path in (zip_of(tmp_path / "a.zip", members), folder_of(tmp_path / "f", members)):
        assert "format JSON" in (refused(path, "HTML pages").hint or "")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "holiday.zip", {"a.txt": "x", "package.json": '{"name": "x"}', "b/c.json": "[1]"})
    error = refused(path, r"holiday\.zip is no Threads data download")
    assert "tick Threads" in (error.hint or "")


def test_not_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for content in (b"", b"hello", b"%PDF-1.7", os.urandom(5000)):
        path.write_bytes(content)
        refused(path, "no ZIP file")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_zip(tmp_path: Path, share: float) -> None:
    path = zip_of(tmp_path / "a.zip", GOOD)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "Download it again" in (refused(path, "damaged or cut off").hint or "")


def test_damage_in_the_middle(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(*(single(f"post {n}") for n in range(999)))})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(path, "threads_and_replies.json in a.zip is")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"text_post_app_text_posts": [\n {"title": "a",, }]}', "line 2, column 16"),
        (posts_file(single("a"))[:-1], "column"),
        (posts_file(single("a")) + "garbage", "Extra data"),
        ("this is not JSON", "line 1, column 1"),
        ("", "line 1, column 1"),
    ],
)
def test_invalid_json_names_the_file_and_the_position(tmp_path: Path, content: str, where: str) -> None:
    path = zip_of(tmp_path / "a.zip", {**GOOD, POSTS: content})
    error = refused(path, f"{POSTS} in a.zip is not valid JSON")
    assert where in (error.detail or "")


def test_invalid_bytes_name_the_position(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(single("a")).encode()[:-20] + b"\xff\xfe" + b'"}]}]}'})
    assert "not UTF-8" in (refused(path, "not valid JSON").detail or "")


def test_a_large_file_names_the_position_nearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_download, "_EXACT_POSITION_BYTES", 10)
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(single("a"), single("b"))[:-9]})
    assert re.search(r"near byte \d+, after entry 1", refused(path, "not valid JSON").detail or "")


def test_an_entry_without_end(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "a.zip", {POSTS: '{"text_post_app_text_posts": [' + " " * 20_000_000 + "]}"}, zipfile.ZIP_STORED
    )
    assert "larger than 16 MB" in (refused(path, "not valid JSON").detail or "")


# ── members that cannot be trusted ───────────────────────────────────────────────────────────────────────────────


def infos(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in GOOD.items():
            archive.writestr(name, text)
        for info, data in members:
            archive.writestr(info, data)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.json", "climbs out"),
        ("media/../../evil.jpg", "climbs out"),
        ("/etc/cron.d/evil", "absolute"),
        ("C:/evil.jpg", "absolute"),
        ("media\\evil.jpg", "backslash"),
        ("..\\evil.jpg", "backslash"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str, words: str) -> None:
    found = unsafe(infos(tmp_path / "a.zip", (zipfile.ZipInfo(name), b"x")))
    assert words in found[name]


def test_a_nul_in_a_name(tmp_path: Path) -> None:
    path = infos(tmp_path / "a.zip", (zipfile.ZipInfo("media/photoX.jpg"), b"x"))
    path.write_bytes(path.read_bytes().replace(b"photoX.jpg", b"photo\0.jpg"))
    assert "NUL" in unsafe(path)["media/photo\0.jpg"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("media/1.jpg")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    assert "link or a special file" in unsafe(infos(tmp_path / "a.zip", (info, b"/etc/passwd")))["media/1.jpg"]


def test_links_in_a_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "f", GOOD)
    (root / "media").symlink_to("/etc")
    (root / "link.json").symlink_to("/etc/hostname")
    os.mkfifo(root / "pipe.json")
    found = unsafe(root)
    assert found == {"media": "it is a link", "link.json": "it is a link", "pipe.json": "it is not a regular file"}
    with open_download([root]) as download:
        assert download.open_media("media/hostname") is None


def test_posts_behind_a_link_are_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "f", {PROFILE: profile_file(), "elsewhere.txt": posts_file(single("x"))})
    (root / POSTS).symlink_to(root / "elsewhere.txt")
    assert "link" in (refused(root, "threads_and_replies.json").detail or "")


def patched(path: Path, name: str, change: Callable[[bytearray, int, int], None]) -> Path:
    """Change the local header and the directory entry of one member: change(data, local, central)."""
    data = bytearray(path.read_bytes())
    local = zipfile.ZipFile(path).getinfo(name).header_offset
    central = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    change(data, local, central)
    path.write_bytes(data)
    return path


def test_encrypted_members(tmp_path: Path) -> None:
    def encrypt(data: bytearray, local: int, central: int) -> None:
        data[local + 6] |= 1
        data[central + 8] |= 1

    path = infos(tmp_path / "a.zip", (zipfile.ZipInfo("media/1.jpg"), b"x"))
    assert unsafe(patched(path, "media/1.jpg", encrypt))["media/1.jpg"] == "it is encrypted"
    refused(patched(zip_of(tmp_path / "b.zip", GOOD), POSTS, encrypt), "threads_and_replies.json in b.zip is refused")


def test_ten_gigabytes_declared(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("media/1.mp4")
    path = infos(tmp_path / "a.zip", (info, b"x" * 100))

    def declare(data: bytearray, local: int, central: int) -> None:
        data[central + 24 : central + 28] = struct.pack("<I", 0xFFFFFFF0)

    assert "declares 4.3 GB" in unsafe(patched(path, "media/1.mp4", declare))["media/1.mp4"]
    # The same through Zip64, where sizes have eight bytes.
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, 10_000_000_000)
    name_end = at + 46 + len("media/1.mp4")
    header = bytearray(data[at:name_end])
    header[24:28] = b"\xff\xff\xff\xff"
    header[30:32] = struct.pack("<H", len(extra))
    end = data.rindex(b"PK\x05\x06")
    tail = bytearray(data[end:])
    tail[12:16] = struct.pack("<I", struct.unpack("<I", tail[12:16])[0] + len(extra))
    path.write_bytes(data[:at] + bytes(header) + extra + data[name_end:end] + bytes(tail))
    assert "declares 10.0 GB" in unsafe(path)["media/1.mp4"]


def test_a_bomb_among_the_media_is_left_out(tmp_path: Path) -> None:
    path = infos(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("media/1.jpg", bytes(60_000_000))
    assert "zip bomb" in unsafe(path)["media/1.jpg"]


def test_a_bomb_as_posts_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {PROFILE: profile_file(), POSTS: b" " * 60_000_000})
    assert "zip bomb" in (refused(path, "threads_and_replies.json in a.zip is refused").detail or "")


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_said(tmp_path: Path) -> None:
    def shrink(data: bytearray, local: int, central: int) -> None:
        data[central + 24 : central + 28] = struct.pack("<I", 1000)

    path = patched(zip_of(tmp_path / "a.zip", {PROFILE: profile_file(), POSTS: b" " * 60_000_000}), POSTS, shrink)
    refused(path, "threads_and_replies.json in a.zip is")


def test_repetitive_but_honest_json_is_read(tmp_path: Path) -> None:
    content = posts_file(*(single(f"number {number}", at=1_700_000_000 + number) for number in range(50_000)))
    assert len(content) > archive_reader.RATIO_FROM_BYTES
    with open_download([zip_of(tmp_path / "a.zip", {POSTS: content})]) as download:
        assert download.total_hint == 50_000


def test_overlapping_members(tmp_path: Path) -> None:
    def share(data: bytearray, local: int, central: int) -> None:
        data[central + 42 : central + 46] = struct.pack("<I", 0)

    path = infos(tmp_path / "a.zip", (zipfile.ZipInfo("media/1.jpg"), b"x" * 50))
    refused(patched(path, "media/1.jpg", share), "members overlap")


def test_a_name_twice(tmp_path: Path) -> None:
    path = infos(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(PROFILE, profile_file("somebody.else"))
    assert "same name" in unsafe(path)[PROFILE]
    with open_download([path]) as download:
        profile = download.profile()
        assert profile is not None
        assert profile.handle == "ana.example"


def test_more_members_than_anybody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "MAX_MEMBERS", 1)
    refused(zip_of(tmp_path / "a.zip", GOOD), "lists 2 members")
    refused(folder_of(tmp_path / "f", GOOD), "more than 1 files")


def test_a_zip_inside_a_zip_is_not_opened(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(POSTS, posts_file(single("inner")))
    refused(zip_of(tmp_path / "a.zip", {"inner.zip": inner.getvalue()}), "no Threads data download")


def test_two_hundred_kinds_of_damage_never_escape_as_another_error(tmp_path: Path) -> None:
    whole = zip_of(tmp_path / "a.zip", {**GOOD, "media/1.jpg": b"x" * 300}).read_bytes()
    path = tmp_path / "b.zip"
    step = max(1, len(whole) // 200)
    for at in range(0, len(whole), step):
        data = bytearray(whole)
        data[at] ^= 0x55
        path.write_bytes(data)
        try:
            with open_download([path]) as download:
                list(download.posts())
                download.profile()
                stream = download.open_media("media/1.jpg")
                if stream is not None:
                    with stream:
                        stream.read()
        except BadDownload:
            continue


def test_json_of_other_programs_is_left_alone(tmp_path: Path) -> None:
    members = {**GOOD, "media/broken.json": "{{{", "x/followers.json": json.dumps([{"title": "no"}])}
    with open_download([zip_of(tmp_path / "a.zip", members)]) as download:
        assert list(download.contacts()) == []
