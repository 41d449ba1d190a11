"""The address guard: no spelling of a private address is ever connected to, by either engine."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import SimpleNamespace

import pytest
from tests.world.loopback import Loopback, client, guard, reply, run, sockets

from threadbridge.errors import AddressRefused, NameUnknown, NetworkError, OwnTrouble, TimedOut
from threadbridge.net.client import Client
from threadbridge.net.guard import Guard, is_public, parse_url

PRIVATE_IPV4 = [
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]
PRIVATE_IPV6 = [
    "::1",
    "::",
    "::2",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff::1",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "64:ff9b:1::1",
    "2001::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "8000::1",
    "e000::1",
    "1fff::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
]


def spelled_like_a_number(address: IPv4Address) -> Iterator[str]:
    """What C libraries and browsers read as this IPv4 address."""
    number, (a, b, c, d) = int(address), address.packed
    yield from (str(number), hex(number), hex(number).upper(), f"0{number:o}", f"{number:#012x}")
    yield from (f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"{a:04}.{b}.{c}.{d}")
    yield from (f"{a}.{(b << 16) + (c << 8) + d}", f"{a}.{b}.{(c << 8) + d}", f"{a:#x}.{(b << 16) + (c << 8) + d}")


def in_unicode(address: IPv4Address) -> Iterator[str]:
    plain = str(address)
    yield plain.translate({48 + digit: 0xFF10 + digit for digit in range(10)})  # full width
    yield plain.translate({48 + digit: ord("⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]) for digit in range(10)})
    yield plain.translate({48 + digit: ord("⓪①②③④⑤⑥⑦⑧⑨"[digit]) for digit in range(10)})
    yield from (plain.replace(".", dot) for dot in "。．｡")


def inside_ipv6(address: IPv4Address) -> Iterator[str]:
    a, b, c, d = address.packed
    groups = f"{a:02x}{b:02x}:{c:02x}{d:02x}"
    yield from (f"[::ffff:{address}]", f"[::FFFF:{groups}]", f"[0:0:0:0:0:ffff:{groups}]", f"[::{address}]")
    yield from (f"[64:ff9b::{address}]", f"[64:ff9b:1::{groups}]", f"[2002:{groups}::1]", f"[::ffff:0:{address}]")
    yield from (f"[2001:0:{groups}::1]", f"[fe80::5efe:{address}]", f"[64:ff9b:1:ffff::{address}]")


def corpus() -> list[str]:
    hosts: list[str] = []
    for text in PRIVATE_IPV4:
        address = IPv4Address(text)
        hosts += [text, text + ".", *spelled_like_a_number(address), *in_unicode(address), *inside_ipv6(address)]
    for text in PRIVATE_IPV6:
        hosts += [f"[{text}]", f"[{IPv6Address(text).exploded}]", f"[{text}%25eth0]", f"[{text}%1]"]
    hosts += ["localhost", "LOCALHOST.", "a.localhost", "ip6-localhost", "127.0.0.1%00.example", "user@127.0.0.1"]
    return sorted(set(hosts))


def test_the_corpus_is_large() -> None:
    assert len(corpus()) >= 500


@pytest.mark.parametrize("text", PRIVATE_IPV4 + PRIVATE_IPV6)
def test_a_reserved_address_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not Guard().permits(ip_address(text), 443)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_public(text: str) -> None:
    assert is_public(ip_address(text))
    assert Guard().permits(ip_address(text), 443)
    assert not Guard().permits(ip_address(text), 80)


def test_an_address_with_a_zone_is_never_dialled() -> None:
    for text in ("fe80::1%lo", "2606:4700::1111%1"):
        assert not guard("fe80::/10", "2606:4700::/32").permits(IPv6Address(text), 443)
        assert not is_public(IPv6Address(text))


def test_embedded_addresses_are_never_public() -> None:
    for text in [*PRIVATE_IPV4, "8.8.8.8"]:
        for host in inside_ipv6(IPv4Address(text)):
            assert not is_public(IPv6Address(host[1:-1])), host


async def try_every_door(this: Client, url: str) -> None:
    """GET, download, API request and delivery; each must be refused before anything happens."""
    for attempt in (
        this.get(url, limit=1000, deadline=2),
        this.download(url, into=io.BytesIO(), limit=1000, deadline=2),
        this.request("GET", url, deadline=2),
        this.post(url, body=b"{}", headers={}, deadline=2),
    ):
        with pytest.raises(NetworkError):
            await attempt


@pytest.mark.parametrize("networks", [(), ("10.99.0.0/16",)], ids=["public", "another network allowed"])
def test_no_spelling_of_a_private_address_is_connected_to(networks: tuple[str, ...]) -> None:
    def lookup(host: str, port: int) -> list[str]:
        assert host in ("localhost", "a.localhost", "ip6-localhost"), f"{host} must not be looked up"
        return ["::1", "127.0.0.1"]

    async def main() -> None:
        this = client(Guard(tuple(ip_network(network) for network in networks), lookup=lookup))
        async with this:
            with sockets() as heard:
                for host in corpus():
                    for url in (f"https://{host}/x", f"http://{host}:8080/x"):
                        await try_every_door(this, url)
            assert heard == []

    run(main())


def test_no_name_leads_to_a_private_address() -> None:
    answers: list[str] = []

    async def main() -> None:
        for allowed in (
            Guard((), lookup=lambda host, port: answers),
            guard("10.99.0.0/16", lookup=lambda h, p: answers),
        ):
            async with client(allowed) as this:
                with sockets() as heard:
                    for text in PRIVATE_IPV4[::2] + PRIVATE_IPV6[::2] + ["::ffff:8.8.8.8", "fe80::1%lo"]:
                        for answers[:] in ([text], ["1.1.1.1", text], [text, "1.1.1.1"]):
                            await try_every_door(this, f"https://h{len(answers)}.{abs(hash(text))}.example/x")
                assert heard == []

    run(main())


def test_a_public_server_is_reached_by_https_on_443_only() -> None:
    open_guard = guard(lookup=lambda host, port: ["1.1.1.1"])

    async def main() -> None:
        async with client(open_guard) as this:
            with sockets() as heard:
                for url in (
                    "http://a.example/",
                    "https://a.example:8443/",
                    "http://a.example:443/",
                    "http://1.1.1.1/",
                ):
                    await try_every_door(this, url)
            assert heard == []
        assert await open_guard.resolve("a.example", 443) == [IPv4Address("1.1.1.1")]

    run(main())


def test_the_operator_is_told_what_to_set() -> None:
    for url in ("http://127.0.0.1:8000/", "https://10.1.2.3/", "https://bridge.example:8443/", "https://localhost/"):
        with pytest.raises(AddressRefused) as refused:
            Guard().check_url(url)
        assert "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS" in str(refused.value)
    with pytest.raises(AddressRefused) as refused:
        run(Guard((), lookup=lambda host, port: ["10.1.2.3"]).resolve("a.example", 443))
    assert "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS=10.1.2.0/24" in str(refused.value)
    assert "10.1.2.3" not in refused.value.public


# ── rebinding ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("engine", ["get", "post"])
def test_a_name_that_changes_its_mind_is_not_followed(engine: str) -> None:
    answers = [["127.0.0.2"], ["127.0.0.3"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.3", "127.0.0.2"]]

    async def main() -> None:
        # The peer hangs up each time, so that each request resolves and dials anew.
        script = reply(connection="close", body=b"ok")

        def answer_and_leave(_: object) -> bytes:
            return script

        lookups = iter(answers)
        moving = guard("127.0.0.2/32", lookup=lambda host, port: next(lookups))
        async with Loopback(answer_and_leave, host="127.0.0.2") as server, client(moving) as this:

            async def ask(number: int) -> bytes:
                # Another path, but the same name; aiohttp's own memory of names is emptied.
                url = f"http://moving.example:{server.port}/{number}"
                if engine == "get":
                    return (await this.get(url, limit=100, deadline=3)).body
                answer = await this.post(url, body=b"{}", headers={}, deadline=3)
                connector = this._session.connector if this._session else None
                connector.clear_dns_cache()  # type: ignore[union-attr]
                return answer.body

            with sockets() as heard:
                assert await ask(0) == b"ok"
            assert heard == [("connect", ("127.0.0.2", server.port))]
            with sockets() as heard:
                for number in (1, 2, 3):
                    with pytest.raises(AddressRefused):
                        await ask(number)
            assert heard == []

    run(main())


def test_the_delivery_engine_judges_what_it_dials_once_more() -> None:
    class Lying(Guard):
        async def resolve(self, host: str, port: int) -> list[IPv4Address | IPv6Address]:
            return [IPv4Address("127.0.0.1")]

    async def main() -> None:
        async with Loopback(lambda asked: reply()) as server, client(Lying((), lookup=None)) as this:
            with sockets() as heard, pytest.raises(NetworkError):
                await this.post("https://a.example/inbox", body=b"", headers={}, deadline=3)
            assert heard == []
            assert server.connections == 0

    run(main())


def test_a_resolver_that_hangs_holds_up_nobody() -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(1.0)
        return ["1.1.1.1"]

    async def main() -> None:
        async with client(Guard((), lookup=slow)) as this:
            began = time.monotonic()
            with pytest.raises(TimedOut):
                await this.get("https://slow.example/", limit=10, deadline=0.1)
            with pytest.raises(TimedOut):
                await this.post("https://slow.example/", body=b"", headers={}, deadline=0.1)
            assert time.monotonic() - began < 0.9

    run(main())


def test_names_that_do_not_resolve_say_so() -> None:
    async def main() -> None:
        async with client(Guard((), lookup=lambda host, port: [])) as this:
            for attempt in (
                this.get("https://nowhere.example/", limit=10, deadline=2),
                this.post("https://nowhere.example/", body=b"", headers={}, deadline=2),
            ):
                with pytest.raises(NetworkError, match=r"nowhere\.example does not resolve"):
                    await attempt

    run(main())


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///path",
        "https://:443/",
        "//a.example/",
        "ftp://a.example/",
        "javascript:alert(1)",
        "data:text/plain,x",
        "file:///etc/passwd",
        "https:a.example",
        "https:/a.example",
        " https://a.example/",
        "https://a.example/ x",
        "https://a.example/a\\b",
        "https://a.example/?a\\b",
        "https://a.example/\n",
        "https://a\t.example/",
        "https://a.exa\nmple/",
        "https://a.example\r\nHost: b.example/",
        "https://a.example\\@b.example/",
        "https://a.example\\.b.example/",
        "https://user@a.example/",
        "https://user:password@a.example/",
        "https://@a.example/",
        "https://a.example%2eb.example/",
        "https://a%00.example/",
        "https://a.example;b/",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example:٤٤٣/",
        "https://a.example:+443/",
        "https://a.example:443:443/",
        "https://a.example:/",
        "https://a..example/",
        "https://.a.example/",
        "https://a.example../",
        "https://-a.example/",
        "https://xn--a/",
        "https://xn--a.example/",
        "https://a,b.example/",
        "https://a'b.example/",
        "https://[::1/",
        "https://::1/",
        "https://[a.example]/",
        "https://[127.0.0.1]/",
        "https://\u2488.example/",
        "https://a\u202e.example/",
        "https://\ud800.example/",
        "https://a.example/\ud800",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 130 + "example/",
        "https://a.example/" + "x" * 2048,
    ],
)
def test_a_url_that_two_parsers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse_url(url)
    with pytest.raises(AddressRefused):
        guard().check_url(url)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://a.example", "https://a.example/"),
        ("HTTPS://A.Example/Path", "https://a.example/Path"),
        ("https://a.example:443/x", "https://a.example/x"),
        ("https://a.example./x", "https://a.example/x"),
        ("https://a.example?q=1#f", "https://a.example/?q=1"),
        ("https://a.example/x?", "https://a.example/x"),
        ("https://a.example/x#main-key", "https://a.example/x"),
        ("https://a.example/%7Ex/../y//z?a=%20&b=@c", "https://a.example/%7Ex/../y//z?a=%20&b=@c"),
        ("https://bücher.example/ü?ö=ä", "https://xn--bcher-kva.example/%C3%BC?%C3%B6=%C3%A4"),
        ("https://ＢＲＩＤＧＥ。example/", "https://bridge.example/"),
        ("https://r3---sn-4g5e6.cdn.example/v", "https://r3---sn-4g5e6.cdn.example/v"),
        ("https://a.example/@https://b.example/", "https://a.example/@https://b.example/"),
    ],
)
def test_a_url_has_one_canonical_spelling(url: str, canonical: str) -> None:
    assert Guard().check_url(url).url == canonical
    assert Guard().check_url(canonical).url == canonical


def test_allowed_networks_open_http_ports_and_literals() -> None:
    target = guard().check_url("http://127.0.0.1:8000/ap/users/1?x#y")
    assert (target.scheme, target.host, target.port) == ("http", "127.0.0.1", 8000)
    assert (target.path_and_query, target.authority) == ("/ap/users/1?x", "127.0.0.1:8000")
    six = guard("::1/128").check_url("http://[0:0::1]:81/")
    assert (six.host, six.authority, six.url) == ("::1", "[::1]:81", "http://[::1]:81/")
    with pytest.raises(AddressRefused):
        guard().check_url("http://[::ffff:127.0.0.1]/")
    with pytest.raises(AddressRefused):
        guard().check_url("http://10.0.0.1/")


def test_localhost_means_the_loopback_that_is_allowed() -> None:
    two = guard("127.0.0.0/8", lookup=lambda host, port: ["::1", "127.0.0.1"])
    assert run(two.resolve("localhost", 80)) == [IPv4Address("127.0.0.1")]
    with pytest.raises(AddressRefused):
        run(two.resolve("other.example", 80))
    with pytest.raises(AddressRefused):
        run(guard("10.0.0.0/8", lookup=lambda host, port: ["::1", "127.0.0.1"]).resolve("localhost", 80))


# ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_has_at_most_2048_characters() -> None:
    longest = "https://a.example/" + "x" * 2030
    assert parse_url(longest).url == longest
    with pytest.raises(AddressRefused):
        parse_url(longest + "x")


@pytest.mark.parametrize(
    "url",
    ["https://a.example:000443/", "https://a.example:65536/", "https://a.0x/", "https://[2606:4700::1111%1]/",
     "https://" + ".".join(["a" * 63] * 3 + ["b" * 62]) + "/", "https://[]/"],
)  # fmt: skip
def test_what_is_just_beyond_the_form_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://a.example/#", "https://a.1x/", "https://a.x1/", "http://a.example:1/", "http://a.example:65535/",
     "https://" + ".".join(["a" * 63] * 3 + ["b" * 61]) + "/"],
)  # fmt: skip
def test_what_is_just_within_the_form_is_read(url: str) -> None:
    assert parse_url(url).url == url.removesuffix("#")


def test_what_is_shown_of_a_refused_address_has_no_query_and_an_end() -> None:
    for url in ("ftp://a.example/path?secret?more", "https://a.example:0/path?secret", "https://a b/?secret"):
        with pytest.raises(AddressRefused) as refused:
            parse_url(url)
        assert refused.value.detail == repr(url.partition("?")[0])
    with pytest.raises(AddressRefused) as refused:
        parse_url("ftp://" + "x" * 400)
    assert refused.value.detail == repr("ftp://" + "x" * 194)


def test_each_wish_that_only_a_developer_has_is_refused_with_the_setting() -> None:
    setting = "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS"
    words = f"If that is meant (development, tests), list its network in {setting}, for example {setting}="
    for url, network in (
        ("http://a.example/", "127.0.0.0/8"),
        ("https://a.example:8443/", "127.0.0.0/8"),
        ("https://intranet/", "127.0.0.0/8"),
        ("https://10.1.2.3/", "10.1.2.0/24"),
        ("https://[fd00::1:2:3:4]/", "fd00::/64"),
    ):
        with pytest.raises(AddressRefused) as refused:
            Guard().check_url(url)
        assert refused.value.hint == words + network


def test_with_a_network_allowed_the_public_internet_stays_reachable_as_before() -> None:
    assert guard().check_url("https://1.1.1.1/").host == "1.1.1.1"
    with pytest.raises(AddressRefused, match="by https on port 443 only, not on port 80"):
        guard().check_url("http://1.1.1.1/")
    assert guard("::1/128").permits(IPv6Address("2606:4700::1111%1"), 443) is False


def test_a_literal_is_judged_and_never_looked_up() -> None:
    def lookup(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    here = guard(lookup=lookup)
    assert run(here.resolve("127.0.0.1", 80)) == [IPv4Address("127.0.0.1")]
    assert run(here.resolve("1.1.1.1", 443)) == [IPv4Address("1.1.1.1")]
    for host, port in (("10.0.0.1", 443), ("1.1.1.1", 80), ("::1", 443)):
        with pytest.raises(AddressRefused):
            run(here.resolve(host, port))


def test_names_below_localhost_are_loopback_too() -> None:
    two = guard("127.0.0.0/8", lookup=lambda host, port: ["::1", "127.0.0.1"])
    assert run(two.resolve("a.localhost", 80)) == [IPv4Address("127.0.0.1")]
    with pytest.raises(AddressRefused):
        run(two.resolve("localhost.example", 80))


def test_without_another_the_systems_resolver_is_asked() -> None:
    assert run(Guard((ip_network("127.0.0.0/8"),)).resolve("localhost", 80)) == [IPv4Address("127.0.0.1")]
    with pytest.raises(NetworkError, match="does not resolve"):
        run(Guard((ip_network("127.0.0.0/8"),)).resolve("a" * 64, 80))


def test_the_system_is_asked_for_addresses_to_speak_tcp_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each would come once for every kind of socket."""
    asked: list[object] = []

    def answer(host: str, port: int, **kind: int) -> list[object]:
        asked.append((host, port, kind))
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("1.1.1.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert run(Guard().resolve("a.example", 443)) == [IPv4Address("1.1.1.1")]
    assert asked == [("a.example", 443, {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP})]


def test_a_name_that_the_system_does_not_know_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NetworkError, match=r"a\.example does not resolve"):
        run(Guard().resolve("a.example", 443))


