"""What stands in the members of an archive, read as a stream: JSON, lists of addresses, checksums.

Rule: nothing is believed and nothing is kept that grows with a member, but for the manifest's list of members. The
only exception is Invalid, whose words say what is wrong.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ijson

from threadbridge.errors import Invalid
from threadbridge.portability.documents import FOLLOWERS_HEADER, FORMAT, VERSION
from threadbridge.portability.zip_reader import MEMBERS_MAX

_DEPTH_MAX = 64
_VALUE_MAX = 32 << 20
_LINE_MAX = 1 << 16
_COUNTS_MAX = 1000
_READ_AT_ONCE = 1 << 16
_CHECKSUM = re.compile(rb"([0-9a-f]{64})  (.+)")

Path = list[str | None]
"""Where in a JSON document something stands: keys, and None for a place in a list."""


class _Source:
    """Chunks as a file for ijson, which counts what it takes to read one value."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.since_event = 0

    def read(self, size: int = -1, /) -> bytes:
        if size == 0:
            return b""
        for chunk in self._chunks:
            if chunk:
                self.since_event += len(chunk)
                if self.since_event > _VALUE_MAX:
                    raise Invalid(f"It holds a single value of more than {_VALUE_MAX >> 20} MB")
                return chunk
        return b""


def walk(chunks: Iterator[bytes]) -> Iterator[tuple[Path, str, Any]]:
    """(path, event, value) of everything in one JSON document; the path is only good until the next step.

    Events are ijson's: 'start_map', 'end_map', 'start_array', 'end_array', 'string', 'number', 'boolean', 'null'.
    """
    source = _Source(chunks)
    path: Path = []
    try:
        for event, value in ijson.basic_parse(source, buf_size=_READ_AT_ONCE, use_float=True):
            source.since_event = 0
            if event == "map_key":
                path[-1] = value
                continue
            if event in ("end_map", "end_array"):
                path.pop()
            yield path, event, value
            if event in ("start_map", "start_array"):
                path.append(None)
                if len(path) > _DEPTH_MAX:
                    raise Invalid(f"It is nested deeper than {_DEPTH_MAX}")
    except (ijson.JSONError, ValueError, ArithmeticError) as error:
        raise Invalid("It is not valid JSON", detail=str(error)[:200]) from None


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Manifest:
    """What manifest.json says: `members` is {path: (size, SHA-256)}."""

    account: str | None = None
    handle: str | None = None
    as_of: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    members: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    omissions: int = 0


def read_manifest(chunks: Iterator[bytes]) -> Manifest:
    """Read manifest.json. Raises Invalid when it is not the manifest of an archive that we know."""
    manifest = Manifest()
    said: dict[str, Any] = {}
    member: dict[str, Any] = {}
    for path, event, value in walk(chunks):
        if not path and event not in ("start_map", "end_map"):
            raise Invalid("It is not a manifest")
        if len(path) == 1 and event in ("string", "number"):
            said[str(path[0])] = value
        elif len(path) == 2 and path[0] == "account" and event == "string":
            said[f"account.{path[1]}"] = value
        elif len(path) == 2 and path[0] == "counts" and len(manifest.counts) < _COUNTS_MAX:
            if not isinstance(value, int) or isinstance(value, bool):
                raise Invalid(f"Its count of {path[1]} is not a number")
            manifest.counts[str(path[1])] = value
        elif len(path) == 2 and path == ["omissions", None] and event == "start_map":
            manifest.omissions += 1
        elif len(path) == 3 and path[:2] == ["members", None]:
            member[str(path[2])] = value
        elif len(path) == 2 and path == ["members", None] and event == "end_map":
            _add_member(manifest, member)
            member = {}
    if said.get("format") != FORMAT:
        raise Invalid("It is not the manifest of a threadbridge archive")
    if said.get("version") != VERSION:
        raise Invalid(
            f"It is of version {said.get('version')!r}; this program knows version {VERSION}",
            hint="Use a newer threadbridge.",
        )
    manifest.account, manifest.handle = said.get("account.id"), said.get("account.handle")
    manifest.as_of = said.get("as_of") if isinstance(said.get("as_of"), str) else None
    return manifest


