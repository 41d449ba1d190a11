"""The one HTTP client, against real sockets that behave badly."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import time
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.world.loopback import Asked, Loopback, certificates, client, guard, reply, run, sockets

from threadbridge.errors import (
    AddressRefused,
    BadAnswer,
    BadConfiguration,
    DiskFull,
    NetworkError,
    ThreadbridgeError,
    TimedOut,
)
from threadbridge.net.client import Client

TOKEN = "THAAsecretTOKEN"
Call = Callable[[Client, str], Awaitable[Any]]


async def get(this: Client, url: str) -> Any:
    return await this.get(url, limit=1000, deadline=3)


async def download(this: Client, url: str) -> Any:
    return await this.download(url, into=io.BytesIO(), limit=1000, deadline=3)


async def request(this: Client, url: str) -> Any:
    return await this.request("GET", url, limit=1000, deadline=3)


async def post(this: Client, url: str) -> Any:
    return await this.post(url, body=b"{}", headers={}, deadline=3)


every_door = pytest.mark.parametrize("call", [get, download, request, post])
reading_doors = pytest.mark.parametrize("call", [get, download, request])


# ── plain exchanges ──────────────────────────────────────────────────────────────────────────────────────────────


def test_get_brings_status_headers_body_and_address() -> None:
    async def main() -> None:
        script = reply(200, b"hello", content_type="text/plain", X_Two="a")
        async with Loopback(lambda asked: script) as server, client() as this:
            answer = await this.get(server.url("/x?y=1#z"), headers={"Accept": "text/plain"}, limit=5, deadline=3)
            assert (answer.status, answer.body, answer.url) == (200, b"hello", server.url("/x?y=1"))
            assert answer.headers["Content-TYPE"] == "text/plain"
            asked = server.asked[0]
            assert (asked.method, asked.target) == ("GET", "/x?y=1")
            assert asked.header("host") == server.authority
            assert asked.header("user-agent") == "threadbridge/test (+https://bridge.example/)"
            assert asked.header("accept-encoding") == "identity"
            assert asked.header("accept") == "text/plain"
            assert asked.header("cookie") is None

    run(main())


def test_post_sends_exactly_the_signed_bytes_and_headers() -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(202, b"queued")) as server, client() as this:
            body = b'{"type": "Create",  "x": "\xc3\xa4"}\n'
            headers = {
                "Host": server.authority,
                "Date": "Wed, 20 Dec 2023 10:00:00 GMT",
                "Digest": "SHA-256=abc=",
                "Content-Type": "application/activity+json",
                "Signature": 'keyId="https://bridge.example/ap/users/1#main-key",signature="x=="',
            }
            answer = await this.post(server.url("/inbox/%7Ea?b=%20c"), body=body, headers=headers, deadline=3)
            assert (answer.status, answer.body) == (202, b"queued")
            asked = server.asked[0]
            assert (asked.method, asked.target, asked.body) == ("POST", "/inbox/%7Ea?b=%20c", body)
            for name, value in headers.items():
                assert [got for key, got in asked.headers if key.lower() == name.lower()] == [value]
            assert asked.header("user-agent") == "threadbridge/test (+https://bridge.example/)"
            assert asked.header("accept-encoding") == "identity"

    run(main())


def test_request_sends_params_and_form() -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(400, b'{"error": {}}')) as server, client() as this:
            answer = await this.request(
                "post", server.url("/v1.0/me?a=1"), params={"fields": "id,text", "q": "ä&"}, form={"x": "1 2"}
            )
            assert (answer.status, answer.body) == (400, b'{"error": {}}')
            asked = server.asked[0]
            assert (asked.method, asked.target) == ("POST", "/v1.0/me?a=1&fields=id%2Ctext&q=%C3%A4%26")
            assert asked.body == b"x=1+2"
            assert asked.header("content-type") == "application/x-www-form-urlencoded"

    run(main())


def test_deliveries_reuse_a_connection() -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(202, b"x" * 4096)) as server, client() as this:
            for _ in range(20):
                await post(this, server.url("/inbox"))
            assert server.connections == 1

    run(main())


def test_a_long_reply_to_a_delivery_is_cut_and_costs_the_connection() -> None:
    async def main() -> None:
        async with Loopback(lambda asked: endless) as server, client() as this:
            answers = [await post(this, server.url("/inbox")) for _ in range(2)]
            assert [len(answer.body) for answer in answers] == [4096, 4096]
            assert server.connections == 2

    run(main())


def test_cookies_are_not_kept() -> None:
    async def main() -> None:
        script = reply(200, b"", set_cookie="a=b; Path=/", content_type="text/plain")
        async with Loopback(lambda asked: script) as server, client() as this:
            for call in (get, post, request):
                await call(this, server.url())
                await call(this, server.url())
            assert all(asked.header("cookie") is None for asked in server.asked)

    run(main())


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def main() -> None:
        async with Loopback(lambda asked: reply(200)) as server, client() as this:
            for call in (get, download, request, post):
                assert (await call(this, server.url())).status == 200

    run(main())


@every_door
def test_our_own_address_is_never_asked(call: Call) -> None:
    async def main() -> None:
        async with (
            Loopback(lambda asked: reply(200)) as server,
            Loopback(lambda asked: reply(200)) as other,
            client(own_base_url=server.url("")) as this,
        ):
            with sockets() as heard, pytest.raises(AddressRefused, match="our own address"):
                await call(this, server.url("/actor"))
            assert heard == []
            assert (await call(this, other.url())).status == 200

    run(main())


def test_a_redirect_to_our_own_address_is_refused() -> None:
    async def main() -> None:
        async with (
            Loopback(lambda asked: reply(200)) as us,
            Loopback(lambda asked: reply(302, location=us.url("/actor"))) as server,
            client(own_base_url=us.url("")) as this,
        ):
            with pytest.raises(AddressRefused):
                await get(this, server.url())
            assert us.connections == 0

    run(main())


def test_a_request_signed_for_another_host_is_not_sent() -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(202)) as server, client() as this:
            url, host = server.url("/inbox"), {"Host": "elsewhere.example"}
            attempts = (
                this.post(url, body=b"", headers=host, deadline=3),
                this.get(url, headers=host, limit=10, deadline=3),
            )
            for attempt in attempts:
                with pytest.raises(AddressRefused):
                    await attempt
            assert server.asked == []

    run(main())


# ── redirects ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["same host", "other host", "relative", "query only"])
def test_a_redirect_is_followed_and_signed_anew(status: int, where: str) -> None:
    signed: list[str] = []

    async def resign(url: str) -> Mapping[str, str]:
        signed.append(url)
        return {"Signature": f"for {url}"}

    async def main() -> None:
        async with Loopback(lambda asked: reply(200, b"there")) as other:

            def script(asked: Asked) -> bytes:
                if asked.target != "/a/start":
                    return reply(200, b"there")
                places = {
                    "same host": server.url("/end"),
                    "other host": other.url("/end"),
                    "relative": "../end",
                    "query only": "?end",
                }
                return reply(status, location=places[where])

            async with Loopback(script) as server, client() as this:
                given = {"Authorization": "Bearer x", "Accept": "y"}
                answer = await this.get(server.url("/a/start"), headers=given, limit=10, deadline=3, resign=resign)
                final = {"other host": other.url("/end"), "query only": server.url("/a/start?end")}
                assert answer.url == final.get(where, server.url("/end"))
                assert answer.body == b"there"
                assert signed == [server.url("/a/start"), answer.url]
                last = (other if where == "other host" else server).asked[-1]
                assert last.method == "GET"
                assert last.header("signature") == f"for {answer.url}"
                assert last.header("accept") == "y"
                assert last.header("authorization") == (None if where == "other host" else "Bearer x")

    run(main())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [post, request])
def test_deliveries_and_api_requests_follow_no_redirect(status: int, call: Call) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(200)) as other:
            async with Loopback(lambda asked: reply(status, location=other.url())) as server, client() as this:
                answer = await call(this, server.url())
                assert (answer.status, answer.url) == (status, server.url())
            assert other.connections == 0

    run(main())


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/",
        "//10.0.0.1/",
        "//user@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "data:application/activity+json,{}",
        "javascript:x",
        "http://",
        "http://[",
        "/\\10.0.0.1/",
        "/a b",
        "\xff\xfe",
        "http://127.0.0.1:0/",
        "x" * 3000,
    ],
)
@pytest.mark.parametrize("call", [get, download])
def test_a_redirect_to_a_bad_place_is_refused(location: str, call: Call) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(302, location=location)) as server, client() as this:
            with sockets() as heard, pytest.raises(NetworkError):
                await call(this, server.url())
            assert [event for event, _ in heard] == ["connect"]

    run(main())


def test_redirects_end_after_three_hops_and_in_circles() -> None:
    async def main() -> None:
        def script(asked: Asked) -> bytes:
            kind, number = asked.target[1], int(asked.target[2:])
            if kind == "c":
                return reply(302, location=f"/c{(number + 1) % 2}")
            return reply(302, location=f"/n{number - 1}") if number else reply(200, b"end")

        async with Loopback(script) as server, client() as this:
            assert (await get(this, server.url("/n3"))).body == b"end"
            with pytest.raises(BadAnswer, match="more than 3 redirects"):
                await get(this, server.url("/n4"))
            with pytest.raises(BadAnswer, match="circle"):
                await get(this, server.url("/c0"))
            server.asked.clear()
            with pytest.raises(BadAnswer, match="more than 0 redirects"):
                await this.get(server.url("/n1"), limit=1, deadline=3, hops=0)
            assert len(server.asked) == 1

    run(main())


def test_https_never_becomes_http(tmp_path: Path) -> None:
    root, tls = certificates(tmp_path)

    async def main() -> None:
        async with (
            Loopback(lambda asked: reply(200)) as plain,
            Loopback(lambda asked: reply(301, location=plain.url()), tls=tls) as server,
            client(ca_file=root) as this,
        ):
            with pytest.raises(BadAnswer, match="from https to http"):
                await get(this, server.url())
            assert plain.connections == 0

    run(main())


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tls_is_verified_by_both_engines(tmp_path: Path) -> None:
    root, tls = certificates(tmp_path)

    async def main() -> None:
        async with Loopback(lambda asked: reply(200, b"ok"), tls=tls) as server:
            async with client(ca_file=root) as this:
                for call in (get, post):
                    assert (await call(this, server.url())).body == b"ok"
            async with client() as this:
                for call in (get, post):
                    with pytest.raises(NetworkError, match="could not be reached") as refused:
                        await call(this, server.url())
                    assert "certificate" in str(refused.value).lower()
            async with client(guard(lookup=lambda host, port: ["127.0.0.1"]), ca_file=root) as this:
                for call in (get, post):
                    assert (await call(this, f"https://localhost:{server.port}/")).body == b"ok"
                    with pytest.raises(NetworkError):
                        await call(this, f"https://other.example:{server.port}/")

    run(main())


def test_a_useless_ca_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    for name in ("no.pem", "missing.pem"):
        with pytest.raises(BadConfiguration, match="THREADBRIDGE_CA_FILE"):
            client(ca_file=tmp_path / name)


# ── limits and deadlines ─────────────────────────────────────────────────────────────────────────────────────────


@reading_doors
def test_a_declared_length_over_the_limit_is_refused_early(call: Call) -> None:
    async def main() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n"
        async with Loopback(lambda asked: head) as server, client() as this:
            with pytest.raises(BadAnswer, match="more than 1000 bytes"):
                await call(this, server.url())

    run(main())


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100_000):
        writer.write(b"2000\r\n" + b"z" * 0x2000 + b"\r\n")
        await writer.drain()


@reading_doors
def test_an_endless_body_is_cut_at_the_limit(call: Call) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: endless) as server, client() as this:
            with pytest.raises(BadAnswer, match="more than 1000 bytes"):
                await call(this, server.url())

    run(main())


@reading_doors
def test_a_body_at_the_limit_is_read(call: Call) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(200, b"z" * 1000)) as server, client() as this:
            assert (await call(this, server.url())).status == 200

    run(main())


async def drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n")
    for _ in range(200):
        writer.write(b"z")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        writer.write(b"x-%d: y\r\n" % number)
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_interim(writer: asyncio.StreamWriter) -> None:
    for _ in range(200):
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(10)


@pytest.mark.parametrize("drip", [drip_body, drip_headers, drip_interim, silence])
def test_a_slow_dripper_is_cut_at_the_deadline(drip: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: drip) as server, client() as this:
            began = time.monotonic()
            ends = await asyncio.gather(
                this.get(server.url(), limit=1000, deadline=0.3),
                this.download(server.url(), into=io.BytesIO(), limit=1000, deadline=0.3),
                this.request("GET", server.url(), deadline=0.3),
                this.post(server.url(), body=b"", headers={}, deadline=0.3),
                return_exceptions=True,
            )
            assert [type(end) for end in ends] == [TimedOut] * 4
            assert time.monotonic() - began < 1.0

    run(main())


def test_the_deadline_covers_all_redirects_together() -> None:
    async def main() -> None:
        async def later(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.25)
            writer.write(reply(302, location=f"/{time.monotonic()}"))

        async with Loopback(lambda asked: later) as server, client() as this:
            with pytest.raises(TimedOut):
                await this.get(server.url(), limit=10, deadline=0.4)

    run(main())


@every_door
def test_headers_without_end_are_refused(call: Call) -> None:
    async def main() -> None:
        async def flood(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(100_000):
                writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
                await writer.drain()

        async with Loopback(lambda asked: flood) as server, client() as this:
            with pytest.raises(BadAnswer):
                await call(this, server.url())

    run(main())


@every_door
def test_headers_over_the_cap_are_refused(call: Call) -> None:
    async def main() -> None:
        large = {f"X_{number}": "y" * 1000 for number in range(40)}
        async with Loopback(lambda asked: reply(200, b"", **large)) as server, client() as this:
            with pytest.raises(BadAnswer, match="headers"):
                await call(this, server.url())

    run(main())


@cache
def bomb(coding: str) -> bytes:
    if coding == "deflate":
        return zlib.compress(bytes(20_000_000), 9)
    return gzip.compress(bytes(20_000_000), 9)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip", "identity, gzip"])
def test_a_decompression_bomb_is_not_opened(coding: str) -> None:
    body = bomb("deflate" if coding == "deflate" else "gzip")

    async def main() -> None:
        async with Loopback(lambda asked: reply(200, body, content_encoding=coding)) as server, client() as this:
            await post(this, server.url())
            tracemalloc.start()
            for attempt in (
                this.get(server.url(), limit=1_000_000, deadline=3),
                this.download(server.url(), into=io.BytesIO(), limit=16_000_000, deadline=3),
                this.request("GET", server.url(), deadline=3),
            ):
                with pytest.raises(BadAnswer, match="encoding"):
                    await attempt
            answer = await post(this, server.url())
            assert (answer.status, answer.body) == (200, b"")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 16_000_000

    run(main())


def test_an_error_tells_its_status_whatever_its_body() -> None:
    async def main() -> None:
        bodies = {
            "/long": reply(404, b"e" * 200_000),
            "/encoded": reply(410, bomb("gzip"), content_encoding="gzip"),
            "/plain": reply(500, b"sorry"),
        }
        async with Loopback(lambda asked: bodies[asked.target]) as server, client() as this:
            long = await this.get(server.url("/long"), limit=10, deadline=3)
            assert (long.status, len(long.body)) == (404, 65536)
            encoded = await this.get(server.url("/encoded"), limit=10, deadline=3)
            assert (encoded.status, encoded.body) == (410, b"")
            assert (await this.get(server.url("/plain"), limit=1, deadline=3)).body == b"sorry"

    run(main())


def test_an_endless_error_page_is_cut() -> None:
    async def main() -> None:
        async def endless_error(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(100_000):
                writer.write(b"2000\r\n" + b"z" * 0x2000 + b"\r\n")
                await writer.drain()

        async with Loopback(lambda asked: endless_error) as server, client() as this:
            answer = await get(this, server.url())
            assert (answer.status, len(answer.body)) == (503, 65536)

    run(main())


@every_door
def test_what_is_not_http_is_a_bad_answer(call: Call) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as server, client() as this:
            with pytest.raises(BadAnswer, match="proper HTTP"):
                await call(this, server.url())

    run(main())


@every_door
def test_a_peer_that_hangs_up_or_is_not_there_is_a_network_error(call: Call) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: None) as server, client() as this:
            with pytest.raises(NetworkError):
                await call(this, server.url())
        async with client() as this:
            with pytest.raises(NetworkError, match="could not be reached"):
                await call(this, server.url())

    run(main())


# ── downloads ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_download_is_streamed_into_a_file(tmp_path: Path) -> None:
    picture = bytes(range(256)) * 20_000

    async def main() -> None:
        def script(asked: Asked) -> bytes:
            if asked.target == "/old":
                return reply(302, location="/picture")
            return reply(200, picture, content_type="image/jpeg") if asked.target == "/picture" else reply(404, b"no")

        async with Loopback(script) as server, client() as this:
            with (tmp_path / "picture").open("wb") as file:
                done = await this.download(server.url("/old"), into=file, limit=len(picture), deadline=5)
            assert (done.status, done.content_type, done.size) == (200, "image/jpeg", len(picture))
            assert done.url == server.url("/picture")
            assert (tmp_path / "picture").read_bytes() == picture
            into = io.BytesIO()
            missing = await this.download(server.url("/missing"), into=into, limit=100, deadline=5)
            assert (missing.status, missing.size, into.getvalue()) == (404, 0, b"")

    run(main())


def test_a_full_disk_is_not_taken_for_a_network_failure() -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        async with Loopback(lambda asked: reply(200, b"x" * 100)) as server, client() as this:
            with pytest.raises(DiskFull):
                await this.download(server.url(), into=Full(), limit=1000, deadline=3)

    run(main())


# ── secrets and clocks ───────────────────────────────────────────────────────────────────────────────────────────


def test_no_error_text_holds_a_token(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[ThreadbridgeError]:
        errors = []
        scripts = (
            None,
            silence,
            b"nonsense\r\n\r\n",
            reply(200, b"x", content_encoding="gzip"),
            reply(200, b"x" * 99),
        )

        async with client() as this:
            urls = [f"http://10.0.0.1/x?access_token={TOKEN}", f"http://127.0.0.1:0/?access_token={TOKEN}"]
            for url in [*urls, f"http://127.0.0.1:1/x?access_token={TOKEN}"]:
                with pytest.raises(ThreadbridgeError) as refused:
                    await this.request("GET", url, deadline=0.3, limit=10)
                errors.append(refused.value)
            for script in scripts:
                async with Loopback(lambda asked, script=script: script) as server:  # type: ignore[misc]
                    with pytest.raises(ThreadbridgeError) as refused:
                        await this.request(
                            "GET", server.url("/me"), params={"access_token": TOKEN}, deadline=0.3, limit=10
                        )
                    errors.append(refused.value)
        return errors

    with caplog.at_level("DEBUG"):
        errors = run(main())
    for error in errors:
        assert TOKEN not in str(error)
        assert error.__cause__ is None
    assert TOKEN not in caplog.text


def test_clock_skew_is_the_median_of_what_peers_say() -> None:
    now = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
    dates: list[str] = []

    def at(seconds: int) -> str:
        return format_datetime(datetime.fromtimestamp(now.timestamp() + seconds, UTC), usegmt=True)

    async def main() -> None:
        async with (
            Loopback(lambda asked: reply(200, b"", date=dates[-1])) as server,
            client(clock=lambda: now) as this,
        ):
            assert this.skew_seconds is None
            for nonsense in ("yesterday", "Mon, 99 Jan 99999999999999999999 00:00:00 GMT", ""):
                dates.append(nonsense)
                await get(this, server.url())
            assert this.skew_seconds is None
            dates.append(at(-9000) + "\r\nage: 9000")  # from a cache: not the peer's clock
            await get(this, server.url())
            assert this.skew_seconds is None
            dates.append(at(172_800))
            await get(this, server.url())
            assert this.skew_seconds == 172_800
            for seconds in (2, 3):
                dates.append(at(seconds))
                await post(this, server.url())
            assert this.skew_seconds == 3

    run(main())
