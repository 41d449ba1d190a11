"""What a file is, told from its first bytes.

Rule: names and declared types are never believed. The list is short and closed: five kinds of picture, MP4 and
QuickTime, MP3 and MP4 sound. Everything else is refused (a renamed MVG or SVG was enough for CVE-2023-36460).
"""

from __future__ import annotations

from threadbridge.domain.source import MediaKind

HEAD = 4096
"""Bytes to read for `media_type`."""

PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif"})
MOVIES = frozenset({"video/mp4", "video/quicktime", "audio/mp4"})
"""Types in the ISO base media file format (ISO/IEC 14496-12), whose boxes are walked."""

_AVIF = frozenset({b"avif", b"avis"})
_HEIF = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
_SOUND = frozenset({b"M4A ", b"M4B ", b"F4A "})
_MP4 = frozenset(
    {b"isom", b"mp41", b"mp42", b"mp71", b"avc1", b"M4V ", b"MSNV", b"dash", b"iso2", b"iso3", b"iso4", b"iso5"}
    | {b"iso6", b"iso7", b"iso8", b"iso9", b"cmfc", b"F4V ", b"3gp4", b"3gp5", b"3gp6", b"3gp7"}
)

# Only for the words of a refusal.
_KNOWN_OTHERS = (
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP file"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC file"),
    (b"%!PS", "a PostScript document"),
)


def media_type(head: bytes) -> str | None:
    """The media type that these first bytes (up to HEAD of them) belong to; None for everything not served."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _iso_type(head)
    if head.startswith(b"ID3") or is_layer_three(head):
        return "audio/mpeg"
    return None


def kind_of(media_type_: str) -> MediaKind:
    """'image', 'video' or 'audio' for a media type that we serve."""
    prefix = media_type_.split("/", 1)[0]
    return "image" if prefix == "image" else "audio" if prefix == "audio" else "video"


def described(head: bytes) -> str:
    """What a refused file seems to be, for people: 'a TIFF picture', 'text', 'an empty file', …"""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "a HEIC picture"
    for magic, words in _KNOWN_OTHERS:
        if head.startswith(magic):
            return words
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if b"<svg" in start:
        return "an SVG drawing"
    if not any(byte < 9 or 13 < byte < 32 for byte in head[:256]):
        return "text"
    return "an unknown kind of file"


def _iso_type(head: bytes) -> str | None:
    size = int.from_bytes(head[:4], "big")
    brands = head[8 : min(size, len(head))]
    major = brands[:4]
    compatible = {brands[at : at + 4] for at in range(8, len(brands) - 3, 4)}
    if major in _AVIF or (major in _HEIF and compatible & _AVIF):
        return "image/avif"
    if major in _HEIF:
        return None
    if major == b"qt  ":
        return "video/quicktime"
    if major in _SOUND:
        return "audio/mp4"
    if major in _MP4 or compatible & _MP4:
        return "video/mp4"
    return None


def is_layer_three(head: bytes) -> bool:
    """A valid MPEG audio layer III frame header (ISO/IEC 11172-3, 2.4.1.3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and bitrate not in (0, 15) and rate != 3
