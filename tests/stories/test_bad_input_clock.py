"""A clock that is two days wrong: `doctor` says so, and so does the answer to whoever signed under it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Stranger, free_socket
from tests.stories.command_line import CommandLine

TWO_DAYS = timedelta(days=2)


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


@contextmanager
def a_server_whose_clock_differs(by: timedelta) -> Iterator[str]:
    """Answers everything with 401 and its own idea of the time."""
    listening = free_socket()
    listening.setblocking(True)

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                date = format_datetime(datetime.now(UTC) + by, usegmt=True)
                head = f"HTTP/1.1 401 Unauthorized\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def clock(shell: CommandLine, graph_url: str) -> tuple[int, dict[str, Any]]:
    done = shell.run("doctor", "--json", GRAPH_URL=graph_url)
    assert "Traceback" not in done.err
    return done.status, next(found for found in done.json if found["subject"] == "clock")


@pytest.mark.parametrize(("by", "way"), [(TWO_DAYS, "behind"), (-TWO_DAYS, "ahead of")])
def test_the_doctor_says_how_wrong_and_which_way(shell: CommandLine, by: timedelta, way: str) -> None:
    # Beside our own server, whose clock is this one, and says nothing against the others'.
    with a_server_whose_clock_differs(by) as address, shell.serving("--no-worker"):
        status, found = clock(shell, address)
    assert (status, found["level"]) == (1, "error")
    assert f"2 days {way} other servers'" in found["words"]
    assert "NTP" in found["words"]
    assert "signatures" in found["words"]


def test_a_clock_that_is_right_is_well(shell: CommandLine) -> None:
    with a_server_whose_clock_differs(timedelta(seconds=2)) as address:
        status, found = clock(shell, address)
    assert (status, found["level"]) == (0, "ok")


def test_a_minute_is_a_warning(shell: CommandLine) -> None:
    with a_server_whose_clock_differs(timedelta(seconds=90)) as address:
        status, found = clock(shell, address)
    assert (status, found["level"]) == (0, "warning")
    assert re.search(r"(89|90) seconds behind", found["words"])


@pytest.mark.parametrize("by", [TWO_DAYS, -TWO_DAYS])
def test_who_signs_by_a_wrong_clock_hears_both_times(shell: CommandLine, by: timedelta) -> None:
    somebody = Stranger("http://127.0.0.1:1")
    theirs = datetime.now(UTC) + by
    with shell.serving("--no-worker"):
        before = shell.everything()
        answer = somebody.post(f"{shell.base}/ap/inbox", somebody.activity("Follow", f"{shell.base}/x"), at=theirs)
        assert shell.everything() == before
    assert answer.status_code == 401
    words = answer.json()["error"]
    assert theirs.strftime("%Y-%m-%d %H:%M:%S") in words
    assert datetime.now(UTC).strftime("%Y-%m-%d") in words
    assert "clock" in words
