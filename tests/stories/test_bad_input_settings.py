"""A setting that cannot be is named with its value and what to do, and nothing is written."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.command_line import CommandLine
from tests.world.download_samples import POSTS, PROFILE, posts_file, profile_file, single, zip_of


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"PORT": "http"}, ["THREADBRIDGE_PORT", "'http' is not a whole number"]),
        ({"PORT": "65536"}, ["THREADBRIDGE_PORT", "65535"]),
        ({"POLL_SECONDS": "0"}, ["THREADBRIDGE_POLL_SECONDS", "'0' is not allowed: more than 0"]),
        ({"PORT": "x", "POLL_SECONDS": "y"}, ["THREADBRIDGE_PORT", "THREADBRIDGE_POLL_SECONDS"]),
        ({"ALLOWED_PRIVATE_NETWORKS": "10.0.0.0/99"}, ["THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS", "10.0.0.0/99"]),
        ({"LOG_FORMAT": "xml"}, ["THREADBRIDGE_LOG_FORMAT", "json"]),
        ({"GRAPH_URL": "ftp://x"}, ["THREADBRIDGE_GRAPH_URL", "ftp://x"]),
        ({"DATABASE_URL": "nonsense"}, ["THREADBRIDGE_DATABASE_URL", "sqlite:///"]),
        ({"DATABASE_URL": "mysql://a:secret@b/c"}, ["THREADBRIDGE_DATABASE_URL", "mysql"]),
        ({"DATABASE_URL": "sqlite:////no/such/folder/x.db"}, ["database file cannot be opened"]),
        ({"CONFIG": "/no/such/file.toml"}, ["THREADBRIDGE_CONFIG", "/no/such/file.toml"]),
        ({"CA_FILE": "/no/such/roots.pem"}, ["THREADBRIDGE_CA_FILE", "/no/such/roots.pem", "PEM"]),
        ({"BASE_URL": None}, ["not set", "THREADBRIDGE_BASE_URL"]),
        ({"BASE_URL": "bridge.example"}, ["THREADBRIDGE_BASE_URL", "https://bridge.example", "'bridge.example'"]),
        ({"BASE_URL": "https://bridge.example/ap"}, ["THREADBRIDGE_BASE_URL", "host only"]),
        ({"BASE_URL": "https://Bridge.example"}, ["lower case", "https://bridge.example"]),
        ({"BASE_URL": "https://bücher.example"}, ["THREADBRIDGE_BASE_URL", "ASCII"]),
        ({"BASE_URL": "http://127.0.0.1:99999"}, ["THREADBRIDGE_BASE_URL", "Port out of range"]),
        (
            {"BASE_URL": "http://bridge.example", "ALLOWED_PRIVATE_NETWORKS": None},
            ["http", "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS"],
        ),
        (
            {"BASE_URL": "https://bridge.example:8443", "ALLOWED_PRIVATE_NETWORKS": ""},
            ["port", "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS"],
        ),
    ],
)
def test_it_is_named(shell: CommandLine, changed: dict[str, Any], words: list[str]) -> None:
    said = shell.run("serve", **changed).refused(*words, status=2)
    assert "secret" not in said.err
    assert shell.everything().get("accounts", 0) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 80", ["threadbridge.toml", "prot", "no such setting"]),
        ("\nport = ,", ["threadbridge.toml", "line 2"]),
        ("port = 'x'", ["THREADBRIDGE_PORT"]),
        ("allowed_private_networks = 5", ["THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS", "CIDR"]),
        ("[server]\nport = 80", ["threadbridge.toml", "server", "no such setting"]),
        ("base_url = '\xe9'", ["could not be read"]),
    ],
)
def test_a_file_of_settings(shell: CommandLine, text: str, words: list[str]) -> None:
    (shell.folder / "threadbridge.toml").write_bytes(text.encode("latin-1"))
    shell.run("accounts", PORT=None, ALLOWED_PRIVATE_NETWORKS=None, BASE_URL=None).refused(*words, status=2)
    assert not shell.data.exists()


def test_a_variable_that_means_nothing_is_mentioned(shell: CommandLine) -> None:
    done = shell.run("accounts", BASEURL="https://x.example").went_well()
    assert "THREADBRIDGE_BASEURL is no setting" in done.err


def test_a_data_folder_that_cannot_be(shell: CommandLine) -> None:
    file = shell.folder / "a file"
    file.write_text("not a folder")
    for place in (file, file / "below"):
        shell.run("accounts", DATA_DIR=str(place)).refused(
            f"The data folder {place} cannot be written", "THREADBRIDGE_DATA_DIR", status=2
        )
    shell.run("accounts", DATA_DIR=str(shell.folder / "a?b")).refused("THREADBRIDGE_DATA_DIR", "question mark")


@pytest.fixture
def unwritable(shell: CommandLine) -> Iterator[Path]:
    """A data folder that even root cannot write to."""
    folder = shell.folder / "unwritable"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    if subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets root write everywhere")
    yield folder
    subprocess.run(["chattr", "-i", folder], check=True)


def test_a_data_folder_that_may_not_be_written(shell: CommandLine, unwritable: Path) -> None:
    for command in (["serve"], ["work"], ["accounts"], ["login-link", "x"]):
        shell.run(*command, DATA_DIR=str(unwritable)).refused(str(unwritable), "may write to", status=2)
    assert list(unwritable.iterdir()) == []


def test_ids_never_change(shell: CommandLine, tmp_path: Path) -> None:
    download = zip_of(tmp_path / "a.zip", {POSTS: posts_file(single("x")), PROFILE: profile_file()})
    shell.run("import", download).went_well()
    before = shell.everything()
    for command in (["serve"], ["work"], ["import", str(download)], ["login-link", "ana.example"]):
        shell.run(*command, BASE_URL="https://other.example").refused(
            f"belongs to {shell.base}, not to https://other.example", "Ids never change", status=2
        )
    # The same address, but now without the permission that it needs.
    shell.run("serve", BASE_URL=None, ALLOWED_PRIVATE_NETWORKS=None).refused("ALLOWED_PRIVATE_NETWORKS", status=2)
    assert shell.everything() == before
    shell.run("login-link", "ana.example", BASE_URL=None).went_well()


def test_the_secret_key_file(shell: CommandLine) -> None:
    shell.run("accounts").went_well()
    key = shell.data / "secret.key"
    assert key.stat().st_mode & 0o777 == 0o600
    right = key.read_bytes()
    before = shell.everything()
    commands = (["serve"], ["work"], ["accounts"], ["login-link", "x"])

    key.write_bytes(base64.b64encode(bytes(32)))
    for command in commands:
        shell.run(*command).refused("cannot be opened with this secret key", "THREADBRIDGE_SECRET_KEY_FILE", status=2)
    key.write_bytes(right[:20])
    for command in commands[:1]:
        shell.run(*command).refused(str(key), "damaged", status=2)
    key.write_bytes(b"\xff not base64")
    shell.run("accounts").refused(str(key), status=2)
    key.unlink()
    # A new one would open nothing of what is kept; it is not made.
    shell.run("accounts").refused(str(key), "is missing", "Restore", status=2)
    shell.run("serve", SECRET_KEY_FILE=str(shell.folder / "elsewhere.key")).refused("elsewhere.key", "is missing")
    assert not key.exists()
    assert not (shell.folder / "elsewhere.key").exists()
    key.write_bytes(right)
    shell.run("accounts").went_well()
    assert shell.everything() == before


def test_a_database_file_that_is_none(shell: CommandLine) -> None:
    shell.data.mkdir()
    file = shell.data / "threadbridge.sqlite3"
    file.write_text("this is no database, but it is long enough to look like a header of one" * 10)
    before = file.read_bytes()
    shell.run("accounts").refused("no database", "backup", status=2)
    assert file.read_bytes() == before


def test_a_database_that_does_not_answer(shell: CommandLine) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{shell.port}/x"
    for command in (["accounts"], ["serve"]):
        said = shell.run(*command, DATABASE_URL=url).refused("database cannot be reached", str(shell.port), status=1)
        assert "secret" not in said.err


def test_a_database_of_a_newer_program(shell: CommandLine) -> None:
    shell.run("accounts").went_well()
    with sqlite3.connect(shell.data / "threadbridge.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffff'")
    connection.close()
    shell.run("serve").refused("newer version", "ffff", status=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], ["No such command 'bogus'"]),
        (["import"], ["Missing argument"]),
        (["connect"], ["--token"]),
        (["export", "x"], ["--output"]),
        (["serve", "--port", "x"], ["--port", "integer"]),
        (["demo", "--port", "70000"], ["--port"]),
        (["accounts", "--yaml"], ["--yaml"]),
    ],
)
def test_wrong_usage(shell: CommandLine, arguments: list[str], words: list[str]) -> None:
    shell.run(*arguments).refused(*words, status=2)
    assert not shell.data.exists()


def test_an_unknown_handle(shell: CommandLine) -> None:
    shell.run("accounts").went_well()
    before = shell.everything()
    for command in (["login-link", "nobody"], ["export", "nobody", "--output", "a.zip"]):
        shell.run(*command).refused("nobody", "threadbridge accounts", status=1)
        shell.run(*command, *["--json"]).refused("nobody", status=1)
    assert shell.everything() == before
    assert not (shell.folder / "a.zip").exists()


def test_a_traceback_is_shown_only_when_asked_for(shell: CommandLine) -> None:
    assert "Traceback" in shell.run("--debug", "login-link", "nobody").err
    shell.run("login-link", "nobody").refused("nobody")
