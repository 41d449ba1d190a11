"""An owner asks for an archive: it is built in the background, survives a kill, and always ends visibly."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stories.archived_account import IDS, Place, fill, many_posts, place

from threadbridge.errors import Unavailable
from threadbridge.portability import exports
from threadbridge.portability.verify import verify
from threadbridge.storage import exports as rows
from threadbridge.storage import jobs
from threadbridge.storage.exports import Export
from threadbridge.storage.jobs import Job

HERE = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path: Path, database_url: str) -> Iterator[Place]:
    with place(tmp_path, database_url) as found:
        yield found


def _asked(here: Place) -> tuple[int, Job]:
    number = here.store.transact_now(exports.request, here.account_id)
    return number, here.store.transact_now(jobs.take, [exports.BUILD], 8.0, 1)[0]


def _row(here: Place, number: int) -> Export:
    found = here.store.read_now(rows.get, number)
    assert found is not None
    return found


def _files(here: Place) -> list[str]:
    folder = exports.folder(here.data_dir)
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_it_is_built_and_shown(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(here)
    monkeypatch.setattr(exports, "_PROGRESS_SECONDS", 0)
    seen: list[tuple[str, str, int, int]] = []
    set_progress = rows.set_progress

    def watched(tx: object, export_id: int, phase: str, done: int, total: int) -> None:
        set_progress(tx, export_id, phase, done, total)  # type: ignore[arg-type]
        found = rows.get(tx, export_id)  # type: ignore[arg-type]
        assert found is not None
        seen.append((found.state, found.phase, found.done, found.total))

    monkeypatch.setattr(rows, "set_progress", watched)
    number, job = _asked(here)
    assert job.arguments == {"export": number}
    assert _row(here, number).state == "waiting"
    assert here.store.transact_now(exports.request, here.account_id) == number
    exports.build(here.store, IDS, here.media, here.data_dir, job)

    assert {state for state, *_ in seen} == {"building"}
    assert [done for _, _, done, _ in seen] == sorted(done for _, _, done, _ in seen)
    assert seen[-1][2] == seen[-1][3] > 30
    assert {"media", "posts", "received", "followers", "deliveries"} <= {phase for _, phase, *_ in seen}
    row = _row(here, number)
    path = exports.file_of(here.data_dir, row)
    assert path is not None
    assert (row.state, row.size, row.done) == ("ready", path.stat().st_size, row.total)
    assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verify(path).ok
    assert here.store.transact_now(jobs.take, [exports.BUILD], 8.0, 1) == []
    assert here.store.transact_now(exports.request, here.account_id) != number


def test_the_newest_three_are_kept(here: Place) -> None:
    built = []
    for _ in range(5):
        number, job = _asked(here)
        exports.build(here.store, IDS, here.media, here.data_dir, job)
        built.append(number)
    assert [row.id for row in here.store.read_now(rows.listed, here.account_id)] == built[:1:-1]
    assert sorted(int(name.split("-")[0]) for name in _files(here)) == built[2:]


def test_progress_is_written_at_most_twice_a_second(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    many_posts(here, 3000)
    written: list[int] = []
    monkeypatch.setattr(rows, "set_progress", lambda tx, export_id, phase, done, total: written.append(done))
    _, job = _asked(here)
    began = time.monotonic()
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    assert 1 <= len(written) <= 2 * (time.monotonic() - began) + 2


def test_a_full_disk_is_said_and_leaves_nothing(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(here)
    number, job = _asked(here)

    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("threadbridge.portability.zip_layout.ZipWriter._write", full)
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    row = _row(here, number)
    assert (row.state, row.reason) == ("failed", "No space is left for the archive")
    assert _files(here) == []
    assert here.store.transact_now(jobs.take, [exports.BUILD], 8.0, 1) == []
    monkeypatch.undo()
    again, job = _asked(here)
    assert again != number
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    assert _row(here, again).state == "ready"


def test_an_error_of_ours_is_said_without_its_words(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    number, job = _asked(here)

    def wrong(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret innards")

    monkeypatch.setattr(exports, "write_archive", wrong)
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    row = _row(here, number)
    assert row.state == "failed"
    assert row.reason is not None
    assert "innards" not in row.reason
    assert _files(here) == []


def test_a_stop_leaves_the_job_for_the_next_start(here: Place) -> None:
    fill(here)
    number, job = _asked(here)
    with pytest.raises(Unavailable):
        exports.build(here.store, IDS, here.media, here.data_dir, job, stopping=lambda: True)
    assert _row(here, number).under_way
    assert _files(here) == []
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    assert _row(here, number).state == "ready"


def test_who_lost_the_lease_changes_nothing(here: Place) -> None:
    number, stale = _asked(here)
    here.store.transact_now(lambda tx: jobs.put_off(tx, stale, tx.now))
    (fresh,) = here.store.transact_now(jobs.take, [exports.BUILD], 8.0, 1)
    exports.build(here.store, IDS, here.media, here.data_dir, stale)
    assert _row(here, number).under_way
    assert _files(here) == []
    exports.build(here.store, IDS, here.media, here.data_dir, fresh)
    assert _row(here, number).state == "ready"
    assert len(_files(here)) == 1


def test_a_build_that_was_given_up_does_not_block_the_next(here: Place) -> None:
    number, job = _asked(here)
    here.store.transact_now(lambda tx: jobs.give_up(tx, job, "tried often enough"))
    again, _ = _asked(here)
    assert again != number
    assert _row(here, number).state == "failed"


_BUILDER = """
    import sys, time
    from pathlib import Path
    from tests.stories.archived_account import IDS
    from threadbridge.media.store import MediaStore
    from threadbridge.portability import exports
    from threadbridge.storage import jobs
    from threadbridge.storage.store import Store

    folder, url = Path(sys.argv[1]), sys.argv[2]
    store = Store.open(url)
    steps = iter(range(1000))

    def stopping():
        if next(steps) == 3:
            print("half-way", flush=True)
            time.sleep(60)
        return False

    (job,) = store.transact_now(jobs.take, [exports.BUILD], 0.0, 1)
    exports.build(store, IDS, MediaStore(folder / "media"), folder, job, stopping=stopping)
"""


def test_a_killed_build_is_done_again(here: Place, database_url: str) -> None:
    fill(here)
    number = here.store.transact_now(exports.request, here.account_id)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_BUILDER), str(here.data_dir), database_url],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": f"{HERE / 'src'}:{HERE}"},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"half-way\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = _files(here)
    assert len(left) == 1
    assert left[0].endswith(".zip.part")
    here.store.transact_now(lambda tx: tx.connection.exec_driver_sql("UPDATE jobs SET leased_until = 0"))
    (job,) = here.store.transact_now(jobs.take, [exports.BUILD], 8.0, 1)
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    row = _row(here, number)
    assert row.state == "ready"
    assert _files(here) == [row.file]
    path = exports.file_of(here.data_dir, row)
    assert path is not None
    assert verify(path).ok


def test_files_that_belong_to_nobody_are_swept(here: Place) -> None:
    first, job = _asked(here)
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    kept = _files(here)
    stray = exports.folder(here.data_dir) / f"999-{'0' * 32}.zip"
    other = exports.folder(here.data_dir) / "notes.txt"
    for path in (stray, other):
        path.write_bytes(b"x")
    _, job = _asked(here)
    exports.build(here.store, IDS, here.media, here.data_dir, job)
    assert not stray.exists()
    assert other.exists()
    assert set(kept) < set(_files(here))
    assert _row(here, first).state == "ready"
