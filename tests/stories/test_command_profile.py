"""What an operator does to an account at the command line: its profile, its name, its domain, its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stories.command_line import CommandLine
from tests.stories.test_command_accounts import a_download
from tests.world.download_samples import picture


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home")


def test_profile_name_domain_and_end(shell: CommandLine, tmp_path: Path) -> None:
    shell.run("import", a_download(tmp_path), "--handle", "ana").went_well()
    changed = shell.run(
        "profile", "set", "ana", "--no-indexable", "--featured", "9", "--line", "Mirrors Threads", "--json"
    ).went_well()  # fmt: skip
    assert (changed.json["indexable"], changed.json["discoverable"], changed.json["featured"]) == (False, True, 9)
    assert changed.json["line"] == "Mirrors Threads"
    shell.run("profile", "set", "ana", "--line", "I am a cat").refused("has to say what this account is", status=1)
    assert shell.run("profile", "set", "ana", "--default-line", "--json").went_well().json["line"] is None
    fields = shell.run("profile", "field", "ana", "Site", "https://ana.example", "--json").went_well().json["fields"]
    assert [(field["name"], field["value"]) for field in fields] == [("Site", "https://ana.example")]
    assert shell.run("profile", "field", "ana", "Site", "", "--json").went_well().json["fields"] == []
    shell.run("profile", "field", "ana", "Site", "").refused("no field")
    header = tmp_path / "header.png"
    header.write_bytes(picture("PNG"))
    assert shell.run("profile", "header", "ana", header, "--json").went_well().json["header"]
    shell.run("profile", "header", "ana", tmp_path / "nothing.png").refused("no file")
    assert shell.run("profile", "header", "ana", "--json").went_well().json["header"] is None
    shell.run("profile", "alias", "ana", "nonsense").refused("no account")
    assert "in our words" in shell.run("profile", "show", "ana").went_well().out

    shell.run("domain", "set", "ana", "not a domain").refused("is no domain")
    shell.run("domain", "check", "ana").refused("no own domain")
    # Nothing answers there: asking for it is no failure, looking whether it leads here is.
    shell.run("domain", "set", "ana", "127.0.0.1:9").went_well()
    looked = shell.run("domain", "check", "ana", "--json")
    assert (looked.status, looked.json["state"]) == (1, "asked")
    shell.run("domain", "remove", "ana").went_well()
    shell.run("followers", "approval", "ana", "maybe").refused("by-hand", "everybody", status=2)
    shell.run("followers", "approve", "ana", "https://m.example/users/x").refused(
        "followers list ana --waiting", status=1
    )
    shell.run("followers", "remove", "ana", "https://m.example/users/x").refused(
        "`threadbridge followers list ana`", status=1
    )
    shell.run("keys", "rollback", "ana").refused("could be taken back: the key was never changed.", status=1)
    assert "There was none" in shell.run("domain", "remove", "ana").went_well().out

    assert shell.run("accounts", "rename", "ana", "anita", "--json").went_well().json["handle"] == "anita"
    shell.run("accounts", "rename", "ana", "other").refused("no account")
    assert shell.run("accounts", "--json").went_well().json[0]["handle"] == "anita"

    shell.run("accounts", "undelete", "anita").refused("no deletion", "`threadbridge accounts`")
    shell.run("accounts", "delete", "anita", stdin="somebody\n").refused("nothing was deleted")
    assert shell.everything()["farewells"] == 0
    assert "undelete" in shell.run("accounts", "delete", "anita", "--yes").went_well().out
    listed = shell.run("accounts", "--json").went_well().json[0]
    assert listed["state"] == "paused"
    day = listed["deletion_begins_at"][:10]
    assert f"deleted from {day} on" in shell.run("accounts").went_well().out
    assert shell.run("accounts", "undelete", "anita", "--json").went_well().json["state"] == "active"
