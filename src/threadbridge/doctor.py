"""`threadbridge doctor`: looks at everything that can be wrong with an installation, in the order in which it would
hurt, and says how to mend it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from threadbridge import __version__
from threadbridge.config import Config
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.domain.accounts import AccountState
from threadbridge.errors import NetworkError, ThreadbridgeError
from threadbridge.federation import own_domain
from threadbridge.media.shelves import Shelf
from threadbridge.net.client import Client
from threadbridge.net.guard import Guard
from threadbridge.services import Ground, open_ground, utc_now
from threadbridge.storage import accounts, connections, jobs, ledger, profiles
from threadbridge.storage.balance import account_for

Level = Literal["ok", "warning", "error"]
SPACE_WANTED = 1_000_000_000
SKEW_WARNING, SKEW_ERROR = 30.0, 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    level: Level
    subject: str
    words: str


async def examine(config: Config) -> list[Finding]:
    """All findings. Raises nothing: what cannot be looked at is a finding too."""
    found = [Finding("ok", "version", __version__)]
    try:
        ground = await asyncio.to_thread(open_ground, config)
    except ThreadbridgeError as error:
        return [*found, Finding("error", "start", str(error))]
    try:
        found += await asyncio.to_thread(_at_rest, ground)
        found += [finding async for finding in _outside(ground)]
    except ThreadbridgeError as error:
        found.append(Finding("error", "start", str(error)))
    finally:
        ground.close()
    return found


def _at_rest(ground: Ground) -> list[Finding]:
    found = [Finding("ok", "public address", ground.ids.base)]
    try:
        damage = ground.store.read_now(accounts.damage)
        found.append(
            Finding("error", "database", f"damaged: {damage}; restore a backup")
            if damage
            else Finding("ok", "database", f"{ground.store.dialect}, whole and up to date")
        )
    except ThreadbridgeError as error:
        found.append(Finding("error", "database", str(error)))
    free = shutil.disk_usage(ground.config.data_dir).free
    words = f"{free / 1e9:.1f} GB free in {ground.config.data_dir}"
    found.append(Finding("ok" if free > SPACE_WANTED else "warning", "space", words))
    if ground.config.media_url is not None:
        found.append(_shelf(ground.media.shelf))
    mode = stat.S_IMODE(ground.config.secret_key_path.stat().st_mode)
    found.append(
        Finding("ok", "secret key", f"{ground.config.secret_key_path}; keep a copy apart from the database")
        if mode & 0o077 == 0
        else Finding("warning", "secret key", f"readable by others: chmod 600 {ground.config.secret_key_path}")
    )
    people, posts = ground.store.read_now(accounts.totals)
    words = f"{people} {'account' if people == 1 else 'accounts'}, {posts} {'post' if posts == 1 else 'posts'}"
    found.append(Finding("ok", "accounts", words))
    troubled = ground.store.read_now(connections.count_in_trouble)
    if troubled:
        found.append(
            Finding("warning", "sources", f"{troubled} connections have trouble; see `threadbridge accounts`")
        )
    work = ground.store.read_now(jobs.summary)
    found.append(
        Finding(
            "warning" if work["failed"] else "ok", "jobs", f"{work['waiting']} waiting, {work['failed']} given up"
        )
    )
    sums = ground.store.read_now(ledger.totals)
    words = ", ".join(f"{count} {state}" for state, count in sorted(sums.items())) or "none yet"
    found.append(Finding("ok", "deliveries", words))
    balance = ground.store.read_now(account_for, fan_out=FAN_OUT)
    parts = f"{balance.delivered} delivered + {balance.pending} pending + {balance.dropped} dropped"
    words = f"{balance.accepted} = {parts}"
    found.append(
        Finding("ok", "balance", words)
        if balance.comes_out
        else Finding("error", "balance", f"{words}; does not come out: {'; '.join(balance.astray) or 'the sum'}")
    )
    if ground.config.quiet:
        words = f"on (THREADBRIDGE_QUIET): {balance.pending} deliveries wait; `threadbridge queue` shows them"
        found.append(Finding("warning", "brake", words))
    return found


def _shelf(shelf: Shelf) -> Finding:
    """Whether files can be kept, read and removed where media are kept."""
    name, content = f"doctor/{secrets.token_hex(16)}.png", b"threadbridge"
    try:
        with tempfile.TemporaryDirectory(prefix="threadbridge-") as scratch:
            file = Path(scratch) / "probe"
            file.write_bytes(content)
            shelf.put(name, file, media_type="image/png")
        whole = b"".join(shelf.chunks(name)) == content
        shelf.remove(name)
        if whole and shelf.about(name) is None:
            return Finding("ok", "media", f"{shelf.described()} takes, gives and removes files")
        return Finding("error", "media", f"{shelf.described()} does not give back what was put there")
    except (ThreadbridgeError, OSError) as error:
        return Finding("error", "media", f"{shelf.described()}: {error}")


async def _outside(ground: Ground) -> AsyncIterator[Finding]:
    config = ground.config
    # Without `own_base_url`: here we want to hear our own echo, through whatever stands in front of us. It has a
    # client of its own, since its clock is often this very machine's and says nothing against another's.
    async with _client(ground) as echo, _client(ground) as client:
        try:
            answer = await echo.get(f"{ground.ids.base}/.well-known/nodeinfo", limit=100_000, deadline=10)
            good = answer.status == 200 and ground.ids.instance.encode() in answer.body
            yield Finding(
                "ok" if good else "error",
                "reachable",
                f"{ground.ids.base} answers"
                if good
                else f"{ground.ids.base} answers {answer.status}, but it is not this server: check the proxy",
            )
        except NetworkError as error:
            yield Finding("warning", "reachable", f"{error} Is `threadbridge serve` running behind that name?")
        for account, wanted in await asyncio.to_thread(ground.store.read_now, profiles.with_own_domain):
            if account.state is AccountState.GONE:
                continue
            for level, words in await own_domain.look(echo, ground.ids, account, wanted.domain):
                if level != "ok":
                    yield Finding("error" if level == "error" else "warning", f"@{account.handle}", words)
                elif "leads to this account" in words:
                    yield Finding("ok", f"@{account.handle}", f"found as @{account.handle}@{wanted.domain}")
        for graph_url in await asyncio.to_thread(ground.store.read_now, connections.graph_urls) or [config.graph_url]:
            try:
                await client.get(f"{graph_url}/v1.0/me", limit=100_000, deadline=10)
                yield Finding("ok", "Threads API", f"{graph_url} answers")
            except NetworkError as error:
                yield Finding("warning", "Threads API", str(error))
        # Not what the echo said: that is our own clock.
        yield _clock(client.skew_seconds)


def _client(ground: Ground) -> Client:
    return Client(
        Guard(ground.config.allowed_private_networks),
        user_agent=f"threadbridge/{__version__} (+{ground.ids.base}/)",
        ca_file=ground.config.ca_file,
        clock=utc_now,
    )


def _clock(skew: float | None) -> Finding:
    if skew is None:
        return Finding("warning", "clock", "could not be compared with anybody's")
    if abs(skew) < SKEW_WARNING:
        return Finding("ok", "clock", f"within {abs(skew):.0f} s of other servers")
    way = "behind" if skew > 0 else "ahead of"
    words = f"this machine's clock is {_span(abs(skew))} {way} other servers'; set it by NTP"
    consequence = "; until then other servers refuse our signatures, and we theirs" if abs(skew) >= SKEW_ERROR else ""
    return Finding("error" if abs(skew) >= SKEW_ERROR else "warning", "clock", words + consequence)


def _span(seconds: float) -> str:
    if seconds >= 129_600:
        return f"{seconds / 86_400:.1f}".removesuffix(".0") + " days"
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds:.0f} seconds"
