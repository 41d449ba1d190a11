"""A thousand inboxes in one process: answers 202 to every POST and counts them; GET tells how many.

python -m tests.benchmarks.sink PORT             plain, on every address
python -m tests.benchmarks.sink PORT FOLDER N    TLS on the first N addresses of `inboxes`, each with a certificate
                                                 of its own; FOLDER/root.pem vouches for them
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def address(number: int) -> str:
    """The address of the host with this number."""
    return f"127.0.{number // 250 + 1}.{number % 250 + 1}"


class _Sink(asyncio.Protocol):
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            place = head.find(b"content-length: ")
            body = int(head[place + 16 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._buffer) < end + 4 + body:
                return
            del self._buffer[: end + 4 + body]
            if head.startswith(b"post"):
                _Sink.count += 1
                self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            elif b"/.well-known/" in head:
                self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            else:
                text = str(_Sink.count).encode()
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def _contexts(folder: Path, count: int) -> list[ssl.SSLContext]:
    """A TLS context for each address, and the root of their certificates in `folder`."""
    now = datetime.now(UTC)
    top_name, leaf_name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("root", "host"))
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip

    def certificate(
        name: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: tuple[x509.ExtensionType, bool]
    ) -> bytes:
        made = x509.CertificateBuilder(top_name, name, public, x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    identifier = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    top = (x509.BasicConstraints(ca=True, path_length=None), True), (usage, True), (identifier, False)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    contexts = []
    for number in range(count):
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address(number)))])
        chain = folder / "leaf.pem"
        chain.write_bytes(pem + certificate(leaf_name, key.public_key(), (names, False), (issuer, False)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        contexts.append(context)
    (folder / "root.pem").write_bytes(certificate(top_name, root.public_key(), *top))
    return contexts


async def _serve(port: int, folder: Path | None, count: int) -> None:
    loop = asyncio.get_running_loop()
    for number, context in enumerate(_contexts(folder, count) if folder else []):
        await loop.create_server(_Sink, address(number), port, backlog=64, ssl=context)
    # Last, since whoever starts this waits for it: how many have arrived is asked at 127.0.0.1.
    server = await loop.create_server(_Sink, "127.0.0.1" if folder else "0.0.0.0", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    given = sys.argv[2:]
    uvloop.run(_serve(int(sys.argv[1]), Path(given[0]) if given else None, int(given[1]) if given else 0))
