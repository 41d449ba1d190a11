"""Writing an account's archive: one ZIP with everything that is the owner's, in the layout of Mastodon's archive.

    actor.json  avatar.jpg  header.jpg  outbox.json  likes.json  bookmarks.json  media_attachments/…
                                             as Mastodon writes them
    csv/followers.csv  blocked_accounts.csv  blocked_domains.csv        lists of people, as Mastodon imports them
    profile.json  posts.json                 fields, aliases, own domain, choices; posts as they are held, with what
                                             they said before, their rules and what their sources call them
    followers.json  follow_requests.json     who follows, who asked to, with the ids of their Follows
    received/replies.json  likes.json  boosts.json  mentions.json  quotes.json  votes.json  approvals.json
                                             what came back, with the ids it came with
    blocks.json  decisions.json  reports.json           the owner's rules; what was decided by itself; complaints made
    source/followers.csv  following.csv      people at the source, if a download listed them
    deliveries.json  receipts.json  holders.json        what became of each post: one by one for thirty days; in
                                             figures, and which servers hold what, for ever
    consents.json  states.json               what was agreed to; the history
    manifest.json  manifest-sha256.txt       what is in it, what is not and why; `sha256sum -c` reads the second

Rule: the same state of the database gives the same bytes; no clock, no randomness. Everything is a stream: memory
grows with the ZIP's table of contents only. Nothing secret is read here: no private key, token, session or sealed
value.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from threadbridge import __version__
from threadbridge.activitypub import blocklists, outgoing
from threadbridge.activitypub.ids import Ids, extension
from threadbridge.activitypub.outgoing import Document
from threadbridge.domain.accounts import Account
from threadbridge.errors import DiskFull, Invalid
from threadbridge.portability import documents
from threadbridge.portability.zip_layout import Sink, Written, ZipWriter
from threadbridge.storage import (
    belongings,
    contacts,
    posts,
    profiles,
    records,
    surroundings,
)
from threadbridge.storage.belongings import Row
from threadbridge.storage.store import Tx

Progress = Callable[[str, int, int], None]
"""Called with what is being written, and how many things of how many are done."""

_PAGE = 200
_CHUNK = 1 << 18
_READ_ONCE = 4 << 20
_DELIVERIES_BETWEEN_PROGRESS = 1000
_ACTIVITY_JSON = "application/activity+json"
_KINDS = {"post": "own_posts", "reply": "own_replies", "repost": "own_reposts"}


class MediaFiles(Protocol):
    """Where the files of posts lie (`media.store.MediaStore`). `chunks` raises FileNotFoundError."""

    def chunks(self, sha256: str, media_type: str) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """A finished archive: bytes, SHA-256 (hex) of the file, what it holds by kind, how much had to be left out."""

    size: int
    sha256: str
    members: int
    counts: dict[str, int]
    omissions: int


def write_archive(
    tx: Tx,
    ids: Ids,
    media: MediaFiles,
    account: Account,
    out: Sink,
    on_progress: Progress,
    *,
    scratch: Path | None = None,
) -> ArchiveSummary:
    """Write the archive of `account` as `tx` (a `store.snapshot()`) sees it.

    `out` need not be able to seek; `scratch` is a folder for temporary files (None: the system's). Raises DiskFull;
    a file of the media store that is missing or damaged is left out and named in the manifest.
    """
    with (
        disk_full_explained(),
        tempfile.SpooledTemporaryFile(_CHUNK, dir=str(scratch) if scratch else None) as omissions,
    ):
        return _Archive(tx, ids, media, account, ZipWriter(out, scratch), omissions, on_progress).write()


@contextmanager
def disk_full_explained() -> Iterator[None]:
    """Turn the system's ways of saying that there is no more room into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                "No space is left for the archive", detail=str(error), hint="Free some space and try again."
            ) from None
        raise


