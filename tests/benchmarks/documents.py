"""GET of documents, warm (ready bytes, asked for again and again) and cold (each asked for once, nothing of it at
hand but the database). Driven by wrk where it is installed, which costs a fraction of what the server does; else by
our own generator, which then is what bounds the warm figures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.benchmarks import load
from tests.benchmarks.limits import ASGI
from tests.benchmarks.scene import Figure, Scene, neighbours, populated

from threadbridge.storage import posts
from threadbridge.storage.posts import Cursor
from threadbridge.web.documents import PAGE, format_cursor

POSTS = 4000
ACCOUNTS = 400
ACTIVITY_JSON = "application/activity+json"


def measure() -> list[Figure]:
    found: list[Figure] = []
    with populated(POSTS) as scene:
        handles = neighbours(scene, ACCOUNTS)
        base, host = f"/ap/users/{scene.account.id}", scene.base.split("://", 1)[1]
        warm = {
            "WebFinger": f"/.well-known/webfinger?resource=acct:alice@{host}",
            "actor": base,
            "outbox page": f"{base}/outbox?page=true",
            "post": f"{base}/posts/1",
            "profile page": "/@alice",
        }
        cold = {
            "WebFinger": [f"/.well-known/webfinger?resource=acct:{handle}@{host}" for handle, _ in handles],
            "actor": [f"/ap/users/{number}" for _, number in handles],
            "outbox page": [f"{base}/outbox?page=true&before={place}" for place in _places(scene)],
            "post": [f"{base}/posts/{number}" for number in range(1, POSTS + 1)],
        }
        with _serving(scene) as server:
            for what, targets in cold.items():
                requests = [_request(host, target, ACTIVITY_JSON) for target in targets]
                found.append((f"GET {what}, cold", load.once_each(scene.port, requests, status=b"200"), "/s", None))
            for what, target in warm.items():
                accept = "text/html" if what == "profile page" else ACTIVITY_JSON
                rate = load.wrk(scene.port, target, accept) or load.rate(scene.port, [_request(host, target, accept)])
                found.append((f"GET {what}, warm", rate, "/s", ASGI))
            found.append(("documents, peak memory of the server", server.peak(), "MB", None))
    return found


@contextlib.contextmanager
def _serving(scene: Scene) -> Iterator[load.Running]:
    with scene.serving("--no-worker") as server:
        # The first request of all opens files and compiles statements, which is not what is measured.
        load.once_each(scene.port, [_request(scene.base.split("://", 1)[1], "/actor", ACTIVITY_JSON)], status=b"200")
        yield server


def _places(scene: Scene) -> list[str]:
    """Where the pages of the outbox begin."""
    with scene.ground() as ground:
        shown = ground.store.read_now(posts.newest, scene.account.id, limit=POSTS)
    return [format_cursor(Cursor(post.published, post.id)) for post in shown[PAGE::PAGE]]


def _request(host: str, target: str, accept: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n".encode()
