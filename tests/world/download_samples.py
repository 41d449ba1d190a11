"""Building Threads data downloads, pictures and videos for tests."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

THREADS = "your_instagram_activity/threads"
POSTS = f"{THREADS}/threads_and_replies.json"
PROFILE = f"{THREADS}/personal_information.json"
NOON = 1_754_466_859


def damaged(text: str) -> str:
    """As Meta's exporter writes it: every UTF-8 byte as a character of its own."""
    return text.encode().decode("latin-1")


def single(text: str, at: int = NOON, uri: str = "", *, reply: bool = False, **more: Any) -> dict[str, Any]:
    """V1: everything inside one medium."""
    medium = {
        "uri": uri,
        "creation_timestamp": at,
        "media_metadata": {"camera_metadata": {"has_camera_metadata": False}},
        "title": damaged(text),
        "text_app_post": {
            "reply_control": "everyone",
            "geo_gated_country_list": "",
            **({"is_reply": True} if reply else {}),
        },
        **more,
    }
    return {"media": [medium]}


def carousel(text: str, uris: list[str], at: int = NOON) -> dict[str, Any]:
    """V2: text and time at the post."""
    media = [{"uri": uri, "creation_timestamp": at, "title": ""} for uri in uris]
    return {"media": media, "title": damaged(text), "creation_timestamp": at}


def posts_file(*entries: Any) -> str:
    return json.dumps({"text_post_app_text_posts": list(entries)})


def profile_file(username: str = "ana.example", name: str = "Ana Example", bio: str = "Ships and coffee ☕") -> str:
    fields = {"Username": username, "Name": damaged(name), "Bio": damaged(bio), "Private Account": "False"}
    labelled = {label: {"href": "", "value": value, "timestamp": 0} for label, value in fields.items()}
    entry = {"title": "", "media_map_data": {}, "string_map_data": labelled}
    return json.dumps({"text_post_app_text_post_app_profile": [entry]})


def people_file(key: str, *usernames: str) -> str:
    listed = [
        {
            "title": "",
            "string_list_data": [{"href": f"https://www.threads.com/{name}", "value": name, "timestamp": NOON}],
        }
        for name in usernames
    ]
    return json.dumps({key: listed})


def zip_of(path: Path, members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def folder_of(path: Path, members: Mapping[str, str | bytes]) -> Path:
    for name, data in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def exif(orientation: int | None = None) -> Image.Exif:
    """Camera name, a position and maybe an orientation."""
    block = Image.Exif()
    block[0x010F] = "SECRET-CAMERA"
    if orientation is not None:
        block[0x0112] = orientation
    block.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0), 29: "SECRET-PLACE"})
    return block


def picture(form: str = "JPEG", size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    """Left half red, right half blue: turning it shows."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, size[0], size[1]))
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def animation(form: str, **options: Any) -> bytes:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, form, save_all=True, append_images=frames[1:], duration=100, loop=0, **options)
    return out.getvalue()


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8) + kind + body


def track(
    handler: bytes, *extra: bytes, stbl: bytes = b"", size: tuple[int, int] = (0, 0), turned: bool = False
) -> bytes:
    straight = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    rotated = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    tkhd = box(
        b"tkhd",
        bytes(4 + 20 + 16),
        struct.pack(">9i", *(rotated if turned else straight)),
        struct.pack(">II", size[0] << 16, size[1] << 16),
    )
    hdlr = box(b"hdlr", bytes(8), handler, bytes(12), b"\0")
    return box(b"trak", tkhd, box(b"mdia", hdlr, box(b"minf", box(b"stbl", stbl))), *extra)


def movie(
    *tracks: bytes,
    brand: bytes = b"isom",
    moov_extra: bytes = b"",
    top_extra: bytes = b"",
    mdat: bytes = b"FRAMES" * 100,
    turned: bool = False,
) -> bytes:
    """A small MP4: 640 × 360 (as stored), 2.5 seconds."""
    mvhd = box(b"mvhd", bytes(12), struct.pack(">II", 1000, 2500), bytes(80))
    inner = tracks or (track(b"vide", size=(640, 360), turned=turned), track(b"soun"))
    return (
        box(b"ftyp", brand, bytes(4), b"isommp42" if brand != b"qt  " else b"qt  ")
        + box(b"mdat", mdat)
        + box(b"moov", mvhd, *inner, moov_extra)
        + top_extra
    )
