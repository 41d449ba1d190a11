"""A Threads data download: Meta's "Export your information", in JSON.

    with open_download([Path("instagram-ana-2026-01-02-x.zip"), …]) as download:
        download.profile(), download.posts(), download.contacts(), download.open_media(member)

It comes inside the Instagram download (`your_instagram_activity/threads/`), as one ZIP, several numbered ones, or a
folder; people also keep only an inner folder. What is Threads' is known by its top-level key `text_post_app_…`;
Instagram's own files beside it are left alone.

Rule: opening reads every JSON file to its end, so that a damaged download is refused before anything is stored;
after that entries are streamed, one in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import ijson

from threadbridge.domain.source import SourcePost, SourceProfile
from threadbridge.errors import BadDownload
from threadbridge.sources.archive_reader import Archive, FolderArchive, open_archive
from threadbridge.sources.threads_shapes import (
    TOO_DEEP,
    TWICE,
    Skipped,
    contacts_of,
    post_of,
    profile_of,
    repaired,
)
from threadbridge.storage.contacts import Contact

Role = Literal["posts", "follower", "following", "profile"]

_KEYS: dict[str, Role] = {
    "text_post_app_text_posts": "posts",
    "text_post_app_text_post_app_followers": "follower",
    "text_post_app_text_post_app_following": "following",
    "text_post_app_text_post_app_profile": "profile",
}
_NAMES: dict[str, Role] = {
    "threads_and_replies": "posts",
    "followers": "follower",
    "following": "following",
    "personal_information": "profile",
}
_FIRST_KEY = re.compile(rb'\s*\{\s*"([^"\\]{1,200})"\s*:\s*([\[{]?)')
_ANY_KEY = re.compile(rb'"(text_post_app_\w{1,180})"\s*:\s*([\[{])')
_NUMBERED = re.compile(r"(.+?)(?:_([0-9]{1,6}))?\.json", re.IGNORECASE)
_ZIP_NAME = re.compile(r"instagram-(.+?)-[0-9]{4}-?[0-9]{2}-?[0-9]{2}(?:[-.]|$)")

_PEEK = 1 << 16
_MAX_ENTRY_BYTES = 16 * 1024 * 1024
_EXACT_POSITION_BYTES = 64 * 1024 * 1024

_HOW = (
    "In the Accounts Center choose Your information and permissions, Export your information, tick Threads, and take "
    "the format JSON."
)


@dataclass(frozen=True, slots=True)
class _JsonFile:
    archive: Archive
    name: str
    role: Role
    prefix: str
    """Where the entries are, in ijson's words."""

    @property
    def order(self) -> tuple[str, int, str]:
        match = _NUMBERED.fullmatch(self.name)
        return (match[1], int(match[2] or 0), self.archive.label) if match else (self.name, 0, self.archive.label)


