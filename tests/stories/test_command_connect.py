"""`connect`, with the mock network as a command of its own: history comes in once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.rig import BackgroundLoop, Served, eventually, free_socket
from tests.stories.command_line import CommandLine, Running, answers

from threadbridge.sandbox import sample
from threadbridge.sandbox.app import create_app
from threadbridge.sandbox.network import Network


@pytest.fixture
def shell(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "a home")


@contextmanager
def mock_network(shell: CommandLine) -> Iterator[tuple[Running, str]]:
    """`threadbridge sandbox`, and its address."""
    with free_socket() as sock:
        port = sock.getsockname()[1]
    running = shell.start("sandbox", "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(f"{address}/"), 30)
        yield running, address
    finally:
        if running.alive:
            running.stopped()


def token(running: Running, username: str) -> str:
    """As a person reads it off the sandbox's first lines."""
    line = next(line for line in running.err.splitlines() if f"@{username} " in line)
    return line.split()[-1]


def test_the_line_that_the_sandbox_prints_connects(shell: CommandLine) -> None:
    with mock_network(shell) as (network, address):
        secret = token(network, "mira.draws")
        _, *arguments = next(line for line in network.err.splitlines() if f"connect --token {secret}" in line).split()
        done = shell.run(*arguments).went_well()
        assert "Connected: @mira.draws@127.0.0.1" in done.out
        listed = shell.run("accounts", "--json").went_well().json
        assert (listed[0]["handle"], listed[0]["connected"], listed[0]["trouble"]) == ("mira.draws", True, None)
        assert listed[0]["posts"] > 50
        before = shell.everything()

        # Again, by standard input, as a script would: nothing new but the consent.
        again = shell.run(
            "connect", "--token", "-", "--graph-url", address, "--json", stdin=f"{secret}\n"
        ).went_well()
        assert (again.json["new_account"], again.json["posts_new"]) == (False, 0)
        assert {**shell.everything(), "consents": 1} == {**before, "consents": 1}
        assert secret not in again.out + again.err
        network.stopped(signal.SIGTERM).went_well()


def test_a_new_post_goes_on_the_page_beside_a_running_serve(shell: CommandLine) -> None:
    with mock_network(shell) as (network, address), shell.serving(GRAPH_URL=address) as server:
        secret = token(network, "mira.draws")
        shell.run("connect", "--token", secret, GRAPH_URL=address).went_well()
        told = httpx2.post(
            f"{address}/sandbox/api/posts",
            json={"user": "mira.draws", "text": "Written while the bridge runs"},
            trust_env=False,
        )
        assert told.status_code < 300
        profile = f"{shell.base}/@mira.draws"
        eventually(lambda: "Written while the bridge runs" in httpx2.get(profile, trust_env=False).text, 20)

        # A token that dies is said by `accounts`, and by `doctor`.
        httpx2.post(f"{address}/sandbox/api/faults", json={"expire_token": "mira.draws"}, trust_env=False)
        row = eventually(
            lambda: next((row for row in shell.run("accounts", "--json").json if row["needs_sign_in"]), None), 20
        )
        assert row["trouble"] == "sign_in_again"
        assert "needs to sign in again" in shell.run("accounts").went_well().out
        sources = {found["subject"]: found for found in shell.run("doctor", "--json", GRAPH_URL=address).json}
        assert sources["sources"]["level"] == "warning"
        assert secret not in server.err


@pytest.mark.parametrize("secret", ["wrong-token", "", " ", "two\nlines", "tök"])
def test_a_wrong_token_changes_nothing(shell: CommandLine, secret: str) -> None:
    loop = BackgroundLoop()
    sock = free_socket()
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    served = Served(loop, create_app(Network(), address), sock)
    try:
        shell.run("accounts").went_well()
        before = shell.everything()
        said = shell.run("connect", "--token", secret, "--graph-url", address).refused("token", status=1)
        assert "wrong-token" not in said.err
        shell.run("connect", "--token", "-", "--graph-url", address, stdin=secret).refused("token")
        assert shell.everything() == before
    finally:
        served.stop()
        loop.close()


@pytest.mark.parametrize(
    ("graph_url", "words", "status"),
    [
        ("http://127.0.0.1:1", ["could not be reached"], 1),
        ("http://nowhere.invalid", ["nowhere.invalid", "does not resolve"], 1),
        ("http://10.1.2.3", ["10.1.2.3", "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS"], 1),
        ("ftp://127.0.0.1", ["ftp://127.0.0.1", "http"], 2),
        ("graph.threads.net", ["graph.threads.net", "http"], 2),
        ("", ["http"], 2),
    ],
)
def test_an_address_at_which_nothing_is(shell: CommandLine, graph_url: str, words: list[str], status: int) -> None:
    shell.run("accounts").went_well()
    before = shell.everything()
    shell.run("connect", "--token", "a-token", "--graph-url", graph_url).refused(*words, status=status)
    assert shell.everything() == before


def test_something_else_than_the_threads_api(shell: CommandLine) -> None:
    with shell.serving("--no-worker"):
        before = shell.everything()
        other = CommandLine(shell.folder.parent / "another home")
        other.run("connect", "--token", "a-token", "--graph-url", shell.base).refused("Threads", status=1)
        assert shell.everything() == before
        assert other.everything()["accounts"] == 0


# ── the network goes down half-way ───────────────────────────────────────────────────────────────────────────────


class Wire:
    """A line to the mock network that breaks after some bytes, and can be mended."""

    def __init__(self) -> None:
        self.loop = BackgroundLoop()
        self._sock = free_socket()
        self.address = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        behind = free_socket()
        self._behind = behind.getsockname()[1]
        network = Network()
        self.person = sample.seed(network)
        self._served = Served(self.loop, create_app(network, self.address), behind)
        self._left = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = self.loop.run(self._listen())

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, sock=self._sock)

    def lasts(self, size: int) -> None:
        """From now on, for so many bytes of answers."""
        self._left = size

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._left <= 0:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back, counts=False), self._pump(there, writer, counts=True))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counts: bool) -> None:
        try:
            while data := await source.read(4096):
                if counts:
                    self._left -= len(data)
                    if self._left <= 0:
                        for writer in self._writers:
                            writer.transport.abort()
                        self._writers.clear()
                        return
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    def close(self) -> None:
        self.loop.loop.call_soon_threadsafe(self._server.close)
        self._served.stop()
        self.loop.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    laid = Wire()
    yield laid
    laid.close()


def held(shell: CommandLine) -> dict[str, Any]:
    rows = shell.everything()
    return {name: rows[name] for name in ("accounts", "posts", "origins", "attachments", "media", "deliveries")}


@pytest.mark.parametrize("size", [600, 400_000])
def test_what_was_read_stays_and_the_rest_comes_later(shell: CommandLine, wire: Wire, size: int) -> None:
    whole = CommandLine(shell.folder.parent / "a quiet home")
    wire.lasts(10**9)
    arguments = ["connect", "--token", wire.person.token, "--graph-url", wire.address]
    whole.run(*arguments).went_well()

    wire.lasts(size)
    shell.run(*arguments).refused("Threads could not be reached", status=1)
    assert held(shell)["posts"] < held(whole)["posts"]
    wire.lasts(10**9)
    shell.run(*arguments).went_well()
    assert held(shell) == held(whole)
