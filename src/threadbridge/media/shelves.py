"""Shelves: where whole files are kept by name, in a folder or in an S3-compatible store.

    shelf = open_shelf(config.media_url, config.data_dir, "media")
    shelf.put("ab/abcdef….jpg", file, media_type="image/jpeg")
    for chunk in shelf.chunks("ab/abcdef….jpg"): …

Rule: a name on a shelf is a promise that the whole file is there: it is put there at once or not at all, and it is
never changed, only put again as it is. What the store cannot do now is Unavailable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from threadbridge.errors import BadConfiguration, DiskFull, Unavailable

_CHUNK = 1 << 18
_FRESH_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a file: bytes, and when it was put there last (seconds since 1970)."""

    size: int
    put_at: float


class Shelf(Protocol):
    """One place for files. Names are relative paths. Thread-safe; several processes may share it."""

    def path(self, name: str) -> Path | None:
        """The file on this machine's disk, where it lies (or would lie); None where it is not on a disk."""

    def put(self, name: str, file: Path, *, media_type: str) -> None:
        """Keep a file, whole; `file` may be moved. Putting the same again is a sign that it is about to be used."""

    def about(self, name: str) -> Held | None:
        """What is known of a file, None when there is none."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Its bytes. Raises FileNotFoundError."""

    def stream(self, name: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Its bytes from `start` to before `stop`, for an event loop. Raises FileNotFoundError at the first."""

    def remove(self, name: str) -> None:
        """Without effect when it is not there."""

    def beginning_with(self, prefix: str) -> list[str]:
        """Names of files, by how they begin."""

    def described(self) -> str:
        """Where that is, for an operator."""


class FolderShelf:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def put(self, name: str, file: Path, *, media_type: str) -> None:
        """`file` is moved, if it lies on the same file system."""
        final = self.path(name)
        with explained():
            if final.exists():
                os.utime(final)
                return
            final.parent.mkdir(parents=True, exist_ok=True)
            flush(file)
            try:
                os.replace(file, final)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(file, final)
            flush(final.parent)

    def about(self, name: str) -> Held | None:
        with explained(), contextlib.suppress(FileNotFoundError):
            found = self.path(name).stat()
            return Held(found.st_size, found.st_mtime)
        return None

    def chunks(self, name: str) -> Iterator[bytes]:
        with open(self.path(name), "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    async def stream(self, name: str, start: int, stop: int) -> AsyncIterator[bytes]:
        with open(self.path(name), "rb") as file:  # noqa: ASYNC230 (a local disk)
            file.seek(start)
            while start < stop and (chunk := file.read(min(_CHUNK, stop - start))):
                start += len(chunk)
                yield chunk

    def remove(self, name: str) -> None:
        with explained():
            self.path(name).unlink(missing_ok=True)

    def beginning_with(self, prefix: str) -> list[str]:
        with explained(), contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in self.folder.iterdir() if entry.name.startswith(prefix))
        return []

    def described(self) -> str:
        return str(self.folder)


class BucketShelf:
    """Files in an S3-compatible store, below a prefix of one bucket. Credentials, region and endpoint come from the
    AWS_ variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL), or from the machine's own
    role."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore import exceptions, store
        except ModuleNotFoundError:
            raise BadConfiguration(
                "Files in an S3-compatible store need the extra 's3'",
                hint="Install it: pip install 'threadbridge[s3]'.",
            ) from None
        self.url = url
        self._obstore: Any = obstore
        self._error: type[Exception] = exceptions.BaseError
        # An endpoint without TLS is the operator's choice (a store on the same machine).
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        client: Any = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(minutes=10), "allow_http": plain}
        tries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
        try:
            self._store: Any = store.from_url(url, client_options=client, retry_config=tries)
        except (self._error, ValueError) as error:
            raise BadConfiguration("THREADBRIDGE_MEDIA_URL cannot be used", detail=str(error)) from None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (self._error, OSError) as error:
            # Its own words go on for pages.
            words = str(error).strip().partition("\n")[0][:300]
            raise Unavailable("The store of media cannot be reached", detail=words) from error

    def path(self, name: str) -> None:
        return None

    def put(self, name: str, file: Path, *, media_type: str) -> None:
        held = self.about(name)
        if held is not None and held.put_at > time.time() - _FRESH_SECONDS and held.size == file.stat().st_size:
            return
        with self._told():
            try:
                self._obstore.put(self._store, name, file, attributes={"Content-Type": media_type})
            except FileNotFoundError:
                raise Unavailable("The store of media has no such bucket", detail=self.url) from None

    def about(self, name: str) -> Held | None:
        with self._told():
            try:
                found = self._obstore.head(self._store, name)
            except FileNotFoundError:
                return None
        return Held(found["size"], found["last_modified"].timestamp())

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._told():
            for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    async def stream(self, name: str, start: int, stop: int) -> AsyncIterator[bytes]:
        if start >= stop:
            return
        with self._told():
            found = await self._obstore.get_async(self._store, name, options={"range": (start, stop)})
            async for chunk in found.stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    def remove(self, name: str) -> None:
        with self._told(), contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    def beginning_with(self, prefix: str) -> list[str]:
        # A store lists what lies below a whole path; names here are short lists of one folder each.
        folder, _, start = prefix.rpartition("/")
        with self._told():
            found = self._obstore.list(self._store, prefix=folder or None).collect()
        names = (str(one["path"]) for one in found)
        return sorted(name for name in names if name.rpartition("/")[2].startswith(start))

    def described(self) -> str:
        return self.url


def open_shelf(url: str | None, data_dir: Path, kind: str) -> Shelf:
    """The shelf for a kind of file ('media', 'exports'): at `url`, by default in a folder of `data_dir`. Raises
    BadConfiguration."""
    if url is None:
        return FolderShelf(data_dir / kind)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderShelf(Path(unquote(parts.path)) / kind)
    return BucketShelf(f"{url.rstrip('/')}/{kind}")


def _copy(file: Path, final: Path) -> None:
    descriptor, part = tempfile.mkstemp(dir=final.parent, suffix=".part")
    os.close(descriptor)
    try:
        shutil.copyfile(file, part)
        flush(Path(part))
        shutil.copymode(file, part)
        os.replace(part, final)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What a disk says, in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                "No space is left for media", detail=str(error), hint="Free some space and try again."
            ) from None
        raise Unavailable("Media cannot be written now", detail=str(error)) from error
