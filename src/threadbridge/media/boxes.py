"""The ISO base media file format (ISO/IEC 14496-12; QuickTime is its parent): measuring and cleaning in place.

Rule: offsets never move. A box that tells about people (`udta`, `uuid`, `meta`, maker boxes, metadata tracks with
their samples) becomes a `free` box of zeros of the same length, so no chunk offset has to be rewritten and the
same input always gives the same bytes. Memory is bounded: only headers and small tables are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from threadbridge.errors import MediaRefused

# What stays, by where it stands. Samsung's `sefd`, dash cameras' `gps ` and the like are on no list and go.
_TOP = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"pdin"})
_MOOV = frozenset({b"mvhd", b"trak", b"mvex", b"iods"})
_TRAK = frozenset({b"tkhd", b"mdia", b"edts", b"tref", b"trgr", b"tapt", b"clip", b"matt"})
_TELLTALE = frozenset({b"udta", b"uuid", b"meta", b"free", b"skip", b"wide"})
_WALKED = frozenset({b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex"})
_TRACKS_KEPT = frozenset({b"vide", b"soun", b"text", b"sbtl", b"subt", b"clcp", b"auxv"})

_MAX_BOXES = 200_000
_MAX_TABLE = 4 * 1024 * 1024
_MAX_CHUNKS = 200_000
_ZEROS = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` to `end` to be zeroed; `kind_at` is where the box type stands, if it becomes `free`."""

    start: int
    end: int
    kind_at: int | None = None


@dataclass(slots=True)
class Movie:
    """What the headers say. Width and height are as displayed; `duration` is in seconds."""

    width: int | None = None
    height: int | None = None
    duration: float | None = None
    has_video: bool = False
    has_audio: bool = False
    fragmented: bool = False
    erasable: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    offset: int
    body: int
    end: int

    @property
    def erased(self) -> Span:
        return Span(self.body, self.end, self.offset + 4)


def examine(file: BinaryIO, size: int, *, picture: bool = False) -> Movie:
    """Measure a movie and find what has to be erased. Raises MediaRefused for damaged or unplayable files.

    `picture` is for AVIF: its top-level `meta` holds the picture itself and stays, and there need be no `moov`.
    """
    reader = _Reader(file)
    movie = Movie()
    data_tracks = 0
    allowed = _TOP | {b"meta"} if picture else _TOP
    end = 0
    for box in reader.boxes(0, size):
        end = box.end
        if box.kind not in allowed:
            movie.erasable.append(box.erased)
        elif box.kind == b"moov":
            data_tracks += reader.movie(box, movie)
        elif box.kind == b"moof":
            movie.fragmented = True
            reader.telltales(box, movie)
    if end < size:
        movie.erasable.append(Span(end, size))
    # A hostile table may name the same bytes a million times, or bytes that are not there.
    if any(span.end > size for span in movie.erasable) or sum(s.end - s.start for s in movie.erasable) > 2 * size:
        raise MediaRefused("The video is damaged", detail="its sample tables point outside of the file")
    if movie.fragmented and data_tracks:
        raise MediaRefused(
            "The video has a data track that cannot be removed",
            detail="a fragmented file whose extra track may tell where it was filmed",
        )
    if not picture and not (movie.has_video or movie.has_audio):
        raise MediaRefused("The video cannot be played", detail="it has neither a picture track nor a sound track")
    return movie


