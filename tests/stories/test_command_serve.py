"""`serve` and `work` start in words, stop in time, and one database file has one of each."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.rig import eventually, free_socket
from tests.stories.command_line import CommandLine, answers
from tests.world.download_samples import POSTS, PROFILE, posts_file, profile_file, single, zip_of


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_it_starts_again(shell: CommandLine, number: signal.Signals) -> None:
    for _ in range(2):
        with shell.serving() as server:
            assert f"serves {shell.base} on 127.0.0.1:{shell.port}" in server.err
            server.stopped(number).went_well()
    assert not answers(f"{shell.base}/livez")


def test_a_kill_needs_no_repair(shell: CommandLine) -> None:
    with shell.serving() as server:
        server.send(signal.SIGKILL)
        assert server.done().status == -signal.SIGKILL
    with shell.serving() as server:
        server.stopped().went_well()


def test_a_client_that_holds_its_connection_does_not_hold_up_the_end(shell: CommandLine) -> None:
    here = ("127.0.0.1", shell.port)
    with shell.serving() as server, socket.create_connection(here), socket.create_connection(here) as slow:
        slow.sendall(
            f"POST /ap/inbox HTTP/1.1\r\nHost: 127.0.0.1:{shell.port}\r\n"
            "Content-Type: application/activity+json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        time.sleep(0.2)
        ended = server.stopped(seconds=8).went_well()
    for line in ended.err.splitlines()[1:]:
        json.loads(line)  # what libraries say, too


def test_a_second_one_on_the_same_file_is_refused_with_the_pid_of_the_first(shell: CommandLine) -> None:
    with shell.serving() as first, free_socket() as sock:
        before = shell.everything()
        port = str(sock.getsockname()[1])
        said = shell.run("serve", "--port", port).refused(f"pid {first.pid}", "Stop it first", "PostgreSQL", status=1)
        assert "serves" not in said.err
        # The same by another way to the same file.
        other = shell.folder / "another folder"
        other.mkdir()
        shutil.copy(shell.data / "secret.key", other / "secret.key")
        link = shell.folder / "a link"
        link.symlink_to(shell.data)
        url = f"sqlite:///{link / 'threadbridge.sqlite3'}"
        shell.run("serve", "--port", port, DATA_DIR=str(other), DATABASE_URL=url).refused(f"pid {first.pid}")
        shell.run("work").refused(f"pid {first.pid}", "as worker")
        assert shell.everything() == before
        assert answers(f"{shell.base}/readyz")


def test_web_and_worker_apart(shell: CommandLine) -> None:
    with shell.serving("--no-worker") as web, shell.working() as worker:
        shell.run("work").refused(f"pid {worker.pid}")
        shell.run("serve", "--no-worker").refused(f"pid {web.pid}")
        worker.stopped().went_well()
        assert answers(f"{shell.base}/readyz")


def test_a_port_that_is_taken(shell: CommandLine) -> None:
    with free_socket() as sock:
        port = str(sock.getsockname()[1])
        said = shell.run("serve", "--port", port).refused(f"Port {port} on 127.0.0.1 is taken", "--port", status=2)
        assert "serves" not in said.err
        shell.run("serve", PORT=port).refused("is taken")
        shell.run("sandbox", "--port", port).refused("is taken", "--port")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a..b", "::2"])
def test_an_address_that_is_not_ours(shell: CommandLine, host: str) -> None:
    shell.run("serve", "--host", host).refused("Cannot listen on", host, status=2)


def test_it_takes_as_many_open_files_as_it_may(shell: CommandLine) -> None:
    """From nothing, in a process of its own, whose soft limit is what many systems begin with."""
    environment = {**os.environ, **{f"THREADBRIDGE_{name}": value for name, value in shell.settings.items()}}
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 5000) if hard != resource.RLIM_INFINITY else 5000
    process = subprocess.Popen(
        [sys.executable, "-m", "threadbridge", "serve"],
        env=environment,
        cwd=shell.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, wanted)),
    )
    try:
        eventually(lambda: answers(f"{shell.base}/readyz"), 30)
        limits = Path(f"/proc/{process.pid}/limits")
        if limits.exists():
            line = next(line for line in limits.read_text().splitlines() if line.startswith("Max open files"))
            assert line.split()[3:5] == [str(wanted)] * 2
    finally:
        process.terminate()
        assert process.wait(8) == 0


def test_the_log_of_a_program_is_json_and_holds_no_secret(shell: CommandLine, tmp_path: Path) -> None:
    download = zip_of(tmp_path / "a.zip", {POSTS: posts_file(single("x")), PROFILE: profile_file()})
    with shell.serving() as server:
        shell.run("import", download).went_well()
        shell.run("login-link", "ana.example").went_well()
        ended = server.stopped().went_well()
    assert '"event": "stopping"' in ended.err
    assert "token" not in ended.err
