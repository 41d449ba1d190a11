"""The address guard: which URLs we ask for, and which addresses we connect to.

Rule: one parser, one answer. A URL is taken apart once, here, and both HTTP engines are given the parts; a name is
resolved once, all its answers must pass, and the address that passed is the one that is dialled. The list of public
addresses is positive and our own: deny lists in this field were mended again and again (Mastodon four times in
2026, Fedify six times, Lemmy twice), and `ipaddress.is_global` calls 64:ff9b::7f00:1 (NAT64), 2002:7f00:1::
(6to4) and ::127.0.0.1 global.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import quote

import idna

from threadbridge.errors import AddressRefused, NameUnknown, NetworkError, OwnTrouble

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Sequence[str]]

SETTING = "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS"
MAX_URL = 2048
_LOOKUPS = 32
_BELIEVED_SECONDS = 2.0
"""For how long it is believed that names are resolved at all, or are not."""

# IANA special-purpose registries (RFC 6890 and its updates), plus multicast and the retired class E.
_IPV4_RESERVED = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Only global unicast is ever public; mapped, compatible, NAT64, site-local and multicast lie outside of it.
_IPV6_GLOBAL = IPv6Network("2000::/3")
_IPV6_RESERVED = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_KEPT = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked for, in parts. `host` is a lower-case A-label name or a bare IP literal; `url` is the
    canonical spelling, without a fragment and without a default port."""

    scheme: str
    host: str
    port: int
    path_and_query: str
    url: str

    @property
    def authority(self) -> str:
        """What belongs into the Host header."""
        return self.url.split("/", 3)[2]

    @property
    def origin(self) -> str:
        """`scheme://authority`."""
        return f"{self.scheme}://{self.authority}"


class Guard:
    """Judges URLs and addresses.

    With `allowed` empty: https, port 443 and host names only, every address public. With networks in it: http,
    ports and IP literals too, as long as every address lies in one of them (or is public and asked on port 443).
    `lookup` resolves a name to address texts, in a thread of its own. `well_known` is a name that resolves whenever
    names are resolved at all: when it does not either, the fault is here (OwnTrouble) and no other server's.
    """

    def __init__(
        self, allowed: Sequence[Network] = (), *, lookup: Lookup | None = None, well_known: str | None = None
    ) -> None:
        self.allowed = tuple(allowed)
        self._well_known = well_known if well_known and as_address(well_known) is None else None
        self._resolving: tuple[float, bool] = (float("-inf"), True)
        self._lookup = lookup or _getaddrinfo
        self._lookups = asyncio.Semaphore(_LOOKUPS)

    def permits(self, address: Address, port: int) -> bool:
        """Whether a socket may be connected to this address and port."""
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False
        if any(address in network for network in self.allowed if network.version == address.version):
            return True
        return port == 443 and is_public(address)

    def check_url(self, url: str) -> Target:
        """The parts of `url`; raises AddressRefused for what is malformed or must not be asked for."""
        target = parse_url(url)
        host, scheme, port = target.host, target.scheme, target.port
        literal = as_address(host)
        if scheme == "http" and port == 443:  # below, port 443 means https
            raise AddressRefused(f"{host}: http on port 443 is not asked for")
        if self.allowed:
            if literal is not None:
                self._judge(host, port, [literal])
        elif literal is not None:
            raise AddressRefused(f"{host} is an IP address; servers are reached by their name", hint=_hint(literal))
        elif scheme != "https":
            raise AddressRefused(f"{host} was to be reached by http; only https is used", hint=_hint())
        elif port != 443:
            raise AddressRefused(f"{host}: port {port} is not asked for, only 443", hint=_hint())
        elif "." not in host:
            raise AddressRefused(f"{host} is not the name of a public server", hint=_hint())
        return target

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses that may be dialled for `host`, in the resolver's order. One bad answer refuses the name:
        a list with a public and a private address is how rebinding begins."""
        literal = as_address(host)
        if literal is not None:
            self._judge(host, port, [literal])
            return [literal]
        try:
            texts = await self._look_up(host, port)
        except NameUnknown as error:
            if await self._resolves_nothing(host):
                words = f"{host} does not resolve, and no name does here at present"
                raise OwnTrouble(words, detail=error.detail) from None
            raise
        try:
            addresses = [ip_address(text) for text in dict.fromkeys(texts)]
        except ValueError:
            raise NetworkError(f"{host} resolves to something that is no address") from None
        if host == "localhost" or host.endswith(".localhost"):
            # RFC 6761: always loopback, in two families; an operator who lists 127.0.0.0/8 means this name.
            addresses = [address for address in addresses if self.permits(address, port)] or addresses
        if not addresses:
            raise NameUnknown(f"The host name {host} does not resolve")
        self._judge(host, port, addresses)
        return addresses

    async def _resolves_nothing(self, host: str) -> bool:
        """Whether the name that always resolves does not either: asked at most once in a moment."""
        if self._well_known is None or host == self._well_known:
            return self._well_known is not None
        looked_at, works = self._resolving
        if time.monotonic() - looked_at > _BELIEVED_SECONDS:
            try:
                works = bool(await self._look_up(self._well_known, 443))
            except NetworkError:
                works = False
            self._resolving = (time.monotonic(), works)
        return not works

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        """The resolver's answer, from a daemon thread. Not from the loop's executor: a resolver that hangs for half
        a minute would hold up whatever else runs there, and the end of the process. The slot is given back when the
        thread ends, not when the caller loses patience, so that hanging lookups stay bounded."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[str]] = loop.create_future()
        await self._lookups.acquire()

        def settle(answer: Sequence[str], error: Exception | None) -> None:
            self._lookups.release()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)

        def work() -> None:
            answer: Sequence[str] = ()
            failure = None
            try:
                answer = self._lookup(host, port)
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile; nobody waits
                loop.call_soon_threadsafe(settle, answer, failure)

        threading.Thread(target=work, name="resolve", daemon=True).start()
        return await future

    def _judge(self, host: str, port: int, addresses: Sequence[Address]) -> None:
        for address in addresses:
            if self.permits(address, port):
                continue
            if is_public(address):
                raise AddressRefused(
                    f"{host} is a public server: it is reached by https on port 443 only, not on port {port}"
                )
            raise AddressRefused(
                f"{host} is not on the public internet",
                detail=f"it has the private or reserved address {address}",
                hint=_hint(address),
            )


