"""`threadbridge export`: the file is whole or not there, and what is wrong is said."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stories.archived_account import IDS, Place, archive_bytes, fill, many_posts, place, put_file, quiet

from threadbridge.errors import Invalid, NotFound
from threadbridge.portability.exports import export_now
from threadbridge.portability.verify import verify

HERE = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path / "data dir") as found:
        fill(found)
        yield found


def test_it_writes_one_whole_file(here: Place, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    output = tmp_path / "my archive.zip"
    output.write_bytes(b"an older one")
    summary = export_now(
        here.store, IDS, here.media, "@Anna@bridge.example", output, lambda *step: steps.append(step)
    )
    assert output.read_bytes() == archive_bytes(here)[0]
    assert summary.size == output.stat().st_size
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert verify(output).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data dir", "my archive.zip"]
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert steps[-1][1] == steps[-1][2]


def test_a_link_is_followed_and_not_replaced(here: Place, tmp_path: Path) -> None:
    (tmp_path / "real.zip").write_bytes(b"old")
    (tmp_path / "link.zip").symlink_to(tmp_path / "real.zip")
    export_now(here.store, IDS, here.media, "anna", tmp_path / "link.zip", quiet)
    assert (tmp_path / "link.zip").is_symlink()
    assert verify(tmp_path / "real.zip").ok


def test_a_pipe_is_written_to(here: Place, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    export_now(here.store, IDS, here.media, "anna", tmp_path / "pipe", quiet)
    reader.join(5)
    assert got, "nothing came through the pipe"
    assert got[0] == archive_bytes(here)[0]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (".", "is a folder"),
        ("no/such/folder/a.zip", "cannot be written"),
        ("data dir/x" + "y" * 300, "cannot be written"),
    ],
)
def test_an_output_that_cannot_be_is_explained(here: Place, tmp_path: Path, output: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        export_now(here.store, IDS, here.media, "anna", tmp_path / output, quiet)
    assert not list(tmp_path.rglob("*.part"))


def test_an_unknown_handle_is_explained(here: Place, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nobody"):
        export_now(here.store, IDS, here.media, "nobody", tmp_path / "a.zip", quiet)
    assert not (tmp_path / "a.zip").exists()


def test_an_interruption_leaves_the_older_file_alone(here: Place, tmp_path: Path) -> None:
    output = tmp_path / "a.zip"
    output.write_bytes(b"the older one")

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "posts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_now(here.store, IDS, here.media, "anna", output, interrupt)
    assert output.read_bytes() == b"the older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "data dir"]


_COMMAND = """
    import resource, sys
    from pathlib import Path
    from tests.stories.archived_account import IDS, quiet
    from threadbridge.errors import DiskFull
    from threadbridge.media.store import MediaStore
    from threadbridge.portability.exports import export_now
    from threadbridge.storage.store import Store

    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    store = Store.open(f"sqlite:///{folder / 'test.sqlite3'}")
    store.read_now(lambda tx: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        export_now(store, IDS, MediaStore(folder / "media"), "anna", output, quiet)
    except DiskFull as error:
        print(error.public)
"""


def test_a_disk_that_is_full_half_way_leaves_nothing(tmp_path: Path) -> None:
    """The system itself refuses to let the file grow, in a process of its own."""
    with place(tmp_path / "data") as here:
        many_posts(here, 20, [put_file(here, os.urandom(300_000)) for _ in range(10)])
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_COMMAND), str(tmp_path / "data"), str(tmp_path / "out" / "a.zip")],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": f"{HERE / 'src'}:{HERE}"},
        capture_output=True,
        check=False,
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"No space is left for the archive\n"
    assert list((tmp_path / "out").iterdir()) == []
