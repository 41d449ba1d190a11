"""A server that is dead for a week has its followers parked; it is looked at now and then, and gets posts again as
soon as it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.browser.site import Site
from tests.rig import LOOPBACK, BackgroundLoop, Bridge, Served, eventually, free_socket, running_bridge
from tests.stories.command_line import CommandLine
from tests.stories.crowd import Reply, crowd, drained, follow, publish
from tests.world.deliverable import Clock, account, address, fail, follower, rows, said, settle, take

from threadbridge import server
from threadbridge.delivery import tending
from threadbridge.domain import hosts as rules
from threadbridge.errors import BadAnswer
from threadbridge.net.client import Client
from threadbridge.net.guard import Guard
from threadbridge.net.peers import Peers
from threadbridge.storage import hosts, jobs, outages, schema
from threadbridge.storage.store import Store, Tx


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    opened = Store.open(database_url, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    running = BackgroundLoop()
    yield running
    running.close()


class Neighbour:
    """A server that says what it runs, as `documents` has it, and writes down who asked."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    def create_app(self) -> Starlette:
        async def answer(request: Request) -> Response:
            self.asked.append(request.url.path)
            found = self.documents.get(request.url.path)
            if found is None or isinstance(found, int):
                return Response(status_code=found or 404)
            body = found if isinstance(found, bytes) else orjson.dumps(found)
            return Response(body, media_type="application/json")

        return Starlette(routes=[Route("/{path:path}", answer)])


def says(base: str, name: Any = "Mastodon", version: Any = "4.6.5", place: str = "/nodeinfo/2.0") -> dict[str, Any]:
    rel = "http://nodeinfo.diaspora.software/ns/schema/2.0"
    return {
        "/.well-known/nodeinfo": {"links": [{"rel": rel, "href": f"{base}{place}"}]},
        place: {"version": "2.0", "software": {"name": name, "version": version}},
    }


@contextmanager
def neighbour(loop: BackgroundLoop, port: int, documents: dict[str, Any] | None = None) -> Iterator[Neighbour]:
    there = Neighbour(documents if documents is not None else says(f"http://127.0.0.1:{port}"))
    served = Served(loop, there.create_app(), server.listen("127.0.0.1", port))
    try:
        yield there
    finally:
        served.stop()


@contextmanager
def asking(loop: BackgroundLoop) -> Iterator[Peers]:
    """Real questions over real sockets."""

    async def nothing(*_: Any) -> dict[str, str]:
        return {}

    async def opened() -> Client:
        return Client(Guard(LOOPBACK), user_agent="threadbridge/test")

    client = loop.run(opened())
    try:
        yield Peers(client, nothing, requests_per_minute=1000)
    finally:
        loop.run(client.aclose())


def a_port() -> int:
    with free_socket() as sock:
        port: int = sock.getsockname()[1]
        return port


def tended(store: Store, loop: BackgroundLoop, remote: Peers) -> datetime | None:
    """What is due of looking after hosts is done; returns when it goes on."""
    for job in store.transact_now(jobs.take, [hosts.TEND], 8.0, 5):
        loop.run(tending.tend(store, remote, job, lambda: False))
    return next((row.due_at for row in rows(store, "jobs", kind=hosts.TEND)), None)


def test_seven_dead_days_then_parked_then_back(store: Store, clock: Clock, loop: BackgroundLoop) -> None:
    port = a_port()
    dead, base = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    me = account(store)
    follower(store, me, "bob", dead)
    follower(store, me, "carol", "well.example")
    inbox = schema.followers.update().values(inbox=f"{base}/inbox").where(schema.followers.c.inbox_host == dead)
    store.transact_now(Tx.execute, inbox)
    began = clock.now
    with asking(loop) as remote:
        made = 0
        while clock.now < began + timedelta(days=7):
            made += address(store, said(store, me), dead)  # a post every six hours
            for claimed in take(store):
                fail(store, claimed, clock.now + timedelta(hours=5), held_until=clock.now + timedelta(minutes=30))
            due_at = tended(store, loop, remote)
            assert due_at is not None
            assert host(store, dead).parked_at is None
            clock.forward(hours=6)
        assert made == 28
        # The last trouble is of six hours ago: nobody needs to be asked whether it is still so.
        assert tended(store, loop, remote) == clock.now + timedelta(days=1)
        assert host(store, dead).parked_at == clock.now
        assert address(store, said(store, me), dead, "well.example") == 1
        assert store.read_now(outages.waiting_followers, me)[0].followers == 1
        assert address(store, said(store, me, "Delete"), dead) == 1
        settle(store, take(store)[0])
        looks = 0
        while clock.now < began + timedelta(days=36):
            clock.forward(days=1)
            due_at = tended(store, loop, remote)
            looks += host(store, dead).probed_at == clock.now
        # Daily up to thirty days, then weekly.
        assert looks == 23
        assert due_at == began + timedelta(days=37)
        # Every post was held for its seven days, and ended with its reason; the deletion still waits.
        ended = rows(store, host=dead, state="given_up")
        assert len(ended) == 28
        assert {row.reason.rpartition("; ")[2] for row in ended} == {"given up after 7 days"}
        assert [row.state for row in rows(store, host=dead) if row.state != "given_up"] == ["waiting"]
        with neighbour(loop, port) as back:
            clock.now = began + timedelta(days=36, hours=12)
            # It speaks: it is looked at at once, and gets one thing first.
            store.transact_now(hosts.heard_from, dead)
            tended(store, loop, remote)
            assert back.asked == ["/.well-known/nodeinfo", "/nodeinfo/2.0"]
        row = host(store, dead)
        assert (row.parked_at, row.software, row.software_version) == (None, "mastodon", "4.6.5")
        assert rules.standing(hosts.memory_of(row), clock.now).state == "probing"
        assert store.read_now(outages.waiting_followers, me) == []
        assert address(store, said(store, me), dead) == 1
        while store.transact_now(hosts.bring_forward, dead):
            pass
        (probe,) = take(store)
        assert probe.host == dead
        settle(store, probe)
        assert host(store, dead).failing_since is None
        clock.forward(days=8)
        assert tended(store, loop, remote) is None


