"""Running it: uvicorn with clients who dawdle cut off, and a worker beside it in the same event loop.

Rule: uvicorn alone waits for ever for slow headers and slow bodies; here a connection has to have sent its headers in
ten seconds, and may idle between requests for fifteen. A request for a document that is ready (`web.hot`) is answered
where it was parsed: the path through ASGI costs five times what the answer does.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from threadbridge import __version__
from threadbridge.errors import BadConfiguration, Conflict, Unavailable
from threadbridge.services import Ground, open_services
from threadbridge.telemetry import traces
from threadbridge.web.app import create_app, create_probes
from threadbridge.web.hot import Ready
from threadbridge.worker import Worker

log = structlog.get_logger(__name__)

T = TypeVar("T")

HEADER_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15
STOP_SECONDS = 4
BACKLOG = 2048
SWITCH_SECONDS = 0.0005
_NOT_PLAIN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


AtOnce = Callable[[bytes, bytes, list[tuple[bytes, bytes]]], Ready | None]
"""Asks for the ready document for (method, request target, headers in lower case)."""


class PromptHttp(HttpToolsProtocol):
    """uvicorn's protocol, which hangs up on a client that does not get its headers across in time, and answers what
    is ready at once."""

    _deadline: asyncio.TimerHandle | None = None
    _heading = False
    """A request has begun, and its headers have not all come."""
    _found: Ready | None = None
    """What the request being read will be answered with, once it has been read to its end."""

    def __init__(self, *args: Any, at_once: AtOnce | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_once = at_once

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Most requests come whole, and need no timer.
        if self._heading and self._deadline is None:
            self._arm()

    def on_message_begin(self) -> None:
        self._heading = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._heading = False
        self._disarm()
        self._found = self._ready()
        if self._found is None:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._found is None:
            super().on_message_complete()
            if self.cycle is not None:
                # Nobody needs a clock beside the reading of what is here already.
                self.cycle.scope["state"]["whole"] = True
        else:
            self._answer(self._found)
            self._found = None

    def _ready(self) -> Ready | None:
        """The ready document that answers the request whose headers have come; None for everything that is not as
        plain as can be: a body, an older protocol, a last request, one that waits for another's answer."""
        if self._at_once is None or (self.cycle is not None and not self.cycle.response_complete):
            return None
        if not self.url.startswith(b"/") or self.flow.write_paused or self.transport.is_closing():
            return None
        for name, _ in self.headers:
            if name in _NOT_PLAIN:
                return None
        parser = self.parser
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return None
        return self._at_once(parser.get_method(), self.url, self.headers)

    def _answer(self, ready: Ready) -> None:
        dated = b"".join(b"%s: %s\r\n" % pair for pair in self.server_state.default_headers)
        body = b"" if self.parser.get_method() == b"HEAD" else ready.body
        self.transport.write(b"".join((STATUS_LINE[ready.status], dated, ready.head, b"\r\n", body)))
        self.on_response_complete()

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
                f"Another threadbridge process (pid {other}) already works as {role} on this database ({database})",
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
            raise BadConfiguration(f"Port {port} on {host} is taken", hint="Choose another with --port.") from None
        raise BadConfiguration(f"Cannot listen on {host}:{port}", detail=str(error)) from None
    return sock


class _Server(uvicorn.Server):
    """uvicorn's server; signals are taken by `run`, which also stops the worker."""

    def capture_signals(self) -> Any:
        return nullcontext()


def http_server(app: Any) -> uvicorn.Server:
    """A uvicorn server for an ASGI application on sockets that are given later."""
    return _Server(
        uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(PromptHttp, at_once=getattr(app, "at_once", None))),
            loop="none",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            # Who a request comes from is decided in `web.throttle`, by the proxies that the settings name.
            proxy_headers=False,
            limit_concurrency=4096,
            h11_max_incomplete_event_size=32_768,
        )
    )


def in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in uvloop, which is twice as fast here as asyncio's own loop."""
    return uvloop.run(main)


async def run(
    ground: Ground, *, worker: bool, sock: socket.socket | None = None, probed: socket.socket | None = None
) -> None:
    """Serve on `sock` and work until SIGINT or SIGTERM; ends within eight seconds of it, with nothing left half
    done. Without a socket there is no web side; on `probed` nothing but the probes is answered."""
    raise_file_limit()
    # Threads that come back from a signature or a statement wait for the interpreter as long as this while the event
    # loop is busy: with Python's own five milliseconds far longer than what they came back from.
    sys.setswitchinterval(SWITCH_SECONDS)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    if ground.config.otlp_endpoint is not None:
        traces.configure(ground.config.otlp_endpoint, __version__)
    ground.store.wake_apart()
    services = open_services(ground)
    tasks: list[asyncio.Task[None]] = []
    try:
        server = None
        if sock is not None:
            server = http_server(create_app(services))
            tasks.append(asyncio.create_task(server.serve(sockets=[sock])))
        elif probed is not None:
            server = http_server(create_probes(services))
            tasks.append(asyncio.create_task(server.serve(sockets=[probed])))
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
        await asyncio.to_thread(traces.end)
