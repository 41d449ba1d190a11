"""Running it: uvicorn with clients who dawdle cut off, and a worker beside it in the same event loop.

Rule: uvicorn alone waits for ever for slow headers and slow bodies; here a connection has to have sent its headers in
ten seconds, and may idle between requests for fifteen.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from threadbridge.errors import BadConfiguration, Conflict
from threadbridge.services import Ground, open_services
from threadbridge.web.app import create_app
from threadbridge.worker import Worker

log = structlog.get_logger(__name__)

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


class Locked:
    """A lock on the data folder for as long as the process lives: one web process and one worker per SQLite file.

    The lock goes with the process, however it ends, so there is nothing to clean up after a kill.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self._path = folder / f"{role}.lock"
        self._role = role
        self._file = open(self._path, "a+")  # noqa: SIM115 (held open on purpose)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            other = self._file.read().strip() or "unknown"
            self._file.close()
            raise Conflict(
                f"Another threadbridge process (pid {other}) already works as {role} on this data folder",
                detail=str(folder),
                hint="Stop it first. To run several processes use PostgreSQL (THREADBRIDGE_DATABASE_URL).",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; BadConfiguration says what to do when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise BadConfiguration(
                f"Port {port} on {host} is taken", hint="Choose another with --port or THREADBRIDGE_PORT."
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


async def run(ground: Ground, *, web: bool, worker: bool, sock: socket.socket | None = None) -> None:
    """Serve and work until SIGINT or SIGTERM; ends within eight seconds of it, with nothing left half done."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    services = open_services(ground)
    locks: list[Locked] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        if ground.store.dialect == "sqlite":
            roles = [*(["web"] if web else []), *(["worker"] if worker else [])]
            locks += [Locked(ground.config.data_dir, role) for role in roles]
        server = http_server(create_app(services)) if web else None
        if server is not None:
            assert sock is not None
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
    finally:
        await services.aclose()
        for lock in locks:
            lock.release()