def erase(file: BinaryIO, spans: list[Span]) -> None:
    """Do it, in a file opened for reading and writing."""
    for span in spans:
        if span.kind_at is not None:
            file.seek(span.kind_at)
            file.write(b"free")
        file.seek(span.start)
        left = span.end - span.start
        while left > 0:
            left -= file.write(_ZEROS[: min(left, len(_ZEROS))])


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._count = 0

    def boxes(self, start: int, end: int) -> Iterator[_Box]:
        """The boxes between two offsets. A size of 0 reaches to the end of the file, or ends a QuickTime list."""
        at = start
        while end - at >= 8:
            self._count += 1
            if self._count > _MAX_BOXES:
                raise MediaRefused("The video is damaged", detail="it has too many boxes")
            self._file.seek(at)
            header = self._file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            body = at + 8
            if length == 1 and len(header) == 16:
                length, body = int.from_bytes(header[8:16], "big"), at + 16
            elif length == 0:
                if start != 0:
                    return
                length = end - at
            if at + length > end or at + length < body:
                raise MediaRefused(
                    "The video is damaged or cut off", detail=f"the box {kind!r} at byte {at} does not fit"
                )
            yield _Box(kind, at, body, at + length)
            at += length

    def read(self, box: _Box, most: int = _MAX_TABLE) -> bytes:
        if box.end - box.body > most:
            raise MediaRefused("The video is damaged", detail=f"the box {box.kind!r} is far too large")
        self._file.seek(box.body)
        return self._file.read(box.end - box.body)

    def movie(self, moov: _Box, movie: Movie) -> int:
        """Walk `moov`; returns how many data tracks were marked to be erased."""
        erased_tracks = 0
        for box in self.boxes(moov.body, moov.end):
            if box.kind not in _MOOV:
                movie.erasable.append(box.erased)
            elif box.kind == b"mvhd":
                movie.duration = _duration(self.read(box, 1024))
            elif box.kind == b"mvex":
                movie.fragmented = True
            elif box.kind == b"trak":
                erased_tracks += self.track(box, movie)
        return erased_tracks

    def track(self, trak: _Box, movie: Movie) -> int:
        found = {box.kind: box for box in self.boxes(trak.body, trak.end)}
        media = found.get(b"mdia")
        handler = b""
        for box in self.boxes(media.body, media.end) if media else ():
            if box.kind == b"hdlr":
                handler = self.read(box, 4096)[8:12]
        if handler not in _TRACKS_KEPT:
            # GoPro's gpmd and Apple's mebx tracks hold positions; their samples lie in mdat.
            movie.erasable.extend(self.samples(media) if media else ())
            movie.erasable.append(trak.erased)
            return 1
        for box in self.boxes(trak.body, trak.end):
            if box.kind not in _TRAK:
                movie.erasable.append(box.erased)
        if media:
            self.telltales(media, movie)
        if handler == b"vide":
            if not movie.has_video and b"tkhd" in found:
                movie.width, movie.height = _shown_size(self.read(found[b"tkhd"], 1024))
            movie.has_video = True
        elif handler == b"soun":
            movie.has_audio = True
        return 0

    def telltales(self, container: _Box, movie: Movie) -> None:
        for box in self.boxes(container.body, container.end):
            if box.kind in _TELLTALE:
                movie.erasable.append(box.erased)
            elif box.kind in _WALKED:
                self.telltales(box, movie)

    def samples(self, media: _Box) -> Iterator[Span]:
        """Where a track's samples lie (8.7: sample sizes, sample to chunk, chunk offsets)."""
        tables: dict[bytes, bytes] = {}
        for minf in self.boxes(media.body, media.end):
            for stbl in self.boxes(minf.body, minf.end) if minf.kind == b"minf" else ():
                for box in self.boxes(stbl.body, stbl.end) if stbl.kind == b"stbl" else ():
                    if box.kind in (b"stsz", b"stsc", b"stco", b"co64"):
                        tables[box.kind] = self.read(box)
        try:
            yield from _chunks(tables)
        except (struct.error, KeyError, IndexError):
            raise MediaRefused(
                "The video has a data track that cannot be removed", detail="its sample tables are damaged"
            ) from None


def _chunks(tables: dict[bytes, bytes]) -> Iterator[Span]:
    if not tables.keys() & {b"stco", b"co64"}:
        return
    offsets = _numbers(tables[b"co64"], 4, "Q") if b"co64" in tables else _numbers(tables[b"stco"], 4, "I")
    if not offsets:
        return
    if len(offsets) > _MAX_CHUNKS:
        raise MediaRefused("The video is damaged", detail="a data track has too many chunks")
    runs = _numbers(tables[b"stsc"], 4, "III")
    each, total = struct.unpack_from(">II", tables[b"stsz"], 4)
    sizes = () if each else _numbers(tables[b"stsz"], 8, "I")
    sample = 0
    run = -1
    for number, offset in enumerate(offsets, start=1):
        while (run + 1) * 3 < len(runs) and runs[(run + 1) * 3] <= number:
            run += 1
        held = runs[run * 3 + 1]
        length = min(held, max(0, total - sample)) * each if each else sum(sizes[sample : sample + held])
        sample += held
        if length:
            yield Span(offset, offset + length)


def _numbers(table: bytes, count_at: int, fields: str) -> tuple[int, ...]:
    (count,) = struct.unpack_from(">I", table, count_at)
    width = struct.calcsize(">" + fields)
    if count_at + 4 + count * width > len(table):
        raise struct.error("table too short")
    letter = fields[0]
    return struct.unpack_from(f">{count * len(fields)}{letter}", table, count_at + 4)


def _duration(mvhd: bytes) -> float | None:
    if len(mvhd) < 32:
        return None
    scale, length = struct.unpack_from(">IQ", mvhd, 20) if mvhd[0] == 1 else struct.unpack_from(">II", mvhd, 12)
    unknown = length in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    return None if unknown or not scale else round(length / scale, 3)


def _shown_size(tkhd: bytes) -> tuple[int | None, int | None]:
    matrix_at = 52 if tkhd[:1] == b"\x01" else 40
    if len(tkhd) < matrix_at + 44:
        return None, None
    a, b, _, c, d = struct.unpack_from(">5i", tkhd, matrix_at)
    width, height = (value >> 16 for value in struct.unpack_from(">II", tkhd, matrix_at + 36))
    if a == 0 and d == 0 and b and c:
        width, height = height, width
    return (width, height) if width and height else (None, None)
