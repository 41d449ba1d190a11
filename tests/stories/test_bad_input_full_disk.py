"""A disk that fills half-way: it is said, nothing is left half done, and with room again everything goes on.

On a small disk of its own where this machine lets us mount one, and everywhere with a limit on the size of files, as
the system itself enforces it.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from tests.stories.command_line import CommandLine, Done
from tests.world.download_samples import NOON, POSTS, PROFILE, posts_file, profile_file, single, zip_of

MEGABYTE = 1_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of six megabytes."""
    place = tmp_path / "a small disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets us mount nothing")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


def noise(number: int, size: int = 500) -> bytes:
    """A picture that cannot be compressed: about three quarters of a megabyte as PNG."""
    out = BytesIO()
    data = random.Random(number).randbytes(size * size * 3)
    Image.frombytes("RGB", (size, size), data).save(out, "PNG")
    return out.getvalue()


def many_posts(path: Path, count: int) -> Path:
    text = "Words that take room in a database. " * 100
    entries = [single(f"{number} {text}", NOON + number) for number in range(count)]
    return zip_of(path, {POSTS: posts_file(*entries), PROFILE: profile_file()})


def many_pictures(path: Path, count: int) -> Path:
    names = [f"media/{number}.png" for number in range(count)]
    entries = [single(f"post {number}", NOON + number, name) for number, name in enumerate(names)]
    pictures = {name: noise(number) for number, name in enumerate(names)}
    return zip_of(path, {POSTS: posts_file(*entries), PROFILE: profile_file(), **pictures})


def said_so(done: Done) -> None:
    done.refused(status=1)
    assert "No space is left" in done.err or "cannot be written" in done.err, done.err
    assert "space" in done.err or "too large" in done.err, done.err


def whole(shell: CommandLine, posts: int, media: int) -> None:
    """What is told is there: as many media files as rows, nothing half written, every post."""
    rows = shell.everything()
    assert (rows["posts"], rows["media"]) == (posts, media)
    assert len(shell.media_files()) == media
    assert shell.run("doctor", "--json").json[2]["words"] == "sqlite, whole and up to date"


def room(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=60m", place], check=True)


def test_an_import_of_posts_on_a_full_disk(shell: CommandLine, small_disk: Path, tmp_path: Path) -> None:
    shell.settings["DATA_DIR"] = str(small_disk)
    os.symlink(small_disk, shell.data)
    download = many_posts(tmp_path / "a.zip", 1500)
    said_so(shell.run("import", download))
    held = shell.everything()["posts"]
    assert 0 < held < 1500
    assert held == shell.everything()["origins"]
    room(small_disk)
    done = shell.run("import", download, "--json").went_well().json
    assert (done["posts_new"], done["posts_known"]) == (1500 - held, held)
    whole(shell, 1500, 0)


def test_an_import_of_media_on_a_full_disk(shell: CommandLine, small_disk: Path, tmp_path: Path) -> None:
    shell.settings["DATA_DIR"] = str(small_disk)
    os.symlink(small_disk, shell.data)
    download = many_pictures(tmp_path / "a.zip", 10)
    said_so(shell.run("import", download))
    assert shell.everything()["posts"] == 0  # a post never comes without its picture
    room(small_disk)
    shell.run("import", download).went_well()
    whole(shell, 10, 10)


def test_an_export_onto_a_full_disk(shell: CommandLine, small_disk: Path, tmp_path: Path) -> None:
    shell.run("import", many_pictures(tmp_path / "a.zip", 10)).went_well()
    before = shell.everything()
    (small_disk / "a.zip").write_bytes(b"the older one")
    said_so(shell.run("export", "ana.example", "--output", small_disk / "a.zip"))
    assert [path.name for path in small_disk.iterdir()] == ["a.zip"]
    assert (small_disk / "a.zip").read_bytes() == b"the older one"
    assert shell.everything() == before
    room(small_disk)
    shell.run("export", "ana.example", "--output", small_disk / "a.zip").went_well()
    shell.run("verify", small_disk / "a.zip").went_well()


def test_a_first_start_on_a_full_disk(shell: CommandLine, small_disk: Path) -> None:
    shell.settings["DATA_DIR"] = str(small_disk)
    os.symlink(small_disk, shell.data)
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 40_000))
    for command in (["accounts"], ["serve"]):
        done = shell.run(*command).refused()
        assert "space" in done.err.lower(), done.err
    filler.unlink()
    shell.run("accounts").went_well()


def test_files_that_may_not_grow(shell: CommandLine, tmp_path: Path) -> None:
    """The same three by a limit on the size of files."""
    posts = many_posts(tmp_path / "posts.zip", 300)
    said_so(shell.run("import", posts, file_size_limit=MEGABYTE))
    assert shell.everything()["posts"] < 300
    shell.run("import", posts).went_well()
    pictures = many_pictures(tmp_path / "pictures.zip", 3)
    said_so(shell.run("import", pictures, "--handle", "pictures", file_size_limit=MEGABYTE // 2))
    assert shell.media_files() == []
    shell.run("import", pictures, "--handle", "pictures").went_well()
    whole(shell, 303, 3)
    (tmp_path / "out").mkdir()
    said_so(shell.run("export", "pictures", "--output", tmp_path / "out" / "a.zip", file_size_limit=MEGABYTE))
    assert list((tmp_path / "out").iterdir()) == []