class Download:
    """An opened, checked download. `total_hint` is the number of entries that `posts` will yield."""

    def __init__(self, archives: list[Archive], files: list[_JsonFile]) -> None:
        self._archives = archives
        self._files = files
        self._by_basename: dict[str, list[tuple[Archive, str]]] | None = None
        self.total_hint = 0

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives:
            archive.close()

    @property
    def unsafe(self) -> list[tuple[str, str]]:
        """(member, reason) of everything that was left out because it cannot be trusted."""
        return [(name, reason) for archive in self._archives for name, reason in archive.unsafe]

    def check(self) -> None:
        """Read every JSON file to its end and count the posts. Raises BadDownload naming file and position."""
        self.total_hint = 0
        for file in self._files:
            count = sum(1 for _ in self._entries(file))
            if file.role == "posts":
                self.total_hint += count

    def profile(self) -> SourceProfile | None:
        """The owner: from the profile file, else a user name from the archive's own name, else None."""
        hint = self._username_hint()
        for file in self._of("profile"):
            for entry in self._entries(file):
                if (profile := profile_of(_clean(entry), hint)) is not None:
                    return profile
        if hint is None:
            return None
        return SourceProfile(native_id=hint, handle=hint, url=f"https://www.threads.com/@{hint}")

    def posts(self) -> Iterator[SourcePost | Skipped]:
        """Every entry of the posts files, in their order.

        Equal entries in one file are two posts and stay two: the second gets '#2' behind its native id. Equal
        entries in two files are one post that overlapping files list twice.
        """
        seen: set[int] = set()
        for file in self._of("posts"):
            here: Counter[int] = Counter()
            for number, entry in enumerate(self._entries(file), start=1):
                where = f"{file.name}, entry {number}"
                cleaned = _clean(entry)
                post = Skipped(TOO_DEEP, where) if cleaned is _TOO_DEEP else post_of(cleaned, where)
                if isinstance(post, SourcePost):
                    digest = _short(post.native_id)
                    here[digest] += 1
                    if here[digest] > 1:
                        post = replace(post, native_id=f"{post.native_id}#{here[digest]}")
                        digest = _short(post.native_id)
                    if digest in seen:
                        post = Skipped(TWICE, where)
                    else:
                        here.setdefault(digest, 0)
                yield post
            seen.update(here)

    def contacts(self) -> Iterator[Contact]:
        """Followers and followed people, as listed."""
        for role in ("follower", "following"):
            for file in self._of(role):
                for entry in self._entries(file):
                    yield from contacts_of(_clean(entry), role)

    def open_media(self, member: str) -> BinaryIO | None:
        """The bytes of a medium by the name its post gives, in whichever archive they are; None if in none.

        Looked up by the whole path first, then by the file name (inner folders lose the way); of several, the one
        that shares the most of the path. Raises BadDownload for a damaged member.
        """
        wanted = unicodedata.normalize("NFC", member.split("?", 1)[0]).removeprefix("./").lstrip("/")
        if "://" in member or not wanted:
            return None
        for archive in self._archives:
            if (found := archive.open(wanted)) is not None:
                return found
        parts = wanted.split("/")[::-1]
        candidates = self._basenames().get(parts[0], [])
        if not candidates:
            return None
        archive, name = max(candidates, key=lambda held: _shared(parts, held[1].split("/")[::-1]))
        return archive.open(name)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, role: Role) -> list[_JsonFile]:
        return sorted((file for file in self._files if file.role == role), key=lambda file: file.order)

    def _basenames(self) -> dict[str, list[tuple[Archive, str]]]:
        if self._by_basename is None:
            self._by_basename = {}
            for archive in self._archives:
                for name, _ in archive.members():
                    self._by_basename.setdefault(name.rsplit("/", 1)[-1], []).append((archive, name))
        return self._by_basename

    def _username_hint(self) -> str | None:
        for archive in self._archives:
            if match := _ZIP_NAME.match(archive.label):
                return match[1]
        return None

    def _entries(self, file: _JsonFile) -> Iterator[Any]:
        """The entries of a file as parsed, each at most 16 MB. Raises BadDownload naming file and position."""
        stream = file.archive.open(file.name)
        assert stream is not None
        metered = _Metered(stream)
        count = 0
        with stream:
            try:
                for entry in ijson.items(metered, file.prefix):
                    metered.since_entry = 0
                    count += 1
                    yield entry
            except (ijson.JSONError, ValueError, OverflowError) as error:
                raise BadDownload(
                    f"{file.name} in {file.archive.label} is not valid JSON",
                    detail=_position(file, error) or f"near byte {metered.total}, after entry {count}",
                    hint="Download it again, and do not edit it.",
                ) from None


def open_download(paths: Sequence[Path]) -> Download:
    """Open and check ZIP files or folders that are together one download. Raises BadDownload."""
    if not paths:
        raise BadDownload("No file was given", hint=_HOW)
    archives: list[Archive] = []
    try:
        for path in _numbered(paths):
            archives.append(open_archive(path))
            archives.extend(_media_beside(path))
        files = [file for archive in archives for file in _json_files(archive)]
        _refuse_what_is_none(archives, files)
        download = Download(archives, files)
        download.check()
    except BaseException:
        for archive in archives:
            archive.close()
        raise
    return download


def _numbered(paths: Sequence[Path]) -> list[Path]:
    """The paths, a folder that holds nothing but the downloaded ZIPs replaced by them."""
    found: list[Path] = []
    for path in paths:
        zips = sorted(path.glob("*.zip")) if path.is_dir() else []
        found.extend(zips if zips and not any(path.rglob("*.json")) else [path])
    return found


def _media_beside(path: Path) -> list[Archive]:
    """The `media` folder of an unpacked download of which only an inner folder was given."""
    inner = path.absolute()
    if inner.name == "threads" and inner.parent.name == "your_instagram_activity":
        inner = inner.parent
    media = inner.parent / "media"
    if inner.name != "your_instagram_activity" or not path.is_dir() or media.is_symlink() or not media.is_dir():
        return []
    return [FolderArchive(media, prefix="media/")]


