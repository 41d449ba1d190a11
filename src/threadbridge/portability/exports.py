"""Building archives: the job behind the owner's button, and the command `threadbridge export`.

An archive is written in a folder of this machine and then put on the shelf of archives, which is that folder or a
store that all machines share (`media.shelves`).

Rule: a file has its final name only when it is whole and on the disk; whatever fails leaves no file behind, and an
export always ends as ready, or as failed with words that its owner may read. A build that was killed is simply done
again from the beginning.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account
from threadbridge.errors import DatabaseBusy, DiskFull, Invalid, NotFound, ThreadbridgeError, Unavailable
from threadbridge.media.shelves import FolderShelf, Shelf
from threadbridge.portability.archive import (
    ArchiveSummary,
    MediaFiles,
    Progress,
    disk_full_explained,
    write_archive,
)
from threadbridge.storage import accounts, jobs
from threadbridge.storage import exports as rows
from threadbridge.storage.exports import Export
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

BUILD = "build_export"
"""The kind of job that builds an archive; its key is the export's number."""

KEPT = 3
"""Finished archives that are kept per account."""
_PROGRESS_SECONDS = 0.5
_BUFFER = 1 << 20
_FILE = re.compile(r"([1-9][0-9]{0,17})-[0-9a-f]{32}\.zip(?:\.part)?")


def request(tx: Tx, account_id: int) -> int:
    """Ask for an archive; returns its number, or that of the one already under way."""
    present = rows.under_way(tx, account_id, BUILD)
    if present is not None:
        return present.id
    rows.abandon(tx, account_id, "The server stopped working on it")
    export_id = rows.create(tx, account_id)
    jobs.add(tx, BUILD, str(export_id), {"export": export_id})
    return export_id


def folder(data_dir: Path) -> Path:
    """Where finished archives lie."""
    return data_dir / "exports"


def name_of(export: Export) -> str | None:
    """What the file of a finished archive is called on the shelf; None when it is not ready."""
    if export.state != "ready" or export.file is None or not _FILE.fullmatch(export.file):
        return None
    return export.file


def file_of(data_dir: Path, export: Export) -> Path | None:
    """The file of a finished archive; None when it is not ready, or lies on another machine."""
    name = name_of(export)
    path = folder(data_dir) / name if name is not None else None
    return path if path is not None and path.is_file() else None


# ── the job ──────────────────────────────────────────────────────────────────────────────────────────────────────


def build(
    store: Store,
    ids: Ids,
    media: MediaFiles,
    data_dir: Path,
    job: Job,
    *,
    stopping: Callable[[], bool] = lambda: False,
    shelf: Shelf | None = None,
) -> None:
    """Build the archive that `job` (arguments {"export": number}) asks for, and put it on `shelf` (by default the
    folder in which it is written). Blocking: call it in a thread.

    Failures end in the row, not in an exception; only Unavailable (the database is away, or `stopping` says that the
    process ends) is raised, since then the job is to be done again.
    """
    export = store.read_now(rows.get, int(job.arguments["export"]))
    if export is None or not export.under_way:
        store.transact_now(jobs.finish, job)
        return
    target = folder(data_dir) / f"{export.id}-{secrets.token_hex(16)}.zip"
    keeping = shelf if shelf is not None else FolderShelf(target.parent)
    try:
        with disk_full_explained():
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(store, target.parent, export.id)
            for stray in keeping.beginning_with(f"{export.id}-"):
                keeping.remove(stray)
            summary = _written(store, ids, media, export, target, _Reporter(store, export.id, stopping))
            _shelve(keeping, target)
    except ThreadbridgeError as error:
        if isinstance(error, Unavailable) and not isinstance(error, DiskFull):
            raise
        log.warning("an archive could not be built", export=export.id, error=str(error))
        store.transact_now(_failed, job, export.id, error.public)
    except OSError as error:
        log.warning("an archive could not be built", export=export.id, error=str(error))
        words = f"The server could not write the archive ({error.strerror or 'unknown reason'})"
        store.transact_now(_failed, job, export.id, words)
    except Exception:
        log.exception("an archive could not be built", export=export.id)
        store.transact_now(_failed, job, export.id, "An error of the server; its operator finds it in the log")
    else:
        for name in store.transact_now(_ready, job, export, target.name, summary):
            keeping.remove(name)


