"""Archives of any size are written, and checked, with memory that does not grow with the account."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
import zlib
from pathlib import Path

from tests.stories.archived_account import IDS, Place, many_posts, place, put_file, quiet

from threadbridge.portability import zip_layout
from threadbridge.portability.archive import write_archive
from threadbridge.portability.verify import verify
from threadbridge.portability.zip_layout import STORED, Entry, ZipWriter
from threadbridge.portability.zip_reader import ZipReader
from threadbridge.storage import accounts


def _peak(here: Place, target: Path) -> tuple[int, int]:
    """Most memory in use beyond what was before: (while writing, while verifying)."""
    figures = []
    tracemalloc.start()
    try:
        with open(target, "wb") as out, here.store.snapshot() as tx:
            write_archive(tx, IDS, here.media, accounts.named(tx, "anna"), out, quiet)
        figures.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        report = verify(target)
        assert report.ok, report.problems
        figures.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return figures[0], figures[1]


def test_memory_does_not_grow_with_posts_nor_with_files(tmp_path: Path) -> None:
    with place(tmp_path / "small") as small, place(tmp_path / "large") as large:
        for here, count, size in ((small, 300, 1 << 20), (large, 1500, 24 << 20)):
            many_posts(here, count, [put_file(here, bytes([n]) * size) for n in range(2)])
        _peak(small, tmp_path / "warm.zip")  # imports, caches of statements
        little, much = _peak(small, tmp_path / "small.zip"), _peak(large, tmp_path / "large.zip")
        assert (tmp_path / "large.zip").stat().st_size > 48 << 20
    # Five times the posts and 24 times the bytes: a few pages of posts and buffers, not the account.
    assert much[0] < little[0] + (4 << 20), f"writing took {little[0]} and {much[0]} bytes"
    assert much[1] < little[1] + (4 << 20), f"verifying took {little[1]} and {much[1]} bytes"


def test_more_members_than_a_zip_could_once_count(tmp_path: Path) -> None:
    for count in (0xFFFE, 0xFFFF):
        path = tmp_path / f"{count}.zip"
        with open(path, "wb") as out:
            writer = ZipWriter(out)
            for number in range(count):
                writer.store(f"{number}", iter((b"x",)), size=1, crc=zlib.crc32(b"x"))
            writer.close()
        with zipfile.ZipFile(path) as zip_:
            assert len(zip_.infolist()) == count
            assert zip_.read(f"{count - 1}") == b"x"
        with open(path, "rb") as file:
            reader = ZipReader(file)
            members = list(reader.members())
            assert len(members) == count
            assert all(member.canonical for member in members)
            assert reader.sealed_bytes_hash() == reader.seal()


def test_members_and_offsets_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Around the limit, by the headers alone: the data are holes in a sparse file."""
    for size in (0xFFFFFFFE, 0xFFFFFFFF, 0x100000000, 0x140000000):
        first = Entry(b"large", STORED, 0, size, size, 0)
        second_at = len(zip_layout.local_header(first)) + size
        second = Entry(b"after", STORED, zlib.crc32(b"end"), 3, 3, second_at)
        path = tmp_path / "sparse.zip"
        with open(path, "wb") as out:
            out.write(zip_layout.local_header(first))
            out.seek(second_at)
            out.write(zip_layout.local_header(second) + b"end")
            start = out.tell()
            contents = zip_layout.central_header(first) + zip_layout.central_header(second)
            out.write(contents + b"".join(zip_layout.end_records(2, start, len(contents))))
        with zipfile.ZipFile(path) as zip_:
            assert zip_.getinfo("large").file_size == size
            # All ones stands for "see the Zip64 field", so that exact size needs the field too.
            assert bool(zip_.getinfo("large").extra) == (size >= 0xFFFFFFFF)
            assert zip_.read("after") == b"end"
            assert zip_.open("large").read(1000) == bytes(1000)
        with open(path, "rb") as file:
            reader = ZipReader(file)
            large, after = reader.members()
            assert reader.end_is_canonical
            assert large.canonical
            assert large.entry == first
            assert b"".join(reader.read(after, reader.data_start(after, sealed=True))) == b"end"
            assert reader.data_start(large, sealed=True) == len(zip_layout.local_header(first))


def test_nothing_is_asked_of_the_sink_but_write() -> None:
    out = io.BytesIO()
    writer = ZipWriter(out)
    with writer.deflate("ü.json") as member:
        for _ in range(3):
            member.write(b"[1,2,3]" * 1000)
    assert member.written().size == 21000
    writer.close()
    with zipfile.ZipFile(io.BytesIO(out.getvalue())) as zip_:
        assert zip_.read("ü.json") == b"[1,2,3]" * 3000
