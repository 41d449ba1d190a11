"""The guided walk: three real servers on loopback, sample data, and the main job step by step.

Rule: nothing is faked. What is imported goes through the import, what is connected through the connection, what
arrives at the other server came signed over a socket; each step waits for the thing itself and says how long it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from threadbridge import __version__, connecting, reports, server
from threadbridge.config import fixed
from threadbridge.domain.people import Peer
from threadbridge.errors import BadConfiguration, ThreadbridgeError
from threadbridge.net.client import Client
from threadbridge.net.guard import Guard
from threadbridge.portability import imports, verify
from threadbridge.sandbox import sample
from threadbridge.sandbox.app import create_app as sandbox_app
from threadbridge.sandbox.network import Network, Person
from threadbridge.sandbox.remote import RemoteServer
from threadbridge.services import Ground, open_ground, open_services
from threadbridge.sources.threads_download import open_download
from threadbridge.storage import accounts
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_rsa_key, new_token, token_hash
from threadbridge.web.app import create_app
from threadbridge.worker import Worker

out = Console(highlight=False, soft_wrap=True, emoji=False)
STEP_SECONDS = 30.0
POLL_SECONDS = 0.5


class Step(StrEnum):
    """Every step of the walk, in its order."""

    DOWNLOAD = "the sample download is written as Threads would"
    IMPORT = "imported: posts, dates, media; nothing is sent to anybody"
    SERVERS = "bridge, mock Threads network and a remote server answer"
    CONNECT = "the account is connected by the Threads API; its history is recognised, not doubled"
    WEBFINGER = "WebFinger finds"
    ACTOR = "the actor document is fetched, signed"
    FOLLOW = "Follow sent, Accept received"
    POST = "a new post appears at Threads"
    DELIVERY = "it is bridged, and delivered signed to the remote inbox, with its picture"
    LIKE = "a like comes back and is counted"
    REPLY = "a reply comes back and is shown"
    EDIT = "edited at Threads: an Update arrives"
    DELETION = "deleted at Threads: a Delete arrives, and the address answers 410"
    ANOTHER_POST = "one more post, which stays on the remote timeline"
    SIGN_IN = "the owner signs in with a one-time link"
    ARCHIVE = "an archive is asked for and built"
    VERIFY = "the archive is downloaded and verified offline"


class StepFailed(Exception):
    """A step of the walk did not happen; `step` names it."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(why)
        self.step = step


