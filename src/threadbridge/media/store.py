"""Media by the hash of the bytes that are served: `ab/abcdef….jpg`, on a shelf (`shelves`), a folder or a bucket.

    media = MediaStore(config.data_dir / "media")
    row = media.ingest(file, kind_hint="image")      # in a thread; then storage.posts.add_media(tx, row)
    media.path(row.sha256, row.media_type)

Rule: a name on the shelf is a promise that the whole file is there. Bytes are written under `incoming/` of a folder
of this machine, flushed to the disk and only then put there; whatever fails leaves nothing behind. The same input
always becomes the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from threadbridge.activitypub.ids import extension
from threadbridge.domain.source import MediaKind
from threadbridge.errors import MediaRefused, NotFound
from threadbridge.media import boxes, mp3, sniff
from threadbridge.media.shelves import FolderShelf, Held, Shelf, explained
from threadbridge.media.worker import WALL_SECONDS, Cleaners
from threadbridge.storage.posts import MediaRow

IMAGE_BYTES = 40 * 1024 * 1024
VIDEO_BYTES = 1024 * 1024 * 1024
_CHUNK = 1 << 18
_STALE_SECONDS = 24 * 3600
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORDS = {"image": "picture", "video": "video", "audio": "sound file"}


class Readable(Protocol):
    """What media is read from: an open file, a member of an archive, a body from the network."""

    def read(self, size: int, /) -> bytes: ...


class MediaStore:
    """One shelf of media. Thread-safe; several processes may share the shelf."""

    def __init__(
        self, folder: Path, *, shelf: Shelf | None = None, children: int = 2, seconds: float = WALL_SECONDS
    ) -> None:
        self.folder = folder
        """Of this machine: here files arrive. Without a `shelf` of its own it is where they stay."""
        self.shelf = shelf if shelf is not None else FolderShelf(folder)
        self.children = children
        """How many pictures are decoded at the same time; more threads than that only wait."""
        self._cleaners = Cleaners(children, seconds=seconds)
        self._swept = False

    def __enter__(self) -> MediaStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes."""
        self._cleaners.close()

    def name(self, sha256: str, media_type: str) -> str:
        """What a file is called on the shelf. Raises NotFound for what cannot be a hash."""
        if not _SHA256.fullmatch(sha256):
            raise NotFound("There is no such file")
        return f"{sha256[:2]}/{sha256}{extension(media_type)}"

    def path(self, sha256: str, media_type: str) -> Path:
        """Where a file lies (or would lie) in the folder. Raises NotFound for what cannot be a hash."""
        return self.folder / self.name(sha256, media_type)

    def about(self, sha256: str, media_type: str) -> Held | None:
        """Its size, None when it is not there."""
        return self.shelf.about(self.name(sha256, media_type))

    def chunks(self, sha256: str, media_type: str) -> Iterator[bytes]:
        """Its bytes. Raises FileNotFoundError, Unavailable."""
        return self.shelf.chunks(self.name(sha256, media_type))

    def remove(self, sha256: str, media_type: str, *, unused_for: float) -> bool:
        """Remove a file that nothing shows any more; False if it was taken in (again) within `unused_for` seconds,
        so that whoever does so may be about to write that down. Without effect when it is not there."""
        name = self.name(sha256, media_type)
        held = self.shelf.about(name)
        if held is None:
            return True
        if held.put_at > time.time() - unused_for:
            return False
        self.shelf.remove(name)
        return True

    def ingest(self, file: Path, *, kind_hint: MediaKind) -> MediaRow:
        """Clean, measure and keep a file; it is left as it is.

        `kind_hint` is what the source says it is: it chooses the words of a refusal, nothing else. Raises
        MediaRefused with words, DiskFull, Unavailable.
        """
        with open(file, "rb") as stream:
            return self.ingest_stream(stream, kind_hint=kind_hint)

    def ingest_stream(self, stream: Readable, *, kind_hint: MediaKind) -> MediaRow:
        """`ingest` from something that can only be read once, with bounded memory."""
        incoming = self.folder / "incoming"
        with explained():
            incoming.mkdir(parents=True, exist_ok=True)
            self._sweep(incoming)
            with _temporary(incoming) as spooled, _temporary(incoming) as cleaned:
                row, ready = self._cleaned(stream, spooled, cleaned, kind_hint)
                self._keep(ready, row)
        return row

    def examine_stream(self, stream: Readable, *, kind_hint: MediaKind) -> MediaRow:
        """What `ingest_stream` would answer or raise, keeping nothing (rehearsals)."""
        with explained(), tempfile.TemporaryDirectory(prefix="threadbridge-") as scratch:
            folder = Path(scratch)
            with _temporary(folder) as spooled, _temporary(folder) as cleaned:
                return self._cleaned(stream, spooled, cleaned, kind_hint)[0]

    # ── the steps ────────────────────────────────────────────────────────────────────────────────────────────────

    def _cleaned(self, stream: Readable, spooled: Path, cleaned: Path, kind_hint: MediaKind) -> tuple[MediaRow, Path]:
        """Copy `stream` to `spooled` and clean it, there or into `cleaned`: the row, and which of the two it is."""
        media_type = _spool(stream, spooled, kind_hint)
        width = height = duration = blur = None
        ready = spooled
        if media_type in sniff.PICTURES:
            width, height, blur = self._cleaners.clean(spooled, cleaned, media_type)
            ready = cleaned
        else:
            with open(spooled, "r+b") as file:
                if media_type in sniff.MOVIES:
                    movie = boxes.examine(file, spooled.stat().st_size)
                    boxes.erase(file, movie.erasable)
                    width, height, duration = movie.width, movie.height, movie.duration
                    if not movie.has_video:
                        media_type = "audio/mp4"
                else:
                    mp3.strip(file)
        digest = hashlib.sha256()
        with open(ready, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        row = MediaRow(digest.hexdigest(), media_type, ready.stat().st_size, width, height, duration, blur)
        return row, ready

    def _keep(self, ready: Path, row: MediaRow) -> None:
        os.chmod(ready, 0o644)  # a web server in front may serve them
        self.shelf.put(self.name(row.sha256, row.media_type), ready, media_type=row.media_type)

    def _sweep(self, incoming: Path) -> None:
        """Once per process, remove what a killed process left behind. Nothing takes a day to arrive."""
        if self._swept:
            return
        self._swept = True
        with contextlib.suppress(FileNotFoundError), os.scandir(incoming) as entries:
            for entry in entries:
                if entry.stat().st_mtime < time.time() - _STALE_SECONDS:
                    Path(entry.path).unlink(missing_ok=True)


def _spool(stream: Readable, target: Path, kind_hint: MediaKind) -> str:
    """Copy to a file, never more than the kind may have; returns the media type found in the bytes."""
    head = b""
    while len(head) < sniff.HEAD and (part := stream.read(sniff.HEAD - len(head))):
        head += part
    media_type = sniff.media_type(head)
    if media_type is None:
        raise MediaRefused(
            f"This is no {_WORDS[kind_hint]} that we serve, but {sniff.described(head)}",
            detail="accepted are JPEG, PNG, GIF, WebP, AVIF, MP4, MOV, MP3 and M4A, told by their content",
        )
    limit = IMAGE_BYTES if media_type in sniff.PICTURES else VIDEO_BYTES
    size = len(head)
    with open(target, "wb") as file:
        file.write(head)
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise MediaRefused(
                    f"The {_WORDS[sniff.kind_of(media_type)]} is larger than {limit // 1024 // 1024} MB"
                )
            file.write(chunk)
    return media_type


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
