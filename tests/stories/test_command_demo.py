"""The guided walk as a command: every step in order, an end when asked to, and nothing left behind."""

from __future__ import annotations

import re
import signal
import tempfile
from pathlib import Path

import httpx2
import pytest
from tests.rig import eventually, free_socket
from tests.stories.command_line import CommandLine, Done, Running, answers

from threadbridge import demo
from threadbridge.errors import BadConfiguration
from threadbridge.sandbox import sample
from threadbridge.sandbox.network import Network, Person
from threadbridge.server import listen

STEPS = [str(step) for step in demo.Step]
LONG = 240  # seconds for the whole walk on a machine that does much else


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """With a folder of its own for what is temporary, and settings of somebody's real bridge around it."""
    (tmp_path / "temporary files").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary files"))
    home = CommandLine(tmp_path / "a home")
    home.settings |= {"BASE_URL": "https://real.example", "DATABASE_URL": "sqlite:////no/such/folder/real.sqlite3"}
    (home.folder / "threadbridge.toml").write_text("this is no TOML")
    return home


def left_behind(shell: CommandLine) -> list[str]:
    # What the program makes, not what libraries keep for themselves.
    folder = shell.folder.parent / "temporary files"
    return [path.name for path in folder.iterdir() if path.name.startswith("threadbridge")]


def ports() -> int:
    """The first of three ports in a row that are free."""
    while True:
        with free_socket() as sock:
            first = int(sock.getsockname()[1])
        try:
            for offset in range(3):
                listen("127.0.0.1", first + offset).close()
        except BadConfiguration:
            continue
        return first


def addresses(running: Running) -> dict[str, str]:
    """What it prints when every step has happened."""
    eventually(lambda: "Ctrl-C ends everything" in running.out or not running.alive, LONG)
    found = dict(re.findall(r"^  (.+?)  +(http\S+)", running.out, re.MULTILINE))
    assert set(found) == {"public profile", "the owner's page", "Threads, the mock", "remote timeline"}, running.out
    return found


def steps_in_order(text: str) -> None:
    done = re.findall(r"^  ✓ (.*?) ([\d,]+) ms$", text, re.MULTILINE)
    assert [next((step for step in STEPS if words.startswith(step)), words) for words, _ in done] == STEPS
    assert len(STEPS) == len(set(STEPS))


def test_every_step_happens_and_it_stays_up_until_ctrl_c_and_works_again(shell: CommandLine) -> None:
    first = ports()
    running = shell.start("demo", "--port", str(first))
    at = addresses(running)
    steps_in_order(running.out)
    assert at["public profile"].startswith(f"http://127.0.0.1:{first}/@")
    for name, url in at.items():
        assert httpx2.get(url, headers={"Accept": "text/html"}, trust_env=False).status_code == 200, name
    ended = running.stopped(signal.SIGINT, seconds=30)
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err
    assert left_behind(shell) == []
    assert not answers(f"http://127.0.0.1:{first}/livez")

    # At once, on the same ports, and this time interrupted in the middle.
    again = shell.start("demo", "--port", str(first), "--exit")
    eventually(lambda: demo.Step.WEBFINGER in again.out or not again.alive, LONG)
    assert interrupted(again).out.count("✓") > STEPS.index(demo.Step.WEBFINGER)
    assert left_behind(shell) == []
    assert not shell.data.exists()


def interrupted(running: Running) -> Done:
    ended = running.stopped(signal.SIGINT, seconds=30)
    assert ended.status == 130, ended.err
    assert "Traceback" not in ended.err
    assert "✗" not in ended.out
    return ended


def test_a_port_that_is_taken_is_the_step_that_failed(shell: CommandLine) -> None:
    first = ports()
    with listen("127.0.0.1", first + 1):
        done = shell.run("demo", "--port", str(first), "--exit")
    assert 1 <= done.status <= 123
    assert "✗ Taking three ports" in done.out
    assert f"Port {first + 1} on 127.0.0.1 is taken" in done.out
    assert "PORT=9000 make demo" in done.out
    assert "Traceback" not in done.err
    assert left_behind(shell) == []


def test_an_interruption_during_the_import_ends_it_cleanly(shell: CommandLine) -> None:
    running = shell.start("demo", "--port", "0")
    eventually(lambda: "1. A data download" in running.out or not running.alive, LONG)
    interrupted(running)
    assert left_behind(shell) == []


def test_a_step_that_fails_says_which_and_why(
    shell: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: the person's token is dead before anything connects."""
    seed = sample.seed

    def seed_with_a_dead_token(network: Network) -> Person:
        person = seed(network)
        person.expired = True
        return person

    monkeypatch.setattr(sample, "seed", seed_with_a_dead_token)
    tempfile.tempdir = None  # look at TMPDIR again
    try:
        assert demo.run_demo(0, leave=True) == 1
    finally:
        tempfile.tempdir = None
    said = capsys.readouterr().out
    failed = re.search(rf"^✗ {re.escape(demo.Step.CONNECT)}: (.*)$", said, re.MULTILINE)
    assert failed, said
    assert "Sign in at Threads again" in failed[1]
    assert demo.Step.WEBFINGER not in said
    assert left_behind(shell) == []
