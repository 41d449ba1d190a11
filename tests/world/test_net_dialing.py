"""Between the guard and the sockets: what is dialled, in which order, how long, and with what."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack
from ipaddress import ip_address

import aiohttp
import pytest
from tests.world.loopback import Loopback, client, guard, reply, run, sockets

from threadbridge.errors import AddressRefused, NetworkError
from threadbridge.net import dialing
from threadbridge.net.dialing import delivery_session
from threadbridge.net.guard import Guard

SIX = [f"127.0.0.{number}" for number in range(2, 8)]


async def ask(engine: str, url: str, lookup: list[str]) -> bytes:
    async with client(guard("127.0.0.0/8", lookup=lambda host, port: lookup)) as this:
        if engine == "get":
            return (await this.get(url, limit=100, deadline=5)).body
        return (await this.post(url, body=b"{}", headers={}, deadline=5)).body


@pytest.mark.parametrize("engine", ["get", "post"])
def test_at_most_four_addresses_of_a_name_are_tried_in_their_order(engine: str) -> None:
    async def main() -> None:
        async with Loopback(lambda asked: reply(body=b"ok")) as server:
            url = f"http://many.example:{server.port}/"
            with sockets() as heard:
                assert await ask(engine, url, [*SIX[:3], "127.0.0.1", *SIX[3:]]) == b"ok"
            assert {address for _, address in heard} >= {(text, server.port) for text in [*SIX[:3], "127.0.0.1"]}
            with sockets() as heard, pytest.raises(NetworkError):
                await ask(engine, url, [*SIX[:4], "127.0.0.1"])
            # (aiohttp goes round more than once.)
            tried = list(dict.fromkeys(address for _, address in heard))
            assert tried == [(text, server.port) for text in SIX[:4]]

    run(main())


def test_an_address_that_says_nothing_does_not_keep_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "CONNECT_SECONDS", 0.2)

    async def main() -> None:
        async with Loopback(lambda asked: reply(body=b"ok")) as server:
            with ExitStack() as stack:
                silent = stack.enter_context(socket.socket())
                silent.bind(("127.0.0.2", server.port))
                silent.listen(0)
                # A full queue: whoever else wants in gets no answer.
                for _ in range(4):
                    waiting = stack.enter_context(socket.socket())
                    waiting.setblocking(False)
                    waiting.connect_ex(("127.0.0.2", server.port))
                for engine in ("get", "post"):
                    url = f"http://slow.example:{server.port}/"
                    assert await ask(engine, url, ["127.0.0.2", "127.0.0.1"]) == b"ok"

    run(main())


def test_what_the_guard_answers_is_dialled_as_it_stands() -> None:
    public = ["1.1.1.1", "2606:4700::1111"]
    resolver = dialing._GuardedResolver(Guard((), lookup=lambda host, port: public))
    found = run(resolver.resolve("a.example", 443))
    assert found == [
        {
            "hostname": "a.example", "host": text, "port": 443, "proto": socket.IPPROTO_TCP,
            "family": socket.AF_INET if ip_address(text).version == 4 else socket.AF_INET6,
            "flags": socket.AI_NUMERICHOST,
        }
        for text in public
    ]  # fmt: skip
    private = dialing._GuardedResolver(Guard((), lookup=lambda host, port: ["1.1.1.1", "10.0.0.1"]))
    with pytest.raises(AddressRefused):
        run(private.resolve("a.example", 443))
    with pytest.raises(AddressRefused):
        run(dialing._GuardedDialer(guard()).connect_unix_socket("/run/docker.sock"))


def test_deliveries_take_nothing_from_the_environment_and_keep_no_cookies() -> None:
    """A proxy of the environment would dial for us, and ask nobody."""

    async def main() -> None:
        async with delivery_session(guard(), ssl.create_default_context(), 7, 3) as session:
            assert session.connector is not None
            assert (session.connector.limit, session.connector.limit_per_host) == (7, 3)
            assert not session.trust_env
            assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
            assert not session.auto_decompress
            assert (session.timeout.total, session.timeout.sock_connect) == (None, 5.0)
            # What is signed is what we set, and nothing is said besides.
            assert {str(name) for name in session.skip_auto_headers} == {
                "Accept-Encoding", "Accept", "User-Agent", "Content-Type",
            }  # fmt: skip

    run(main())


def test_what_is_kept_open_and_how_much_an_answer_may_say_before_its_body_is_bounded() -> None:
    async def main() -> None:
        tls = ssl.create_default_context()
        pool = vars(dialing.document_pool(guard(), tls, 40))
        assert (pool["_max_connections"], pool["_max_keepalive_connections"], pool["_keepalive_expiry"]) == (
            40, 32, 15.0,
        )  # fmt: skip
        async with delivery_session(guard(), tls, 7, 3) as session:
            assert vars(session.connector)["_keepalive_timeout"] == 15.0
            assert vars(session)["_max_line_size"] == vars(session)["_max_field_size"] == 8190

    run(main())


def test_both_engines_keep_connections_for_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "_KEPT_ALIVE", 7.5)

    async def main() -> None:
        tls = ssl.create_default_context()
        assert vars(dialing.document_pool(guard(), tls, 40))["_keepalive_expiry"] == 7.5
        async with delivery_session(guard(), tls, 7, 3) as session:
            assert vars(session.connector)["_keepalive_timeout"] == 7.5

    run(main())


def test_what_an_engine_says_of_a_socket_reaches_it() -> None:
    async def main() -> None:
        here = guard("127.0.0.0/8", lookup=lambda host, port: ["127.0.0.1"])
        async with Loopback(lambda asked: reply()) as server:
            for wanted in (0, 1):
                options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, wanted)]
                stream = await dialing._GuardedDialer(here).connect_tcp(
                    "a.example", server.port, socket_options=options
                )
                made = stream.get_extra_info("socket")
                assert bool(made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is bool(wanted)
                await stream.aclose()
        # A port that is not said stays open (what aiohttp expects of a resolver).
        (found,) = await dialing._GuardedResolver(here).resolve("a.example")
        assert found["port"] == 0

    run(main())


def test_who_waits_between_two_tries_waits() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await dialing._GuardedDialer(guard()).sleep(0.05)
        return asyncio.get_running_loop().time() - began

    assert run(main()) >= 0.04