def _written(
    store: Store, ids: Ids, media: MediaFiles, export: Export, target: Path, report: Progress
) -> ArchiveSummary:
    part = target.with_name(target.name + ".part")
    try:
        with store.snapshot() as tx, _private_file(part) as out:
            account = accounts.by_id(tx, export.account_id)
            if account is None:
                raise NotFound("The account does not exist any more")
            summary = write_archive(tx, ids, media, account, out, report, scratch=part.parent)
            _flush(out)
        part.rename(target)
        _flush_folder(target.parent)
        return summary
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _shelve(shelf: Shelf, target: Path) -> None:
    """Put a finished archive where all machines find it, if that is not where it lies."""
    if shelf.path(target.name) == target:
        return
    try:
        shelf.put(target.name, target, media_type="application/zip")
    finally:
        target.unlink(missing_ok=True)


def _ready(tx: Tx, job: Job, export: Export, name: str, summary: ArchiveSummary) -> list[str]:
    """The files that may go: our own, if somebody else took the job over meanwhile."""
    if not jobs.finish(tx, job):
        return [name]
    rows.set_ready(tx, export.id, file=name, size=summary.size, sha256=summary.sha256)
    return rows.retire(tx, export.account_id, KEPT)


def _failed(tx: Tx, job: Job, export_id: int, reason: str) -> None:
    if jobs.finish(tx, job):
        rows.set_failed(tx, export_id, reason)


class _Reporter:
    """Writes progress down, at most twice a second."""

    def __init__(self, store: Store, export_id: int, stopping: Callable[[], bool]) -> None:
        self._store = store
        self._export_id = export_id
        self._stopping = stopping
        self._next = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self._stopping():
            raise Unavailable("The server is shutting down")
        if time.monotonic() < self._next:
            return
        # A full or busy database does not keep an archive from being written.
        with suppress(DatabaseBusy, DiskFull):
            self._store.transact_now(rows.set_progress, self._export_id, phase, done, total)
        self._next = time.monotonic() + _PROGRESS_SECONDS


def _sweep(store: Store, exports: Path, export_id: int) -> None:
    """Remove what a killed build of this export left behind, and files of exports that have ended without them."""
    found = {path: int(match[1]) for path in exports.iterdir() if (match := _FILE.fullmatch(path.name))}
    known = store.read_now(rows.by_ids, sorted(set(found.values())))
    for path, number in found.items():
        export = known.get(number)
        if number == export_id or export is None or (not export.under_way and export.file != path.name):
            path.unlink(missing_ok=True)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def export_now(
    store: Store, ids: Ids, media: MediaFiles, handle: str, output: Path, on_progress: Progress
) -> ArchiveSummary:
    """Write the archive of the account `handle` to `output`, replacing a file of that name when it is whole.

    Raises NotFound for the handle, Invalid for an output that cannot be written, DiskFull.
    """
    try:
        if output.is_dir():
            raise Invalid(f"{output} is a folder", hint=f"Name a file, for example {output / 'archive.zip'}.")
        with disk_full_explained(), store.snapshot() as tx:
            account = accounts.named(tx, handle)
            if output.exists() and not output.is_file():  # a pipe or a device: nothing to put in its place
                with open(output, "wb", buffering=_BUFFER) as out:
                    return write_archive(tx, ids, media, account, out, on_progress)
            return _put(tx, ids, media, account, output.resolve(), on_progress)
    except OSError as error:
        raise Invalid(
            f"{output} cannot be written",
            detail=error.strerror or str(error),
            hint="Name a file in a folder that exists and that you may write to.",
        ) from None


def _put(
    tx: Tx, ids: Ids, media: MediaFiles, account: Account, output: Path, on_progress: Progress
) -> ArchiveSummary:
    descriptor, name = tempfile.mkstemp(prefix=".threadbridge-", suffix=".part", dir=output.parent)
    part = Path(name)
    try:
        with open(descriptor, "wb", buffering=_BUFFER) as out:
            summary = write_archive(tx, ids, media, account, out, on_progress, scratch=output.parent)
            _flush(out)
        part.replace(output)
        _flush_folder(output.parent)
        return summary
    except BaseException:
        part.unlink(missing_ok=True)
        raise


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _private_file(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=_BUFFER) as out:
        yield out


def _flush(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