@dataclass(slots=True)
class _Archive:
    """One archive while it is written. Members come in the order of their names, but for the two manifests."""

    tx: Tx
    ids: Ids
    media: MediaFiles
    account: Account
    zip: ZipWriter
    omissions: IO[bytes]
    on_progress: Progress
    total: int = 0
    done: int = 0
    omitted: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    """Hashes of files that could not be had, with the reason."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of files of which the database says something else."""
    counts: dict[str, int] = field(default_factory=dict)
    listed: list[tuple[Written, str]] = field(default_factory=list)
    """Members with their media types, all but the files of posts: those are read from the database again."""

    def write(self) -> ArchiveSummary:
        self.total = records.extent(self.tx, self.account.id)
        header = self._pictures()
        self._rows("blocks", "blocks", "blocks", documents.plain)
        self._collection(documents.BOOKMARKS, outgoing.ACTIVITYSTREAMS, None, ())
        self._consents()
        self._csv()
        self._rows("decisions", "decisions", "decisions", documents.plain)
        self._ledger()
        self._rows("follow_requests", "requests", "follow_requests", documents.plain)
        self._rows("followers", "followers", "follows", documents.plain)
        self._picture(header)
        held = records.holders(self.tx, self.account.id)
        lines = (documents.holder(self.ids, self.account.id, each) for each in held)
        self._list("holders", "holders", self._counted(lines, "deliveries"))
        self._collection(documents.LIKES, outgoing.ACTIVITYSTREAMS, None, ())
        self._files()
        self._outbox()
        self._posts()
        self._profile()
        totals = (documents.delivery_total(each) for each in records.totals(self.tx, self.account.id))
        self._list("receipts", "receipts", self._counted(totals, "deliveries"))
        self._received()
        self._rows("reports", "reports", "reports", documents.plain)
        self._source()
        self._states()
        self._step("manifest", 0)
        self._manifest()
        self._checksums()
        sha256 = self.zip.close()
        return ArchiveSummary(self.zip.size, sha256, self.zip.members, dict(self.counts), self.omitted)

    # ── what Mastodon's archive holds ────────────────────────────────────────────────────────────────────────────

    def _pictures(self) -> _Picture | None:
        """Write actor.json and the avatar; returns the header, whose turn comes later."""
        account = self.account
        avatar = self._examined("avatar", account.avatar, account.avatar_type)
        header = self._examined("header", account.header, account.header_type)
        served = profiles.document(self.tx, self.ids, account)
        document = documents.actor(served, avatar.name if avatar else None, header.name if header else None)
        self._whole("actor.json", document, _ACTIVITY_JSON)
        self._picture(avatar)
        return header

    def _examined(self, what: str, sha256: str | None, media_type: str | None) -> _Picture | None:
        if sha256 is None or media_type is None:
            return None
        name = f"{what}{extension(media_type)}"
        found = _examine(self.media, sha256, media_type)
        if isinstance(found, str):
            self._omit({"path": name, "reason": found})
            return None
        return _Picture(name, sha256, media_type, found)

    def _picture(self, picture: _Picture | None) -> None:
        if picture is not None:
            found = picture.found
            self.zip.store(picture.name, found.chunks(), size=found.size, crc=found.crc)
            self.listed.append((Written(picture.name, found.size, picture.sha256), picture.media_type))

    def _files(self) -> None:
        self.counts["media"] = 0
        for file in records.files(self.tx, self.account.id):
            found = _examine(self.media, file.sha256, file.media_type)
            if isinstance(found, str):
                self.lost[file.sha256] = found
            else:
                name = documents.media_name(file.sha256, file.media_type)
                self.zip.store(name, found.chunks(), size=found.size, crc=found.crc)
                self.counts["media"] += 1
                if found.size != file.size:
                    self.sizes[file.sha256] = found.size
            self._step("media", 1)

    def _outbox(self) -> None:
        context = outgoing.with_context({})["@context"]
        self._collection(documents.OUTBOX, context, "posts", self._creates())

    def _creates(self) -> Iterator[Document]:
        self.counts |= dict.fromkeys(_KINDS.values(), 0)
        stream = posts.oldest_first(self.tx, self.account.id)
        while page := list(islice(stream, _PAGE)):
            around = surroundings.of_posts(self.tx, self.ids, page)
            for post in page:
                self.counts[_KINDS[post.kind]] += 1
                for item in post.attachments:
                    reason = item.missing if item.sha256 is None else self.lost.get(item.sha256)
                    if item.sha256 is None or reason is not None:
                        self._omit(
                            {
                                "post": self.ids.post(self.account.id, post.id),
                                "position": item.position,
                                "kind": item.kind,
                                "reason": reason or "unknown",
                            }
                        )
                yield documents.outbox_item(
                    self.ids, self.account, post, around[post.id], self.account.changed_at, self.lost
                )
            self._step("posts", len(page))

    # ── what else is the owner's ─────────────────────────────────────────────────────────────────────────────────

    def _csv(self) -> None:
        """The lists that Mastodon imports, each with its own idea of a header."""
        rules = list(belongings.rows(self.tx, "blocks", self.account.id))
        for kind, name in (("actor", "accounts"), ("domain", "domains")):
            blocked = [row["subject"] for row in rules if row["kind"] == kind and row["severity"] == "suspend"]
            with self._member(f"csv/blocked_{name}.csv", "text/csv") as write:
                write(blocklists.write_plain(blocked))
            self.counts[f"blocked_{name}"] = len(blocked)
        self.counts["followers"] = 0
        with self._member("csv/followers.csv", "text/csv") as write:
            write(f"{documents.FOLLOWERS_HEADER}\n".encode())
            for follower in belongings.rows(self.tx, "followers", self.account.id):
                address = str(follower["address"] or "").removeprefix("@")
                if follower["ended_at"] is not None:
                    continue
                if address and address.isprintable():
                    write(_csv_line(address))
                    self.counts["followers"] += 1
                else:
                    self._omit({"follower": follower["peer_uri"], "reason": "no address is known"})

    def _received(self) -> None:
        me = self.account.id
        self._rows("received/approvals", "approvals", "approvals", documents.received_approval)
        for name, kind in {"boosts": "announce", "likes": "like"}.items():
            found = (row for row in belongings.rows(self.tx, "reactions", me) if row["kind"] == kind)
            items = (documents.received_reaction(self.ids, me, row) for row in found)
            self._collection(
                f"received/{name}.json", outgoing.ACTIVITYSTREAMS, f"received_{name}", self._counted(items)
            )
        self._texts("mentions")
        self._rows("received/quotes", "quotes", "received_quotes", documents.received_quote)
        self._texts("replies")
        self._rows("received/votes", "votes", "received_votes", documents.plain)

    def _texts(self, kind: str) -> None:
        found = belongings.rows(self.tx, kind, self.account.id)
        items = (documents.received_text(self.ids, self.account.id, row) for row in found)
        self._collection(f"received/{kind}.json", outgoing.ACTIVITYSTREAMS, f"received_{kind}", self._counted(items))

    def _rows(self, name: str, kind: str, figure: str, said: Callable[[Ids, int, Row], Document]) -> None:
        """Rows as they are held, in a list with the member's name."""
        rows = belongings.rows(self.tx, kind, self.account.id)
        items = (said(self.ids, self.account.id, row) for row in rows)
        self._list(name, figure, self._counted(items, "received" if "/" in name else name.replace("_", " ")))

    def _list(self, name: str, figure: str, items: Iterable[Document]) -> None:
        with self._member(f"{name}.json", "application/json") as write:
            write(b'{"%s":[' % name.rpartition("/")[2].encode())
            count = 0
            for item in items:
                write((b",\n" if count else b"\n") + orjson.dumps(item))
                count += 1
            write(b"\n]}\n")
        self.counts[figure] = count

    def _posts(self) -> None:
        self._list("posts", "posts", self._held_posts())

    def _held_posts(self) -> Iterator[Document]:
        stream = posts.oldest_first(self.tx, self.account.id)
        while page := list(islice(stream, _PAGE)):
            for row in belongings.of_posts(self.tx, [post.id for post in page]):
                yield documents.held_post(self.ids, self.account.id, row)

    def _profile(self) -> None:
        said = belongings.of_account(self.tx, self.account.id)
        document = documents.held_profile(self.ids, self.account.id, said)
        self._whole("profile.json", document, "application/json")
        self.counts |= {name: len(rows) for name, rows in said.items() if name in documents.COUNTED_OF_PROFILE}

    def _ledger(self) -> None:
        with self._member("deliveries.json", "application/json") as write:
            write(b'{"deliveries":[')
            count = 0
            for sent in records.deliveries(self.tx, self.account.id):
                write((b",\n" if count else b"\n") + orjson.dumps(documents.delivery(sent)))
                count += 1
                if count % _DELIVERIES_BETWEEN_PROGRESS == 0:
                    self._step("deliveries", _DELIVERIES_BETWEEN_PROGRESS)
            write(b"\n]}\n")
        self._step("deliveries", count % _DELIVERIES_BETWEEN_PROGRESS)
        self.counts["deliveries"] = count

    def _consents(self) -> None:
        given = records.consents(self.tx, self.account.id)
        self._whole("consents.json", {"consents": [documents.consent(each) for each in given]}, "application/json")
        self.counts["consents"] = len(given)

    def _states(self) -> None:
        states = records.states(self.tx, self.account.id)
        self._whole("states.json", {"states": [documents.state_change(each) for each in states]}, "application/json")

    def _source(self) -> None:
        held = contacts.counts(self.tx, self.account.id)
        relations: tuple[tuple[contacts.Relation, str], ...] = (("follower", "followers"), ("following", "following"))
        for relation, name in relations:
            if not held.get(relation):
                continue
            with self._member(f"source/{name}.csv", "text/csv") as write:
                write(b"Username,Name,URL,Since\n")
                for person in contacts.listed(self.tx, self.account.id, relation):
                    since = documents.moment(person.at) or ""
                    write(_csv_line(person.username, person.name, person.url or "", since))
            self.counts[f"source_{name}"] = held[relation]

    # ── the manifests ────────────────────────────────────────────────────────────────────────────────────────────

    def _manifest(self) -> None:
        counts = dict(sorted({**self.counts, "omissions": self.omitted}.items()))
        head = documents.manifest_head(self.ids, self.account, __version__, counts)
        with self._member("manifest.json", "application/json") as write:
            write(orjson.dumps(head)[:-1] + b',"omissions":[')
            self.omissions.seek(0)
            while chunk := self.omissions.read(_CHUNK):
                write(chunk)
            write(b'],"members":[')
            between = b"\n"
            for member, media_type in self._members():
                line = {
                    "path": member.name, "size": member.size, "sha256": member.sha256, "media_type": media_type,
                }  # fmt: skip
                write(between + orjson.dumps(line))
                between = b",\n"
            write(b"\n]}\n")

    def _checksums(self) -> None:
        with self._member("manifest-sha256.txt", "text/plain") as write:
            for member, _ in self._members():
                write(f"{member.sha256}  {member.name}\n".encode())

    def _members(self) -> Iterator[tuple[Written, str]]:
        """Every member written so far, by name. All files of posts have names between 'media' and 'o'."""
        others = sorted(self.listed, key=lambda pair: pair[0].name)
        yield from (pair for pair in others if pair[0].name < "media_attachments/")
        for file in records.files(self.tx, self.account.id):
            if file.sha256 not in self.lost:
                name = documents.media_name(file.sha256, file.media_type)
                yield Written(name, self.sizes.get(file.sha256, file.size), file.sha256), file.media_type
        yield from (pair for pair in others if pair[0].name > "media_attachments/")

    # ── small steps ──────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _member(self, name: str, media_type: str) -> Iterator[Callable[[bytes], None]]:
        with self.zip.deflate(name) as member:
            yield member.write
        self.listed.append((member.written(), media_type))

    def _whole(self, name: str, document: Document, media_type: str) -> None:
        with self._member(name, media_type) as write:
            write(orjson.dumps(document) + b"\n")

    def _collection(self, name: str, context: Any, counted: str | None, items: Iterable[Document]) -> None:
        """An OrderedCollection, one item per line. `counted` names its figure in the manifest; Mastodon gives likes
        and bookmarks no totalItems, so those without a name have none."""
        with self._member(name, _ACTIVITY_JSON) as write:
            write(orjson.dumps(documents.collection_head(name, context))[:-1] + b',"orderedItems":[')
            count = 0
            for item in items:
                write((b",\n" if count else b"\n") + orjson.dumps(item))
                count += 1
            write((b"\n" if count else b"") + b"]")
            if counted is not None:
                write(b',"totalItems":%d' % count)
                self.counts[counted] = count
            write(b"}\n")

    def _counted(self, items: Iterator[Document], phase: str = "received") -> Iterator[Document]:
        for item in items:
            yield item
            self._step(phase, 1)

    def _omit(self, what: dict[str, Any]) -> None:
        self.omissions.write((b",\n" if self.omitted else b"\n") + orjson.dumps(what))
        self.omitted += 1

    def _step(self, phase: str, count: int) -> None:
        self.done += count
        self.on_progress(phase, self.done, self.total)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture of the profile and the member that holds it."""

    name: str
    sha256: str
    media_type: str
    found: _Found


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of the media store that is what its name says. Small ones are kept, so that they are read once."""

    again: Callable[[], Iterator[bytes]]
    name: str
    size: int
    crc: int
    whole: bytes | None

    def chunks(self) -> Iterator[bytes]:
        if self.whole is not None:
            yield self.whole
            return
        crc = 0
        try:
            for chunk in self.again():
                crc = zlib.crc32(chunk, crc)
                yield chunk
        except OSError as error:
            raise Invalid(f"The media file {self.name} could not be read twice", detail=str(error)) from None
        if crc != self.crc:
            raise Invalid(f"The media file {self.name} changed while it was read")


def _examine(media: MediaFiles, sha256: str, media_type: str) -> _Found | str:
    """Read a file through: what its header needs, or the reason why it cannot be given away."""
    digest, size, crc = hashlib.sha256(), 0, 0
    kept: list[bytes] = []
    try:
        for chunk in media.chunks(sha256, media_type):
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            if size <= _READ_ONCE:
                kept.append(chunk)
            else:
                kept.clear()
    except FileNotFoundError:
        return "the file is missing in the media folder of the server"
    except OSError as error:
        return f"the file could not be read from the media folder of the server: {error.strerror}"
    if digest.hexdigest() != sha256:
        return "the file in the media folder of the server is damaged"
    again, name = partial(media.chunks, sha256, media_type), f"{sha256}{extension(media_type)}"
    return _Found(again, name, size, crc, b"".join(kept) if size <= _READ_ONCE else None)


def _csv_line(*fields: str) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue().encode()
