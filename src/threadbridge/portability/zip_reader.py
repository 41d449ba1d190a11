"""Reading a ZIP file that nobody vouches for, from front to back, with bounded memory.

Rule: every number in it is a claim that is compared with what is there; the only exception is Invalid, whose words
say what is wrong. Nothing is ever unpacked to the disk.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from threadbridge.errors import Invalid
from threadbridge.portability import zip_layout
from threadbridge.portability.zip_layout import CENTRAL, DEFLATED, END, END64, LOCAL, LOCATOR64, STORED, Entry

MEMBERS_MAX = 500_000
CONTENTS_MAX = 128 << 20
RATIO_FROM = 256 << 20
RATIO_MAX = 300
"""Deflate reaches 1032:1; the most repetitive list in an archive of ours stays below 100:1."""

_CHUNK = 1 << 18
_COMMENT_MAX = 0xFFFF
_UTF8_FLAG, _ENCRYPTED_FLAG = 0x0800, 0x0001
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LINK = 0o120000


@dataclass(slots=True)
class Member:
    """A line of the table of contents. `canonical`: byte for byte as our own writer would have written it."""

    name: str
    entry: Entry
    flags: int
    mode: int
    canonical: bool

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/") and self.entry.size == 0


def unsafe_name(member: Member) -> str | None:
    """Why a member must not be unpacked under its name, or None."""
    name = member.name
    if not name or _CONTROL.search(name):
        return "its name is empty or holds control characters"
    if "\\" in name or name.startswith("/") or _DRIVE.match(name):
        return "its name is absolute or holds a backslash"
    if ".." in name.split("/") or "." in name.split("/"):
        return "its name climbs out of the archive"
    if member.mode & 0o170000 == _LINK:
        return "it is a link"
    return None


class ZipReader:
    """One ZIP file. Raises Invalid when its end cannot be understood."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._end = self._find_end()
        self._read_end()

    # ── the end, which says where the table of contents is ───────────────────────────────────────────────────────

    def _find_end(self) -> int:
        start = self._at(0, 4)
        tail_at = max(0, self.size - END.size - _COMMENT_MAX)
        tail = self._at(tail_at, self.size - tail_at)
        found = len(tail)
        while (found := tail.rfind(zip_layout.END_SIGN, 0, found)) >= 0:
            if len(tail) - found >= END.size and found + END.size + END.unpack_from(tail, found)[-1] == len(tail):
                return tail_at + found
        if start in (zip_layout.LOCAL_SIGN, zip_layout.END_SIGN) or zip_layout.CENTRAL_SIGN in tail:
            raise Invalid(
                "The ZIP has no proper end: it was cut off, or something was added",
                hint="Download it again.",
            )
        raise Invalid("This is no ZIP file, so no archive, and no JSON, so no certificate of erasure")

    def _read_end(self) -> None:
        raw = self._at(self._end, END.size)
        _, disk, first_disk, here, count, length, start, comment = END.unpack(raw)
        self.comment = self._at(self._end + END.size, comment)
        stop = self._end
        self.end_is_canonical = True
        if zip_layout.FULL16 in (here, count) or zip_layout.FULL32 in (length, start):
            stop, count, length, start = self._read_end64()
        elif disk or first_disk or here != count:
            raise Invalid("The end of the ZIP is damaged: it speaks of several disks")
        if start + length != stop:
            raise Invalid("The end of the ZIP is damaged: its table of contents is not where it says")
        if count > MEMBERS_MAX or length > CONTENTS_MAX:
            raise Invalid(f"The ZIP lists {count} members", detail=f"at most {MEMBERS_MAX} are read")
        wide, end = zip_layout.end_records(count, start, length)
        self.end_is_canonical = self._at(stop, self._end - stop) == wide and raw[:-2] == end[:-2]
        self.count, self._start, self._stop = count, start, stop

    def _read_end64(self) -> tuple[int, int, int, int]:
        """(where it begins, members, bytes and beginning of the table of contents) from the Zip64 records."""
        try:
            sign, _, at, _ = LOCATOR64.unpack(self._at(self._end - LOCATOR64.size, LOCATOR64.size))
            if sign != zip_layout.LOCATOR64_SIGN or at + END64.size > self._end:
                raise ValueError
            sign, _, _, _, _, _, _, count, length, start = END64.unpack(self._at(at, END64.size))
            if sign != zip_layout.END64_SIGN:
                raise ValueError
        except (struct.error, ValueError, OSError):
            raise Invalid("The end of the ZIP is damaged: its Zip64 records make no sense") from None
        return at, count, length, start

    def seal(self) -> str | None:
        """The SHA-256 (hex) that the comment promises for all bytes before the end record; None for no comment.
        Raises Invalid for a comment of another kind."""
        if not self.comment:
            return None
        match = zip_layout.SEAL.fullmatch(self.comment)
        if match is None:
            raise Invalid("The seal at the end of the ZIP is damaged")
        return match[1].decode()

    def sealed_bytes_hash(self) -> str:
        """The SHA-256 (hex) of all bytes before the end record."""
        digest = hashlib.sha256()
        for chunk in self._range(0, self._end):
            digest.update(chunk)
        return digest.hexdigest()

    # ── the table of contents ────────────────────────────────────────────────────────────────────────────────────

    def members(self) -> Iterator[Member]:
        """Every line of the table of contents, in its order. Raises Invalid where it makes no sense."""
        at = self._start
        self._file.seek(at)
        for number in range(self.count):
            raw = self._file.read(CENTRAL.size)
            if len(raw) < CENTRAL.size or raw[:4] != zip_layout.CENTRAL_SIGN:
                raise Invalid(f"The table of contents is damaged at member {number + 1} of {self.count}")
            fields = CENTRAL.unpack(raw)
            name_length, extra_length, comment_length = fields[10:13]
            rest = self._file.read(name_length + extra_length + comment_length)
            at += CENTRAL.size + len(rest)
            if at > self._stop:
                raise Invalid(f"The table of contents is damaged at member {number + 1} of {self.count}")
            yield _member(fields, raw + rest, rest[:name_length], rest[name_length : name_length + extra_length])
            self._file.seek(at)
        if at != self._stop:
            raise Invalid("The table of contents is damaged: something stands behind its last member")

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def data_start(self, member: Member, *, sealed: bool) -> int:
        """Where a member's data begin. Raises Invalid when its local header says something else than the table of
        contents; in a sealed archive every byte of it must be as our writer writes it."""
        entry = member.entry
        raw = self._at(entry.offset, LOCAL.size)
        if len(raw) < LOCAL.size or raw[:4] != zip_layout.LOCAL_SIGN:
            raise Invalid("It is damaged: its header is missing")
        name_length, extra_length = LOCAL.unpack(raw)[9:11]
        header = raw + self._at(entry.offset + LOCAL.size, name_length + extra_length)
        if header[LOCAL.size : LOCAL.size + name_length] != entry.name or LOCAL.unpack(raw)[3] != entry.method:
            raise Invalid("It is damaged: its header and the table of contents differ")
        if sealed and not (member.canonical and header == zip_layout.local_header(entry)):
            raise Invalid("It is damaged: its header was changed")
        return entry.offset + len(header)

    def read(self, member: Member, start: int) -> Iterator[bytes]:
        """The unpacked bytes of a member. Raises Invalid where they are damaged, and for what grows absurdly."""
        entry = member.entry
        if start + entry.packed > self._start:
            raise Invalid("It is damaged: its data would reach beyond the end")
        if member.flags & _ENCRYPTED_FLAG:
            raise Invalid("It is encrypted")
        if entry.size > RATIO_FROM and entry.size > RATIO_MAX * entry.packed:
            raise Invalid(f"It would grow {entry.size // max(1, entry.packed)}-fold when unpacked; it was not read")
        if entry.method == STORED:
            chunks = self._range(start, start + entry.packed)
        elif entry.method == DEFLATED:
            chunks = self._inflated(start, start + entry.packed)
        else:
            raise Invalid(f"It is compressed in an unknown way ({entry.method})")
        size = crc = 0
        for chunk in chunks:
            size += len(chunk)
            if size > entry.size:
                break
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if size != entry.size:
            raise Invalid(
                f"It is damaged: it should have {entry.size} bytes and has {'more' if size > entry.size else size}"
            )
        if crc != entry.crc:
            raise Invalid("It is damaged: its checksum (CRC-32) does not match")

    def _inflated(self, start: int, stop: int) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(-15)
        try:
            for chunk in self._range(start, stop):
                waiting = chunk
                while waiting and not unpacker.eof:
                    yield unpacker.decompress(waiting, _CHUNK)
                    waiting = unpacker.unconsumed_tail
                if unpacker.eof and (waiting or unpacker.unused_data):
                    raise Invalid("It is damaged: something stands behind its data")
            while not unpacker.eof and (more := unpacker.decompress(unpacker.unconsumed_tail, _CHUNK)):
                yield more
        except zlib.error as error:
            raise Invalid("It is damaged: it cannot be unpacked", detail=str(error)) from None
        if not unpacker.eof:
            raise Invalid("It is damaged: its data are incomplete")

    def _range(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            chunk = self._at(start, min(_CHUNK, stop - start))
            if not chunk:
                raise Invalid("The file ends too early")
            start += len(chunk)
            yield chunk

    def _at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length <= 0 or offset > self.size:
            return b""
        self._file.seek(offset)
        return self._file.read(length)


def _member(fields: tuple[int, ...], raw: bytes, name: bytes, extra: bytes) -> Member:
    flags, method = fields[3:5]
    crc, packed, size = fields[7:10]
    attributes, offset = fields[15:17]
    packed, size, offset = _widened(extra, packed, size, offset)
    entry = Entry(name, method, crc, packed, size, offset)
    try:
        shown = name.decode("utf-8" if flags & _UTF8_FLAG else "cp437")
    except UnicodeDecodeError:
        shown = name.decode("ascii", "backslashreplace")  # the backslash makes it an unsafe name
    return Member(shown, entry, flags, attributes >> 16, raw == zip_layout.central_header(entry))


def _widened(extra: bytes, packed: int, size: int, offset: int) -> tuple[int, int, int]:
    """Numbers that stand in the Zip64 extra field, in the order in which APPNOTE 4.5.3 lists them."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != 1:
            continue
        numbers = iter(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
        size = next(numbers, size) if size == zip_layout.FULL32 else size
        packed = next(numbers, packed) if packed == zip_layout.FULL32 else packed
        offset = next(numbers, offset) if offset == zip_layout.FULL32 else offset
        break
    return packed, size, offset
