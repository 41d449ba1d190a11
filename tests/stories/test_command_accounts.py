"""The commands do what they say, from any folder, without a terminal, and beside a running `serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.stories.command_line import CommandLine
from tests.world.download_samples import NOON, POSTS, PROFILE, picture, posts_file, profile_file, single, zip_of


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


def a_download(folder: Path, posts: int = 3) -> Path:
    """A download of ana.example with a picture."""
    entries = [
        single(f"post {number}", NOON + number, "media/1.png" if number == 0 else "") for number in range(posts)
    ]
    members: dict[str, str | bytes] = {
        POSTS: posts_file(*entries),
        PROFILE: profile_file(),
        "media/1.png": picture("PNG"),
    }
    return zip_of(folder / "a download.zip", members)


def signed_in(link: str) -> bool:
    """Follow a sign-in link as a browser does: look at the page, then press the button."""
    with httpx2.Client(trust_env=False, follow_redirects=True) as browser:
        page = browser.get(link)
        form = re.search(r"<form\b.*?</form>", page.text, re.DOTALL)
        assert form is not None, page.text
        action = re.search(r'action="([^"]+)"', form[0])
        assert action is not None
        fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[0]))
        url = httpx2.URL(link).join(action[1])
        answer = browser.post(url, data=fields, headers={"Origin": f"{url.scheme}://{url.netloc.decode()}"})
        return answer.status_code == 200 and "ana.example" in answer.text


def test_from_a_download_to_an_archive_in_words_and_in_json(shell: CommandLine, tmp_path: Path) -> None:
    download = a_download(tmp_path)
    rehearsed = shell.run("import", download, "--dry-run").went_well()
    assert "Would import into @ana.example" in rehearsed.out
    assert shell.everything()["accounts"] == shell.everything()["posts"] == 0
    assert shell.media_files() == []

    imported = shell.run("import", download, "--json").went_well()
    assert (imported.json["handle"], imported.json["posts_new"], imported.json["media_found"]) == (
        "ana.example",
        3,
        1,
    )
    assert imported.err == ""
    again = shell.run("import", download).went_well()
    assert "0 new, 3 known" in again.out

    listed = shell.run("accounts", "--json").went_well().json
    assert [(row["handle"], row["state"], row["posts"]) for row in listed] == [("ana.example", "active", 3)]
    assert listed[0]["address"] == f"@ana.example@127.0.0.1:{shell.port}"
    assert "@ana.example" in shell.run("accounts").went_well().out

    link = shell.run("login-link", "@ana.example").went_well().out.strip()
    assert link.startswith(f"{shell.base}/owner/sign-in?token=")
    told = shell.run("login-link", "ana.example", "--json").went_well().json
    assert set(told) == {"url", "expires_at"}
    assert told["url"] != link

    written = shell.run("export", "ana.example", "--output", tmp_path / "the archive.zip", "--json").went_well().json
    assert written["counts"]["posts"] == 3
    assert "Whole" in shell.run("verify", tmp_path / "the archive.zip").went_well().out
    assert shell.run("verify", tmp_path / "the archive.zip", "--json").went_well().json["problems"] == []


def test_they_work_beside_a_running_serve(shell: CommandLine, tmp_path: Path) -> None:
    download = a_download(tmp_path)
    with shell.serving():
        shell.run("import", download).went_well()
        profile = httpx2.get(f"{shell.base}/@ana.example", trust_env=False)
        assert profile.status_code == 200
        link = shell.run("login-link", "ana.example").went_well().out.strip()
        assert signed_in(link)
        shell.run("export", "ana.example", "-o", tmp_path / "a.zip").went_well()
        found = {row["subject"]: row for row in shell.run("doctor", "--json").went_well().json}
        assert found["reachable"]["level"] == "ok"


def test_an_archive_that_is_not_whole_gives_status_1(shell: CommandLine, tmp_path: Path) -> None:
    shell.run("import", a_download(tmp_path)).went_well()
    shell.run("export", "ana.example", "--output", "a.zip").went_well()
    archive = shell.folder / "a.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    checked = shell.run("verify", "a.zip")
    assert checked.status == 1
    assert "Not whole" in checked.out
    machine = shell.run("verify", "a.zip", "--json")
    assert machine.status == 1
    assert machine.json["problems"]


def test_settings_come_from_a_file_in_the_working_directory(shell: CommandLine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "some where"
    elsewhere.mkdir()
    (elsewhere / "threadbridge.toml").write_text(
        f'base_url = "{shell.base}"\nallowed_private_networks = ["127.0.0.0/8"]\ndata_dir = "kept here"\n'
    )
    unset: dict[str, Any] = dict.fromkeys(shell.settings)
    shell.run("import", a_download(tmp_path), cwd=elsewhere, **unset).went_well()
    assert (elsewhere / "kept here" / "threadbridge.sqlite3").exists()
    named = shell.run("accounts", "--json", CONFIG=str(elsewhere / "threadbridge.toml"), cwd=tmp_path, **unset)
    assert named.went_well().json == []  # a folder in the file is meant from where one stands
    chosen = {**unset, "DATA_DIR": str(elsewhere / "kept here"), "CONFIG": str(elsewhere / "threadbridge.toml")}
    assert len(shell.run("accounts", "--json", cwd=tmp_path, **chosen).went_well().json) == 1


def test_nothing_but_the_address_needs_to_be_set(shell: CommandLine, tmp_path: Path) -> None:
    unset: dict[str, Any] = dict.fromkeys(shell.settings)
    bare = {**unset, "BASE_URL": "https://bridge.example"}
    shell.run("import", a_download(tmp_path), **bare).went_well()
    home = list(shell.folder.rglob("threadbridge.sqlite3"))
    assert [path.parent.name for path in home] == ["threadbridge"]
    # Once it is known, it is known: a list needs no setting at all.
    assert shell.run("accounts", "--json", **unset).went_well().json[0]["address"] == "@ana.example@bridge.example"


def test_on_postgresql_they_do_the_same(shell: CommandLine, tmp_path: Path, postgres_url: str) -> None:
    shell.settings["DATABASE_URL"] = postgres_url
    shell.run("import", a_download(tmp_path)).went_well()
    with shell.serving("--no-worker"), shell.working() as first, shell.working() as second:
        # Any number of them, on one PostgreSQL.
        shell.run("export", "ana.example", "--output", "a.zip").went_well()
        shell.run("verify", "a.zip").went_well()
        assert shell.run("accounts", "--json").went_well().json[0]["posts"] == 3
        found = {row["subject"]: row for row in shell.run("doctor", "--json").went_well().json}
        assert found["database"]["words"].startswith("postgresql")
        assert first.alive
        assert second.alive
    assert not (shell.data / "threadbridge.sqlite3").exists()


def test_many_first_starts_at_once_make_one_house(shell: CommandLine) -> None:
    running = [shell.start("accounts", "--json") for _ in range(6)]
    assert [command.done().went_well().json for command in running] == [[]] * 6
    assert shell.everything()["account_keys"] == 2  # for requests, and for proofs


def test_foreign_text_reaches_a_terminal_tamed(shell: CommandLine, tmp_path: Path) -> None:
    evil = tmp_path / "[red]x\x1b[2J.zip"
    said = shell.run("import", evil).refused("[red]x")
    assert "\x1b" not in said.err
    said = shell.run("login-link", ":smile:").refused(":smile:")


def test_a_terminal_of_another_alphabet_is_no_reason_to_fail(shell: CommandLine, tmp_path: Path) -> None:
    download = zip_of(
        tmp_path / "a.zip", {POSTS: posts_file(single("x")), PROFILE: profile_file(name="Zoë 🌊", bio="日本")}
    )
    shell.run("import", download, encoding="ascii").went_well()
    done = shell.run("doctor", encoding="ascii")
    assert "unforeseen" not in done.err
