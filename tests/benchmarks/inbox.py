"""Signed POSTs to the shared inbox: verified, stored durably and processed before 202, so accepted is processed."""

from __future__ import annotations

import orjson
from tests.benchmarks import load
from tests.benchmarks.limits import COMMIT, VERIFY
from tests.benchmarks.scene import Scene, populated
from tests.rig import BackgroundLoop, Served, Stranger, free_socket

COUNT = 3000


def measure() -> list[tuple[str, float, str, str | None]]:
    loop = BackgroundLoop()
    sock = free_socket()
    stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(loop, stranger.create_app(), sock)
    found: list[tuple[str, float, str, str | None]] = []
    try:
        with populated() as scene, scene.serving("--no-worker"):
            actor = f"{scene.base}/ap/users/{scene.account.id}"
            load.once_each(scene.port, [_request(scene, stranger, "Like", f"{actor}/posts/1", 0)])
            for kind in ("Like", "Create", "Follow"):
                requests = []
                for number in range(COUNT):
                    post = f"{actor}/posts/{number % 200 + 1}"
                    about = {"Like": post, "Create": stranger.note(post), "Follow": actor}[kind]
                    requests.append(_request(scene, stranger, kind, about, number))
                limit = COMMIT if kind != "Like" else VERIFY
                found.append((f"POST inbox, {kind}", load.once_each(scene.port, requests), "/s", limit))
    finally:
        served.stop()
        loop.close()
    return found


def _request(scene: Scene, stranger: Stranger, kind: str, about: object, number: int) -> bytes:
    body = orjson.dumps({**stranger.activity(kind, about), "id": f"{stranger.base}/{kind}/{number}"})
    headers = stranger.signed(f"{scene.base}/ap/inbox", body)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /ap/inbox HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body