def host(store: Store, name: str) -> Any:
    (row,) = rows(store, "hosts", host=name)
    return row


def test_before_somebody_is_parked_who_was_not_tried_for_days_they_are_asked(
    store: Store, clock: Clock, loop: BackgroundLoop
) -> None:
    port = a_port()
    name, base = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    me = account(store)
    follower(store, me, "bob", name)
    store.transact_now(Tx.execute, schema.followers.update().values(inbox=f"{base}/inbox"))
    address(store, said(store, me), name)
    fail(store, take(store)[0], clock.now + timedelta(days=30), held_until=clock.now)
    clock.forward(days=8)
    with asking(loop) as remote:
        with neighbour(loop, port, {}) as there:  # no NodeInfo, but there
            tended(store, loop, remote)
            assert there.asked == ["/.well-known/nodeinfo"]
            assert host(store, name).parked_at is None
            assert [row.state for row in rows(store)] == ["waiting"], "nobody had tried for eight days"
        with neighbour(loop, port, {"/.well-known/nodeinfo": 502}):
            clock.forward(days=1)
            tended(store, loop, remote)
        assert host(store, name).parked_at == clock.now
        assert host(store, name).last_trouble.endswith("answered 502")
        assert [row.state for row in rows(store)] == ["given_up"]


@pytest.mark.parametrize(
    ("bent", "words"),
    [
        (lambda base: {"/.well-known/nodeinfo": b"<html>"}, "not a document"),
        (lambda base: {"/.well-known/nodeinfo": {"links": "x"}}, "names no NodeInfo"),
        (lambda base: {**says(base), "/nodeinfo/2.0": {"software": {"name": 7}}}, "no NodeInfo we can read"),
        (lambda base: {**says(base), "/nodeinfo/2.0": {"software": "mastodon"}}, "no NodeInfo we can read"),
        (lambda base: says(base, "x\x07"), "no NodeInfo we can read"),
        (lambda base: says("http://127.0.0.2:1"), "names no NodeInfo"),
        (lambda base: {**says(base), "/nodeinfo/2.0": b"1" * 200_000}, "more than"),
    ],
)
def test_what_is_no_nodeinfo_is_not_believed(
    loop: BackgroundLoop, bent: Callable[[str], dict[str, Any]], words: str
) -> None:
    port = a_port()
    base = f"http://127.0.0.1:{port}"
    with neighbour(loop, port, bent(base)), asking(loop) as remote:
        with pytest.raises(BadAnswer) as refused:
            loop.run(remote.software(base))
        assert words in str(refused.value)


def test_hosts_that_we_deal_with_are_asked_once_a_week_what_they_run(
    store: Store, clock: Clock, loop: BackgroundLoop
) -> None:
    port = a_port()
    name, base = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    me = account(store)
    follower(store, me, "bob", name)
    store.transact_now(Tx.execute, schema.followers.update().values(inbox=f"{base}/inbox"))
    store.transact_now(hosts.heard_from, "stranger.example")

    def asked() -> None:
        address(store, said(store, me), name)
        settle(store, take(store)[0])
        store.transact_now(tending.wish_to_know)
        clock.forward(minutes=11)
        (job,) = store.transact_now(jobs.take, [tending.SOFTWARE], 8.0, 1)
        loop.run(tending.ask_software(store, remote, job, lambda: False))
        assert rows(store, "jobs", kind=tending.SOFTWARE) == []

    with asking(loop) as remote, neighbour(loop, port, says(base, "GoToSocial", "0.22.0\n")) as there:
        asked()
        asked()
        clock.forward(days=6, hours=23)
        asked()
        assert len(there.asked) == 2  # two documents, once
        row = host(store, name)
        assert (row.software, row.software_version) == ("gotosocial", "0.22.0")
        clock.forward(hours=1)
        # What is known stays when it does not say any more.
        there.documents = {}
        asked()
        assert there.asked[2:] == ["/.well-known/nodeinfo"]
        assert host(store, name).software == "gotosocial"
    assert host(store, "stranger.example").software_asked_at is None