def _json_files(archive: Archive) -> list[_JsonFile]:
    """Which members are Threads' own JSON. A key decides; a name does only beside other files of Threads."""
    found: list[_JsonFile] = []
    unclear: list[tuple[str, Role, bytes]] = []
    for name, _ in archive.members():
        if not name.lower().endswith(".json"):
            continue
        stem = _NUMBERED.fullmatch(name.rsplit("/", 1)[-1])
        named = _NAMES.get(stem[1].lower()) if stem else None
        try:
            head = _head(archive, name)
        except BadDownload:
            if named is None:
                continue
            raise
        first = _FIRST_KEY.match(head)
        role = _KEYS.get(first[1].decode("utf-8", "replace")) if first else None
        if first and role:
            found.append(_JsonFile(archive, name, role, _prefix(first)))
        elif named:
            unclear.append((name, named, head))
    folders = {file.name.rpartition("/")[0] for file in found}
    folders |= {name.rpartition("/")[0] for name, role, _ in unclear if role == "posts"}
    for name, role, head in unclear:
        folder = name.rpartition("/")[0]
        if folder in folders or folder.rpartition("/")[2] == "threads":
            other = next((key for key in _ANY_KEY.finditer(head) if key[1].decode() in _KEYS), None)
            listed = head.lstrip().startswith(b"{") and other is not None
            found.append(_JsonFile(archive, name, role, _prefix(other) if listed and other else "item"))
    return found


def _prefix(key: re.Match[bytes]) -> str:
    name = key[1].decode("utf-8", "replace")
    return name if key[2] == b"{" else f"{name}.item"


def _head(archive: Archive, name: str) -> bytes:
    stream = archive.open(name)
    assert stream is not None
    with stream:
        return stream.read(_PEEK).removeprefix(b"\xef\xbb\xbf")


def _refuse_what_is_none(archives: list[Archive], files: list[_JsonFile]) -> None:
    labels = ", ".join(archive.label for archive in archives)
    for archive in archives:
        for name, reason in archive.unsafe:
            stem = _NUMBERED.fullmatch(name.replace("\\", "/").rsplit("/", 1)[-1])
            if stem and _NAMES.get(stem[1].lower()) == "posts":
                raise BadDownload(f"{name} in {archive.label} is refused", detail=reason)
    if files:
        return
    names = [name.lower() for archive in archives for name, _ in archive.members()]
    if any(name.endswith(".html") and ("threads" in name or name.count("/") <= 1) for name in names):
        raise BadDownload(
            f"{labels} holds the download as HTML pages, which cannot be imported",
            hint=f"Ask for it again in the format JSON. {_HOW}",
        )
    unsafe = [f"{name} ({reason})" for archive in archives for name, reason in archive.unsafe[:3]]
    raise BadDownload(
        f"{labels} is no Threads data download",
        detail="it holds no file threads_and_replies.json"
        + (f"; left out as unsafe: {', '.join(unsafe)}" if unsafe else ""),
        hint=_HOW,
    )


class _TooDeep:
    pass


_TOO_DEEP = _TooDeep()


def _clean(entry: Any) -> Any:
    try:
        return repaired(entry)
    except ValueError:
        return _TOO_DEEP


def _short(native_id: str) -> int:
    """Eight bytes that stand for an id, so that a set of 70,000 stays small."""
    return int.from_bytes(hashlib.blake2b(native_id.encode(), digest_size=8).digest(), "big")


def _shared(one: list[str], other: list[str]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


class _Metered:
    """What ijson reads from: without the byte order mark, counting, and never far without a finished entry."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.total = 0
        self.since_entry = 0

    def read(self, size: int = _PEEK) -> bytes:
        chunk = self._stream.read(size)
        self.since_entry += len(chunk)
        if self.since_entry > _MAX_ENTRY_BYTES:
            raise ValueError(f"one entry is larger than {_MAX_ENTRY_BYTES // 1024 // 1024} MB")
        if self.total == 0 and chunk.startswith(b"\xef\xbb\xbf"):
            self.total = 3
            chunk = chunk[3:] or self._stream.read(size)
        self.total += len(chunk)
        return chunk


def _position(file: _JsonFile, error: Exception) -> str | None:
    """Line and column where a file stops being JSON, if it is small enough to be looked at again as a whole."""
    size = next((size for name, size in file.archive.members() if name == file.name), 0)
    if size > _EXACT_POSITION_BYTES or not isinstance(error, ijson.JSONError):
        return str(error) if not isinstance(error, ijson.JSONError) else None
    stream = file.archive.open(file.name)
    assert stream is not None
    with stream:
        try:
            json.loads(stream.read().removeprefix(b"\xef\xbb\xbf"))
        except json.JSONDecodeError as exact:
            return f"line {exact.lineno}, column {exact.colno} (character {exact.pos}): {exact.msg}"
        except UnicodeDecodeError as exact:
            return f"byte {exact.start}: not UTF-8"
        except (RecursionError, ValueError, OSError):
            return None
    return None