@lru_cache(maxsize=4096)
def parse_url(url: str) -> Target:
    """The parts of a URL, judged by its form alone; raises AddressRefused for what no careful client asks for."""
    if len(url) > MAX_URL:
        raise AddressRefused(f"An address of more than {MAX_URL} characters is not asked for")
    shown = repr(url.split("?", 1)[0][:200])
    if any(character <= " " or character == "\\" or not character.isprintable() for character in url):
        raise AddressRefused("An address holds characters that do not belong there", detail=shown)
    match = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(match[2]) if match else None
    if match is None or authority is None or not authority[1]:
        raise AddressRefused("That is not a plain http(s) address", detail=shown)
    scheme = match[1].lower()
    default = 443 if scheme == "https" else 80
    port = int(authority[2]) if authority[2] else default
    if not 0 < port < 65536:
        raise AddressRefused(f"{port} is not a port", detail=shown)
    host = canonical_host(authority[1])
    path = quote(match[3] or "/", safe=_KEPT) + (f"?{quote(match[4], safe=_KEPT)}" if match[4] else "")
    netloc = (f"[{host}]" if ":" in host else host) + ("" if port == default else f":{port}")
    return Target(scheme, host, port, path, f"{scheme}://{netloc}{path}")


@lru_cache(maxsize=4096)
def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_RESERVED)
    return (
        address.scope_id is None
        and address in _IPV6_GLOBAL
        and not any(address in network for network in _IPV6_RESERVED)
    )


def canonical_host(raw: str) -> str:
    """A host as it is compared: A-labels, lower case, no trailing dot; an IPv6 literal without its brackets.

    Everything that a resolver might read as a number (`2130706433`, `0x7f.1`, `①②⑦.0.0.1`) is refused unless it
    is a plain dotted quad, as in the WHATWG URL standard's "ends in a number" rule.
    """
    if raw.startswith("["):
        try:
            literal = IPv6Address(raw[1:-1])
        except AddressValueError:
            raise AddressRefused("That host is not an IPv6 address", detail=repr(raw[:80])) from None
        if literal.scope_id is not None:
            raise AddressRefused("IPv6 addresses with a zone are not asked for", detail=repr(raw[:80]))
        return str(literal)
    try:
        host = raw.lower() if raw.isascii() else idna.encode(raw, uts46=True).decode().lower()
        host = host.removesuffix(".")
        labels = host.split(".")
        for label in labels:
            if label.startswith("xn--"):
                idna.decode(label, uts46=False)
    except (idna.IDNAError, UnicodeError):
        raise AddressRefused("That is not a valid host name", detail=repr(raw[:80])) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused("That is not a valid host name", detail=repr(raw[:80]))
    if _NUMBER.fullmatch(labels[-1]) and as_address(host) is None:
        raise AddressRefused("That host is a disguised IP address", detail=repr(raw[:80]))
    return host


@lru_cache(maxsize=4096)
def as_address(host: str) -> Address | None:
    """The address that a canonical host spells out; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _hint(address: Address | None = None) -> str:
    """What the operator of a development or test set-up has to do."""
    example = "127.0.0.0/8"
    if address is not None:
        example = str(ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))
    return f"If that is meant (development, tests), list its network in {SETTING}, for example {SETTING}={example}"


def _getaddrinfo(host: str, port: int) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise NameUnknown(f"The host name {host} does not resolve", detail=str(error)) from None
    return [str(answer[4][0]) for answer in answers]
