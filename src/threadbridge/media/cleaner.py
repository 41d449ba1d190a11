"""The child process that touches pixels: `python -m threadbridge.media.cleaner`.

It reads one JSON object per line, `{"source": path, "target": path, "media_type": type}`, cleans the picture, writes
the target and answers one line: `{"width", "height", "blurhash"}`, `{"refused": words}` or `{"disk_full": words}`.

Rule: this process has nothing worth stealing and little to waste: memory, processor time, file size and open files
are limited, only five decoders are loaded, and their warnings are errors. Pixels are re-encoded only when the
picture has to be turned, or when its metadata cannot be cut out of the file.
"""

from __future__ import annotations

import errno
import io
import json
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import blurhash
from PIL import AvifImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from threadbridge.errors import MediaRefused
from threadbridge.media import boxes
from threadbridge.media.pictures import STRIPPERS, Broken, Stripped

MAX_PIXELS = 25_000_000
_MEMORY = 1 << 30
_PROCESSOR_SECONDS = 30
_FILE_SIZE = 128 << 20
_FILES = 32

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FORMATS = {
    "image/jpeg": JpegImagePlugin.JpegImageFile.format,
    "image/png": PngImagePlugin.PngImageFile.format,
    "image/gif": GifImagePlugin.GifImageFile.format,
    "image/webp": WebPImagePlugin.WebPImageFile.format,
    "image/avif": AvifImagePlugin.AvifImageFile.format,
}


def clean(data: bytes, media_type: str) -> tuple[bytes, dict[str, Any]]:
    """Clean bytes and what was measured: {"width", "height", "blurhash"}. Raises MediaRefused."""
    try:
        stripped = _stripped(data, media_type)
    except Broken:
        # Pillow reads some files that bend the rules; then only their pixels go on.
        return _redrawn(data, media_type, None)
    orientation = 1 if stripped.animated else _orientation(stripped.exif)
    if orientation != 1:
        return _redrawn(stripped.data, media_type, orientation)
    with _opened(stripped.data, media_type) as picture:
        if media_type == "image/avif" and (picture.info.get("exif") or picture.info.get("xmp")):
            return _redrawn(stripped.data, media_type, None)
        width, height = picture.size
        if media_type == "image/jpeg":
            picture.draft("RGB", (64, 64))  # all bytes are read, but decoded at an eighth of the size
        picture.load()
        return stripped.data, {"width": width, "height": height, "blurhash": _blurhash(picture)}


def _stripped(data: bytes, media_type: str) -> Stripped:
    if media_type in STRIPPERS:
        return STRIPPERS[media_type](data)
    file = io.BytesIO(data)
    movie = boxes.examine(file, len(data), picture=True)
    boxes.erase(file, movie.erasable)
    return Stripped(file.getvalue())


def _opened(data: bytes, media_type: str) -> Image.Image:
    """Open and check the size before any pixel is decoded."""
    Image.MAX_IMAGE_PIXELS = None
    picture = Image.open(io.BytesIO(data), formats=[str(_FORMATS[media_type])])
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise MediaRefused(
            f"The picture is too large: {width} × {height} is {width * height / 1e6:.0f} megapixels",
            detail=f"up to {MAX_PIXELS // 1_000_000} megapixels are accepted",
        )
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return picture


def _orientation(exif: bytes | None) -> int:
    if not exif:
        return 1
    try:
        block = Image.Exif()
        block.load(exif)
        value = block.get(_ORIENTATION)
    except Exception:  # damaged EXIF raises nearly anything, and is thrown away in any case
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _redrawn(data: bytes, media_type: str, orientation: int | None) -> tuple[bytes, dict[str, Any]]:
    """Decode, turn, encode: only pixels and the colour profile go on. None: the file itself says how to turn it."""
    with _opened(data, media_type) as picture:
        if orientation is None:
            orientation = _orientation(picture.info.get("exif"))
        profile = picture.info.get("icc_profile")
        options: dict[str, Any] = {"icc_profile": profile} if profile else {}
        frames = getattr(picture, "n_frames", 1)
        picture.load()
        if media_type == "image/jpeg":
            assert isinstance(picture, JpegImagePlugin.JpegImageFile)
            # The picture's own tables keep its quality: the same steps, on the same values, turned.
            options |= {"qtables": picture.quantization, "progressive": bool(picture.info.get("progressive"))}
            sampling = JpegImagePlugin.get_sampling(picture)
            if sampling >= 0:
                options["subsampling"] = sampling
        elif media_type == "image/webp":
            options |= {"lossless": b"VP8L" in data[:64], "quality": 90}
        elif media_type == "image/avif":
            options |= {"quality": 90, "max_threads": 1}
        if frames > 1:
            options["save_all"] = True
            result: Image.Image = picture
        else:
            result = picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture
        options |= {key: b"" for key in ("exif", "xmp") if media_type in ("image/webp", "image/avif")}
        out = io.BytesIO()
        for key in ("exif", "xmp", "comment", "XML:com.adobe.xmp", "Raw profile type exif"):
            result.info.pop(key, None)
        result.save(out, format=str(_FORMATS[media_type]), **options)
        measured = {"width": result.width, "height": result.height, "blurhash": _blurhash(result)}
    return out.getvalue(), measured


def _blurhash(picture: Image.Image) -> str:
    """https://blurha.sh: of a thumbnail, over white where it is transparent."""
    small = picture
    if small.mode.startswith("I;16"):
        small = small.convert("I")
    if small.mode in ("I", "F"):
        small = small.convert("F").point(lambda value: value / 256).convert("L")
    if small.mode in ("P", "PA") or "transparency" in small.info:
        small = small.convert("RGBA")
    small = small.copy()
    small.thumbnail((32, 32), Image.Resampling.BILINEAR)
    if small.mode in ("RGBA", "LA", "La", "RGBa"):
        rgba = small.convert("RGBA")
        small = Image.new("RGB", rgba.size, "white")
        small.paste(rgba, mask=rgba.getchannel("A"))
    across, down = (4, 3) if small.width >= small.height else (3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # blurhash 1.2 calls Image.getdata
        return str(blurhash.encode(small.convert("RGB"), across, down))


def answer(request: dict[str, str]) -> dict[str, Any]:
    """Do one request; every failure is an answer."""
    try:
        data, measured = clean(Path(request["source"]).read_bytes(), request["media_type"])
        with open(request["target"], "wb") as target:
            target.write(data)
        return measured
    except MediaRefused as refusal:
        return {"refused": refusal.public, "detail": refusal.detail}
    except MemoryError:
        return {"refused": "The picture needs too much memory to be read", "detail": None}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"disk_full": str(error)}
        return {"refused": "The picture is damaged and cannot be read", "detail": str(error)}
    except Exception as error:  # a decoder may raise anything on a damaged file; the words say what
        return {"refused": "The picture is damaged and cannot be read", "detail": f"{type(error).__name__}: {error}"}


def _limit(what: int, amount: int) -> None:
    try:
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))
    except (OSError, ValueError):  # macOS refuses RLIMIT_AS
        pass


def _allow_processor_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + _PROCESSOR_SECONDS)


def main() -> None:
    """Answer requests until the parent closes its end."""
    warnings.simplefilter("error")
    # Image.open would load every plugin of Pillow when one fails; these five are all there are.
    Image._initialized = 2
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    _limit(resource.RLIMIT_AS, _MEMORY)
    _limit(resource.RLIMIT_FSIZE, _FILE_SIZE)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    _limit(resource.RLIMIT_CORE, 0)
    for line in sys.stdin:
        _allow_processor_time()
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
