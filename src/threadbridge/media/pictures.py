"""Taking out of a picture file what tells about people, without touching its pixels.

JPEG segments, PNG chunks, GIF blocks and WebP chunks are copied one by one from short lists of what a picture needs:
pixels, animation, colour profile. EXIF, GPS, XMP, IPTC, comments, thumbnails, maker data, second pictures and
anything after the end are left behind. Nothing is re-encoded, so nothing is lost, and the same input always gives
the same bytes.

Rule: pure functions over bytes. Whether the pixels can be decoded is for `cleaner` to find out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass


class Broken(ValueError):
    """The file does not follow its format; the text says where."""


@dataclass(frozen=True, slots=True)
class Stripped:
    """The picture without its metadata; `exif` is the TIFF block that was taken out (for the orientation)."""

    data: bytes
    exif: bytes | None = None
    animated: bool = False


def strip_jpeg(data: bytes) -> Stripped:
    """ITU-T T.81 annex B; APP0 JFIF (without thumbnail), APP2 ICC and APP14 Adobe stay, other APPn and COM go."""
    out = bytearray(b"\xff\xd8")
    exif: bytes | None = None
    at = 2
    while True:
        if data[at : at + 1] != b"\xff":
            raise Broken(f"no JPEG marker at byte {at}")
        while data[at : at + 1] == b"\xff":
            at += 1
        marker = data[at : at + 1]
        at += 1
        if marker == b"\xd9":
            out += b"\xff\xd9"
            return Stripped(bytes(out), exif)
        if marker == b"\x01" or b"\xd0" <= marker <= b"\xd7":
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        payload = data[at + 2 : at + length]
        if length < 2 or len(payload) != length - 2:
            raise Broken(f"the JPEG is cut off at byte {at}")
        at += length
        kept = _jpeg_segment(marker, payload)
        if kept is not None:
            out += b"\xff" + marker + struct.pack(">H", len(kept) + 2) + kept
        elif marker == b"\xe1" and payload.startswith(b"Exif\x00\x00") and exif is None:
            exif = payload[6:]
        if marker == b"\xda":
            end = _SCAN_END.search(data, at)
            if end is None:
                raise Broken("the JPEG is cut off inside its picture")
            out += data[at : end.start()]
            at = end.start()


# Inside a scan, 0xFF is followed by a stuffed zero, a restart marker or fill bytes; anything else ends it.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _jpeg_segment(marker: bytes, payload: bytes) -> bytes | None:
    if marker == b"\xe0":
        # Thumbnail width and height are set to 0, and its pixels (which may show what was cropped away) go.
        return payload[:12] + b"\x00\x00" if payload.startswith(b"JFIF\x00") and len(payload) >= 14 else None
    if marker == b"\xe2":
        return payload if payload.startswith(b"ICC_PROFILE\x00") else None
    if marker == b"\xee":
        return payload if payload.startswith(b"Adobe") else None
    if b"\xe0" <= marker <= b"\xef" or marker == b"\xfe":
        return None
    return payload


_PNG_KEPT = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI"}
    | {b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"}
)


def strip_png(data: bytes) -> Stripped:
    """PNG third edition (W3C); text, time, EXIF and private chunks go."""
    out = bytearray(data[:8])
    exif: bytes | None = None
    animated = False
    at = 8
    while True:
        if at + 12 > len(data):
            raise Broken("the PNG is cut off")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise Broken(f"the PNG is cut off in its chunk {kind!r}")
        if kind in _PNG_KEPT:
            out += data[at:end]
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        animated = animated or kind == b"acTL"
        if kind == b"IEND":
            return Stripped(bytes(out), exif, animated)
        at = end


_GIF_KEPT = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")


def strip_gif(data: bytes) -> Stripped:
    """GIF89a; comments, plain text and application data other than looping and colour profile go."""
    if len(data) < 13:
        raise Broken("the GIF is cut off")
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    out = bytearray(data[:at])
    images = 0
    while at < len(data):
        start, block = at, data[at]
        if block == 0x3B:
            break
        if block == 0x21:
            at = _after_sub_blocks(data, at + 2)
            label, name = data[start + 1], data[start + 3 : start + 14]
            if label == 0xF9 or (label == 0xFF and name in _GIF_KEPT):
                out += data[start:at]
        elif block == 0x2C:
            if at + 10 > len(data):
                raise Broken("the GIF is cut off")
            flags = data[at + 9]
            at = _after_sub_blocks(data, at + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
            out += data[start:at]
            images += 1
        else:
            raise Broken(f"no GIF block at byte {at}")
    return Stripped(bytes(out) + b"\x3b", None, images > 1)


def _after_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data):
        size = data[at]
        at += 1 + size
        if size == 0:
            return at
    raise Broken("the GIF is cut off")


_WEBP_KEPT = frozenset({b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_WEBP_FRAME_KEPT = frozenset({b"ALPH", b"VP8 ", b"VP8L"})
_WEBP_EXIF_AND_XMP = 0x08 | 0x04


def strip_webp(data: bytes) -> Stripped:
    """RFC 9649; EXIF, XMP and unknown chunks go, also those inside frames."""
    exif: bytes | None = None
    animated = False
    body = bytearray()
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Broken("the WebP is cut off")
    for kind, payload in _riff(data, 12, end):
        if kind == b"EXIF":
            exif = payload.removeprefix(b"Exif\x00\x00")
        if kind not in _WEBP_KEPT:
            continue
        kept = payload
        if kind == b"VP8X" and payload:
            kept = bytes([payload[0] & ~_WEBP_EXIF_AND_XMP]) + payload[1:]
        elif kind == b"ANMF":
            animated = True
            kept = payload[:16] + b"".join(
                _riff_chunk(inner, part)
                for inner, part in _riff(payload, 16, len(payload))
                if inner in _WEBP_FRAME_KEPT
            )
        body += _riff_chunk(kind, kept)
    return Stripped(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + bytes(body), exif, animated)


def _riff(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise Broken(f"the WebP is cut off in its chunk {kind!r}")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)


def _riff_chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\x00" * (len(payload) & 1)


STRIPPERS: dict[str, Callable[[bytes], Stripped]] = {
    "image/jpeg": strip_jpeg,
    "image/png": strip_png,
    "image/gif": strip_gif,
    "image/webp": strip_webp,
}
