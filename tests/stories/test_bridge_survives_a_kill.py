"""`connect` is killed while it reads the history, beside a running server: the worker brings the rest, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from tests.rig import eventually
from tests.stories.bridged_account import HANGING, Answer, Place, place


def connecting(here: Place, folder: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "THREADBRIDGE_DATA_DIR": str(folder),
        "THREADBRIDGE_BASE_URL": here.bridge.base,
        "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    command = [sys.executable, "-m", "threadbridge", "connect", "--token", "-", "--graph-url", here.threads.base]
    process = subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(here.threads.person.token + "\n")
    process.stdin.close()
    return process


def test_a_killed_connect_is_whole_in_the_end(tmp_path: Path) -> None:
    pages = 2
    with place(tmp_path, worker=False) as here:
        here.follow(here.bridge.account("mira"))  # the web process answers; deliveries wait for a worker
        entries = here.threads.history(220)
        parent, chain = entries[100], []
        for number in range(5):
            at = entries[100].created + timedelta(seconds=10 + number)
            parent = here.threads.post(f"chain {number}", at=at, reply_to=parent.id, media=here.threads.items("x"))
            chain.append(parent)
        asked = 0

        def stop_after(path: str, query: dict[str, str]) -> Answer | None:
            nonlocal asked
            asked += "after" in query
            return HANGING if asked >= pages else None

        here.threads.gate = stop_after
        process = connecting(here, tmp_path / "data")
        eventually(lambda: here.bridge.count("posts") >= 50 * pages, 30)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert here.bridge.count("posts") == 50 * pages

        here.threads.gate = lambda path, query: None
        here.bridge.start_worker()
        eventually(lambda: here.connection().history_done_at, 20)
        assert here.bridge.count("posts") == here.bridge.count("origins") == 225
        assert here.said("Create") == 0
        held = [here.held(entry) for entry in (entries[100], *chain)]
        assert [post.parent_id for post in held[1:] if post] == [post.id for post in held[:-1] if post]
        assert all(post.attachments[0].sha256 for post in held[1:] if post)
        here.note_of(here.threads.post("and then this"))
        assert [activity["type"] for activity in here.stranger.received].count("Create") == 1