def test_an_origin_is_scheme_and_authority() -> None:
    assert parse_url("https://A.example:8443/x?y#z").origin == "https://a.example:8443"
    assert parse_url("http://a.example:80/").origin == "http://a.example"


def test_what_goes_wrong_in_a_resolver_reaches_whoever_asked() -> None:
    seen: list[tuple[str, bool]] = []

    def broken(host: str, port: int) -> list[str]:
        thread = threading.current_thread()
        seen.append((thread.name, thread.daemon))
        if host == "odd.example":
            return ["1.1.1.1", "not an address"]
        raise NetworkError("out of order")

    with pytest.raises(NetworkError, match="out of order"):
        run(Guard((), lookup=broken).resolve("a.example", 443))
    with pytest.raises(NetworkError, match="something that is no address"):
        run(Guard((), lookup=broken).resolve("odd.example", 443))
    # A thread that hangs must not hold up the end of the process.
    assert seen == [("resolve", True)] * 2


def test_hanging_lookups_are_bounded_and_given_up_without_a_trace() -> None:
    let, started = threading.Event(), []

    def hanging(host: str, port: int) -> list[str]:
        started.append(host)
        let.wait(10)
        return ["1.1.1.1"]

    async def main() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        this = Guard((), lookup=hanging)
        asked = [asyncio.ensure_future(this.resolve(f"h{number}.example", 443)) for number in range(40)]
        await asyncio.wait(asked, timeout=0.2)
        assert len(started) == 32
        for waiting in asked[:8]:
            waiting.cancel()
        # Whoever loses patience does not make room: the thread still hangs.
        await asyncio.wait(asked, timeout=0.1)
        assert len(started) == 32
        let.set()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [answer == [IPv4Address("1.1.1.1")] for answer in done] == [False] * 8 + [True] * 32
        assert len(started) == 40
        assert complaints == []

    run(main())