def run_demo(port: int, *, leave: bool, debug: bool = False) -> int:
    """Walk; returns the exit status: 0 when every step happened, 130 when it was interrupted before that."""
    folder = Path(tempfile.mkdtemp(prefix="threadbridge-demo-"))
    try:
        return server.in_loop(_demo(folder, port, leave=leave))
    except KeyboardInterrupt:
        return 130
    except StepFailed as failed:
        if debug:
            traceback.print_exc()
        out.print(f"\n[red]✗ {failed.step}[/red]: {escape(str(failed))}")
        return 1
    except ThreadbridgeError as error:
        if debug:
            traceback.print_exc()
        out.print(f"\n[red]✗ The demo could not go on:[/red] {escape(str(error))}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _step(step: Step, *about: str) -> Iterator[None]:
    started = time.perf_counter()
    what = " ".join((step, *about))
    try:
        yield
    except TimeoutError:
        raise StepFailed(what, f"it did not happen within {STEP_SECONDS:.0f} seconds") from None
    except (ThreadbridgeError, AssertionError) as error:
        raise StepFailed(what, str(error) or type(error).__name__) from error
    except Exception as error:
        raise StepFailed(what, f"{type(error).__name__}: {error}") from error
    out.print(f"  [green]✓[/green] {what} [dim]{(time.perf_counter() - started) * 1000:,.0f} ms[/dim]")


async def _demo(folder: Path, port: int, *, leave: bool) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    with _three_ports(port) as sockets:
        bridge_url, threads_url, remote_url = (f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in sockets)
        out.print(f"[bold]threadbridge {__version__}[/bold], the guided walk. Everything runs on this machine.\n")
        settings = fixed(
            base_url=bridge_url,
            data_dir=folder / "data",
            allowed_private_networks=(ipaddress.ip_network("127.0.0.0/8"),),
            graph_url=threads_url,
            poll_seconds=POLL_SECONDS,
        )
        ground = open_ground(settings)
        walked = asyncio.Event()
        walk = asyncio.create_task(
            _walk(folder, ground, sockets, (bridge_url, threads_url, remote_url), walked, leave)
        )
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([walk, stop], return_when=asyncio.FIRST_COMPLETED)
            if not walk.done():
                out.print("\nEnding everything ...")
                walk.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await walk
            return 0 if walked.is_set() else 130
        finally:
            stop.cancel()
            ground.close()


@contextlib.contextmanager
def _three_ports(port: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        try:
            sockets = [
                stack.enter_context(server.listen("127.0.0.1", port + offset if port else 0)) for offset in range(3)
            ]
        except BadConfiguration as error:
            words = f"{error.public}. Choose others: threadbridge demo --port 9000, or PORT=9000 make demo"
            raise StepFailed("Taking three ports", words) from None
        yield sockets


async def _walk(
    folder: Path,
    ground: Ground,
    sockets: list[socket.socket],
    urls: tuple[str, str, str],
    walked: asyncio.Event,
    leave: bool,
) -> None:
    bridge_url, threads_url, remote_url = urls
    out.print("[bold]1. A data download comes in[/bold]")
    await asyncio.to_thread(_import_sample, folder, ground)

    out.print("\n[bold]2. Three servers start[/bold]")
    network = Network()
    alice = sample.seed(network)
    client = Client(Guard(ground.config.allowed_private_networks), user_agent="demo-remote/1.0 (+http://127.0.0.1/)")
    remote = RemoteServer(remote_url, client)
    services = open_services(ground)
    apps = [create_app(services), sandbox_app(network, threads_url), remote.create_app()]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(services.aclose)
        for app, sock in zip(apps, sockets, strict=True):
            await stack.enter_async_context(_serving(app, sock))
        worker = Worker(services)
        working = asyncio.create_task(worker.run())
        stack.push_async_callback(_ended, worker, working)
        browser = await stack.enter_async_context(httpx2.AsyncClient(timeout=STEP_SECONDS, trust_env=False))
        with _step(Step.SERVERS):
            for url in (f"{bridge_url}/readyz", f"{threads_url}/", f"{remote_url}/"):
                assert (await browser.get(url)).status_code == 200, f"{url} does not answer"
        out.print(f"\n[bold]3. The main job, as @{alice.username}@{urlsplit(bridge_url).netloc}[/bold]")
        walker = _Walker(ground, services, browser, remote, alice, bridge_url, threads_url, folder)
        await walker.walk()
        walked.set()
        if leave:
            out.print("\n[bold green]Every step happened.[/bold green]")
            return
        out.print("\n[bold green]Every step happened.[/bold green] It stays up; look around:")
        out.print(f"  public profile     {bridge_url}/@{alice.username}")
        out.print(f"  the owner's page   {walker.sign_in_link()}   (works once, for 15 minutes)")
        out.print(f"  Threads, the mock  {threads_url}/   (post something as @{alice.username})")
        out.print(f"  remote timeline    {remote_url}/")
        out.print("Ctrl-C ends everything.")
        await asyncio.get_running_loop().create_future()  # until cancelled


def _import_sample(folder: Path, ground: Ground) -> None:
    with _step(Step.DOWNLOAD):
        files = sample.write_download(folder / "download")
    with (
        _step(Step.IMPORT),
        open_download(files) as download,
        Progress(console=out, transient=True, disable=not out.is_terminal) as bar,
    ):
        task = bar.add_task("Importing", total=download.total_hint)
        summary = imports.import_download(
            ground.store,
            ground.media,
            ground.vault,
            download,
            handle=None,
            dry_run=False,
            new_key=new_rsa_key,
            on_progress=lambda step: bar.update(task, completed=step.done, total=step.total),
        )
    for line in reports.import_lines(summary):
        out.print(f"    {escape(line)}")


@contextlib.asynccontextmanager
async def _serving(app: Any, sock: Any) -> AsyncIterator[None]:
    serving = server.http_server(app)
    task = asyncio.create_task(serving.serve(sockets=[sock]))
    while not serving.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        serving.should_exit = True
        await task


async def _ended(worker: Worker, working: asyncio.Task[None]) -> None:
    worker.stop()
    await working


class _Walker:
    """The steps of the main job."""

    def __init__(
        self,
        ground: Ground,
        services: Any,
        browser: httpx2.AsyncClient,
        remote: RemoteServer,
        alice: Person,
        bridge_url: str,
        threads_url: str,
        folder: Path,
    ) -> None:
        self._ground = ground
        self._services = services
        self._browser = browser
        self._remote = remote
        self._alice = alice
        self._bridge = bridge_url
        self._threads = threads_url
        self._folder = folder

    def sign_in_link(self) -> str:
        """A fresh one-time link, as `threadbridge login-link` makes it."""
        token = new_token()

        def add(tx: Tx) -> None:
            accounts.add_sign_in_link(tx, accounts.named(tx, self._alice.username).id, token_hash(token))

        self._ground.store.transact_now(add)
        return f"{self._bridge}/owner/sign-in?token={token}"

    async def walk(self) -> None:
        """Every step, in order."""
        with _step(Step.CONNECT):
            connected = await connecting.connect(
                self._services, self._alice.token, graph_url=self._threads, handle=None
            )
            assert not connected.new_account, "the connection made a second account"
            assert connected.changes.recognised, "no post of the download was recognised"
        acct = self._ground.ids.acct(connected.account.handle)
        with _step(Step.WEBFINGER, f"@{acct}"):
            uri = await self._remote.peers.webfinger(acct)
        with _step(Step.ACTOR):
            actor = await self._remote.peers.actor(uri)
        with _step(Step.FOLLOW):
            follow = await self._remote.follow(actor)
            await self._remote.wait_for("Accept", follow, seconds=STEP_SECONDS)
        post_uri, native_id = await self._a_new_post()
        await self._what_comes_back(actor, post_uri)
        with _step(Step.EDIT):
            words = {"text": "The ferry is in, and the light is even better now. #harbour"}
            await self._threads_api("PATCH", f"posts/{native_id}", words)
            await self._remote.wait_for("Update", post_uri, seconds=STEP_SECONDS)
        with _step(Step.DELETION):
            await self._threads_api("DELETE", f"posts/{native_id}", None)
            await self._remote.wait_for("Delete", post_uri, seconds=STEP_SECONDS)
            gone = await self._browser.get(post_uri)
            assert gone.status_code == 410, f"{post_uri} answers {gone.status_code}"
        with _step(Step.ANOTHER_POST):
            told = {"user": self._alice.username, "text": "Coffee on the quay, and nowhere to be. #coffee"}
            await self._threads_api("POST", "posts", {**told, "draw": "coffee", "alt": "A cup of coffee on a table"})
            await self._remote.wait_for("Create", other_than=post_uri, seconds=STEP_SECONDS)
        await self._take_everything_away()

    async def _threads_api(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        answer = await self._browser.request(method, f"{self._threads}/sandbox/api/{path}", json=body)
        assert answer.status_code < 300, f"the mock network answered {answer.status_code}: {answer.text[:200]}"
        told: dict[str, Any] = answer.json()
        return told

    async def _a_new_post(self) -> tuple[str, str]:
        with _step(Step.POST):
            told = await self._threads_api(
                "POST",
                "posts",
                {
                    "user": self._alice.username,
                    "text": "The ferry is in, and so is the morning light. #harbour",
                    "draw": "harbour",
                    "alt": "A ferry in a small harbour at sunrise",
                },
            )
        with _step(Step.DELIVERY):
            arrived = await self._remote.wait_for("Create", seconds=STEP_SECONDS)
            said = arrived["object"]
            assert said["attachment"], "the picture is missing"
            picture = await self._browser.get(said["attachment"][0]["url"])
            assert picture.status_code == 200, f"the picture answers {picture.status_code}"
        return said["id"], told["id"]

    async def _what_comes_back(self, actor: Peer, post_uri: str) -> None:
        with _step(Step.LIKE):
            await self._remote.like(actor, post_uri)
            await self._until(f"{post_uri}/likes", 1)
        with _step(Step.REPLY):
            await self._remote.reply(actor, post_uri, "<p>What a light! Greetings from elsewhere.</p>")
            await self._until(f"{post_uri}/replies", 1)

    async def _until(self, uri: str, total: int) -> None:
        async with asyncio.timeout(STEP_SECONDS):
            while (await self._browser.get(uri)).json()["totalItems"] < total:
                await asyncio.sleep(0.1)

    async def _take_everything_away(self) -> None:
        with _step(Step.SIGN_IN):
            page = await self._browser.get(self.sign_in_link())
            page = await self._submit(page, "sign-in")
            assert page.status_code == 200, f"signing in answered {page.status_code}"
        with _step(Step.ARCHIVE):
            page = await self._browser.get(f"{self._bridge}/owner/export")
            page = await self._submit(page, "export")
            async with asyncio.timeout(STEP_SECONDS):
                while (link := re.search(r'href="([^"]*/owner/export/[^"]+\.zip[^"]*)"', page.text)) is None:
                    await asyncio.sleep(0.2)
                    page = await self._browser.get(page.url)
        with _step(Step.VERIFY):
            archive = self._folder / "archive.zip"
            url = link[1].replace("&amp;", "&")
            answer = await self._browser.get(url if url.startswith("http") else self._bridge + url)
            assert answer.status_code == 200, f"the download answered {answer.status_code}"
            archive.write_bytes(answer.content)
            report = await asyncio.to_thread(verify.verify, archive)
            assert report.ok, "; ".join(reports.verify_lines(report))
        for line in reports.verify_lines(report):
            out.print(f"    {escape(line)}")

    async def _submit(self, page: httpx2.Response, what: str) -> httpx2.Response:
        """Press the button of a form, as a browser would."""
        for form in re.findall(r"<form\b.*?</form>", page.text, re.DOTALL):
            action = re.search(r'action="([^"]+)"', form)
            if action is None or what not in action[1]:
                continue
            fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form))
            origin = {"Origin": self._bridge, "Sec-Fetch-Site": "same-origin"}
            return await self._browser.post(
                self._bridge + action[1], data=fields, headers=origin, follow_redirects=True
            )
        raise AssertionError(f"the page has no form for {what}")
