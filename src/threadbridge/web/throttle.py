"""How often one address, and one server, may ask: limits on what comes in.

    refusals     per address (IPv6: /64): requests that were refused before anybody proved who they are
    server       per server, after its signature was verified
    carrier      per server, for what its people bring of others: requests that this makes us send, and refusals

Rule: whoever proves who they are is never limited by what others do from the same address (a proxy, a shared
network): an address that has used up its refusals is asked for nothing but a signature by a key that is at hand. Each
memory is bounded; the address of a request is what the connection says, and what X-Forwarded-For says only where a
trusted proxy wrote it (Mastodon CVE-2025-54879: a limit that never counted because its rule looked elsewhere).
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from starlette.requests import Request

from threadbridge.config import Config, Network
from threadbridge.errors import TooMany

KEPT = 20_000
"""Addresses and servers remembered; the one that was quiet for longest is forgotten first."""
CARRIED_PER_MINUTE = 10
"""How often one server's people may make us ask others within a minute, by bringing what those are said to say."""
_FORWARDED_MAX = 20


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """One token bucket per name: as many at once as may come within a minute, then evenly."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic, kept: int = KEPT) -> None:
        self._size = float(per_minute)
        self._rate = per_minute / 60
        self._monotonic = monotonic
        self._kept = kept
        self._held: OrderedDict[str, _Bucket] = OrderedDict()

    def spend(self, name: str) -> bool:
        """Take one; False when there is none."""
        bucket = self._filled(name)
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def empty(self, name: str) -> bool:
        """Whether there is none left; takes none, remembers nobody."""
        bucket = self._held.get(name)
        if bucket is None:
            return False
        return bucket.left + (self._monotonic() - bucket.at) * self._rate < 1

    def _filled(self, name: str) -> _Bucket:
        now = self._monotonic()
        bucket = self._held.get(name)
        if bucket is None:
            bucket = self._held[name] = _Bucket(self._size, now)
            while len(self._held) > self._kept:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(name)
            bucket.left = min(self._size, bucket.left + (now - bucket.at) * self._rate)
            bucket.at = now
        return bucket

    def __len__(self) -> int:
        return len(self._held)


class Throttle:
    """The limits of one server process."""

    def __init__(self, config: Config, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._trusted = config.trusted_proxies
        self.refusals = Buckets(config.refusals_per_minute, monotonic)
        self.servers = Buckets(config.requests_per_minute_per_server, monotonic)
        self.carriers = Buckets(CARRIED_PER_MINUTE, monotonic)
        self.carriers_refused = Buckets(config.refusals_per_minute, monotonic)

    def address(self, request: Request) -> str:
        """The address a request comes from, as limits count it."""
        peer = request.client.host if request.client else ""
        return address_of(peer, request.headers.getlist("x-forwarded-for"), self._trusted)

    def check_address(self, address: str) -> None:
        """Raises TooMany when an address has had too many requests refused."""
        if self.refusals.empty(address):
            raise TooMany("Too many requests from this address were refused", detail="wait a little, then send again")

    def refused(self, address: str) -> None:
        """A request was refused before it was known who sent it."""
        self.refusals.spend(address)

    def check_carrier(self, host: str) -> None:
        """Raises TooMany when a server has brought too much of others that was refused."""
        if self.carriers_refused.empty(host):
            raise TooMany("Too much that one server brought of others was refused", detail=f"{host}: wait a little")

    def carrier_refused(self, host: str) -> None:
        """What a server brought of another one was refused."""
        self.carriers_refused.spend(host)

    def spend_carrier(self, host: str) -> None:
        """Count a request to another server that this one makes us send; raises TooMany beyond its share."""
        if not self.carriers.spend(host):
            raise TooMany("Too much that has to be asked for elsewhere, from one server at once", detail=host)

    def check_server(self, host: str) -> None:
        """Count a verified request of a server; raises TooMany beyond its share."""
        if not self.servers.spend(host):
            raise TooMany("Too many requests from one server at once", detail=f"{host}: send again a little later")


def address_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The sender's address: the last one in X-Forwarded-For that no trusted proxy wrote about itself, if the
    connection comes from a trusted proxy; else the connection's. IPv6 by its /64, which is one subscriber."""
    if not forwarded:
        return _named(peer)
    found = _parsed(peer)
    if found is None:
        return peer[:100]
    hops = [hop.strip() for line in forwarded for hop in line.split(",")][-_FORWARDED_MAX:]
    while hops and _within(found, trusted):
        named = _parsed(hops.pop())
        if named is None:
            break
        found = named
    return _shown(found)


@lru_cache(maxsize=4096)
def _named(peer: str) -> str:
    found = _parsed(peer)
    return peer[:100] if found is None else _shown(found)


def _shown(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