def _add_member(manifest: Manifest, member: dict[str, Any]) -> None:
    path, size, sha256 = member.get("path"), member.get("size"), member.get("sha256")
    if not isinstance(path, str) or not isinstance(size, int) or not isinstance(sha256, str):
        raise Invalid("A line of its list of members is incomplete")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise Invalid(f"Its SHA-256 of {path} is none")
    if len(manifest.members) >= MEMBERS_MAX:
        raise Invalid(f"It lists more than {MEMBERS_MAX} members")
    if path in manifest.members:
        manifest.twice.append(path)
    manifest.members[path] = (size, bytes.fromhex(sha256))


# ── the other members ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Found:
    """What a member holds: how many items, how many it says it holds (None: it does not say), and file addresses
    in it that lead nowhere."""

    items: int = 0
    total: int | None = None
    dangling: list[str] = field(default_factory=list)


def read_list(chunks: Iterator[bytes], name: str, is_member: Callable[[str], bool]) -> Found:
    """Read a document whose items are in the list `name`; attachments in it must be members."""
    found = Found()
    seen = False
    for path, event, value in walk(chunks):
        if len(path) == 2 and path[0] == name and path[1] is None and not event.startswith("end"):
            found.items += 1
        elif path == [name] and event == "start_array":
            seen = True
        elif path == ["totalItems"] and isinstance(value, int):
            found.total = value
        elif event == "string" and len(path) >= 3 and path[-1] == "url" and path[-3:-1] == ["attachment", None]:
            _resolve(found, str(value), is_member)
    if not seen:
        raise Invalid(f"It has no list {name!r}")
    return found


def read_lists(chunks: Iterator[bytes], names: Collection[str]) -> dict[str, int]:
    """{list: how many items it has} of the lists with these names; each must be there."""
    counted: dict[str, int] = {}
    for path, event, _ in walk(chunks):
        name = str(path[0]) if path else ""
        if len(path) == 1 and name in names and event == "start_array":
            counted[name] = 0
        elif len(path) == 2 and name in counted and path[1] is None and not event.startswith("end"):
            counted[name] += 1
    for name in names:
        if name not in counted:
            raise Invalid(f"It has no list {name!r}")
    return counted


def _resolve(found: Found, url: str, is_member: Callable[[str], bool]) -> None:
    inside = url.startswith("/media_attachments/")
    if (not inside or not is_member(url[1:])) and len(found.dangling) < _COUNTS_MAX:
        found.dangling.append(url)


def read_actor(chunks: Iterator[bytes], is_member: Callable[[str], bool]) -> tuple[str | None, Found]:
    """(id, what it points to in vain) of actor.json."""
    found = Found()
    actor: str | None = None
    local = (["icon", "url"], ["image", "url"], ["outbox"], ["likes"], ["bookmarks"])
    for path, event, value in walk(chunks):
        if event != "string":
            continue
        if path == ["id"]:
            actor = value
        elif path in local and not is_member(value):
            found.dangling.append(value)
    return actor, found


def read_anything(chunks: Iterator[bytes]) -> None:
    """Read JSON of any kind."""
    for _ in walk(chunks):
        pass


def read_addresses(chunks: Iterable[bytes]) -> int:
    """How many lines csv/followers.csv has after its header, which Mastodon must recognise."""
    count = -1
    for line in _lines(chunks):
        count += 1
        if line.endswith(b"\r"):
            raise Invalid("Its lines do not end as they should")
        if count == 0 and line != FOLLOWERS_HEADER.encode():
            raise Invalid(f"Its first line is not {FOLLOWERS_HEADER!r}")
    if count < 0:
        raise Invalid("It is empty")
    return count


def count_lines(chunks: Iterable[bytes]) -> int:
    """How many lines a plain list has."""
    return sum(1 for _ in _lines(chunks))


def count_rows(chunks: Iterable[bytes]) -> int:
    """How many rows a CSV file has after its header, also where a field holds a line break."""
    return max(0, sum(1 for _ in csv.reader(line.decode("utf-8", "replace") + "\n" for line in _lines(chunks))) - 1)


def read_checksums(chunks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """(path, SHA-256) of every line that `sha256sum -c` would read."""
    for number, line in enumerate(_lines(chunks), 1):
        match = _CHECKSUM.fullmatch(line)
        if match is None:
            raise Invalid(f"Its line {number} is not a checksum and a name")
        yield match[2].decode("utf-8", "backslashreplace"), bytes.fromhex(match[1].decode())


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > _LINE_MAX:
            raise Invalid("It holds a line that is far too long")
    if rest:
        raise Invalid("Its last line is incomplete")
