"""Whatever has not arrived says why, to the owner, the operator and everybody, and what trying again comes to."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from tests.browser.site import Site, field_of, same_origin
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.command_line import CommandLine
from tests.stories.crowd import Arrival, Crowd, Reply, crowd, follow, ledger_rows, publish

from threadbridge.domain import hosts as rules
from threadbridge.storage import board, figures, receipts
from threadbridge.storage.ledger import Receipt
from threadbridge.web.receipts import sentences
from threadbridge.web.standing import BRAKE, in_words

ANSWERS = {"asked": Reply(429, {"Retry-After": "3000"}), "ill": Reply(500), "shut": Reply(403)}


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path / "data") as running:
        yield running


@pytest.fixture
def peers(bridge: Bridge) -> Iterator[dict[str, Crowd]]:
    """Servers by how they answer a post."""
    with ExitStack() as stack:
        found = {}
        for name, reply in ANSWERS.items():

            def script(asked: Arrival, reply: Reply = reply) -> Reply:
                return Reply() if asked.kind == "Accept" else reply

            found[name] = stack.enter_context(crowd(bridge.loop, script=script))
        yield found


def host_of(people: Crowd) -> str:
    return people.base.removeprefix("http://")


def settled(bridge: Bridge, number: int, count: int, *, attempts: int = 1) -> None:
    eventually(lambda: len([row for row in ledger_rows(bridge, post_id=number) if row.attempts == attempts]) == count)


def test_what_waits_says_why(bridge: Bridge, peers: dict[str, Crowd], tmp_path: Path) -> None:
    site, account = Site(bridge), bridge.account("alice")
    for name, people in peers.items():
        follow(bridge, account, people, name)
    number = publish(bridge, account)
    settled(bridge, number, 3)
    asked, ill, shut = (host_of(peers[name]) for name in ("asked", "ill", "shut"))
    path = f"/owner/posts/{number}/receipts"

    # The operator sees it by server, and everybody in figures.
    lines = {line.host: line for line in bridge.ground.store.read_now(board.listed)}
    assert set(lines) == {asked, ill, shut}
    assert (lines[shut].refusal or "").startswith("403")
    assert (lines[ill].refusal, lines[asked].refusal) == (None, None)
    standing = bridge.ground.store.read_now(figures.standing)
    assert "3 deliveries wait: 1 server asked to wait, 1 has trouble, 1 refuses." in in_words(standing)

    # A second post that the busy server is not even asked about.
    second = publish(bridge, account, "Two")
    settled(bridge, second, 2)
    with site.signed_in(account) as client:
        problems = client.get(f"{path}.json?show=problems").json()["servers"]
        assert {server["host"] for server in problems} == {asked, ill, shut}
        later = client.get(f"/owner/posts/{second}/receipts.json?show=problems").json()["servers"]
        (held,) = [server["deliveries"][0] for server in later if server["host"] == asked]
        assert (held["attempts"], held["reason"][:37]) == (0, "this server asked us to wait until 20")
        page = html.unescape(client.get(f"/owner/posts/{second}/receipts?show=problems").text)
        assert "held: this server asked us to wait until " in page
        assert "3 waiting: " in page
        assert "not tried yet (1)" in page
        # No button where it would do nothing; what the other ones do is said.
        assert f'value="{asked}"' not in page
        assert f'value="{shut}"' in page
        form = {"form_token": field_of(page, "form_token")}
        pressed = client.post(f"{path}/again", data=form, headers=same_origin(site.base))
        said = html.unescape(client.get(pressed.headers["location"]).text)
        assert "Asked again at 2 servers; 1 server is left alone, until <time" in said
        for words in ("<b>", "1" * 30, "-1"):
            assert "Asked again" not in client.get(path, params={"again": words}).text
    # What was tried stays counted.
    settled(bridge, number, 2, attempts=2)
    tried = {row.host: row for row in ledger_rows(bridge, post_id=number)}
    assert (tried[shut].state, tried[shut].status, tried[ill].state) == ("waiting", 403, "waiting")
    (due,) = {row.due_at - row.created_at for row in tried.values() if row.host == shut}
    assert due < timedelta(minutes=7)  # the schedule has begun anew

    shell = CommandLine(tmp_path, settings={"BASE_URL": bridge.base, "DATA_DIR": str(tmp_path / "data")})
    told = shell.run("receipts", "alice", str(number), "--show", "problems", COLUMNS="200").went_well().out
    assert "2 tries so far" in told
    assert all(name in told for name in (asked, ill, shut, "403"))
    listed = shell.run("hosts", "list", COLUMNS="80").went_well().out.splitlines()
    assert len(listed) == 4, listed
    (line,) = [line for line in listed if line.startswith(shut)] or [str(listed)]
    assert " refuses " in line
    assert "403: this server" in line
    assert max(map(len, listed)) <= 80
    (line,) = [line for line in listed if line.startswith(asked)]
    assert " asked to wait until " in line
    sheet = shell.run("hosts", "show", shut).went_well().out
    assert f"{shut} refuses" in sheet
    assert "last refused with" in sheet
    assert "is in trouble (" in shell.run("hosts", "show", ill).went_well().out
    shell.run("hosts", "drop", shut).refused("--yes", status=1)
    assert "Nothing was given up" in shell.run("hosts", "replay", shut).went_well().out
    shell.run("queue", "drop", "--kind", "Creat").refused("no such kind", "Create", "Update", status=1)
    assert "Nothing of that waits" in shell.run("queue", "drop", "--kind", "Move").went_well().out
    shell.run("hosts", "drop", shut, "--yes").went_well()
    assert "Nothing waits" in shell.run("hosts", "drop", shut).went_well().out
    # Ended by hand is no word of theirs.
    assert "last refused" not in shell.run("hosts", "show", shut).went_well().out


def test_history_says_that_it_is_history(bridge: Bridge, tmp_path: Path) -> None:
    site, account = Site(bridge), bridge.account("old")
    number = site.post(account, "Long ago")
    with site.signed_in(account) as client:
        assert "Part of the history: shown here, never sent out" in client.get(f"/owner/posts/{number}/receipts").text
    shell = CommandLine(tmp_path, settings={"BASE_URL": bridge.base, "DATA_DIR": str(tmp_path / "data")})
    assert "Part of the history" in shell.run("receipts", "old", str(number)).went_well().out


def test_the_brake_is_seen_from_outside(tmp_path: Path) -> None:
    with running_bridge(tmp_path / "data", quiet=True) as running, httpx2.Client(base_url=running.base) as client:
        status = client.get("/status.json").json()
        assert (status["brake"], status["words"][0]) == (True, BRAKE)
        assert BRAKE in client.get("/status").text
        ready = client.get("/readyz")
        assert (ready.status_code, ready.text[:2]) == (200, "ok")
        assert "the brake is on" in ready.text


def test_what_is_typed_wrongly_is_said_in_plain_words(tmp_path: Path) -> None:
    shell = CommandLine(tmp_path)
    few = shell.run("queue", POLL_SECONDS="often").refused(
        "THREADBRIDGE_POLL_SECONDS: 'often' is not a number", status=2
    )
    assert "Input should" not in few.err
    shell.run("queue", DATABASE_CONNECTIONS="0").refused("'0' is not allowed: at least", status=2)
    shell.run("verify", "missing.zip").refused("missing.zip is not there", "certificate", status=1)
    (tmp_path / "nope.txt").write_text("hello")
    said = shell.run("verify", str(tmp_path / "nope.txt"))
    assert (said.status, "certificate" in said.out) == (1, True)


def test_one_reason_is_not_that_of_all() -> None:
    waits = [Receipt("Create", "waiting", "429: they ask us to slow down", 1), Receipt("Create", "waiting", None, 1)]
    (sentence,) = sentences(waits)
    assert sentence.words.endswith("2 waiting: 429: they ask us to slow down (1), not tried yet (1)")
    (sentence,) = sentences(waits[:1])
    assert sentence.words.endswith("1 waiting: 429: they ask us to slow down")


@pytest.mark.parametrize(
    ("state", "failures", "words"),
    [
        ("closed", 0, "well"), ("closed", 1, "in trouble (1 failure)"), ("closed", 3, "in trouble (3 failures)"),
        ("open", 5, "left alone until 12:00"), ("asked", 0, "asked to wait until 12:00"),
        ("probing", 5, "being looked at"), ("parked", 9, "parked"),
    ],
)  # fmt: skip
def test_the_state_of_a_server_is_said_for_people(state: rules.State, failures: int, words: str) -> None:
    assert rules.in_words(state, failures, "12:00") == words
    assert receipts.SHOWN["problems"]
