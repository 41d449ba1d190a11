"""Opening what somebody uploaded: ZIP files and folders, as one flat list of safe members.

Rule: an archive is a list of claims. Names never become paths of ours; the table of contents is checked before
anything is inflated (names, links, encryption, overlaps, ratios, declared sizes), and bytes are counted while they
are read. A member that breaks a rule is left out and named in `unsafe`; an archive that is a trap as a whole is
refused. Nothing is ever extracted.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from threadbridge.errors import BadDownload

MAX_MEMBERS = 400_000
MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
"""Of a ZIP's table of contents: about 300 bytes of memory per hundred of these."""
MAX_MEMBER_BYTES = 2 * 1024 * 1024 * 1024
RATIO_FROM_BYTES = 10 * 1024 * 1024
MAX_RATIO = 200
"""Deflate reaches 1032:1. A real download's JSON, full of repeated keys, stays below 50:1, pictures near 1:1."""

_DRIVE = re.compile(r"[A-Za-z]:")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = 30

# What zipfile raises for damaged files, beside OSError.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class Archive(Protocol):
    """One ZIP file or folder. `label` is what people call it; names use `/` and are NFC."""

    label: str
    unsafe: list[tuple[str, str]]

    def members(self) -> Iterator[tuple[str, int]]:
        """(name, size in bytes as declared) of every safe member."""
        ...

    def open(self, name: str) -> BinaryIO | None:
        """The bytes of a member, or None when there is none by that name; opening and reading raise BadDownload
        when it is damaged. Threads may read members at the same time."""
        ...

    def close(self) -> None: ...


def open_archive(path: Path) -> Archive:
    """A ZIP file or folder, checked. Raises BadDownload with what is wrong with it."""
    try:
        if path.is_dir():
            return FolderArchive(path)
        if not path.exists():
            raise BadDownload(f"There is no file or folder {path}")
        return ZipArchive(path)
    except OSError as error:
        raise BadDownload(f"{path} cannot be read", detail=str(error)) from None


def unsafe_name(name: str) -> str | None:
    """Why a member's name cannot be trusted, or None."""
    if not name or "\x00" in name:
        return "its name is empty or holds a NUL"
    if "\\" in name:
        return "its name holds a backslash"
    if name.startswith("/") or _DRIVE.match(name):
        return "its name is absolute"
    if ".." in name.split("/"):
        return "its name climbs out of the archive"
    return None


class ZipArchive:
    """A ZIP file. The table of contents is read once; members are inflated as they are read."""

    def __init__(self, path: Path) -> None:
        self.label = path.name
        self.unsafe: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        size = path.stat().st_size
        _check_directory(path, size)
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_DAMAGED, ValueError, struct.error, UnicodeError) as error:
            raise _damaged(path, str(error)) from None
        try:
            self._members = self._checked(size)
        except BaseException:
            self._zip.close()
            raise

    def members(self) -> Iterator[tuple[str, int]]:
        return ((name, info.file_size) for name, info in self._members.items())

    def open(self, name: str) -> BinaryIO | None:
        info = self._members.get(name)
        if info is None:
            return None
        with self._lock:
            try:
                file = self._zip.open(info)
            except (*_DAMAGED, OSError, ValueError) as error:
                raise _damaged_member(name, self.label, error) from None
        return io.BufferedReader(_Member(file, name, self.label, self._lock), 1 << 16)

    def close(self) -> None:
        self._zip.close()

    def _checked(self, archive_size: int) -> dict[str, zipfile.ZipInfo]:
        kept: dict[str, zipfile.ZipInfo] = {}
        self._refuse_overlaps(archive_size)
        for info in self._zip.infolist():
            if info.is_dir():
                continue
            name = unicodedata.normalize("NFC", info.filename)
            reason = unsafe_name(info.orig_filename) or _unsafe_member(info)
            if reason is None and name in kept:
                reason = "there is another member with the same name"
            if reason is not None:
                self.unsafe.append((info.orig_filename, reason))
            else:
                kept[name] = info
        return kept

    def _refuse_overlaps(self, archive_size: int) -> None:
        """Members that share bytes are how a small file pretends to be a huge one (D. Fifield, "A better zip
        bomb", 2019); no honest program writes them."""
        free_from = 0
        for info in sorted(self._zip.infolist(), key=lambda item: item.header_offset):
            if info.header_offset < free_from:
                raise BadDownload(
                    f"{self.label} is refused: its members overlap",
                    detail=f"{info.orig_filename!r} shares bytes with another member, as in a zip bomb",
                )
            free_from = info.header_offset + _LOCAL_HEADER + info.compress_size
            if free_from > archive_size:
                raise BadDownload(
                    f"{self.label} is damaged or cut off",
                    detail=f"{info.orig_filename!r} would reach beyond the end of the file",
                    hint="Download it again.",
                )


