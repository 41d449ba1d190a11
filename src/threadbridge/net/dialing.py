"""How the two HTTP engines are tied to the guard: each gets its addresses from it, and nowhere else.

Rule: what is dialled is the address that was judged, never a name that might mean something else a moment later.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import httpcore2
from aiohttp.abc import AbstractResolver, ResolveResult

from threadbridge.errors import AddressRefused, BadConfiguration
from threadbridge.net.guard import Guard

CONNECT_SECONDS = 5.0
_ADDRESSES = 4
_KEPT_ALIVE = 15.0


def document_pool(guard: Guard, tls: ssl.SSLContext, connections: int) -> httpcore2.AsyncConnectionPool:
    """The engine for documents, media and APIs."""
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=connections,
        max_keepalive_connections=32,
        keepalive_expiry=_KEPT_ALIVE,
        network_backend=_GuardedDialer(guard),
    )


def delivery_session(
    guard: Guard, tls: ssl.SSLContext, connections: int, connections_per_host: int
) -> aiohttp.ClientSession:
    """The engine for deliveries; needs a running loop."""

    def guarded_socket(info: Any) -> socket.socket:
        """The last word before aiohttp connects: sees the very address that is dialled, literals included."""
        family, kind, protocol, _, address = info
        if not guard.permits(ip_address(address[0]), address[1]):
            raise PermissionError(errno.EACCES, "the address guard refused to dial")
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        resolver=_GuardedResolver(guard),
        socket_factory=guarded_socket,
        ssl=tls,
        limit=connections,
        limit_per_host=connections_per_host,
        keepalive_timeout=_KEPT_ALIVE,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        max_line_size=8190,
        max_field_size=8190,
        skip_auto_headers=("Accept-Encoding", "Accept", "User-Agent", "Content-Type"),
    )


@lru_cache(maxsize=4)
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The system's trusted roots and those in `ca_file`; raises BadConfiguration. One for all clients of a process:
    reading the roots takes 30 ms."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadConfiguration(
                f"THREADBRIDGE_CA_FILE: {ca_file} cannot be used",
                detail=str(error),
                hint="It must be a PEM file with one or more certificates",
            ) from None
    return context


class _GuardedDialer(httpcore2.AsyncNetworkBackend):
    """Resolves through the guard and connects to the literal address that it passed."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._dialer = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception | None = None
        for address in (await self._guard.resolve(host, port))[:_ADDRESSES]:
            try:
                return await self._dialer.connect_tcp(
                    str(address), port, timeout=CONNECT_SECONDS, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise AddressRefused("Sockets in the file system are not asked for")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _GuardedResolver(AbstractResolver):
    """The guard as aiohttp's resolver; what it answers is dialled as it stands."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in (await self._guard.resolve(host, port))[:_ADDRESSES]
        ]

    async def close(self) -> None:
        return None
