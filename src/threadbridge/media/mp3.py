"""MPEG audio layer III: the tags around the sound go, the frames stay.

Rule: ID3v2 before, ID3v1 and APEv2 behind (titles, comments, cover pictures with their own EXIF) are cut off.
"""

from __future__ import annotations

from typing import BinaryIO

from threadbridge.errors import MediaRefused
from threadbridge.media import sniff

_CHUNK = 1 << 18


def strip(file: BinaryIO) -> None:
    """Cut the tags off, in a file opened for reading and writing. Raises MediaRefused when no sound is left."""
    end = file.seek(0, 2)
    start = 0
    while (length := _id3v2(file, start)) and start + length < end:
        start += length
    if end - start > 128 and _at(file, end - 128, 3) == b"TAG":
        end -= 128
    if end - start > 32 and _at(file, end - 32, 8) == b"APETAGEX":
        footer = _at(file, end - 32, 32)
        has_header = int.from_bytes(footer[20:24], "little") >> 31
        end = max(start, end - int.from_bytes(footer[12:16], "little") - 32 * has_header)
    if end <= start or not sniff.is_layer_three(_at(file, start, 4)):
        raise MediaRefused("The sound file cannot be played", detail="there is no MPEG audio behind its tags")
    _move(file, start, end)


def _id3v2(file: BinaryIO, at: int) -> int:
    """Length of the ID3v2 tag at an offset, 0 if there is none (id3.org, ID3v2.4 3.1: a sync-safe size)."""
    header = _at(file, at, 10)
    if len(header) < 10 or header[:3] != b"ID3":
        return 0
    size = 0
    for byte in header[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 20 if header[5] & 0x10 else size + 10


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _move(file: BinaryIO, start: int, end: int) -> None:
    to = 0
    while start > 0 and start + to < end:
        chunk = _at(file, start + to, min(_CHUNK, end - start - to))
        file.seek(to)
        file.write(chunk)
        to += len(chunk)
    file.truncate(end - start)
