"""Videos and sound: positions go, offsets stay, sizes and durations are read from the headers."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import pytest
from tests.world.download_samples import box, movie, track

from threadbridge.errors import MediaRefused
from threadbridge.media.store import MediaStore
from threadbridge.storage.posts import MediaRow

PLACE = b"+52.5200+013.4050/"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaStore]:
    with MediaStore(tmp_path_factory.mktemp("media"), children=1) as store:
        yield store


def stored(media: MediaStore, data: bytes) -> tuple[MediaRow, bytes]:
    row = media.ingest_stream(io.BytesIO(data), kind_hint="video")
    return row, media.path(row.sha256, row.media_type).read_bytes()


def test_a_video_is_measured(media: MediaStore) -> None:
    row, kept = stored(media, movie())
    assert (row.media_type, row.width, row.height, row.duration) == ("video/mp4", 640, 360, 2.5)
    assert kept == movie()
    row, _ = stored(media, movie(brand=b"qt  ", turned=True))
    assert (row.media_type, row.width, row.height) == ("video/quicktime", 360, 640)


def test_positions_are_gone_and_nothing_moves(media: MediaStore) -> None:
    udta = box(b"udta", box(b"\xa9xyz", b"\x00\x12\x15\xc7" + PLACE))
    meta = box(b"meta", b"com.apple.quicktime.location.ISO6709" + PLACE)
    uuid = box(b"uuid", bytes(16) + b"<x:xmpmeta>" + PLACE)
    data = movie(
        track(b"vide", udta, meta, uuid, size=(640, 360)),
        moov_extra=udta + meta + uuid + box(b"gps ", PLACE),
        top_extra=udta + meta + uuid + box(b"free", PLACE) + box(b"sefd", PLACE) + PLACE[:5],
    )
    assert data.count(PLACE) == 12
    row, kept = stored(media, data)
    assert PLACE not in kept
    assert not kept.endswith(PLACE[:5])
    assert len(kept) == len(data)
    assert kept.index(b"FRAMES") == data.index(b"FRAMES")
    assert (row.width, row.height, row.duration) == (640, 360, 2.5)
    assert stored(media, data) == (row, kept)


def test_a_track_of_positions_is_gone_with_its_samples(media: MediaStore) -> None:
    # ftyp is 24 bytes, the header of mdat 8: the samples lie at 32+6 and 32+6+18+7.
    mdat = b"FRAMES" + PLACE + b"FRAMES2" + PLACE + b"END"
    stbl = (
        box(b"stsz", bytes(4), struct.pack(">II", 0, 2), struct.pack(">II", 18, 18))
        + box(b"stsc", bytes(4), struct.pack(">I", 1), struct.pack(">III", 1, 1, 1))
        + box(b"stco", bytes(4), struct.pack(">I", 2), struct.pack(">II", 38, 63))
    )
    data = movie(track(b"vide", size=(640, 360)), track(b"meta", stbl=stbl), mdat=mdat)
    assert data[38:56] == data[63:81] == PLACE
    row, kept = stored(media, data)
    assert PLACE not in kept
    assert b"FRAMES" in kept
    assert b"FRAMES2" in kept
    assert b"END" in kept
    assert len(kept) == len(data)
    assert row.width == 640


def test_sample_tables_that_lie_cannot_keep_us_busy(media: MediaStore) -> None:
    huge = struct.pack(">I", 1000) + struct.pack(">I", 8) * 1000
    stbl = (
        box(b"stsz", bytes(4), struct.pack(">II", 10_000_000, 1000))
        + box(b"stsc", bytes(4), struct.pack(">I", 1), struct.pack(">III", 1, 1, 1))
        + box(b"stco", bytes(4), huge)
    )
    with pytest.raises(MediaRefused, match="damaged"):
        stored(media, movie(track(b"vide", size=(640, 360)), track(b"meta", stbl=stbl)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (movie()[:-50], "damaged or cut off"),
        (movie()[:300], "damaged or cut off"),
        (box(b"ftyp", b"isom", bytes(4)) + box(b"mdat", b"x" * 50), "cannot be played"),
        (movie(track(b"meta")), "cannot be played"),
        (box(b"ftyp", b"isom", bytes(4)) + box(b"moov", struct.pack(">I", 1 << 31) + b"trak"), "damaged"),
    ],
)
def test_damaged_videos_are_refused(media: MediaStore, data: bytes, words: str) -> None:
    with pytest.raises(MediaRefused, match=words):
        stored(media, data)


def test_sound_alone_is_sound(media: MediaStore) -> None:
    row, _ = stored(media, movie(track(b"soun")))
    assert (row.media_type, row.duration) == ("audio/mp4", 2.5)


def test_mp3_tags_are_cut_off(media: MediaStore) -> None:
    frames = (b"\xff\xfb\x90\x00" + bytes(413)) * 5
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 40, 1, 0) + bytes(8)
    tagged = (
        b"ID3\x04\x00\x00\x00\x00\x01\x05"
        + b"SECRET!" * 19
        + frames
        + b"APEVALUE"
        + ape
        + b"TAG"
        + b"SECRET".ljust(125)
    )
    row, kept = stored(media, tagged)
    assert row.media_type == "audio/mpeg"
    assert kept == frames
    with pytest.raises(MediaRefused, match="cannot be played"):
        stored(media, b"ID3\x04\x00\x00\x00\x00\x00\x05hello and nothing else")
