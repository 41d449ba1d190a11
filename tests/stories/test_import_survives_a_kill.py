"""An import that is killed at any moment goes on where it stopped, and ends with everything once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import func, select
from tests.world.download_samples import NOON, POSTS, PROFILE, picture, posts_file, profile_file, single, zip_of

from threadbridge.storage import schema
from threadbridge.storage.store import Store, Tx

COUNT = 400
KILLS = 3

IMPORT = """
import sys
from pathlib import Path
from threadbridge.media.store import MediaStore
from threadbridge.portability import imports
from threadbridge.sources.threads_download import open_download
from threadbridge.storage.store import Store
from threadbridge.storage.vault import NewKey, Vault

imports.BATCH = 20
folder = Path(sys.argv[1])
store = Store.open(f"sqlite:///{folder / 'db.sqlite3'}")
with MediaStore(folder / "media") as media, open_download([folder / "a.zip"]) as download:
    summary = imports.import_download(
        store, media, Vault(bytes(32)), download, handle=None, dry_run=False,
        new_key=lambda: NewKey("public", b"private"), on_progress=lambda progress: print(progress.done, flush=True),
    )
    print("end", summary.posts_new, summary.posts_known, summary.media_found, flush=True)
store.close()
"""


def test_an_import_killed_again_and_again_is_whole_in_the_end(tmp_path: Path) -> None:
    entries = [single(f"post {number}", NOON + number, f"media/{number}.png") for number in range(COUNT)]
    pictures = {f"media/{number}.png": picture("PNG", size=(10 + number, 10)) for number in range(COUNT)}
    zip_of(tmp_path / "a.zip", {POSTS: posts_file(*entries), PROFILE: profile_file(), **pictures})
    store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    schema.metadata.create_all(store.engine)
    chance = random.Random(7)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", IMPORT, str(tmp_path)]
    reached = 0
    for _ in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        held = rows(store, "posts")
        assert held % 20 == 0  # whole batches
        assert held == rows(store, "origins") == rows(store, "attachments") == rows(store, "media")
        assert held >= reached
        reached = held
    assert reached > 0
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == f"end {COUNT - reached} {reached} {COUNT - reached}"
    assert rows(store, "posts") == rows(store, "media") == rows(store, "origins") == COUNT
    assert rows(store, "accounts") == 1
    digests = store.read_now(lambda tx: [row.sha256 for row in tx.execute(select(schema.media.c.sha256))])
    files = {path.stem for path in (tmp_path / "media").rglob("*.png")}
    assert set(digests) == files
    store.close()


def rows(store: Store, table: str) -> int:
    def count(tx: Tx) -> int:
        found: int = tx.execute(select(func.count()).select_from(schema.metadata.tables[table])).scalar_one()
        return found

    return store.read_now(count)