def test_a_name_that_is_not_found_while_none_is_found_is_no_fault_of_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.5)
    monkeypatch.setattr("threadbridge.net.guard.time", SimpleNamespace(monotonic=lambda: clock.now))
    asked: list[tuple[str, int]] = []
    answers: dict[str, list[str] | NetworkError] = {}

    def lookup(host: str, port: int) -> list[str]:
        asked.append((host, port))
        answer = answers.get(host, NameUnknown(f"The host name {host} does not resolve", detail=f"no {host}"))
        if isinstance(answer, NetworkError):
            raise answer
        return answer

    def wanted(this: Guard, host: str = "a.example") -> NetworkError:
        asked.clear()
        with pytest.raises(NetworkError) as caught:
            run(this.resolve(host, 8443))
        assert caught.value.detail == f"no {host}"
        return caught.value

    a, known = ("a.example", 8443), ("known.example", 443)
    # Nobody to compare with: then it is about the name that was asked for. An address proves nothing.
    for nobody in (None, "", "127.0.0.1", "::1"):
        assert type(wanted(Guard(lookup=lookup, well_known=nobody))) is NameUnknown
        assert asked == [a]

    this = Guard(lookup=lookup, well_known="known.example")
    answers["known.example"] = ["1.1.1.1"]
    for moment, looked_up in ((0.5, [a, known]), (2.5, [a]), (2.75, [a, known]), (4.75, [a])):
        clock.now = moment
        assert type(wanted(this)) is NameUnknown
        assert asked == looked_up
    # What is found out is believed for two seconds, whichever it is.
    troubles: list[list[str] | NetworkError] = [NameUnknown("gone"), NetworkError("out of order"), []]
    for trouble in troubles:
        clock.now += 2.25
        answers["known.example"] = trouble
        for looked_up in ([a, known], [a]):
            assert type(wanted(this)) is OwnTrouble
            assert asked == looked_up
    clock.now += 2.25
    answers["known.example"] = ["1.1.1.1"]
    assert type(wanted(this)) is NameUnknown
    # The name itself is not asked for twice.
    del answers["known.example"]
    assert type(wanted(this, "known.example")) is OwnTrouble
    assert asked == [("known.example", 8443)]
