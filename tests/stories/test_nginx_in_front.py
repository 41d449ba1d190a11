"""Behind nginx, as deploy/nginx.conf sets it up, everything is as without: signatures hold, posts are never kept,
what may be kept is kept by its kind, large bodies are refused, figures are told to nobody."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from tests.rig import Bridge, Served, Stranger, eventually, free_socket, running_bridge

from threadbridge.storage import accounts, posts
from threadbridge.storage.store import Tx

CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"
ACTIVITY = "application/activity+json"


@dataclass
class Front:
    """nginx on a port, the bridge behind it, somebody elsewhere."""

    base: str
    bridge: Bridge
    bob: Stranger

    def get(self, path: str, accept: str = ACTIVITY, **headers: str) -> httpx2.Response:
        return httpx2.get(self.base + path, headers={"Accept": accept, **headers}, trust_env=False)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    with free_socket() as sock:
        port = sock.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    with running_bridge(folder / "data", base_url=base, metrics="open") as bridge:
        site = CONF.read_text()
        for what, instead in (
            (r"listen 443 ssl http2;", f"listen 127.0.0.1:{port};"),
            (r"ssl_certificate(?:_key)? .*?;", ""),
            (r"server 127\.0\.0\.1:8000 ", f"server {bridge.authority} "),
            (r"/var/cache/nginx/threadbridge", str(folder / "cache")),
        ):
            site, found = re.subn(what, instead, site)
            assert found, what
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{ access_log off; {_temporary(folder)} include {folder}/site.conf; }}\n"
        )
        asked = [nginx, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")]
        done = subprocess.run([*asked, "-t"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        running = subprocess.Popen(asked)
        sock = free_socket()
        bob = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, bob.create_app(), sock)
        try:
            eventually(lambda: _answers(f"{base}/livez"))
            bridge.account()
            yield Front(base, bridge, bob)
        finally:
            served.stop()
            running.terminate()
            running.wait(10)


def _temporary(folder: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_signatures_hold_through_it_and_forged_ones_do_not(front: Front) -> None:
    actor = f"{front.base}/ap/users/1"
    assert front.bob.post(f"{actor}/inbox", front.bob.activity("Follow", actor)).status_code == 202
    eventually(lambda: front.bob.of_kind("Accept"))
    before = front.bridge.everything()
    forged = front.bob.post(f"{actor}/inbox", front.bob.activity("Like", actor), host="evil.example")
    assert forged.status_code in (400, 401, 404, 421)
    moved = httpx2.post(
        f"{front.base}/ap/inbox",
        content=b"{}",
        headers=front.bob.signed(f"{actor}/inbox", b"{}"),
        trust_env=False,
    )
    assert 400 <= moved.status_code < 500
    assert front.bridge.everything() == before


def test_a_post_is_gone_at_once_and_an_actor_is_kept_by_kind(front: Front) -> None:
    account = front.bridge.ground.store.read_now(accounts.named, "alice")
    uri = front.bridge.post(account, "Soon gone")
    path = uri.removeprefix(front.base)
    for _ in range(2):
        held = front.get(path)
        assert (held.status_code, held.headers["x-cache"]) == (200, "MISS")
        assert held.headers["vary"] == "Accept"
    number = int(path.rpartition("/")[2])

    def bury(tx: Tx) -> None:
        assert posts.bury(tx, account.id, number)
        accounts.touch(tx, account.id)

    front.bridge.ground.store.transact_now(bury)
    eventually(lambda: front.get(path).status_code == 410, 2)

    first, second = front.get("/ap/users/1"), front.get("/ap/users/1")
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert second.content == first.content
    assert second.headers["content-type"].startswith(ACTIVITY)
    # One address, two kinds: the page for people is no answer to a server, kept or not.
    page = front.get("/@alice", accept="text/html")
    assert page.headers["content-type"].startswith("text/html")
    document = front.get("/@alice")
    assert document.headers.get("content-type", "").startswith("text/html") is False
    assert front.get("/@alice", accept="text/html").content == page.content
    unchanged = front.get("/ap/users/1", **{"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 304
    # What one person sees is kept by nobody.
    for _ in range(2):
        private = front.get("/owner", accept="text/html")
        assert "x-cache" not in private.headers or private.headers["x-cache"] != "HIT"
        assert private.headers["cache-control"] == "no-store"


def test_limits_and_what_is_inside(front: Front) -> None:
    inbox = f"{front.base}/ap/inbox"
    before = front.bridge.everything()
    for size, who in ((1_500_000, "the bridge"), (3_000_000, "nginx")):
        body = b" " * size
        refused = httpx2.post(inbox, content=body, headers=front.bob.signed(inbox, body), trust_env=False)
        assert refused.status_code == 413
        assert refused.headers["content-type"].startswith("application/json" if who == "the bridge" else "text/html")
    assert front.get("/metrics").status_code == 404
    assert front.bridge.get("/metrics").status_code == 200
    assert front.get("/status.json").status_code == 200
    assert front.bridge.everything() == before
