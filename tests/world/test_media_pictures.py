"""Pictures are recognised by their bytes, cleaned of metadata without loss, turned upright and measured."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tests.world.download_samples import animation, exif, picture

from threadbridge.errors import MediaRefused
from threadbridge.media import cleaner
from threadbridge.media.store import MediaStore
from threadbridge.storage.posts import MediaRow

FORMS = ["JPEG", "PNG", "WEBP", "GIF", "AVIF"]
SECRET = b"SECRET"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">SECRET-XMP</x:xmpmeta>'


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaStore]:
    with MediaStore(tmp_path_factory.mktemp("media"), children=1) as store:
        yield store


def stored(media: MediaStore, data: bytes) -> tuple[MediaRow, bytes]:
    row = media.ingest_stream(io.BytesIO(data), kind_hint="image")
    return row, media.path(row.sha256, row.media_type).read_bytes()


def colours(data: bytes) -> list[tuple[int, ...]]:
    """The dominant colours at the left, right, top and bottom of a picture."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    spots = [(2, height // 2), (width - 3, height // 2), (width // 2, 2), (width // 2, height - 3)]
    return [tuple(round(part / 255) for part in image.getpixel(spot)) for spot in spots]  # type: ignore[union-attr]


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_without_metadata_keeps_its_bytes(media: MediaStore, form: str) -> None:
    data = picture(form)
    row, kept = stored(media, data)
    assert kept == data
    assert (row.width, row.height, row.size) == (60, 40, len(data))
    assert row.media_type == f"image/{form.lower()}"
    assert row.blurhash is not None
    assert 20 <= len(row.blurhash) <= 40


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_and_position_are_gone(media: MediaStore, form: str) -> None:
    data = picture(form, exif=exif())
    assert SECRET in data
    _, kept = stored(media, data)
    assert SECRET not in kept
    assert not Image.open(io.BytesIO(kept)).getexif()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_taking_metadata_out_touches_no_pixel(media: MediaStore, form: str) -> None:
    plain, tagged = picture(form), picture(form, exif=exif())
    _, kept = stored(media, tagged)
    assert Image.open(io.BytesIO(kept)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()
    assert len(kept) <= len(plain) + 18  # WebP keeps its VP8X header


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_orientation_is_applied(media: MediaStore, form: str) -> None:
    red, blue = (1, 0, 0), (0, 0, 1)
    row, kept = stored(media, picture(form, exif=exif(orientation=6)))
    assert (row.width, row.height) == (40, 60) == Image.open(io.BytesIO(kept)).size
    assert colours(kept)[2:] == [red, blue]  # turned right: what was left is on top
    row, kept = stored(media, picture(form, exif=exif(orientation=3)))
    assert (row.width, row.height) == (60, 40)
    assert colours(kept)[:2] == [blue, red]
    assert SECRET not in kept


def test_jpeg_comments_xmp_iptc_thumbnails_and_trailers_are_gone_and_the_profile_stays(media: MediaStore) -> None:
    def segment(marker: int, payload: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload

    data = picture("JPEG", icc_profile=b"PROFILE" * 20, comment=b"SECRET-COMMENT")
    extra = (
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        + segment(0xED, b"Photoshop 3.0\x008BIM SECRET-IPTC")
        + segment(0xE2, b"MPF\0SECRET-SECOND-PICTURE")
        + segment(0xE5, b"SECRET-MAKER")
        + segment(0xE0, b"JFXX\0SECRET-THUMBNAIL")
    )
    data = data[:2] + extra + data[2:] + b"SECRET-MOTION-PHOTO"
    assert data.count(SECRET) == 7
    _, kept = stored(media, data)
    assert SECRET not in kept
    assert kept.endswith(b"\xff\xd9")
    assert Image.open(io.BytesIO(kept)).info["icc_profile"] == b"PROFILE" * 20


def test_png_text_time_and_private_chunks_are_gone(media: MediaStore) -> None:
    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    data = picture("PNG")
    extra = chunk(b"tEXt", b"Comment\0SECRET") + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    extra += chunk(b"tIME", bytes(7)) + chunk(b"prVt", SECRET)
    _, kept = stored(media, data[:33] + extra + data[33:] + SECRET)
    assert kept == data


def test_gif_comments_and_application_data_are_gone_and_it_still_moves(media: MediaStore) -> None:
    data = animation("GIF", comment=b"SECRET-COMMENT")
    assert SECRET in data
    xmp = b"\x21\xff\x0bXMP DataXMP" + bytes([len(XMP)]) + XMP + b"\0"
    data = data[:-1] + xmp + b";" + SECRET
    row, kept = stored(media, data)
    assert SECRET not in kept
    shown = Image.open(io.BytesIO(kept))
    assert getattr(shown, "n_frames", 0) == 3
    assert shown.info["loop"] == 0
    assert row.media_type == "image/gif"


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_animations_stay_animated_without_their_metadata(media: MediaStore, form: str) -> None:
    data = animation(form, exif=exif(orientation=6), **({"xmp": XMP} if form == "WEBP" else {}))
    assert SECRET in data
    _, kept = stored(media, data)
    assert SECRET not in kept
    assert getattr(Image.open(io.BytesIO(kept)), "n_frames", 0) == 3


def test_a_webp_no_longer_claims_what_was_taken_out(media: MediaStore) -> None:
    _, kept = stored(media, picture("WEBP", exif=exif(), xmp=XMP))
    assert kept[12:16] == b"VP8X"
    assert kept[20] & (0x08 | 0x04) == 0  # RFC 9649, 2.7.1: EXIF and XMP flags


def test_the_same_input_gives_the_same_bytes(media: MediaStore, tmp_path: Path) -> None:
    inputs = [picture(form, exif=exif(orientation=8)) for form in ("JPEG", "PNG", "WEBP", "AVIF")]
    inputs += [animation("GIF", comment=b"x"), picture("JPEG", exif=exif())]
    with MediaStore(tmp_path, children=1) as other:
        for data in inputs:
            assert stored(media, data) == stored(other, data)


def test_a_picture_of_a_hundred_megapixels_is_refused_with_its_size(media: MediaStore) -> None:
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    with pytest.raises(MediaRefused, match=r"10000 × 10000 is 100 megapixels"):
        stored(media, out.getvalue())


def test_a_bomb_that_grows_while_it_is_decoded_is_refused(media: MediaStore) -> None:
    data = bytearray(picture("PNG"))
    data[16:24] = struct.pack(">II", 4000, 4000)  # says 16 megapixels, holds 60 × 40
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(MediaRefused, match="damaged"):
        stored(media, bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "an SVG drawing"),
        (b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://x)'", "text"),
        (b"%!PS-Adobe-3.0", "a PostScript document"),
        (b"II*\x00" + bytes(64), "a TIFF picture"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "a HEIC picture"),
        (b"<!doctype html><title>x</title>", "a web page"),
        (b"BM" + bytes(64), "a BMP picture"),
        (b"PK\x03\x04" + bytes(64), "a ZIP file"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(media: MediaStore, data: bytes, words: str) -> None:
    with pytest.raises(MediaRefused, match=words):
        stored(media, data)


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_off_picture_is_refused(media: MediaStore, form: str) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    out = io.BytesIO()
    noise.save(out, form)
    data = out.getvalue()
    with pytest.raises(MediaRefused):
        stored(media, data[: len(data) // 3])


def test_only_five_decoders_are_ever_loaded() -> None:
    formats = set(cleaner._FORMATS.values())
    assert formats == {"JPEG", "PNG", "GIF", "WEBP", "AVIF"}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_every_pixel_mode_is_measured(media: MediaStore, mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (30, 20)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    row, _ = stored(media, out.getvalue())
    assert (row.width, row.height) == (30, 20)
    assert row.blurhash
