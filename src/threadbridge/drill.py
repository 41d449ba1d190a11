"""The drill: a throw-away bridge with a great many followers delivers to servers on loopback, some of them ill.

It says what an operator wants to know before going live (how long until everybody has a post, how much memory, how
much the database grows), and whether a promise was broken on the way: nobody is told twice, before the time that they
asked for, or of a change before the post itself; and what the ledger calls delivered has arrived.

Rule: nothing is faked but the followers. The bridge is the product's own processes (`serve`, `work`) on a database of
its own; every delivery is signed and goes over a socket; the judge (`sandbox.inboxes`) knows only what arrived there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from threadbridge.config import Config, fixed
from threadbridge.delivery import outbox
from threadbridge.errors import BadConfiguration, Unavailable
from threadbridge.sandbox import inboxes
from threadbridge.sandbox.inboxes import Ill
from threadbridge.services import Ground, open_ground
from threadbridge.storage import accounts, posts, scratch
from threadbridge.storage.posts import PostContent
from threadbridge.storage.scratch import Invented, Standing
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_rsa_key

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
HOSTS_MAX = 1_000_000
_START_SECONDS = 60.0
_PROBE_SECONDS = 0.1
_QUIET_SECONDS = 1.0
"""It is only looked at whether it is over when nothing has arrived for so long."""
_IN_THE_END: tuple[Ill | None, ...] = (None, "slow", "429", "5xx")
_OWN_INBOXES = 10
"""On every tenth server each person has an inbox of their own; elsewhere they share one."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Who follows, from where, and what is wrong over there; shares of the servers between 0 and 1. Half of the dead
    refuse the connection, the others take it and never answer."""

    followers: int = 10_000
    hosts: int = 1_000
    dead: float = 0.05
    slow: float = 0.05
    too_many: float = 0.02
    failing: float = 0.02
    gone: float = 0.01
    bad_tls: float = 0.01
    seconds: float = 60.0
    workers: int = 1
    posts: int = 3
    database: str | None = None

    def ills(self) -> dict[int, Ill]:
        """{number of a server: what is wrong with it}, spread evenly over all; the rest are well."""
        shares: list[tuple[Ill, float]] = [
            ("dead", self.dead / 2), ("silent", self.dead / 2), ("slow", self.slow), ("429", self.too_many),
            ("5xx", self.failing), ("gone", self.gone), ("bad-tls", self.bad_tls),
        ]  # fmt: skip
        counts = [(ill, round(share * self.hosts)) for ill, share in shares]
        wanted = [ill for ill, count in counts for _ in range(count)][: self.hosts]
        # The first servers are the largest ones: who is ill has as many followers as others have.
        step = max(1, self.hosts // max(1, len(wanted)))
        return {min(place * step + step // 2, self.hosts - 1): ill for place, ill in enumerate(wanted)}

    def check(self) -> None:
        """Raise BadConfiguration for what cannot be drilled."""
        if not 1 <= self.hosts <= min(self.followers, HOSTS_MAX):
            raise BadConfiguration(
                "There must be at least one server, and no more than followers",
                detail=f"{self.hosts} servers, {self.followers} followers",
            )
        shares = (self.dead, self.slow, self.too_many, self.failing, self.gone, self.bad_tls)
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1:
            raise BadConfiguration("The shares of servers with something wrong must be between 0 and 100 % together")
        if self.workers > 1 and self.database is None:
            raise BadConfiguration(
                "SQLite takes one worker", hint="Give --database postgresql+psycopg://… for several."
            )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. Times in seconds from the first post; sizes in bytes."""

    plan: Plan
    deliveries: int
    drained: bool
    """Whether everybody who takes it in the end has everything, within the time."""
    late: int
    """Deliveries to servers that are well which still wait."""
    healthy: dict[str, float]
    """`p50`, `p95` and `last` of the servers that are well."""
    took: dict[str, dict[str, float]]
    """The same for those with something wrong that take it in the end, and how many deliveries that were."""
    per_second: float
    cpu_seconds: float
    peak_memory: int
    """Of the largest of the bridge's processes."""
    growth: int
    bytes_per_delivery: float
    longest_wait: float
    """The slowest answer to somebody who asked for the profile all the while."""
    requests: int
    answered: dict[str, int]
    standing: list[Standing]
    delivered_here: int
    delivered_there: int
    broken: list[str] = field(default_factory=list)
    """Promises that were broken, in words."""


