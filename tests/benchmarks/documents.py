"""GET of the hot documents."""

from __future__ import annotations

from tests.benchmarks import load
from tests.benchmarks.limits import ROUTE
from tests.benchmarks.scene import populated


def measure() -> list[tuple[str, float, str, str | None]]:
    with populated() as scene, scene.serving():
        host = scene.base.split("://", 1)[1]
        actor = f"/ap/users/{scene.account.id}"
        targets = {
            "GET WebFinger": f"/.well-known/webfinger?resource=acct:alice@{host}",
            "GET actor": actor,
            "GET outbox page": f"{actor}/outbox?page=true",
            "GET post": f"{actor}/posts/1",
            "GET profile page": "/@alice",
        }
        found: list[tuple[str, float, str, str | None]] = []
        for what, target in targets.items():
            accept = "text/html" if "page" in what and "outbox" not in what else "application/activity+json"
            request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n".encode()
            found.append((what, load.rate(scene.port, [request]), "/s", ROUTE))
        return found
