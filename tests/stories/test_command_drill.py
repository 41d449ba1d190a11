"""A drill says what this machine carries, and fails when anybody was told twice, too early, or of a change first."""

from __future__ import annotations

import json
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import create_engine, text
from tests.stories.command_line import CommandLine

from threadbridge import drill, logs
from threadbridge.cli.running import drill as drill_command
from threadbridge.drill import Plan, Report
from threadbridge.errors import BadConfiguration
from threadbridge.sandbox import inboxes
from threadbridge.sandbox.inboxes import ASKS_SECONDS, GRACE_SECONDS, Ill, Judge
from threadbridge.storage.scratch import Standing

POST = "https://b.example/ap/users/1/posts/1"


@pytest.fixture(autouse=True)
def log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


def body(kind: str, *, about: str = POST, number: int = 1) -> bytes:
    return json.dumps({"id": f"{about}/{kind}/{number}", "type": kind, "object": {"id": about}}).encode()


def hear(judge: Judge, said: bytes, *, path: str = "/inbox", date: float | None = None, server: int = 0) -> int:
    return judge.hear(server, path, formatdate(date, usegmt=True), said)[0]


def test_two_thousand_followers_on_two_hundred_servers(tmp_path: Path) -> None:
    shell = CommandLine(tmp_path / "home")
    done = shell.run("drill", "--followers", "2000", "--hosts", "200", "--seconds", "6", "--json")
    told = done.went_well().json
    assert told["broken"] == []
    assert told["delivered_here"] == told["delivered_there"] > 0
    states = Counter[str]()
    for one in told["standing"]:
        states[one["state"]] += one["count"]
    assert sum(states.values()) == told["deliveries"] > 600
    assert states["delivered"] == told["delivered_here"]
    assert told["answered"]["503"] > 0
    assert told["answered"]["429"] > 0
    assert told["answered"]["410"] > 0
    assert 0 < told["healthy"]["p50"] <= told["healthy"]["p95"] <= told["healthy"]["last"]
    assert told["peak_memory"] > 10_000_000
    assert told["cpu_seconds"] > 0
    assert told["bytes_per_delivery"] > 50
    assert told["requests"] > 0
    assert told["longest_wait"] > 0
    assert not any("127." in one["reason"] for one in told["standing"])


def test_two_workers_share_it_on_postgresql(empty_postgres_url: str) -> None:
    plan = Plan(
        followers=120, hosts=40, dead=0, slow=0, too_many=0, failing=0, gone=0, bad_tls=0, seconds=40, workers=2,
        database=empty_postgres_url,
    )  # fmt: skip
    report = drill.drill(plan, lambda _: None)
    assert report.broken == []
    assert report.drained
    assert report.late == 0
    assert report.plan.database == "postgresql", "the address, with its password, stays out of the report"
    assert report.healthy["count"] == report.delivered_here
    engine = create_engine(empty_postgres_url)
    with engine.connect() as connection:
        left = connection.execute(text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'threadbridge%'"))
        assert left.scalar_one() == 0
    engine.dispose()


def test_who_is_told_twice_shows() -> None:
    judge = Judge({})
    assert [hear(judge, body("Create")), hear(judge, body("Create"), path="/other")] == [202, 202]
    assert judge.twice == 0
    hear(judge, body("Create"))
    assert judge.twice == 1


def test_a_change_before_its_post_shows() -> None:
    judge = Judge({})
    hear(judge, body("Create"))
    hear(judge, body("Update"))
    assert judge.before_create == 0
    hear(judge, body("Delete"), path="/other")
    assert judge.before_create == 1


def test_a_change_after_a_post_that_was_not_taken_shows() -> None:
    judge = Judge({0: "5xx"})
    assert hear(judge, body("Create")) == 503
    hear(judge, body("Update"))
    assert judge.before_create == 1


def test_who_is_told_before_the_time_that_they_asked_for_shows() -> None:
    judge = Judge({0: "429"})
    now = time.time()
    assert hear(judge, body("Create"), date=now) == 429
    hear(judge, body("Create", number=2), date=now)  # was under way
    assert judge.too_early == 0
    hear(judge, body("Create", number=2), date=now + GRACE_SECONDS + 1)
    assert judge.too_early == 1
    judge._servers[0].asked_at = now - ASKS_SECONDS
    assert hear(judge, body("Create"), date=now + ASKS_SECONDS) == 202
    assert judge.too_early == 1


@pytest.mark.parametrize("number", [0, 1, 249, 250, 62_499, 62_500, 999_999])
def test_a_server_is_known_by_its_address(number: int) -> None:
    assert inboxes.number_at(inboxes.address(number)) == number


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "::1"])
def test_nobody_outside_is_a_server(host: str) -> None:
    assert inboxes.number_at(host) is None


def test_as_many_servers_are_ill_as_was_asked() -> None:
    ills = Counter(Plan(followers=5000, hosts=1000).ills().values())
    wanted: dict[Ill, int] = {"dead": 25, "silent": 25, "slow": 50, "429": 20, "5xx": 20, "gone": 10, "bad-tls": 10}
    assert ills == wanted
    assert Plan(followers=9, hosts=3, dead=1.0, slow=0, too_many=0, failing=0, gone=0, bad_tls=0).ills().keys() == {
        0,
        1,
        2,
    }


def test_every_follower_is_made_up_once() -> None:
    homes = Counter(drill._homes(Plan(followers=5000, hosts=100)))
    assert sum(homes.values()) == 5000
    assert set(homes) == set(range(100))
    assert homes[0] > 1.8 * homes[1] > 3 * homes[9] > 0


def reported(**changes: object) -> Report:
    told = {"took": {"healthy": [0.1, 0.2]}, "twice": 0, "too_early": 0, "before_create": 0, "examples": ["e"],
            "distinct": 2, "answered": {}, "accepted": 2}  # fmt: skip
    standing = [Standing("delivered", "", 2, None, None)]
    return drill._reported(Plan(), Counter(), told | changes, standing, 100, [(1.0, 2)], [0.1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"twice": 1}, "told twice"),
        ({"too_early": 1}, "before the time"),
        ({"before_create": 1}, "of a change before the post"),
        ({"distinct": 1}, "lost"),
    ],
)
def test_a_broken_promise_is_said_and_ends_with_1(
    changes: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drill, "drill", lambda *_: reported(**changes))
    with pytest.raises(typer.Exit) as ended:
        drill_command()
    assert ended.value.exit_code == 1
    assert words in capsys.readouterr().out
    monkeypatch.setattr(drill, "drill", lambda *_: reported())
    drill_command()
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dead": "many"}, "--dead"),
        ({"slow": "120%"}, "--slow"),
        ({"dead": "60%", "slow": "0.6"}, "together"),
        ({"hosts": 20, "followers": 10}, "server"),
        ({"workers": 2}, "SQLite takes one worker"),
        ({"database": "sqlite:///x"}, "PostgreSQL"),
        ({"database": "postgresql+psycopg://nobody@127.0.0.1:1/none"}, "schema"),
        ({"database": "nonsense"}, "database address"),
    ],
)
def test_what_cannot_be_drilled_is_said(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadConfiguration, match=word):
        drill_command(**options)
