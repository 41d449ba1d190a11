"""The media folder: whole files or none, limits of size, time and memory, and a disk that is full."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.world.download_samples import exif, movie, picture

from threadbridge.errors import DiskFull, MediaRefused, NotFound, Unavailable
from threadbridge.media import cleaner, shelves, store
from threadbridge.media.store import MediaStore


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_file_lies_under_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "in.bin"
    source.write_bytes(picture(exif=exif()))
    with MediaStore(tmp_path / "media") as media:
        row = media.ingest(source, kind_hint="image")
        path = media.path(row.sha256, row.media_type)
        assert path == tmp_path / "media" / row.sha256[:2] / f"{row.sha256}.jpg"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
        assert media.ingest(source, kind_hint="image") == row
        assert files(tmp_path / "media") == [path]
        assert source.exists()


def test_a_hash_is_never_a_path(tmp_path: Path) -> None:
    with MediaStore(tmp_path) as media:
        for wrong in ("../../etc/passwd", "A" * 64, "", "a" * 63, "a" * 64 + "\n"):
            with pytest.raises(NotFound):
                media.path(wrong, "image/png")


def test_a_rehearsal_measures_and_writes_nothing(tmp_path: Path) -> None:
    with MediaStore(tmp_path / "media") as media:
        for data in (picture(), movie()):
            looked = media.examine_stream(io.BytesIO(data), kind_hint="image")
            assert not (tmp_path / "media").exists()
            assert looked.sha256
            assert looked.width
        kept = media.ingest_stream(io.BytesIO(movie()), kind_hint="video")
        assert kept == looked


def test_larger_than_allowed_is_refused_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return (b"\xff\xd8\xff\xe0" + bytes(size))[:size]

    endless = Endless()
    with MediaStore(tmp_path) as media:
        with pytest.raises(MediaRefused, match="larger than 40 MB"):
            media.ingest_stream(endless, kind_hint="image")
        assert endless.given < 41 * 1024 * 1024
        monkeypatch.setattr(store, "VIDEO_BYTES", 100)
        with pytest.raises(MediaRefused, match="video is larger"):
            media.ingest_stream(io.BytesIO(movie(mdat=bytes(9000))), kind_hint="video")
    assert files(tmp_path) == []


@pytest.mark.parametrize("data", [picture(), movie()])
def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with MediaStore(tmp_path) as media:
        monkeypatch.setattr(shelves, "flush", full)
        with pytest.raises(DiskFull):
            media.ingest_stream(io.BytesIO(data), kind_hint="image")
        assert files(tmp_path) == []
        monkeypatch.undo()
        assert media.ingest_stream(io.BytesIO(data), kind_hint="image")


def test_a_full_disk_in_the_child_is_a_full_disk(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(picture())
    request = {"source": str(source), "target": "/dev/full", "media_type": "image/jpeg"}
    assert "disk_full" in cleaner.answer(request)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "media").write_text("a file where the folder should be")
    with MediaStore(tmp_path / "media") as media, pytest.raises(Unavailable, match="cannot be written"):
        media.ingest_stream(io.BytesIO(picture()), kind_hint="image")


def test_a_child_that_hangs_or_dies_costs_one_picture(tmp_path: Path) -> None:
    with MediaStore(tmp_path, children=1, seconds=1.0) as media:
        assert media.ingest_stream(io.BytesIO(picture()), kind_hint="image")
        child = media._cleaners._all[0]
        assert child._process is not None
        first = child._process.pid
        os.kill(first, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(MediaRefused, match="limits of time and memory"):
            media.ingest_stream(io.BytesIO(picture("PNG")), kind_hint="image")
        assert time.monotonic() - started < 5
        assert media.ingest_stream(io.BytesIO(picture("PNG")), kind_hint="image")
        assert child._process is not None
        assert child._process.pid != first
        os.kill(child._process.pid, signal.SIGKILL)
        child._process.wait()
        assert media.ingest_stream(io.BytesIO(picture("GIF")), kind_hint="image")


def test_the_child_is_limited_and_ends_with_its_parent() -> None:
    code = (
        "import resource,sys; from threadbridge.media import cleaner; sys.stdin=iter(()); cleaner.main();"
        "limits = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE);"
        "print([resource.getrlimit(limit)[0] for limit in limits]);"
        "from PIL import Image; print(sorted(Image.OPEN), Image._initialized)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    limits, plugins = done.stdout.splitlines()
    assert json.loads(limits) == [1 << 30, 128 << 20, 32]
    assert "TIFF" not in plugins
    assert "EPS" not in plugins
    process = subprocess.Popen([sys.executable, "-m", "threadbridge.media.cleaner"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 0


def test_many_threads_share_few_children(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(4):
                data = picture("PNG", size=(20 + number, 20 + round_), exif=exif())
                row = media.ingest_stream(io.BytesIO(data), kind_hint="image")
                assert (row.width, row.height) == (20 + number, 20 + round_)
        except BaseException as failure:
            failures.append(failure)

    with MediaStore(tmp_path, children=2) as media:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(files(tmp_path)) == 24


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    old, young = incoming / "old", incoming / "young"
    for path in (old, young):
        path.write_bytes(b"part of a picture")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    with MediaStore(tmp_path) as media:
        media.ingest_stream(io.BytesIO(picture()), kind_hint="image")
    assert not old.exists()
    assert young.exists()
