"""`threadbridge import` of something that is no good: words, a status, and not one row more than before."""

from __future__ import annotations

import io
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.stories.command_line import CommandLine
from tests.world.download_samples import NOON, POSTS, PROFILE, picture, posts_file, profile_file, single, zip_of

Members = dict[str, str | bytes]
GOOD: Members = {
    POSTS: posts_file(*(single(f"post {number}", NOON + number) for number in range(300))),
    PROFILE: profile_file(),
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """One installation with somebody in it; a refused download leaves it as it is, so that it serves for many."""
    home = CommandLine(tmp_path_factory.mktemp("bad downloads") / "a home")
    members: Members = {
        POSTS: posts_file(single("first", uri="media/0.png")),
        PROFILE: profile_file("first.one"),
        "media/0.png": picture("PNG"),
    }
    home.run("import", zip_of(home.folder / "first.zip", members)).went_well()
    return home


def declares_ten_gigabytes(path: Path) -> Path:
    """The posts, said to be 10 GB in the table of contents and in the local header (ZIP64)."""
    data = zlib.compress(b"{}")[2:-4]
    name = POSTS.encode()
    sizes = struct.pack("<HHQQ", 1, 16, 10_000_000_000, len(data))
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), 20)
    central = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 45, 45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name),
                          20, 0, 0, 0, 0, 0)  # fmt: skip
    before = local + name + sizes + data
    directory = central + name + sizes
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(before), 0)
    path.write_bytes(before + directory + end)
    return path


def cut_off(path: Path) -> Path:
    path.write_bytes(zip_of(path, GOOD).read_bytes()[:-2000])
    return path


def overlapping(path: Path) -> Path:
    """Two names for the same bytes, as in the bombs that need no recursion."""
    data = bytearray(zip_of(path, {POSTS: "[]", PROFILE: "{}"}, zipfile.ZIP_STORED).read_bytes())
    second = data.rfind(b"PK\1\2")
    struct.pack_into("<I", data, second + 42, 0)
    path.write_bytes(data)
    return path


def with_link(path: Path, name: str, target: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo(name)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    return path


def of(members: Members) -> Callable[[Path], Path]:
    return lambda path: zip_of(path, members)


def bytes_of(data: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(of({f"{POSTS}.html": "<html>"}), ["HTML", "JSON"], id="HTML"),
        pytest.param(of({"photos/1.jpg": picture()}), ["no Threads data download"], id="no Threads download"),
        pytest.param(of({}), ["no Threads data download"], id="an empty ZIP"),
        pytest.param(cut_off, ["a bad download.zip", "damaged or cut off", "Download it again"], id="cut off"),
        pytest.param(of({POSTS: bytes(60_000_000), PROFILE: "{}"}), ["threads_and_replies.json"], id="bomb"),
        pytest.param(overlapping, ["overlap"], id="overlapping bomb"),
        pytest.param(declares_ten_gigabytes, ["threads_and_replies.json", "10.0 GB"], id="10 GB declared"),
        pytest.param(lambda path: with_link(path, POSTS, "/etc/passwd"), ["and_replies.json", "link"], id="link"),
        pytest.param(of({"../" + POSTS: "{}", "/" + PROFILE: "{}"}), ["climbs out of the archive"], id="outside"),
        pytest.param(of({POSTS: "{", PROFILE: profile_file()}), ["not valid JSON", "threads_and_replies"], id="JSON"),
        pytest.param(of({**GOOD, POSTS: str(GOOD[POSTS])[:-40]}), ["not valid JSON"], id="JSON cut off"),
        pytest.param(of({POSTS: GOOD[POSTS], PROFILE: "[[["}), ["personal_information.json"], id="profile's JSON"),
        pytest.param(of({POSTS: GOOD[POSTS]}), ["whose it is", "--handle"], id="nobody's"),
        pytest.param(bytes_of(b"GIF89a"), ["is no ZIP file"], id="no ZIP"),
        pytest.param(bytes_of(b""), ["is no ZIP file"], id="nothing"),
        pytest.param(lambda path: path, ["There is no file or folder"], id="not there"),
        pytest.param(empty_folder, ["no Threads data download"], id="empty folder"),
    ],
)  # fmt: skip
def test_it_is_refused(shell: CommandLine, tmp_path: Path, make: Callable[[Path], Path], words: list[str]) -> None:
    file = make(tmp_path / "a bad download.zip")
    before, kept = shell.everything(), shell.media_files()
    started = time.monotonic()
    shell.run("import", file).refused(*words, status=1)
    shell.run("import", file, "--dry-run", "--json").refused(*words, status=1)
    assert time.monotonic() - started < 20
    assert (shell.everything(), shell.media_files()) == (before, kept)


@pytest.mark.parametrize("handle", ["with space", "UPPER", "é", "-begins", "ends.", "admin", "", "a" * 31, "a@b"])
def test_a_handle_that_others_would_refuse(shell: CommandLine, tmp_path: Path, handle: str) -> None:
    before = shell.everything()
    download = zip_of(tmp_path / "a.zip", GOOD)
    said = shell.run("import", download, "--handle", handle).refused("--handle", status=1)
    assert repr(handle) in said.err
    assert shell.everything() == before


def hundred_megapixels() -> bytes:
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    return out.getvalue()


def test_what_is_wrong_inside_is_named_and_the_rest_comes_in(shell: CommandLine, tmp_path: Path) -> None:
    """Media that are none, and members with names that lead elsewhere: the posts are there without them."""
    bad: Members = {
        "media/text.jpg": "I am no picture",
        "media/huge.png": hundred_megapixels(),
        "media/broken.jpg": picture(size=(400, 300))[:900],
        "media/bomb.mp4": bytes(20_000_000),
        "../outside.jpg": picture(),
        "/absolute.jpg": picture(),
        "C:\\drive.jpg": picture(),
        "media/fine.png": picture("PNG", size=(30, 20)),
    }
    entries = [single(name, NOON + number, name) for number, name in enumerate(bad)]
    download = zip_of(tmp_path / "a.zip", {POSTS: posts_file(*entries), PROFILE: profile_file("mixed.one"), **bad})
    with zipfile.ZipFile(download, "a") as archive:
        link = zipfile.ZipInfo("media/link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    before, kept = shell.everything(), shell.media_files()
    outside = {path for path in tmp_path.parent.rglob("*.jpg") if shell.folder not in path.parents}

    told = shell.run("import", download, "--dry-run", "--json").went_well().json
    assert (shell.everything(), shell.media_files()) == (before, kept)
    done = shell.run("import", download, "--json").went_well().json
    assert {**done, "dry_run": True, "account_id": None} == told
    assert (done["posts_new"], done["media_found"]) == (len(bad), 1)
    assert "100 megapixels" in str(done["media_refused"])
    assert "but text" in str(done["media_refused"])
    named = {name for name, _ in done["unsafe"]}
    assert named >= {"../outside.jpg", "/absolute.jpg", "C:\\drive.jpg", "media/link.jpg", "media/bomb.mp4"}
    assert len(shell.media_files()) == len(kept) + 1
    assert {path for path in tmp_path.parent.rglob("*.jpg") if shell.folder not in path.parents} == outside
    words = shell.run("import", download).went_well().out
    for name in named:
        assert name in words


def test_several_files_of_which_one_is_bad(shell: CommandLine, tmp_path: Path) -> None:
    before = shell.everything()
    good = zip_of(tmp_path / "part 1.zip", GOOD)
    bad = cut_off(tmp_path / "part 2.zip")
    shell.run("import", good, bad).refused("part 2.zip", "damaged or cut off", status=1)
    assert shell.everything() == before