class FolderArchive:
    """A folder with an unpacked download. Links and special files are left out. `prefix` goes before every name."""

    def __init__(self, path: Path, *, prefix: str = "") -> None:
        self.label = path.name or str(path)
        self.unsafe: list[tuple[str, str]] = []
        self._root = path
        self._members: dict[str, tuple[str, int]] = {}
        for relative, entry in self._walk():
            self._members[unicodedata.normalize("NFC", prefix + relative)] = (relative, entry.stat().st_size)
            if len(self._members) > MAX_MEMBERS:
                raise BadDownload(
                    f"{path} holds more than {MAX_MEMBERS} files", hint="Give the download's own folder."
                )

    def members(self) -> Iterator[tuple[str, int]]:
        return ((name, size) for name, (_, size) in self._members.items())

    def open(self, name: str) -> BinaryIO | None:
        held = self._members.get(name)
        if held is None:
            return None
        # The walk saw a regular file; O_NOFOLLOW holds even if somebody swaps it for a link meanwhile.
        try:
            descriptor = os.open(self._root / held[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise _damaged_member(name, self.label, error) from None
        file = os.fdopen(descriptor, "rb")
        return io.BufferedReader(_Member(file, name, self.label, threading.Lock()), 1 << 16)

    def close(self) -> None:
        pass

    def _walk(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            with os.scandir(self._root / folder) as entries:
                for entry in sorted(entries, key=lambda item: item.name):
                    relative = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_symlink():
                        self.unsafe.append((relative, "it is a link"))
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(relative)
                    elif not entry.is_file(follow_symlinks=False):
                        self.unsafe.append((relative, "it is not a regular file"))
                    elif "\\" in entry.name:
                        self.unsafe.append((relative, "its name holds a backslash"))
                    else:
                        yield relative, entry


class _Member(io.RawIOBase):
    """A member being read; what cannot be read is a BadDownload. Opening and closing share a counter inside
    ZipFile, hence the lock."""

    def __init__(self, file: IO[bytes], name: str, label: str, lock: threading.Lock) -> None:
        self._file = file
        self._name = name
        self._label = label
        self._lock = lock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        try:
            part = self._file.read(len(buffer))
        except (*_DAMAGED, OSError) as error:
            raise _damaged_member(self._name, self._label, error) from None
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self.closed:
            with self._lock:
                self._file.close()
        super().close()


def _unsafe_member(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "it is a link or a special file"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if info.compress_type not in _METHODS:
        return "it is compressed in a way that is not supported"
    if info.file_size > MAX_MEMBER_BYTES:
        return f"it declares {info.file_size / 1e9:.1f} GB"
    if info.file_size > RATIO_FROM_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        return f"it would grow {info.file_size // max(1, info.compress_size)}-fold when unpacked, as a zip bomb does"
    return None


def _check_directory(path: Path, size: int) -> None:
    """Look at the end record (APPNOTE 4.3.16, 4.3.14) before zipfile builds an object for every entry."""
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(max(0, size - 65_557 - 76))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        if start in (b"PK\x03\x04", b"PK\x05\x06"):
            raise _damaged(path, "its table of contents, which stands at the end, is missing")
        raise BadDownload(
            f"{path.name} is no ZIP file", hint="Give the ZIP file as it was downloaded, or the folder it unpacks to."
        )
    count, length = struct.unpack_from("<HI", tail, at + 10)
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if wide >= 0 and at - wide >= 56 and (count == 0xFFFF or length == 0xFFFFFFFF):
        count, length = struct.unpack_from("<QQ", tail, wide + 32)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
        raise BadDownload(
            f"{path.name} is refused: it lists {count} members", detail=f"at most {MAX_MEMBERS} are read"
        )


def _damaged_member(name: str, label: str, error: Exception) -> BadDownload:
    return BadDownload(f"{name} in {label} is damaged", detail=str(error), hint="Download it again, completely.")


def _damaged(path: Path, detail: str) -> BadDownload:
    return BadDownload(f"{path.name} is damaged or cut off", detail=detail, hint="Download it again, completely.")
