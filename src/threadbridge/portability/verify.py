"""Checking an archive without the server that wrote it: no network, no database, bounded memory.

    report = verify(Path("alice.zip"))
    report.ok, report.problems      # what is wrong, and where

Rule: whatever the file is, the answer is a report. Everything that the archive claims is recomputed: the container,
every member's bytes, that manifests, members and counts agree, and that every file a post names is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from threadbridge.errors import Invalid
from threadbridge.portability import contents
from threadbridge.portability.contents import Found, Manifest
from threadbridge.portability.documents import COUNTED_OF_PROFILE
from threadbridge.portability.zip_reader import Member, ZipReader, unsafe_name

PROBLEMS_MAX = 200
MANIFEST, CHECKSUMS = "manifest.json", "manifest-sha256.txt"
WHOLE = "the archive"
_LISTS = {
    # member: (the list in it, the figure in the manifest)
    "outbox.json": ("orderedItems", "posts"),
    "likes.json": ("orderedItems", None),
    "bookmarks.json": ("orderedItems", None),
    "received/replies.json": ("orderedItems", "received_replies"),
    "received/likes.json": ("orderedItems", "received_likes"),
    "received/boosts.json": ("orderedItems", "received_boosts"),
    "received/mentions.json": ("orderedItems", "received_mentions"),
    "received/quotes.json": ("quotes", "received_quotes"),
    "received/votes.json": ("votes", "received_votes"),
    "received/approvals.json": ("approvals", "approvals"),
    "posts.json": ("posts", "posts"),
    "followers.json": ("followers", "follows"),
    "follow_requests.json": ("follow_requests", "follow_requests"),
    "blocks.json": ("blocks", "blocks"),
    "decisions.json": ("decisions", "decisions"),
    "reports.json": ("reports", "reports"),
    "deliveries.json": ("deliveries", "deliveries"),
    "receipts.json": ("receipts", "receipts"),
    "holders.json": ("holders", "holders"),
    "consents.json": ("consents", "consents"),
    "states.json": ("states", None),
}
_PLAIN_LISTS = {"csv/blocked_accounts.csv": "blocked_accounts", "csv/blocked_domains.csv": "blocked_domains"}
_SOURCE_LISTS = {"source/followers.csv": "source_followers", "source/following.csv": "source_following"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: `what` in words, `where` is a member's name or 'the archive'."""

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. `counts` are recounted; `sealed` says that the file is byte for byte as it was written (an
    archive that was unpacked and packed again has no seal, and may still be whole)."""

    problems: tuple[Problem, ...]
    more: int
    """Problems beyond those listed."""
    account: str | None
    handle: str | None
    as_of: str | None
    counts: dict[str, int]
    members: int
    size: int
    sealed: bool

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(path: Path) -> VerifyReport:
    """Check the archive in `path`. Never raises: what cannot be read is a problem in the report."""
    check = _Check()
    try:
        with open(path, "rb") as file:
            check.run(file)
    except Invalid as error:
        check.problem(str(error))
    except OSError as error:
        check.problem(f"It cannot be read: {error.strerror or error}")
    except Exception as error:
        # The last net under everything above: a report is owed for hostile files too.
        check.problem(f"It cannot be understood ({type(error).__name__})")
    return check.report()


@dataclass(slots=True)
class _Seen:
    """A member of the ZIP: what the manifest wants of it, and what it really is."""

    member: Member
    sha256: bytes | None = None
    size: int = 0


@dataclass(slots=True)
class _Check:
    problems: list[Problem] = field(default_factory=list)
    more: int = 0
    manifest: Manifest = field(default_factory=Manifest)
    counts: dict[str, int] = field(default_factory=dict)
    seen: dict[str, _Seen] = field(default_factory=dict)
    size: int = 0
    sealed: bool = False

    def problem(self, what: str, where: str = WHOLE) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(what, where))
        else:
            self.more += 1

    def report(self) -> VerifyReport:
        return VerifyReport(
            problems=tuple(self.problems),
            more=self.more,
            account=self.manifest.account,
            handle=self.manifest.handle,
            as_of=self.manifest.as_of,
            counts=dict(sorted(self.counts.items())),
            members=len(self.seen),
            size=self.size,
            sealed=self.sealed,
        )

    def run(self, file: BinaryIO) -> None:
        zip_ = ZipReader(file)
        self.size = zip_.size
        expected = self._seal(zip_)
        order = self._contents(zip_)
        self._read_manifest(zip_)
        free_from = 0
        for name, seen in order:
            if seen.member.entry.offset < free_from:
                self.problem("It shares bytes with another member", name)
                continue
            start = self._start(zip_, name, seen, expected is not None)
            if start is None:
                continue
            free_from = start + seen.member.entry.packed
            if name not in (MANIFEST, CHECKSUMS):
                self._member(zip_, name, seen, start)
        self._missing()
        self._checksums(zip_)
        self._compare_counts()
        if expected is not None:
            self.sealed = zip_.end_is_canonical and zip_.sealed_bytes_hash() == expected
            if not self.sealed and not self.problems:
                self.problem("Bytes that belong to no member's contents were changed")

    # ── the container ────────────────────────────────────────────────────────────────────────────────────────────

    def _seal(self, zip_: ZipReader) -> str | None:
        try:
            return zip_.seal()
        except Invalid as error:
            self.problem(str(error))
            return None

    def _contents(self, zip_: ZipReader) -> list[tuple[str, _Seen]]:
        """Members in the order in which they lie in the file, with those of a double name."""
        order: list[tuple[str, _Seen]] = []
        try:
            for member in zip_.members():
                if member.is_folder:
                    continue
                reason = unsafe_name(member)
                shown = member.name if member.name.isprintable() else repr(member.name)
                if reason is not None:
                    self.problem(f"It is not safe to unpack: {reason}", shown)
                if member.name in self.seen:
                    self.problem("There are several members with this name", shown)
                seen = _Seen(member)
                self.seen.setdefault(member.name, seen)
                order.append((member.name, seen))
        except Invalid as error:
            self.problem(str(error))
        order.sort(key=lambda pair: pair[1].member.entry.offset)
        return order

    def _start(self, zip_: ZipReader, name: str, seen: _Seen, sealed: bool) -> int | None:
        try:
            return zip_.data_start(seen.member, sealed=sealed)
        except Invalid as error:
            self.problem(str(error), name)
            # A header that was only retouched does not make the data unreadable.
            with suppress(Invalid):
                return zip_.data_start(seen.member, sealed=False)
            return None

    # ── members ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _chunks(self, zip_: ZipReader, seen: _Seen, start: int) -> Iterator[bytes]:
        """The member's bytes, which are hashed on their way."""
        digest = hashlib.sha256()
        for chunk in zip_.read(seen.member, start):
            digest.update(chunk)
            seen.size += len(chunk)
            yield chunk
        seen.sha256 = digest.digest()

    def _examine(
        self, zip_: ZipReader, name: str, seen: _Seen, start: int, reading: Callable[[Iterator[bytes]], object]
    ) -> None:
        """Let `reading` have the member's bytes, then compare them with the manifest. Damage is told once: what the
        contents say is of interest only when the bytes are those that were written."""
        chunks = self._chunks(zip_, seen, start)
        trouble: Invalid | None = None
        try:
            reading(chunks)
        except Invalid as error:
            trouble = error
        try:
            for _ in chunks:
                pass
        except Invalid as error:
            self.problem(str(error), name)
            return
        if seen.sha256 is None:  # the reading itself ran into the damage
            self.problem(str(trouble or Invalid("It is damaged")), name)
        elif not self._as_listed(name, seen) and trouble is not None:
            self.problem(str(trouble), name)

    def _as_listed(self, name: str, seen: _Seen) -> bool:
        """Report a difference to the manifest; True if there was one."""
        want = self.manifest.members.get(name)
        if want is None or seen.sha256 is None or want == (seen.size, seen.sha256):
            return False
        self.problem(
            f"Its bytes were changed: expected {want[0]} bytes with SHA-256 {want[1].hex()}, "
            f"found {seen.size} bytes with SHA-256 {seen.sha256.hex()}",
            name,
        )
        return True

    def _member(self, zip_: ZipReader, name: str, seen: _Seen, start: int) -> None:
        if self.manifest.members and name not in self.manifest.members:
            self.problem("It is not in the manifest", name)
        self._examine(zip_, name, seen, start, lambda chunks: self._reading(name, chunks))

    def _reading(self, name: str, chunks: Iterator[bytes]) -> None:
        if name in _LISTS:
            which, figure = _LISTS[name]
            found = contents.read_list(chunks, which, self.seen.__contains__)
            self._dangling(name, found)
            if figure is not None and self.counts.setdefault(figure, found.items) != found.items:
                self.problem(f"It has {found.items} items where another member has {self.counts[figure]}", name)
            if found.total is not None and found.total != found.items:
                self.problem(f"It says that it has {found.total} items and has {found.items}", name)
        elif name == "actor.json":
            actor, found = contents.read_actor(chunks, self.seen.__contains__)
            self._dangling(name, found)
            if self.manifest.account is not None and actor != self.manifest.account:
                self.problem(f"It is about {actor}, the manifest about {self.manifest.account}", name)
        elif name == "csv/followers.csv":
            self.counts["followers"] = contents.read_addresses(chunks)
        elif name in _PLAIN_LISTS:
            self.counts[_PLAIN_LISTS[name]] = contents.count_lines(chunks)
        elif name in _SOURCE_LISTS:
            self.counts[_SOURCE_LISTS[name]] = contents.count_rows(chunks)
        elif name == "profile.json":
            self.counts |= contents.read_lists(chunks, COUNTED_OF_PROFILE)
        elif name.endswith(".json"):
            contents.read_anything(chunks)
        elif name.startswith("media_attachments/"):
            self.counts["media"] = self.counts.get("media", 0) + 1

    def _dangling(self, name: str, found: Found) -> None:
        for url in found.dangling:
            self.problem(f"It names the file {url[:300]!r}, which is not in the archive", name)

    # ── the manifests ────────────────────────────────────────────────────────────────────────────────────────────

    def _read_manifest(self, zip_: ZipReader) -> None:
        seen = self.seen.get(MANIFEST)
        if seen is None:
            self.problem("There is no manifest: this is not an archive of threadbridge, or a part of one", MANIFEST)
            return

        def reading(chunks: Iterator[bytes]) -> None:
            self.manifest = contents.read_manifest(chunks)
            self.counts["omissions"] = self.manifest.omissions

        with suppress(Invalid):  # a damaged header is reported in its turn
            start = zip_.data_start(seen.member, sealed=False)
            self._examine(zip_, MANIFEST, seen, start, reading)
        for path in self.manifest.twice:
            self.problem(f"It lists {path} twice", MANIFEST)
        if any(name in self.manifest.members for name in (MANIFEST, CHECKSUMS)):
            self.problem("It lists itself or its checksums", MANIFEST)

    def _missing(self) -> None:
        for path in self.manifest.members:
            if path not in self.seen:
                self.problem("It is in the manifest, but not in the archive", path)

    def _checksums(self, zip_: ZipReader) -> None:
        seen = self.seen.get(CHECKSUMS)
        if seen is None:
            self.problem("The list of checksums is missing", CHECKSUMS)
            return
        listed: set[str] = set()

        def reading(chunks: Iterator[bytes]) -> None:
            for path, sha256 in contents.read_checksums(chunks):
                if path in listed:
                    self.problem(f"It lists {path} twice", CHECKSUMS)
                listed.add(path)
                self._checksum(path, sha256)

        with suppress(Invalid):
            start = zip_.data_start(seen.member, sealed=False)
            self._examine(zip_, CHECKSUMS, seen, start, reading)
            if seen.sha256 is not None:
                for path in self.seen.keys() - listed - {CHECKSUMS}:
                    self.problem(f"It does not list {path}", CHECKSUMS)

    def _checksum(self, path: str, sha256: bytes) -> None:
        held, want = self.seen.get(path), self.manifest.members.get(path)
        if held is None:
            if want is None:
                self.problem(f"It lists {path}, which is not in the archive", CHECKSUMS)
        elif sha256 != (want[1] if want else held.sha256) and (want or held.sha256):
            self.problem(f"Its checksum of {path} is another than the manifest's or the file's", CHECKSUMS)

    def _compare_counts(self) -> None:
        for figure, said in self.manifest.counts.items():
            counted = self.counts.get(figure, 0 if figure == "media" else None)
            if counted is not None and counted != said:
                self.problem(f"It says {figure}: {said}, and there are {counted}", MANIFEST)
