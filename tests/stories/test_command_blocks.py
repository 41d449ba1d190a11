"""The operator's commands about who may speak here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stories.command_line import CommandLine


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


def test_rules_go_in_out_and_away(shell: CommandLine, tmp_path: Path) -> None:
    assert "everybody may speak" in shell.run("blocks", "list").went_well().out
    shell.run("blocks", "add", "Spam.Example", "--comment", "sells followers").went_well()
    shell.run("blocks", "add", "@bob@m.example", "--severity", "limit").went_well()
    shell.run("blocks", "add", "buy now", "--keyword").went_well()
    listed = {row["subject"]: row for row in shell.run("blocks", "list", "--json").went_well().json}
    assert {name: row["severity"] for name, row in listed.items()} == {
        "spam.example": "suspend",
        "@bob@m.example": "limit",
        "buy now": "suspend",
    }
    file = tmp_path / "blocks.csv"
    shell.run("blocks", "export", file).went_well()
    assert file.read_text().splitlines() == [
        "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate",
        "spam.example,suspend,false,false,sells followers,false",
    ]
    again = shell.run("blocks", "import", file, "--json").went_well().json
    assert again == {"changed": 0, "unchanged": 1, "lifted": 0, "without_effect": 0}
    before = shell.everything()
    broken = tmp_path / "broken.csv"
    broken.write_text("#domain,#severity\ngood.example,suspend\nbad.example,explode\n")
    shell.run("blocks", "import", broken).refused("line 3", "explode", status=1)
    shell.run("blocks", "add", "no domain").refused("no domain", status=1)
    for words in (
        ["add", "a.example"],
        ["import", file],
        ["preview", file],
        ["subscribe", "https://l.example/x.csv"],
    ):
        shell.run("blocks", *words, "--severity", "kill").refused("severity", "limit", status=2)
    shell.run("blocks", "subscribe", "https://l.example/x.csv", "--severity", "allow").refused("limit", status=2)
    shell.run("blocks", "remove", "never.example").refused("no rule", "`threadbridge blocks list`", status=1)
    shell.run("blocks", "add", "127.0.0.1").refused("this server itself", status=1)
    ours = tmp_path / "ours.csv"
    ours.write_text("far.example\n127.0.0.1\n")
    shell.run("blocks", "import", ours).refused("this server itself", status=1)
    shell.run("blocks", "preview", tmp_path / "none.csv").refused("could not be read", status=1)
    shell.run("blocks", "unsubscribe", "https://lists.example/x.csv").refused("No list", status=1)
    shell.run("blocks", "subscribe", "http://127.0.0.1:1/list.csv").refused(status=1)
    assert "1 rule, 0 lines without effect, 0 not" in shell.run("blocks", "import", file, "--dry-run").went_well().out
    previewed = shell.run("blocks", "preview", broken).went_well()
    assert "1 rule, 0 lines without effect, 1 not" in previewed.out
    shell.run("blocks", "add", "dry.example", "--dry-run").went_well()
    assert shell.run("blocks", "lists", "--json").went_well().json == []
    assert shell.everything() == before
    shell.run("blocks", "remove", "spam.example").went_well()
    assert "spam.example" not in shell.run("blocks", "list").went_well().out


def test_reports_and_decisions(shell: CommandLine) -> None:
    assert "No reports" in shell.run("reports", "list").went_well().out
    shell.run("reports", "show", "7").refused("no report 7", "reports list --all", status=1)
    shell.run("reports", "resolve", "7").refused("no open report 7", status=1)
    shell.run("reports", "send", "https://m.example/users/x").refused("no such reply or person", status=1)
    assert shell.run("decisions", "--json").went_well().json == []
    assert shell.run("decisions", "--figures", "--json").went_well().json == []
    shell.run("decisions", "--handle", "nobody").refused("nobody", status=1)
