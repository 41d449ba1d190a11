"""An account is found as @alice@example.org when both sides say so, and not a moment longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from tests.rig import Bridge, Served, Stranger, eventually, free_socket

from threadbridge import doctor
from threadbridge.domain.accounts import Account, check_domain
from threadbridge.errors import Invalid
from threadbridge.federation import own_domain
from threadbridge.storage import accounts, profiles, schema
from threadbridge.storage.store import Tx

JRD = "application/jrd+json"
Answer = Callable[[Request], Response]


@dataclass
class Elsewhere:
    """The web server of the other domain."""

    domain: str
    answer: Answer = field(default=lambda _: Response(status_code=404))
    host_meta: Answer = field(default=lambda _: Response(status_code=404))

    def create_app(self) -> Starlette:
        async def webfinger(request: Request) -> Response:
            return self.answer(request)

        async def meta(request: Request) -> Response:
            return self.host_meta(request)

        return Starlette(routes=[Route("/.well-known/webfinger", webfinger), Route("/.well-known/host-meta", meta)])


@pytest.fixture
def elsewhere(bridge: Bridge) -> Iterator[Elsewhere]:
    sock = free_socket()
    other = Elsewhere(f"127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, other.create_app(), sock)
    yield other
    served.stop()


def check(bridge: Bridge, account: Account) -> list[tuple[str, str]]:
    async def look() -> Any:
        async with bridge.services.echo_client() as client:
            return await own_domain.check_now(bridge.services.store, client, bridge.ground.ids, account.id)

    return list(bridge.loop.run(look()))


def webfinger(bridge: Bridge, host: str, name: str) -> Any:
    return bridge.get(f"http://{host}/.well-known/webfinger?resource=acct:{name}").json()


def domain_of(bridge: Bridge, account: Account) -> str | None:
    held = bridge.ground.store.read_now(accounts.by_id, account.id)
    assert held is not None
    return held.domain


def to_us(bridge: Bridge) -> Answer:
    return lambda request: RedirectResponse(f"{bridge.base}{request.url.path}?{request.url.query}", 301)


def test_a_domain_that_sends_people_here_is_used(
    bridge: Bridge, stranger: Stranger, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ANNOUNCE_AFTER", timedelta(seconds=0.2))
    store, ids = bridge.ground.store, bridge.ground.ids
    account = bridge.account()
    actor = ids.actor(account.id)
    stranger.post(f"{actor}/inbox", stranger.activity("Follow", actor))
    ours, theirs = f"alice@{bridge.authority}", f"alice@{elsewhere.domain}"
    assert bridge.get(f"/.well-known/webfinger?resource=acct:{theirs}").status_code == 404

    store.transact_now(profiles.ask_for_domain, account.id, elsewhere.domain)
    # One side alone: whoever asks for that name is told it, and nothing else changes.
    eventually(lambda: (held := store.read_now(profiles.own_domain, account.id)) and held.checked_at)
    assert domain_of(bridge, account) is None
    assert bridge.get(f"/.well-known/webfinger?resource=acct:{theirs}").json()["subject"] == f"acct:{theirs}"
    assert bridge.get(f"/.well-known/webfinger?resource=acct:{ours}").json()["subject"] == f"acct:{ours}"
    assert bridge.get(actor).json()["webfinger"] == ours

    elsewhere.answer = elsewhere.host_meta = to_us(bridge)
    found = check(bridge, account)
    assert [level for level, _ in found] == ["ok", "ok"], found
    assert bridge.get(actor).json()["webfinger"] == theirs
    assert bridge.get(actor).json()["attributionDomains"] == [bridge.authority, elsewhere.domain]
    for name in (ours, theirs):
        jrd = bridge.get(f"/.well-known/webfinger?resource=acct:{name}").json()
        assert jrd["subject"] == f"acct:{theirs}"
        assert [link["href"] for link in jrd["links"] if link["rel"] == "self"] == [actor]
    assert eventually(lambda: stranger.of_kind("Update"))[0]["object"]["webfinger"] == theirs
    assert theirs in bridge.get("/@alice", "text/html").text
    confirmed = store.read_now(profiles.own_domain, account.id)
    assert confirmed is not None
    assert confirmed.state == "confirmed"
    findings = bridge.loop.run(doctor.examine(bridge.ground.config))
    assert [finding.level for finding in findings if finding.subject == "@alice"] == ["ok"]

    # A file there does as well.
    jrd = {
        "subject": f"acct:{theirs}",
        "links": [{"rel": "self", "type": "application/activity+json", "href": actor}],
    }
    elsewhere.answer = lambda _: Response(
        orjson.dumps(jrd), headers={"access-control-allow-origin": "*"}, media_type=JRD
    )
    assert check(bridge, account)[0][0] == "ok"

    # Broken: kept for three days, then given up with a word to the owner, and used again when it answers.
    elsewhere.answer = lambda _: Response(status_code=502)
    assert check(bridge, account)[0][0] == "error"
    assert domain_of(bridge, account) == elsewhere.domain
    finding = next(f for f in bridge.loop.run(doctor.examine(bridge.ground.config)) if f.subject == "@alice")
    assert (finding.level, "502" in finding.words) == ("error", True)

    def long_ago(tx: Tx) -> None:
        tx.execute(update(schema.account_domains).values(broken_since=tx.now - timedelta(days=4)))

    store.transact_now(long_ago)
    check(bridge, account)
    assert domain_of(bridge, account) is None
    assert bridge.get(actor).json()["webfinger"] == ours
    assert bridge.count("decisions", kind="domain", account_id=account.id) == 2
    elsewhere.answer = to_us(bridge)
    check(bridge, account)
    assert domain_of(bridge, account) == elsewhere.domain

    store.transact_now(profiles.remove_domain, account.id)
    assert domain_of(bridge, account) is None
    assert not bridge.count("jobs", kind="check_domain")
    assert bridge.get(f"/.well-known/webfinger?resource=acct:{theirs}").status_code == 404


def test_it_says_exactly_what_is_wrong_and_believes_nothing(bridge: Bridge, elsewhere: Elsewhere) -> None:
    store, ids = bridge.ground.store, bridge.ground.ids
    bridge.stop_worker()
    account, mallory = bridge.account(), bridge.account("mallory")
    actor, name = ids.actor(account.id), f"acct:alice@{elsewhere.domain}"
    store.transact_now(profiles.ask_for_domain, account.id, elsewhere.domain)
    before = bridge.everything()

    def jrd(subject: str = name, *selves: str, media_type: str = JRD, **headers: str) -> Answer:
        links = [{"rel": "self", "type": "application/activity+json", "href": href} for href in selves or (actor,)]
        body = orjson.dumps({"subject": subject, "links": links})
        return lambda _: Response(
            body, media_type=media_type, headers={"access-control-allow-origin": "*", **headers}
        )

    def around(request: Request) -> Response:
        return RedirectResponse(str(request.url) + "&again=1")

    for answer, words in (
        (lambda _: Response(status_code=404), "answers 404"),
        (lambda _: RedirectResponse(f"{bridge.base}/.well-known/webfinger"), "without the query"),
        (lambda _: RedirectResponse(f"{bridge.base}/.well-known/webfinger?resource=acct:b@x.example"), "without the"),
        (around, "cannot be asked"),
        (lambda _: RedirectResponse("ftp://example.org/"), "cannot be asked"),
        (jrd(media_type="text/html"), "serves text/html"),
        (lambda _: Response(b"<xml/>", media_type=JRD), "no JSON"),
        (lambda _: Response(b"x" * 300_000, media_type=JRD), "cannot be asked"),
        (jrd(f"acct:alice@{bridge.authority}"), "subject"),
        (jrd(name.upper()), "subject"),
        (jrd(name, ids.actor(mallory.id)), "`self` link"),
        (jrd(name, actor, ids.actor(mallory.id)), "`self` link"),
        (jrd(name, f"{actor}/"), "`self` link"),
    ):  # fmt: skip
        elsewhere.answer = answer
        found = check(bridge, account)
        assert [level for level, _ in found].count("error") >= 1, words
        assert words in " ".join(said for _, said in found), found
        assert domain_of(bridge, account) is None
        assert bridge.everything() == before

    # Only less than good: used, and said.
    elsewhere.answer = lambda request: Response(jrd()(request).body, media_type=JRD)
    elsewhere.host_meta = lambda _: Response(b"<XRD/>", media_type="application/xrd+xml")
    found = check(bridge, account)
    assert [level for level, _ in found] == ["ok", "warning", "warning"]
    assert "Access-Control-Allow-Origin" in found[1][1]
    assert domain_of(bridge, account) == elsewhere.domain
    # Another account's name under that domain is nobody's.
    assert bridge.get(f"/.well-known/webfinger?resource=acct:mallory@{elsewhere.domain}").status_code == 404


@pytest.mark.parametrize(
    "domain", ["", "localhost", "example.org/x", "exa mple.org", "127.0.0.1", "[::1]", "example.org:8080",
               "bücher.example",
               "-a.example", "a..example", "x" * 64 + ".example", "javascript:alert(1)"]
)  # fmt: skip
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(Invalid):
        check_domain(domain)


def test_a_domain_is_taken_as_people_write_it() -> None:
    assert check_domain(" https://Example.ORG/ ") == "example.org"
    assert check_domain("@xn--bcher-kva.example") == "xn--bcher-kva.example"
