"""The bytes of a ZIP file (PKWARE APPNOTE 6.3.9) in the one form in which we write them, and the writer.

Rule: the bytes follow from names, contents and their order alone: a fixed time (1980-01-01), no seeking, sizes and
checksums known before each header, so that no reader needs data descriptors; Zip64 records only where a number does
not fit. Media are stored, texts deflated. The ZIP's comment is a seal: the SHA-256 of everything before the end
record, so that also a changed byte which no reader would notice (a date, a padding bit) is found.
"""

from __future__ import annotations

import hashlib
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from threadbridge.errors import Invalid

STORED: Final = 0
DEFLATED: Final = 8
UTF8_NAMES: Final = 0x0800

SEAL = re.compile(rb"threadbridge archive 1 sha256:([0-9a-f]{64})")

LOCAL = struct.Struct("<4sHHHHHIIIHH")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
END = struct.Struct("<4sHHHHIIH")
END64 = struct.Struct("<4sQHHIIQQQQ")
LOCATOR64 = struct.Struct("<4sIQI")
LOCAL_SIGN, CENTRAL_SIGN, END_SIGN = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64_SIGN, LOCATOR64_SIGN = b"PK\x06\x06", b"PK\x06\x07"

FULL16: Final = 0xFFFF
FULL32: Final = 0xFFFFFFFF
_ZIP64_EXTRA: Final = 0x0001
_DATE: Final = 0x0021  # 1980-01-01, the first day that a ZIP can name
_REGULAR_FILE: Final = 0o100644 << 16
_COMPRESSION: Final = 6
_SPOOLED_IN_MEMORY: Final = 1 << 20
_CHUNK: Final = 1 << 18


class Sink(Protocol):
    """What an archive is written to; it need not be able to seek."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What the headers of one member say. `packed` and `size` are bytes in the file and after unpacking."""

    name: bytes
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def local_header(entry: Entry) -> bytes:
    """What stands before a member's data."""
    wide = entry.packed >= FULL32 or entry.size >= FULL32
    extra = struct.pack("<HHQQ", _ZIP64_EXTRA, 16, entry.size, entry.packed) if wide else b""
    packed, size = (FULL32, FULL32) if wide else (entry.packed, entry.size)
    return (
        LOCAL.pack(
            LOCAL_SIGN, 45 if wide else 20, UTF8_NAMES, entry.method, 0, _DATE, entry.crc, packed, size,
            len(entry.name), len(extra),
        )
        + entry.name
        + extra
    )  # fmt: skip


def central_header(entry: Entry) -> bytes:
    """A member's line in the table of contents."""
    wide: list[int] = []
    size, packed = entry.size, entry.packed
    if size >= FULL32 or packed >= FULL32:  # as in the local header: both in full, or neither
        wide += [size, packed]
        size = packed = FULL32
    if entry.offset >= FULL32:
        wide.append(entry.offset)
    extra = struct.pack(f"<HH{len(wide)}Q", _ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    version = 45 if wide else 20
    return (
        CENTRAL.pack(
            CENTRAL_SIGN, 3 << 8 | version, version, UTF8_NAMES, entry.method, 0, _DATE, entry.crc, packed, size,
            len(entry.name), len(extra), 0, 0, 0, _REGULAR_FILE, min(entry.offset, FULL32),
        )
        + entry.name
        + extra
    )  # fmt: skip


def end_records(count: int, start: int, size: int) -> tuple[bytes, bytes]:
    """(Zip64 records or nothing, end record without its comment) for a table of contents of `count` members that
    begins at `start` and has `size` bytes."""
    wide = b""
    if count >= FULL16 or start >= FULL32 or size >= FULL32:
        wide = END64.pack(END64_SIGN, END64.size - 12, 3 << 8 | 45, 45, 0, 0, count, count, size, start)
        wide += LOCATOR64.pack(LOCATOR64_SIGN, 0, start + size, 1)
    shown = min(count, FULL16)
    end = END.pack(END_SIGN, 0, 0, shown, shown, min(size, FULL32), min(start, FULL32), 0)
    return wide, end


@dataclass(frozen=True, slots=True)
class Written:
    """A member as it was written: its size when unpacked, and the SHA-256 (hex) of those bytes."""

    name: str
    size: int
    sha256: str


class ZipWriter:
    """Writes one ZIP from front to back. Memory: about 200 bytes per member, for the table of contents.

    `scratch` is the folder for deflated members whose size is not known yet (None: the system's).
    """

    def __init__(self, out: Sink, scratch: Path | None = None) -> None:
        self._out = out
        self._scratch = str(scratch) if scratch else None
        self._digest = hashlib.sha256()
        self._contents = bytearray()
        self.size = 0
        self.members = 0

    def store(self, name: str, chunks: Iterator[bytes], *, size: int, crc: int) -> None:
        """A member as it is; `size` and `crc` are those of all the chunks together, and the caller's word."""
        self._begin(Entry(name.encode(), STORED, crc, size, size, self.size))
        stop = self.size + size
        for chunk in chunks:
            self._write(chunk)
        if self.size != stop:
            raise Invalid(f"{name} changed while it was read")

    @contextmanager
    def deflate(self, name: str) -> Iterator[Deflated]:
        """A member that is made bit by bit: `write` into what this gives; it is complete when the block ends."""
        with tempfile.SpooledTemporaryFile(_SPOOLED_IN_MEMORY, dir=self._scratch) as spool:
            member = Deflated(name, spool)
            yield member
            member.finish()
            packed = spool.tell()
            spool.seek(0)
            self._begin(Entry(name.encode(), DEFLATED, member.crc, packed, member.size, self.size))
            while chunk := spool.read(_CHUNK):
                self._write(chunk)

    def close(self) -> str:
        """Write the table of contents and the seal; returns the SHA-256 (hex) of the whole file."""
        start, length = self.size, len(self._contents)
        for at in range(0, length, _CHUNK):
            self._write(bytes(self._contents[at : at + _CHUNK]))
        wide, end = end_records(self.members, start, length)
        self._write(wide)
        comment = b"threadbridge archive 1 sha256:" + self._digest.hexdigest().encode()
        self._write(end[:-2] + struct.pack("<H", len(comment)) + comment)
        return self._digest.hexdigest()

    def _begin(self, entry: Entry) -> None:
        self._write(local_header(entry))
        self._contents += central_header(entry)
        self.members += 1

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._digest.update(data)
        self.size += len(data)


class Deflated:
    """A deflated member being made."""

    def __init__(self, name: str, spool: IO[bytes]) -> None:
        self.name = name
        self.size = 0
        self.crc = 0
        self._spool = spool
        self._digest = hashlib.sha256()
        self._packer = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, -15)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self._digest.update(data)
        self._spool.write(self._packer.compress(data))

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._spool.write(self._packer.flush())

    def written(self) -> Written:
        """What the member has become."""
        return Written(self.name, self.size, self._digest.hexdigest())
