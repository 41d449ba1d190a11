"""A request for somebody else is not answered: the Host header is ours, exactly once, or the answer is 4xx."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig import Bridge, running_bridge
from tests.stories.raw_http import talk

from threadbridge import server


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("hosts")
    with running_bridge(folder, worker=False) as running:
        running.account()
        yield running


def request(*headers: str, target: str = "/ap/users/1", version: str = "1.1") -> bytes:
    lines = [f"GET {target} HTTP/{version}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def test_our_own_name_is_answered_in_any_case(bridge: Bridge) -> None:
    for _ in range(2):  # built, then ready
        assert talk(bridge.base, request(f"Host: {bridge.authority}")).status == 200
        assert talk(bridge.base, request(f"HOST: {bridge.authority.upper()}")).status == 200


@pytest.mark.parametrize(
    "hosts",
    [
        ("evil.example",), ("",), ("127.0.0.1",), ("127.0.0.1:1",), ("localhost:{port}",), ("{own}.evil.example",),
        ("evil.example@{own}",), ("{own}/",), ("{own}, evil.example",), ("{own}", "evil.example"), ("{own}", "{own}"),
        ("evil.example", "{own}"), (),
    ],
)  # fmt: skip
def test_anything_else_is_refused(bridge: Bridge, hosts: tuple[str, ...]) -> None:
    port = bridge.authority.partition(":")[2]
    headers = [f"Host: {host.format(own=bridge.authority, port=port)}" for host in hosts]
    assert bridge.get("/ap/users/1").status_code == 200  # ready bytes are no way around the check
    for target in ("/ap/users/1", "/@alice", "/nothing", "/owner", "/style.css"):
        answer = talk(bridge.base, request(*headers, target=target))
        assert 400 <= answer.status < 500, (hosts, target, answer)
        assert b"alice" not in answer.body


def test_an_old_client_without_a_host_is_refused(bridge: Bridge) -> None:
    assert 400 <= talk(bridge.base, request(version="1.0")).status < 500


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Host", "Forwarded", "X-Original-Host"])
def test_what_a_stranger_says_of_a_proxy_changes_no_address(bridge: Bridge, header: str) -> None:
    answer = talk(bridge.base, request(f"Host: {bridge.authority}", f"{header}: evil.example", target="/@alice"))
    assert answer.status == 200
    assert b"evil.example" not in answer.body + answer.head


def test_probes_that_know_no_name_are_answered(bridge: Bridge) -> None:
    for path in ("/livez", "/readyz"):
        assert talk(bridge.base, request("Host: 10.0.0.7:8080", target=path)).status == 200
        assert talk(bridge.base, request(target=path, version="1.0")).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/ap/users/1", "//evil.example/ap/users/1", "/ap//users/1", "/ap/users/1/../2", "*", "/%",
        "/%zz", "/%ff%fe", "/\xff\xfe", "/a" * 4000, "/?" + "a=1&" * 4000, "/@%F0%9F%98%80", "/@" + "a" * 5000,
        "/tags/" + "%F0%9F%98%80" * 500, "/ap/users/999999999999999999", "/ap/users/1/posts/999999999999999999",
        "/.well-known/webfinger?resource=" + "a" * 9000, "/.well-known/webfinger?resource=%ff%fe",
        "/.well-known/webfinger?resource=acct:%F0%9F%98%80@HOST", "/.well-known/webfinger?resource=a&resource=b",
    ],
)  # fmt: skip
def test_odd_targets_are_no_trouble(bridge: Bridge, target: str) -> None:
    answer = talk(bridge.base, request(f"Host: {bridge.authority}", target=target.replace("HOST", bridge.authority)))
    assert answer.status in (0, 200) or 300 <= answer.status < 500, answer
    assert talk(bridge.base, request(f"Host: {bridge.authority}")).status == 200


def test_a_client_who_dawdles_over_the_headers_is_cut_off(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    for said in (b"", b"GET /ap/users/1 HT", f"GET / HTTP/1.1\r\nHost: {bridge.authority}\r\nX-Slow: ".encode()):
        began = time.monotonic()
        answer = talk(bridge.base, said, seconds=10)
        assert time.monotonic() - began < 5, "still connected"
        assert answer.status in (0, 400, 408)
    # Who is done with the headers in time is served, and may ask again on the same connection later.
    assert talk(bridge.base, request(f"Host: {bridge.authority}")).status == 200


def test_headers_without_end_are_cut_off(bridge: Bridge) -> None:
    begin = f"GET /ap/users/1 HTTP/1.1\r\nHost: {bridge.authority}\r\n".encode()
    many = [f"X-{number}: {'y' * 1000}\r\n".encode() for number in range(2000)]
    answer = talk(bridge.base, begin, *many, b"\r\n")
    assert answer.status in (0, 200, 400, 431)
    assert talk(bridge.base, request(f"Host: {bridge.authority}")).status == 200
