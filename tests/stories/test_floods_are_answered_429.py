"""Limits on what comes in really answer 429 on the inbox, and never to a server that proves who it is and behaves;
one request in makes at most one request out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.rig import Bridge, a_key, eventually, running_bridge
from tests.stories.neighbours import kept, send, strangers

from threadbridge.config import fixed, load
from threadbridge.errors import BadConfiguration
from threadbridge.web.throttle import Buckets, address_of

JSON = {"content-type": "application/activity+json"}
NETWORKS = fixed(trusted_proxies="10.0.0.0/8, ::1/128").trusted_proxies


@contextmanager
def strict(folder: Path, **settings: Any) -> Iterator[Bridge]:
    with running_bridge(folder, worker=False, **{"refusals_per_minute": 10, **settings}) as bridge:
        yield bridge


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with strict(tmp_path_factory.mktemp("floods")) as running:
        yield running


def flood(bridge: Bridge, path: str, number: int, **headers: str) -> list[httpx2.Response]:
    """Requests without a signature."""
    with httpx2.Client(trust_env=False) as client:
        return [client.post(bridge.base + path, content=b"{}", headers={**JSON, **headers}) for _ in range(number)]


@pytest.mark.parametrize("which", ["shared", "instance", "personal"])
def test_unsigned_requests_of_one_address_are_limited_and_signed_ones_are_not(bridge: Bridge, which: str) -> None:
    account = bridge.account(which)
    post = bridge.post(account)
    path = {"shared": "/ap/inbox", "instance": "/actor/inbox", "personal": f"/ap/users/{account.id}/inbox"}[which]
    with strangers(bridge, "bob", "new") as (bob, new):
        via = {"x-forwarded-for": f"203.0.113.{account.id}"}
        # The peer is met before; it comes through the same address as the flood, as behind one proxy.
        assert send(bob, bridge.base + path, bob.activity("Like", post), **via).status_code == 202
        before = kept(bridge)
        answers = flood(bridge, path, 14, **via)
        assert [answer.status_code for answer in answers[:10]] == [400] * 10
        assert {answer.status_code for answer in answers[10:]} == {429}
        assert int(answers[-1].headers["retry-after"]) > 0
        assert kept(bridge) == before
        for _ in range(30):
            assert send(bob, bridge.base + path, bob.activity("Announce", post), **via).status_code == 202
        # Somebody whom nobody knows has to wait, and nobody is asked about them meanwhile …
        refused = send(new, bridge.base + path, new.activity("Like", post), **via)
        assert (refused.status_code, new.fetched) == (429, [])
        # … unless they come from elsewhere.
        assert send(new, bridge.base + path, new.activity("Like", post)).status_code == 202
    eventually(lambda: bridge.count("dropped", kind="address"))


def test_loopback_is_limited_too_and_a_name_in_a_header_does_not_help(tmp_path: Path) -> None:
    with strict(tmp_path, trusted_proxies="10.0.0.0/8") as direct:
        answers = [
            answer.status_code
            for number in range(13)
            for answer in flood(direct, "/ap/inbox", 1, **{"x-forwarded-for": f"198.51.100.{number}"})
        ]
        assert answers == [400] * 10 + [429] * 3


def test_bad_signatures_count_and_make_us_ask_little(tmp_path: Path) -> None:
    with strict(tmp_path) as bridge, strangers(bridge, "victim") as (victim,):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        answers = []
        for number in range(30):
            key_id = f"{victim.base}/users/nobody{number}#main-key"
            said = {**victim.activity("Like", post), "actor": key_id.partition("#")[0]}
            answers.append(send(victim, inbox, said, key_id=key_id).status_code)
        assert answers[:10] == [401] * 10
        assert set(answers[10:]) == {429}
        assert len(victim.fetched) <= 10


def test_one_server_is_limited_after_its_signature_and_no_other(tmp_path: Path) -> None:
    with (
        strict(tmp_path, requests_per_minute_per_server=20) as bridge,
        strangers(bridge, "busy", "calm") as (busy, calm),
    ):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        answers = [send(busy, inbox, busy.activity("Like", post)) for _ in range(24)]
        assert [answer.status_code for answer in answers[:20]] == [202] * 20
        assert 429 in {answer.status_code for answer in answers[20:]}
        assert "retry-after" in answers[-1].headers
        # In somebody else's name nobody's share can be used up.
        for _ in range(25):
            assert send(calm, inbox, calm.activity("Like", post), key=a_key(5)).status_code in (401, 429)
        assert send(calm, inbox, calm.activity("Like", post), **{"x-forwarded-for": "192.0.2.1"}).status_code == 202


def test_a_big_server_that_behaves_is_never_limited(tmp_path: Path) -> None:
    """As it is set by default: many people of one server, from one address, as fast as they can."""
    with (
        running_bridge(tmp_path, worker=False, refusals_per_minute=120) as bridge,
        strangers(bridge, "big") as (big,),
    ):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        assert send(big, inbox, big.activity("Like", post)).status_code == 202

        def one(_: int) -> int:
            return send(big, inbox, big.activity("Announce", post)).status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(one, range(300)))
        assert set(statuses) == {202}
        # One fetch for all of them.
        assert len(big.fetched) == 1


def test_one_request_in_is_at_most_one_out(tmp_path: Path) -> None:
    """Whatever a stranger sends, the server that it names is asked no more often than we were."""
    with (
        running_bridge(tmp_path, worker=False) as bridge,
        strangers(bridge, "mallory", "victim") as (mallory, victim),
    ):
        post, inbox = bridge.post(bridge.account()), f"{bridge.base}/ap/inbox"
        assert send(mallory, inbox, mallory.activity("Like", post)).status_code == 202
        sent = 0
        for number in range(20):
            author = {"actor": f"{victim.base}/users/n{number}"}
            note = {**victim.note(post), "id": f"{victim.base}/notes/{number}", "attributedTo": author["actor"]}
            for activity in (
                {**victim.activity("Create", note), **author},
                {**victim.activity("Create", note["id"]), **author},
                {**victim.activity("Like", post), **author},
            ):
                assert send(mallory, inbox, activity).status_code in (400, 401, 403)
                sent += 1
            key_id = f"{victim.base}/users/k{number}#main-key"
            assert send(mallory, inbox, mallory.activity("Like", post), key_id=key_id).status_code in (401, 403)
            sent += 1
        assert 0 < len(victim.fetched) <= sent
        # The same again is not asked for again.
        asked = len(victim.fetched)
        for number in range(20):
            key_id = f"{victim.base}/users/k{number}#main-key"
            assert send(mallory, inbox, mallory.activity("Like", post), key_id=key_id).status_code in (401, 403)
        assert len(victim.fetched) == asked


# ── the buckets themselves ───────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_fills_again_and_memory_is_bounded() -> None:
    now = [0.0]
    buckets = Buckets(60, lambda: now[0], kept=100)
    assert [buckets.spend("a") for _ in range(61)] == [True] * 60 + [False]
    assert buckets.empty("a")
    assert not buckets.empty("b")
    now[0] = 1.0
    assert not buckets.empty("a")
    assert buckets.spend("a")
    assert not buckets.spend("a")
    for number in range(1000):
        buckets.spend(str(number))
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.1"], "203.0.113.1"),
        ("10.1.2.3", ["1.1.1.1, 203.0.113.1"], "203.0.113.1"),
        ("10.1.2.3", ["1.1.1.1", "203.0.113.1, 10.9.9.9"], "203.0.113.1"),
        ("10.1.2.3", ["nonsense"], "10.1.2.3"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("::ffff:10.1.2.3", ["203.0.113.1"], "203.0.113.1"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", [], "2001:db8:1:2::/64"),
        ("", ["203.0.113.1"], ""),
    ],
)
def test_whose_address_counts(peer: str, forwarded: list[str], expected: str) -> None:
    assert address_of(peer, forwarded, NETWORKS) == expected


def test_limits_of_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADBRIDGE_REFUSALS_PER_MINUTE", "0")
    with pytest.raises(BadConfiguration, match="REFUSALS_PER_MINUTE"):
        load()
