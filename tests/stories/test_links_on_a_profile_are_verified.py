"""A link on a profile is shown as verified when the page there links back with rel=me, and only while it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import Bridge, Served, eventually, free_socket

from threadbridge.activitypub.relme import links_back
from threadbridge.domain.accounts import Account, ProfileField
from threadbridge.storage import profiles, schema
from threadbridge.storage.store import Tx

US = "https://bridge.example/@alice"


@dataclass
class Site:
    """Somebody's home page."""

    base: str
    body: bytes = b""
    status: int = 200
    media_type: str = "text/html; charset=utf-8"
    asked: int = 0

    def create_app(self) -> Starlette:
        async def page(request: Request) -> Response:
            self.asked += 1
            return Response(self.body, self.status, media_type=self.media_type)

        return Starlette(routes=[Route("/{path:path}", page)])


@pytest.fixture
def site(bridge: Bridge) -> Iterator[Site]:
    sock = free_socket()
    home = Site(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, home.create_app(), sock)
    yield home
    served.stop()


def field(bridge: Bridge, account: Account) -> ProfileField:
    return bridge.ground.store.read_now(profiles.of_account, account.id).fields[0]


def look_again(bridge: Bridge, site: Site, account: Account) -> ProfileField:
    asked = site.asked

    def now(tx: Tx) -> None:
        tx.execute(schema.jobs.update().where(schema.jobs.c.kind == "check_links").values(due_at=tx.now))

    before = field(bridge, account).checked_at
    bridge.ground.store.transact_now(now)
    eventually(lambda: site.asked > asked and field(bridge, account).checked_at != before)
    return field(bridge, account)


def test_a_link_is_verified_while_it_links_back(bridge: Bridge, site: Site) -> None:
    account = bridge.account()
    ours = bridge.ground.ids.profile("alice")
    home = f"{site.base}/home"
    site.body = (
        f'<html><head><title>x</title></head><p>Hello <a class="x" href="{ours}" rel="nofollow ME">me'.encode()
    )
    bridge.ground.store.transact_now(profiles.set_fields, account.id, [("Home", home), ("Pronouns", "she/her")])
    eventually(lambda: field(bridge, account).checked_at)
    assert field(bridge, account).verified_at
    page = bridge.get("/@alice", "text/html").text
    assert f'<link rel="me" href="{home}">' in page
    assert "links back" in page
    # What others verify stands in the document.
    values = {
        one["name"]: one["value"] for one in bridge.get(bridge.ground.ids.actor(account.id)).json()["attachment"]
    }
    assert values["Home"] == (
        f'<a href="{home}" rel="me nofollow noopener noreferrer" target="_blank">{home.partition("://")[2]}</a>'
    )
    assert values["Pronouns"] == "she/her"

    # Away for a while: nothing is taken away. Moving the field about neither.
    site.status = 503
    assert look_again(bridge, site, account).verified_at
    assert "503" in (field(bridge, account).trouble or "")
    bridge.ground.store.transact_now(profiles.set_fields, account.id, [("My site", home)])
    assert field(bridge, account).verified_at
    # The link is gone: so is the mark, and the owner is told.
    site.status, site.body = 200, b"<p>Under new management</p>"
    assert look_again(bridge, site, account).verified_at is None
    assert bridge.count("decisions", kind="link", account_id=account.id) == 1
    eventually(lambda: "links back" not in bridge.get("/@alice", "text/html").text)
    # No addresses, no work.
    bridge.ground.store.transact_now(profiles.set_fields, account.id, [("Pronouns", "she/her")])
    eventually(lambda: field(bridge, account).name == "Pronouns")


@pytest.mark.parametrize(
    ("status", "media_type", "body"),
    [
        (200, "text/html", b"<a href='OURS'>without the word</a>"),
        (200, "text/html", b"<a rel='me' href='http://evil.example/@alice'>x</a>"),
        (200, "text/html", b"<!-- <a rel='me' href='OURS'>x</a> -->"),
        (200, "text/html", b"<script>'<a rel=me href=OURS>'</script>"),
        (200, "text/html", b"&lt;a rel='me' href='OURS'&gt;"),
        (200, "text/plain", b"<a rel='me' href='OURS'>x</a>"),
        (404, "text/html", b"<a rel='me' href='OURS'>x</a>"),
        (200, "text/html", b" " * 1_000_001 + b"<a rel='me' href='OURS'>x</a>"),
    ],
)
def test_what_only_looks_like_a_link_back_counts_for_nothing(
    bridge: Bridge, site: Site, status: int, media_type: str, body: bytes
) -> None:
    account = bridge.account()
    site.status, site.media_type = status, media_type
    site.body = body.replace(b"OURS", bridge.ground.ids.profile("alice").encode())
    bridge.ground.store.transact_now(profiles.set_fields, account.id, [("Home", f"{site.base}/")])
    eventually(lambda: field(bridge, account).checked_at)
    assert field(bridge, account).verified_at is None
    assert field(bridge, account).trouble


@pytest.mark.parametrize(
    "page",
    [
        f"<link rel=me href={US}>",
        f"<LINK REL='me' HREF='{US}/'>",
        "<a rel='noopener me' href='HTTPS://Bridge.Example/@alice#top'>",
        "<a rel=me href='/@alice'>",
        f"<script>{'x' * 200_000}</script><a rel=me href='{US}'>",
        f"<p>{'<b>' * 50_000}<a rel=me href='{US}'>",
    ],
)
def test_links_back_are_found(page: str) -> None:
    assert links_back(page, "https://bridge.example/somewhere", {US})


@pytest.mark.parametrize(
    "page",
    [
        "<a rel=me href=" * 60_000,
        "<" * 900_000,
        "<!--" * 200_000,
        "<a " + "x" * 900_000,
        "<a x='" + "<" * 900_000,
        "<script>" + "</" * 400_000,
        "<![CDATA[" * 100_000,
        "&" * 900_000,
        "<a rel=me href=//[>x</a><a rel=me href=http://[::1>x</a>",
        "<div " * 200_000 + ">" * 200_000,
    ],
)
def test_hostile_pages_cost_little(page: str) -> None:
    started = time.process_time()
    assert not links_back(page, "https://evil.example/", {US})
    assert time.process_time() - started < 2