def drill(plan: Plan, say: Say) -> Report:
    """Run it; everything is gone afterwards. Raises BadConfiguration, Unavailable."""
    plan.check()
    _needs_loopback()
    folder = Path(tempfile.mkdtemp(prefix="threadbridge-drill-"))
    try:
        with contextlib.ExitStack() as stack:
            database = stack.enter_context(scratch.postgresql(plan.database)) if plan.database else None
            return _drill(plan, folder, database, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _needs_loopback() -> None:
    try:
        with socket.socket() as sock:
            sock.bind((inboxes.address(0), 0))
    except OSError as error:
        raise BadConfiguration(
            "A drill needs all of 127.0.0.0/8, as Linux has it", detail=str(error), hint="Run it in a container."
        ) from None


def _drill(plan: Plan, folder: Path, database: str | None, say: Say) -> Report:
    ills = plan.ills()
    with _ports(4) as (web, plain, tls, dead):
        values: dict[str, Any] = {
            "base_url": f"http://127.0.0.1:{web}", "data_dir": folder, "allowed_private_networks": (LOOPBACK,),
            "database_url": database,
        }  # fmt: skip
        ground = open_ground(fixed(**values))
        try:
            say(f"{plan.followers:,} followers on {plan.hosts:,} servers are made up ...")
            account_id = _people(ground, plan, ills, plain, tls, dead)
            before = ground.store.read_now(scratch.size)
            with (
                _process([sys.executable, "-m", "threadbridge.sandbox.inboxes",
                          json.dumps({"plain": plain, "tls": tls, "ills": ills})], ready=plain),
                _bridge(ground.config, folder, web, plan.workers) as processes,
            ):  # fmt: skip
                say("the bridge is up; the posts are published ...")
                since = time.monotonic()
                _publish(ground, account_id, plan)
                waits = _watch(ground, plan, ills, web, plain, account_id, since, say)
                usage = [_end(process) for process in processes]
                told = _ask(plain, f"/report/{since}")
            grown = ground.store.read_now(scratch.size) - before
            standing = ground.store.read_now(scratch.standings)
            waiting = _still_waiting(ground, ills)
        finally:
            ground.close()
    return _reported(plan, waiting, told, standing, grown, usage, waits)


def _reported(
    plan: Plan,
    waiting: Counter[Ill | None],
    told: dict[str, Any],
    standing: list[Standing],
    grown: int,
    usage: list[tuple[float, int]],
    waits: list[float],
) -> Report:
    took = {ill: _spread(times) for ill, times in told["took"].items() if times}
    healthy = took.pop("healthy", {"count": 0.0, "p50": 0.0, "p95": 0.0, "last": 0.0})
    deliveries = sum(one.count for one in standing)
    delivered = sum(one.count for one in standing if one.state == "delivered")
    broken = []
    for words, count in (
        ("told twice", told["twice"]),
        ("told before the time they had asked for", told["too_early"]),
        ("told of a change before the post itself", told["before_create"]),
    ):
        if count:
            broken.append(f"{words}: {count} times ({'; '.join(told['examples'])})")
    if delivered > told["distinct"]:
        broken.append(f"lost: {delivered} are delivered in the ledger, {told['distinct']} have arrived")
    unexplained = [one for one in standing if one.state not in ("waiting", "delivered") and not one.reason]
    if unexplained:
        broken.append(f"ended without a reason: {sum(one.count for one in unexplained)}")
    return Report(
        plan=replace(plan, database="postgresql" if plan.database else None),  # without its password
        deliveries=deliveries,
        drained=not any(waiting[ill] for ill in _IN_THE_END),
        late=waiting[None],
        healthy=healthy,
        took=took,
        per_second=healthy["count"] / healthy["last"] if healthy["last"] else 0.0,
        cpu_seconds=sum(seconds for seconds, _ in usage),
        peak_memory=max(peak for _, peak in usage),
        growth=grown,
        bytes_per_delivery=grown / deliveries if deliveries else 0.0,
        longest_wait=max(waits, default=0.0),
        requests=len(waits),
        answered=told["answered"],
        standing=_alike(standing),
        delivered_here=delivered,
        delivered_there=told["distinct"],
        broken=broken,
    )


def _spread(times: list[float]) -> dict[str, float]:
    at = {"p50": times[len(times) // 2], "p95": times[min(len(times) - 1, len(times) * 95 // 100)], "last": times[-1]}
    return {"count": float(len(times)), **{name: round(seconds, 3) for name, seconds in at.items()}}


def _alike(standing: list[Standing]) -> list[Standing]:
    """The same with reasons that name no address, so that those of a thousand servers are one line."""
    found: dict[tuple[str, str], list[Standing]] = {}
    for one in standing:
        reason = re.sub(r"(https?://)?127\.[0-9.]+(:[0-9]+)?(/[^ ]*)?", "a server", one.reason)
        found.setdefault((one.state, reason), []).append(one)
    return sorted(
        (
            Standing(
                state,
                reason,
                sum(one.count for one in some),
                min((one.first_due for one in some if one.first_due), default=None),
                max((one.last_due for one in some if one.last_due), default=None),
            )
            for (state, reason), some in found.items()
        ),
        key=lambda one: -one.count,
    )


# ── the people and the posts ─────────────────────────────────────────────────────────────────────────────────────


def _people(ground: Ground, plan: Plan, ills: dict[int, Ill], plain: int, tls: int, dead: int) -> int:
    def begin(tx: Tx) -> int:
        return accounts.create(
            tx, ground.vault, new_rsa_key(), handle="drill", name="Drill", bio="Does not exist.", source_url=None,
            joined_at=None, consent_kind="download", consent_wording="a drill",
        ).id  # fmt: skip

    account_id = ground.store.transact_now(begin)
    chunk: list[Invented] = []
    for number, host in enumerate(_homes(plan)):
        ill = ills.get(host)
        port = {"dead": dead, "bad-tls": tls}.get(ill or "", plain)
        authority = f"{inboxes.address(host)}:{port}"
        base = f"{'https' if ill == 'bad-tls' else 'http'}://{authority}"
        own = host % _OWN_INBOXES == _OWN_INBOXES - 1
        chunk.append(Invented(f"{base}/users/{number}", f"{base}/users/{number}/inbox" if own else f"{base}/inbox",
                              authority))  # fmt: skip
        if len(chunk) == 5000:
            ground.store.transact_now(scratch.follow, account_id, chunk)
            chunk = []
    if chunk:
        ground.store.transact_now(scratch.follow, account_id, chunk)
    return account_id


def _homes(plan: Plan) -> Iterator[int]:
    """The server of each follower: at least one on each, the others as servers of the Fediverse are in size: the
    second has half as many as the first, the third a third."""
    yield from range(plan.hosts)
    left = plan.followers - plan.hosts
    total = sum(1 / (host + 1) for host in range(plan.hosts))
    given, due = 0, 0.0
    for host in range(plan.hosts):
        due += left / (host + 1) / total
        share = (left if host == plan.hosts - 1 else round(due)) - given
        given += share
        for _ in range(share):
            yield host


def _publish(ground: Ground, account_id: int, plan: Plan) -> None:
    """Some posts; the first is edited at once, the last deleted at once, before they can have reached everybody."""

    def one(tx: Tx, number: int) -> int:
        account = accounts.by_id(tx, account_id)
        assert account is not None
        said = PostContent("post", f"Post {number} of a drill. #drill", "en", tx.now, tags=("drill",))
        post_id = posts.add(tx, account_id, said, [], silent=False)
        outbox.publish(tx, ground.ids, account, post_id)
        return post_id

    def edit(tx: Tx, post_id: int) -> None:
        account = accounts.by_id(tx, account_id)
        assert account is not None
        told = PostContent("post", "Post 1 of a drill, edited. #drill", "en", tx.now, tags=("drill",))
        posts.revise(tx, account_id, post_id, told, [], updated=datetime.now(UTC))
        outbox.revise(tx, ground.ids, account, post_id)

    def delete(tx: Tx, post_id: int) -> None:
        account = accounts.by_id(tx, account_id)
        assert account is not None
        posts.bury(tx, account_id, post_id)
        outbox.retract(tx, ground.ids, account, post_id)

    made = [ground.store.transact_now(one, number) for number in range(1, plan.posts + 1)]
    if plan.posts > 1:
        ground.store.transact_now(edit, made[0])
        ground.store.transact_now(delete, made[-1])


# ── the processes ────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _ports(count: int) -> Iterator[list[int]]:
    """Free ports; the last of them stays taken and answers nobody."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("0.0.0.0", 0))  # noqa: S104 (nobody listens)
        ports = [int(sock.getsockname()[1]) for sock in sockets]
        for sock in sockets[:-1]:
            sock.close()
        yield ports
    finally:
        for sock in sockets:
            sock.close()


@contextlib.contextmanager
def _bridge(config: Config, folder: Path, port: int, workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The bridge's own processes: web and a worker in one, and further workers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("THREADBRIDGE_")}
    env = {
        **kept,
        "THREADBRIDGE_BASE_URL": str(config.base_url),
        "THREADBRIDGE_DATA_DIR": str(folder),
        "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": str(LOOPBACK),
        "THREADBRIDGE_PORT": str(port),
        "THREADBRIDGE_LOG_FORMAT": "json",
        **({"THREADBRIDGE_DATABASE_URL": config.database_url} if config.database_url else {}),
    }
    command = [sys.executable, "-m", "threadbridge"]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "bridge.log", "wb"))
        first = _process([*command, "serve"], ready=port, env=env, cwd=folder, log=log)
        processes = [stack.enter_context(first)]
        processes += [
            stack.enter_context(_process([*command, "work"], env=env, cwd=folder, log=log))
            for _ in range(workers - 1)
        ]
        yield processes


@contextlib.contextmanager
def _process(
    command: list[str],
    *,
    ready: int | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    log: Any = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command, env=env, cwd=cwd, stdout=log, stderr=log)  # noqa: S603 (our own program)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while ready is not None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ready), 1):
                break
            if running.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("A process of the drill did not start", detail=" ".join(command[1:4]))
            time.sleep(0.05)
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            running.wait()


def _end(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Stop a process of the bridge in good order: its CPU seconds, and the most bytes that it had in memory."""
    process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _watch(
    ground: Ground, plan: Plan, ills: dict[int, Ill], web: int, plain: int, account_id: int, since: float, say: Say
) -> list[float]:
    """Until everybody who takes it in the end has everything, or the time is over: how long visitors waited
    meanwhile, in seconds."""
    waits: list[float] = []
    accepted, changed, told = -1, since, since
    while (now := time.monotonic()) < since + plan.seconds:
        started = time.perf_counter()
        request = urllib.request.Request(
            f"http://127.0.0.1:{web}/ap/users/{account_id}", headers={"Accept": "application/activity+json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (our own port)
            answer.read()
        waits.append(time.perf_counter() - started)
        count = int(_ask(plain, "/")["accepted"])
        if count != accepted:
            accepted, changed = count, now
        elif now > changed + _QUIET_SECONDS and not any(_still_waiting(ground, ills).get(ill) for ill in _IN_THE_END):
            break
        if now >= told + 5:
            told = now
            say(f"  {now - since:5.0f} s: {accepted:,} have arrived")
        time.sleep(_PROBE_SECONDS)
    return waits


def _still_waiting(ground: Ground, ills: dict[int, Ill]) -> Counter[Ill | None]:
    """How many deliveries wait, by what is wrong with their server."""
    waiting: Counter[Ill | None] = Counter()
    for host, count in ground.store.read_now(scratch.waiting_for).items():
        number = inboxes.number_at(host.partition(":")[0])
        waiting[ills.get(number) if number is not None else None] += count
    return waiting


def _ask(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        told: dict[str, Any] = json.loads(answer.read())
        return told


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────────────

_WORDS: dict[str, str] = {
    "slow": "slow ones",
    "429": "that asked us to wait",
    "5xx": "that had trouble",
}


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    plan, well = report.plan, report.healthy
    engine = "PostgreSQL" if plan.database else "SQLite"
    yield f"{plan.followers:,} followers on {plan.hosts:,} servers, {engine}, {report.deliveries:,} deliveries:"
    yield (
        f"  servers that are well  {well['count']:,.0f} arrived; half within {well['p50']:.1f} s, 95 % within "
        f"{well['p95']:.1f} s, the last after {well['last']:.1f} s; {report.per_second:,.0f} per second"
    )
    for ill, spread in report.took.items():
        words = _WORDS.get(ill, ill)
        yield f"  {words:<21}  {spread['count']:,.0f} arrived; the last after {spread['last']:.1f} s"
    if report.late:
        yield f"  not in time            {report.late:,} to servers that are well wait (--seconds {plan.seconds:g})"
    yield f"  memory                 {report.peak_memory / 1e6:,.0f} MB at most, in one process"
    yield f"  CPU                    {report.cpu_seconds:,.1f} s, with starting and stopping"
    grown = f"{report.growth / 1e6:,.1f} MB"
    yield f"  database               {report.bytes_per_delivery:,.0f} bytes per delivery ({grown} in all)"
    yield (
        f"  other requests         {report.requests} meanwhile, the slowest answered after "
        f"{report.longest_wait * 1000:,.0f} ms"
    )
    for one in report.standing:
        due = (
            f", until {one.first_due:%H:%M:%S} to {one.last_due:%H:%M:%S} UTC"
            if one.first_due and one.last_due
            else ""
        )
        yield f"  {one.state:<21}  {one.count:,}{f': {one.reason}' if one.reason else ''}{due}"
    yield "  promises               " + (
        "; ".join(report.broken) or "kept: nobody twice, too early, or before the post"
    )