# ── over the wire ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path) as running:
        yield running


def test_a_server_that_counts_gets_no_more_than_it_says(bridge: Bridge) -> None:
    me = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, me, people, "bob")
        people.script = lambda _: Reply(202, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2"})
        publish(bridge, me, "one")
        eventually(lambda: bridge.count("deliveries", state="delivered") == 2)
        publish(bridge, me, "two")
        eventually(lambda: len(people.deliveries()) == 2)
        first, second = people.deliveries()
        assert second.at - first.at >= 1.9
        drained(bridge)
        assert bridge.count("hosts", failures=0) == 1


def test_the_owner_sees_who_waits(bridge: Bridge) -> None:
    me = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, me, people, "bob", "carol")
    name = people.base[7:]
    trouble = schema.hosts.update().values(
        failing_since=datetime.now().astimezone() - timedelta(days=8), last_trouble="could <not> be reached"
    )
    store = bridge.ground.store
    store.transact_now(Tx.execute, trouble)
    store.transact_now(outages.park, name)
    with Site(bridge).signed_in(me) as browser:
        overview = browser.get("/owner").text
        assert "<strong>2</strong> followers, 2 waiting on servers that do not answer" in overview
        page = browser.get("/owner/followers").text
        assert f"2 at <strong>{name}</strong>" in page
        assert "could &lt;not&gt; be reached" in page
        store.transact_now(outages.answered, name)
        assert "do not answer" not in browser.get("/owner/followers").text


# ── the operator's commands ──────────────────────────────────────────────────────────────────────────────────────


def test_the_commands_about_servers(tmp_path: Path, loop: BackgroundLoop) -> None:
    shell = CommandLine(tmp_path / "a home")
    assert "nothing waits" in shell.run("hosts", "list").went_well().out
    port = a_port()
    name, base = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    store = Store.open(f"sqlite:///{shell.data / 'threadbridge.sqlite3'}")
    me = account(store)
    follower(store, me, "bob", name)
    store.transact_now(Tx.execute, schema.followers.update().values(inbox=f"{base}/inbox"))
    address(store, said(store, me), name)
    address(store, said(store, me), name)
    given_up, held = take(store)
    settle(store, given_up, "given_up", status=503, reason="503: x; given up after 7 days")
    fail(store, held, store.clock() + timedelta(days=1), held_until=store.clock() + timedelta(days=1))
    before = shell.everything()
    for command in ("show", "probe", "replay", "drop", "forgive"):
        shell.run("hosts", command, "never.example").refused("Nothing is known", "never.example", status=1)
    shell.run("hosts", "drop", name, "--json").refused("--yes", status=1)
    shell.run("hosts", "replay", name, "--days", "31", "--yes").refused("--days", status=1)
    assert shell.run("hosts", "drop", name, stdin="n\n").status == 1
    assert shell.everything() == before
    (line,) = shell.run("hosts", "list", "--json").went_well().json
    assert (line["host"], line["state"], line["queued"]) == (name, "open", 1)
    assert name in shell.run("hosts", "list").went_well().out
    sheet = shell.run("hosts", "show", f"{base}/inbox", "--json").went_well().json
    assert (sheet["followers"], sheet["ended_badly"], sheet["queued_by_lane"]) == (1, {"given_up": 1}, {"posts": 1})
    assert sheet["troubles"][0]["words"] == "could not be reached"
    assert "could not be reached (once)" in shell.run("hosts", "show", name).went_well().out
    away = shell.run("hosts", "probe", name)
    assert away.status == 1
    assert "does not answer" in away.out
    with neighbour(loop, port):
        assert shell.run("hosts", "probe", name, "--json").went_well().json["software"] == ["mastodon", "4.6.5"]
    assert host(store, name).held_until <= store.clock()
    assert shell.run("hosts", "replay", name, "--yes", "--json").went_well().json == {
        "host": name, "again": 1, "out_of_date": 0,
    }  # fmt: skip
    assert shell.run("hosts", "forgive", name, "--json").went_well().json["queued"] == 2
    assert host(store, name).failing_since is None
    dropped = shell.run("hosts", "drop", name, "--reason", "closed for good", "--yes", "--json").went_well().json
    assert dropped == {"host": name, "ended": 2}
    assert {row.reason for row in rows(store)} == {"ended by the operator of this server: closed for good"}
    told = shell.run("decisions", "--json").went_well().json
    assert {row["kind"] for row in told} == {"host"}
    store.close()
