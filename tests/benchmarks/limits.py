"""The machine's own walls: signing, verifying, durable commits, an empty route."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from tests.benchmarks import load

from threadbridge.signatures.keys import signing_key, verifying_key
from threadbridge.storage.vault import new_rsa_key

SIGN, VERIFY = "RSA-2048 signatures", "RSA-2048 verifications"
COMMIT, ROUTE, POST_ROUTE = "durable SQLite commits", "empty Starlette route", "empty Starlette route, POST"


def measure() -> list[tuple[str, float, str, str | None]]:
    key = new_rsa_key()
    signer, verifier = signing_key("https://b.example/k", key.private_pem), verifying_key(key.public_pem)
    signature = signer.sign(b"x")
    port = load.free_port()
    with load.process(["-m", "tests.benchmarks.empty", str(port)], port):
        empty = load.rate(port, [f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()])
    return [
        (SIGN, _per_second(lambda: signer.sign(b"x")), "/s", None),
        (VERIFY, _per_second(lambda: verifier.verify(signature, b"x")), "/s", None),
        (COMMIT, _commits(), "/s", None),
        (ROUTE, empty, "/s", None),
    ]


def _per_second(work: Callable[[], object]) -> float:
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
        found = _per_second(lambda: connection.execute("INSERT INTO t VALUES (1)"))
        connection.close()
        return found
