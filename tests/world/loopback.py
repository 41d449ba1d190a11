"""A scripted HTTP server on loopback for the tests of `net`, an ear at every socket, and certificates.

Servers here answer with raw bytes, so that a test can misbehave in any way it likes.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from threadbridge.net.client import Client
from threadbridge.net.guard import Guard, Lookup

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test on a plain asyncio loop (uvloop's sockets are not audited); nothing takes longer than 20 s."""
    return asyncio.run(asyncio.wait_for(work, 20))


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] | None
Script = Callable[[Asked], Reply]


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """An HTTP/1.1 response; `content_type="…"` becomes `content-type: …`."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass
class Loopback:
    """A server that answers by `script`; None hangs up. Counts connections and keeps what was asked."""

    script: Script
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, path: str = "/") -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                first = await reader.readexactly(1)
                if first == b"\x16":  # a TLS handshake where none is spoken; real servers hang up too
                    return
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])]
                length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
                asked = Asked(method, target, headers, await reader.readexactly(length))
                self.asked.append(asked)
                answer = self.script(asked)
                if answer is None:
                    return
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()


# ── the ear ──────────────────────────────────────────────────────────────────────────────────────────────────────

_listening: list[list[tuple[str, Any]]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "socket.connect":
        _listening[-1].append(("connect", arguments[1]))
    elif _listening and event in ("socket.getaddrinfo", "socket.gethostbyname"):
        _listening[-1].append(("look up", arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def sockets() -> Iterator[list[tuple[str, Any]]]:
    """Every connection attempt and name lookup of this process meanwhile."""
    heard: list[tuple[str, Any]] = []
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)


# ── shorthands ───────────────────────────────────────────────────────────────────────────────────────────────────


def guard(*networks: str, lookup: Lookup | None = None) -> Guard:
    """A guard that allows these networks; 127.0.0.0/8 when none is named."""
    return Guard(tuple(ip_network(network) for network in networks or ("127.0.0.0/8",)), lookup=lookup)


def client(the_guard: Guard | None = None, **options: Any) -> Client:
    return Client(the_guard or guard(), user_agent="threadbridge/test (+https://bridge.example/)", **options)


def certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A new root as a PEM file, and a server context for 127.0.0.1 and localhost that it vouches for."""
    now = datetime.now(UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])

    def build(
        subject: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(root_name, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(
                extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
            )
        return builder.sign(root_key, hashes.SHA256())

    identifier = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    # Python 3.13 verifies strictly: a root says that it may sign certificates.
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    root = build(
        root_name, root_key.public_key(), x509.BasicConstraints(ca=True, path_length=None), identifier, usage
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    leaf = build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key(), names, issuer)
    (folder / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "root.pem", context
