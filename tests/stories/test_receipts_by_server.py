"""An owner reads what became of a post, server by server, and has tried again what has not arrived."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.browser.site import Site, field_of, same_origin
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.command_line import CommandLine
from tests.stories.crowd import Arrival, Crowd, Reply, crowd, drained, follow, ledger_rows, publish, retract

from threadbridge.storage import receipts, rollups, schema
from threadbridge.storage.store import Tx


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with running_bridge(tmp_path_factory.mktemp("receipts")) as running:
        yield running


@pytest.fixture(scope="module")
def people(bridge: Bridge) -> Iterator[Crowd]:
    with crowd(bridge.loop) as found:
        yield found


def aged(bridge: Bridge, days: int) -> None:
    """What was said is so many days older, and goes into the roll-ups."""

    def age(tx: Tx) -> None:
        a, d = schema.activities, schema.deliveries
        tx.execute(update(a).values(created_at=tx.now - timedelta(days=days)))
        tx.execute(update(d).where(d.c.ended_at.is_not(None)).values(ended_at=tx.now - timedelta(days=days)))
        rollups.step(tx, 0)

    bridge.ground.store.transact_now(age)


def test_what_was_refused_is_tried_again_when_the_owner_says_so(
    bridge: Bridge, people: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "REST", timedelta(0))
    site, account = Site(bridge), bridge.account("alice")
    other = bridge.account("other")
    follow(bridge, account, people, "ann", "ben")
    people.script = lambda asked: Reply(202 if asked.kind == "Accept" else 410)
    number = publish(bridge, account)
    drained(bridge)
    path = f"/owner/posts/{number}/receipts"
    with site.signed_in(account) as client:
        page = client.get(path)
        shown = html.unescape(page.text)
        assert "The post: no longer there, " in shown
        assert "the inbox is gone" in shown
        assert "2 followers there" in shown
        assert client.get(f"{path}?show=delivered").text.count('class="name"') == 0
        said = client.get(f"{path}.json?show=problems").json()
        (server,) = said["servers"]
        assert (server["people"], said["next"], server["deliveries"][0]["status"]) == (2, None, 410)
        token = field_of(page.text, "form_token")
        # Without the form's token, from another site, and by somebody else: nothing happens.
        before = bridge.everything()
        assert client.post(f"{path}/again", data={}, headers=same_origin(site.base)).status_code == 403
        foreign = {"sec-fetch-site": "cross-site"}
        assert client.post(f"{path}/again", data={"form_token": token}, headers=foreign).status_code == 403
        with site.signed_in(other) as stranger:
            before = bridge.everything()
            assert stranger.get(path).status_code == 404
            assert stranger.get(f"{path}.json").status_code == 404
            theirs = field_of(stranger.get("/owner/export").text, "form_token")
            tried = stranger.post(f"{path}/again", data={"form_token": theirs}, headers=same_origin(site.base))
            assert tried.status_code == 404
        assert bridge.everything() == before
        assert client.get(f"{path}?show=nothing").status_code == 400
        people.script = lambda _: Reply()
        pressed = client.post(f"{path}/again", data={"form_token": token}, headers=same_origin(site.base))
        assert pressed.status_code == 303
        eventually(lambda: len(people.of_kind("Create")) == 1)
        drained(bridge)
        assert "The post: delivered, " in html.unescape(client.get(f"{path}?show=delivered").text)
        # Pressed again: what has arrived is not sent again.
        client.post(f"{path}/again", data={"form_token": token}, headers=same_origin(site.base))
        eventually(lambda: not bridge.count("jobs", kind="again"))
        drained(bridge)
        assert len(people.of_kind("Create")) == 1
        aged(bridge, 31)
        old = html.unescape(client.get(path).text)
        assert "More than thirty days ago: delivered" in old
        assert "The post: delivered to 1 of 1 server" in old


def test_what_was_taken_back_does_not_come_back_by_a_button(
    bridge: Bridge, people: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "REST", timedelta(0))
    account = bridge.account("carol")
    follow(bridge, account, people, "cleo")

    def script(asked: Arrival) -> Reply:
        return Reply(410 if asked.kind == "Create" else 202)

    people.script = script
    number = publish(bridge, account, "Gone soon")
    drained(bridge)
    retract(bridge, account, number)
    drained(bridge)
    people.script = lambda _: Reply()
    before = len(people.of_kind("Create"))
    moved, rest = bridge.ground.store.transact_now(receipts.try_again, account.id, number, host=None, after=0)
    assert (moved, rest) == (0, None)
    assert {row.state for row in ledger_rows(bridge, post_id=number)} <= {"gone", "delivered", "superseded"}
    assert len(people.of_kind("Create")) == before


def test_ten_thousand_servers_are_read_by_pages(bridge: Bridge) -> None:
    site, account = Site(bridge), bridge.account("loved")
    number = site.post(account, "Hello", silent=False)
    site.delivered(account, number, [("delivered", None)] * 120 + [("refused", "it answered 403")] * 20)

    def more(tx: Tx) -> None:
        d = schema.deliveries
        one = tx.execute(d.select().where(d.c.post_id == number).limit(1)).one()._mapping
        plain = {str(name): value for name, value in one.items() if str(name) != "id"}
        rows = [
            plain | {"inbox": f"https://many{n}.example/inbox", "host": f"many{n}.example"} for n in range(10_000)
        ]
        tx.execute(d.insert(), rows)

    bridge.ground.store.transact_now(more)
    seen: list[str] = []
    with site.signed_in(account) as client:
        following: str | None = ""
        for _ in range(3):
            page = client.get(f"/owner/posts/{number}/receipts.json", params={"after": following or ""}).json()
            seen += [server["host"] for server in page["servers"]]
            following = page["next"]
        assert seen == sorted(seen)
        assert len(set(seen)) == 150
        problems = client.get(f"/owner/posts/{number}/receipts.json?show=problems").json()
        assert (len(problems["servers"]), problems["next"]) == (20, None)
        assert "10,120 of 10,140 servers" in client.get(f"/owner/posts/{number}/receipts").text


def test_receipts_at_the_command_line(tmp_path: Path) -> None:
    with running_bridge(tmp_path / "data", worker=False) as running:
        site, account = Site(running), running.account("dora")
        number = site.post(account, "Hello", silent=False)
        site.delivered(account, number, [("delivered", None)] * 2 + [("refused", "it answered 403")])
        base = running.base
    shell = CommandLine(tmp_path, settings={"BASE_URL": base, "DATA_DIR": str(tmp_path / "data")})
    said = shell.run("receipts", "dora", str(number), "--json").went_well().json
    assert [server["deliveries"][0]["state"] for server in said["servers"]] == ["delivered", "delivered", "refused"]
    address = f"{base}/ap/users/{account.id}/posts/{number}"
    words = shell.run("receipts", "dora", address, "--show", "problems", "--again").went_well().out
    assert "server2.example" in words
    assert "it answered 403" in words
    assert "server1.example" not in words
    shell.run("receipts", "dora", "x").refused("no number", status=1)
    shell.run("receipts", "dora", "99").refused("There is no post 99", status=1)
