"""Running it: uvicorn with clients who dawdle cut off, and a worker beside it in the same event loop.

Rule: uvicorn alone waits for ever for slow headers and slow bodies; here a connection has to have sent its headers in
ten seconds, and may idle between requests for fifteen.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from threadbridge.errors import BadConfiguration, Conflict, Unavailable
from threadbridge.services import Ground, open_services
from threadbridge.web.app import create_app
from threadbridge.worker import Worker

log = structlog.get_logger(__name__)

T = TypeVar("T")

HEADER_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15
STOP_SECONDS = 4
BACKLOG = 2048


class PromptHttp(HttpToolsProtocol):
    """uvicorn's protocol, which hangs up on a client that does not get its headers across in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._disarm()
        self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


@contextmanager
def sole(ground: Ground, *roles: str) -> Iterator[None]:
    """Be the only process in these roles ("web", "worker") on this SQLite file for as long as the block runs.

    The locks go with the process, however it ends, so there is nothing to clean up after a kill. They lie beside the
    database file, since that is what must not be shared. Raises Conflict; PostgreSQL needs no lock.
    """
    file = ground.store.file
    with ExitStack() as stack:
        for role in roles if file is not None else ():
            assert file is not None
            stack.enter_context(_locked(file, role))
        yield


@contextmanager
def _locked(database: Path, role: str) -> Iterator[None]:
    with open(f"{database}.{role}.lock", "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            other = file.read().strip() or "unknown"
            raise Conflict(
                f"Another threadbridge process (pid {other}) already works as {role} on this database",
                detail=str(database),
                hint="Stop it first. To run several processes use PostgreSQL (THREADBRIDGE_DATABASE_URL).",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def raise_file_limit() -> None:
    """Take as many open files as the system lets us: every waiting client and every kept connection is one, and many
    systems begin with 1,024 although they allow far more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; BadConfiguration says what to do when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only on sockets that say they are TCP; with it, an answer whose headers and
    # body are two writes waits 40 ms for the visitor's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except (OSError, OverflowError, UnicodeError) as error:
        sock.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise BadConfiguration(
                f"Port {port} on {host} is taken", hint="Choose another with --port."
            ) from None
        raise BadConfiguration(f"Cannot listen on {host}:{port}", detail=str(error)) from None
    return sock


class _Server(uvicorn.Server):
    """uvicorn's server; signals are taken by `run`, which also stops the worker."""

    def capture_signals(self) -> Any:
        return nullcontext()


def http_server(app: Any, *, forwarded_allow_ips: str = "127.0.0.1") -> uvicorn.Server:
    """A uvicorn server for an ASGI application on sockets that are given later."""
    return _Server(
        uvicorn.Config(
            app,
            http=PromptHttp,
            loop="none",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            forwarded_allow_ips=forwarded_allow_ips,
            limit_concurrency=4096,
            h11_max_incomplete_event_size=32_768,
        )
    )


def in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in uvloop, which is twice as fast here as asyncio's own loop."""
    return uvloop.run(main)


async def run(ground: Ground, *, worker: bool, sock: socket.socket | None = None) -> None:
    """Serve on `sock` and work until SIGINT or SIGTERM; ends within eight seconds of it, with nothing left half
    done. Without a socket there is no web side."""
    raise_file_limit()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    services = open_services(ground)
    tasks: list[asyncio.Task[None]] = []
    try:
        server = None
        if sock is not None:
            server = http_server(create_app(services))
            tasks.append(asyncio.create_task(server.serve(sockets=[sock])))
        busy = Worker(services) if worker else None
        if busy is not None:
            tasks.append(asyncio.create_task(busy.run()))
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        if server is not None:
            server.should_exit = True
        if busy is not None:
            busy.stop()
        stop.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        if not stopping.is_set():
            raise Unavailable("The server ended by itself", hint="The log above says why.")
    finally:
        await services.aclose()
