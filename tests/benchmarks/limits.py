"""The machine's own walls: signing, verifying, durable commits, an answer that is nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from tests.benchmarks import load

from threadbridge.signatures.keys import signing_key, verifying_key
from threadbridge.storage.vault import new_rsa_key

SIGN, VERIFY = "RSA-2048 signatures", "RSA-2048 verifications"
COMMIT, ASGI, POST_ROUTE = "durable SQLite commits", "empty ASGI answer", "empty ASGI answer to a POST"


def measure() -> list[tuple[str, float, str, str | None]]:
    key = new_rsa_key()
    signer, verifier = signing_key("https://b.example/k", key.private_pem), verifying_key(key.public_pem)
    signature = signer.sign(b"x")
    port = load.free_port()
    with load.process(["-m", "tests.benchmarks.empty", str(port)], port):
        line = f"/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        empty = load.wrk(port, "/", "*/*") or load.rate(port, [f"GET {line}\r\n".encode()])
        body = b"x" * 1000
        posted = load.once_each(
            port, [f"POST {line}Content-Length: {len(body)}\r\n\r\n".encode() + body] * 10_000, status=b"200"
        )
    return [
        (SIGN, per_second(lambda: signer.sign(b"x")), "/s", None),
        (VERIFY, per_second(lambda: verifier.verify(signature, b"x")), "/s", None),
        (COMMIT, _commits(), "/s", None),
        (ASGI, empty, "/s", None),
        (POST_ROUTE, posted, "/s", None),
    ]


def per_second(work: Callable[[], object]) -> float:
    """How often `work` can be done in a second, from half a second of doing it."""
    count, started = 0, time.perf_counter()
    while (lasted := time.perf_counter() - started) < 0.5:
        work()
        count += 1
    return count / lasted


def _commits() -> float:
    with load.folder() as folder:
        connection = sqlite3.connect(folder / "x.sqlite3", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (x INTEGER)")
        found = per_second(lambda: connection.execute("INSERT INTO t VALUES (1)"))
        connection.close()
        return found
