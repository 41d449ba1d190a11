"""The arithmetic of `docs/scale.md`: from figures that were measured and assumptions that are named to machines.

    python -m tests.benchmarks.scale          prints the tables of the page; `--write` puts them into it

Rule: nothing is drawn by chance. Distributions are summed over their quantiles, so the same inputs give the same
tables, and a test compares them with the page (`tests/test_scale.py`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, log
from pathlib import Path
from statistics import NormalDist

PAGE = Path(__file__).parent.parent.parent / "docs" / "scale.md"
DAY = 86_400


@dataclass(frozen=True)
class Measured:
    """What was measured, on 2 cores (Python 3.11, SQLite or PostgreSQL on the same disk). The comment names the
    command."""

    sign_us: float = 285  # make bench, limits: 3,500 RSA-2048 signatures per second and core
    delivery_us: float = 970  # make bench, deliveries: CPU per warm delivery, SQLite, signature included (load of 14)
    row_bytes: float = 340  # threadbridge drill: growth of the database per delivery
    holder_bytes: float = 39  # what stays of it after thirty days, for ever: the roll-ups, addresses included
    body_bytes: float = 4_371  # one Create with its proof, as it is sent


@dataclass(frozen=True)
class Assumed:
    """What nobody can measure beforehand. Change them and run this again."""

    people: float = 150e6  # daily users of the network
    servers: int = 25_000  # of the Fediverse, that take deliveries
    server_exponent: float = 1.1  # sizes of servers: the n-th has 1/n^1.1 of the people of the first
    fediverse: float = 1e6  # people there who are active in a month; nobody has more followers than that
    median_followers: float = 3  # of an account that shares; half have fewer
    spread: float = 2.2  # sigma of the lognormal: the mean is 11 times the median
    posts_a_day: float = 1.0  # of the median account
    posts_grow: float = 0.3  # with followers: ten times as many, twice the posts
    changes: float = 0.08  # edits and deletions, per post
    own_inboxes: float = 0.05  # share of followers whose server offers no shared inbox
    peak: float = 3.0  # the busiest minutes against the mean of the day
    likes: float = 0.02  # likes, boosts and answers that come back, per follower and post
    likes_max: float = 2_000  # per post: who is very large is not liked by as many
    attachments: float = 0.5  # pictures per post
    picture_bytes: float = 250_000
    pages_per_host: float = 1.2  # documents fetched by a server that got a post: post, author, preview
    headers_bytes: float = 900  # of a request, with TLS records
    reads_a_day: float = 300  # of one account at its source: every five minutes
    read_us: float = 1_000  # CPU of one such reading that finds nothing
    inbound_us: float = 1_000  # CPU per Like, verified and stored; `make bench`, inbox, has this machine's rate
    document_us: float = 60  # CPU per document served; `make bench`, documents, has this machine's rate
    use: float = 0.6  # how full a machine is run
    cores: int = 8  # of one machine
    primary_writes: float = 30_000  # rows a second that one PostgreSQL primary takes (16 cores, NVMe)
    kept_days: float = 30  # how long a delivery is a row
    machine_eur: float = 60  # a month: 8 cores, 32 GB
    database_eur: float = 400  # a month: 16 cores, 128 GB, 4 TB NVMe, and its standby
    traffic_eur_tb: float = 1.0
    storage_eur_tb: float = 20.0  # a month, object store


@dataclass(frozen=True)
class Load:
    """What a day brings. Rates are per second, at the peak."""

    accounts: float
    posts: float
    deliveries: float
    per_post: float
    largest: float
    """Deliveries a second that the largest server of the Fediverse gets, mean of the day."""
    inbound: float
    fetches: float
    reads: float
    writes: float
    cores: float
    signing: float
    machines: int
    databases: int
    out_tb: float
    media_tb: float
    rows_tb: float
    kept_tb_a_year: float
    eur: float


MEASURED, ASSUMED = Measured(), Assumed()


Sizes = list[tuple[float, int]]
"""(part of all people who are on a server, how many such servers), the largest first."""


def shares(assumed: Assumed) -> Sizes:
    """The servers of the Fediverse: the first hundreds by themselves, the many small ones in groups of a hundred."""
    weights = [1 / (number + 1) ** assumed.server_exponent for number in range(assumed.servers)]
    total, alone = sum(weights), 500
    sizes = [(weight / total, 1) for weight in weights[:alone]]
    for start in range(alone, assumed.servers, 100):
        some = weights[start : start + 100]
        sizes.append((sum(some) / len(some) / total, len(some)))
    return sizes


def reach(followers: float, sizes: Sizes) -> float:
    """On how many servers so many followers are, on average: the sum of 1 - (1 - p)^f."""
    return sum(count * (1 - exp(followers * log(1 - size))) for size, count in sizes)


def quantiles(assumed: Assumed) -> Iterator[tuple[float, float]]:
    """(followers, part of the accounts), finer towards the top, where the deliveries are."""
    normal, edges = NormalDist(), [0.0]
    edges += [number / 40 for number in range(1, 39)]
    rest = 1 - edges[-1]
    while rest > 1e-7:
        rest /= 1.7
        edges.append(1 - rest)
    edges.append(1.0)
    for low, high in pairwise(edges):
        middle = (low + high) / 2 if high < 1 else 1 - (1 - low) / 2
        followers = assumed.median_followers * exp(assumed.spread * normal.inv_cdf(middle))
        yield min(followers, assumed.fediverse), high - low


def day(share: float, assumed: Assumed = ASSUMED, measured: Measured = MEASURED) -> Load:
    """The load when this share of the network's people has an account here."""
    sizes, accounts = shares(assumed), assumed.people * share
    posts = sent = largest = back = 0.0
    for followers, part in quantiles(assumed):
        said = assumed.posts_a_day * (max(followers, 1) / assumed.median_followers) ** assumed.posts_grow
        said *= accounts * part
        alone = followers * assumed.own_inboxes
        told = said * (1 + assumed.changes)
        posts += said
        sent += told * (reach(followers - alone, sizes) + alone)
        largest += told * (1 - (1 - sizes[0][0]) ** followers)
        back += said * min(followers * assumed.likes, assumed.likes_max)
    peak = assumed.peak / DAY
    fetched = sent / (1 + assumed.changes) * assumed.pages_per_host
    reads = accounts * assumed.reads_a_day
    # A delivery is written, claimed and settled; an activity that comes in is three rows, a post six.
    writes = (3 * sent + 3 * back + 6 * posts) * peak
    micros = sent * measured.delivery_us + back * assumed.inbound_us + fetched * assumed.document_us
    cores = (micros + reads * assumed.read_us) * peak / 1e6 / assumed.use
    out = sent * (measured.body_bytes + assumed.headers_bytes) / 1e12
    media = sent / (1 + assumed.changes) * assumed.attachments * assumed.picture_bytes / 1e12
    machines = max(1, -(-cores // assumed.cores))
    databases = max(1, -(-writes // assumed.primary_writes))
    kept = (posts * assumed.attachments * assumed.picture_bytes + sent * measured.holder_bytes) * 365 / 1e12
    rows = sent * assumed.kept_days * measured.row_bytes / 1e12
    eur = machines * assumed.machine_eur + databases * assumed.database_eur
    eur += (out + media) * 30 * assumed.traffic_eur_tb + kept * assumed.storage_eur_tb
    return Load(
        accounts, posts, sent * peak, sent / posts, largest / DAY, back * peak, fetched * peak, reads * peak, writes,
        cores, sent * measured.sign_us * peak / 1e6, int(machines), int(databases), out, media, rows, kept, eur,
    )  # fmt: skip


def carried(cores: int, measured: Measured = MEASURED, assumed: Assumed = ASSUMED) -> tuple[float, float, float]:
    """(deliveries a second, accounts, posts a day) that machines with so many cores in all carry, at `use`."""
    per_account = day(0.01, assumed, measured)
    accounts = per_account.accounts * cores / per_account.cores
    return (
        cores * assumed.use / measured.delivery_us * 1e6,
        accounts,
        accounts * per_account.posts / per_account.accounts,
    )


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def tables() -> dict[str, str]:
    """{name: the table as it stands on the page}."""
    return {
        "followers": _followers(),
        "machines": _machines(),
        "network": _network(),
        "sensitivity": _sensitivity(),
        "inputs": _inputs(),
    }


def _table(*rows: list[str]) -> str:
    head, *others = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *others]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _followers() -> str:
    sizes = shares(ASSUMED)
    rows = [["followers", "servers that get a post", "seconds at 1,000 deliveries a second"]]
    for followers in (10, 100, 1_000, 10_000, 100_000, 1_000_000):
        alone = followers * ASSUMED.own_inboxes
        told = reach(followers - alone, sizes) + alone
        rows.append([f"{followers:,}", f"{told:,.0f}", f"{told / 1000:,.1f}"])
    return _table(*rows)


def _machines() -> str:
    rows = [["machines", "cores", "deliveries per second, nothing else", "rows per second", "accounts", "posts a day",
             "wall"]]  # fmt: skip
    walls = {
        "one of 2 cores": "CPU",
        "one of 8 cores": "CPU",
        "ten of 8 cores": "rows written, when all cores deliver",
    }
    for (name, wall), cores in zip(walls.items(), (2, 8, 80), strict=True):
        rate, accounts, posts = carried(cores)
        rows.append([name, str(cores), f"{rate:,.0f}", f"{3 * rate:,.0f}", f"{accounts:,.0f}", f"{posts:,.0f}", wall])
    return _table(*rows)


def _network() -> str:
    one, ten = day(0.01), day(0.10)
    figures: list[tuple[str, Callable[[Load], str]]] = [
        ("accounts that share", lambda load: f"{load.accounts:,.0f}"),
        ("posts a day", lambda load: f"{load.posts:,.0f}"),
        ("deliveries per post and change", lambda load: f"{load.per_post:,.1f}"),
        ("deliveries, signatures per second at the peak", lambda load: f"{load.deliveries:,.0f}"),
        ("likes, boosts, answers per second at the peak", lambda load: f"{load.inbound:,.0f}"),
        ("documents fetched per second at the peak", lambda load: f"{load.fetches:,.0f}"),
        ("accounts read at the source per second at the peak", lambda load: f"{load.reads:,.0f}"),
        ("rows written per second at the peak", lambda load: f"{load.writes:,.0f}"),
        ("cores, at 60 %", lambda load: f"{load.cores:,.0f}"),
        ("of these for signatures alone, at 100 %", lambda load: f"{load.signing:,.1f}"),
        ("machines of 8 cores", lambda load: f"{load.machines:,}"),
        ("PostgreSQL primaries", lambda load: f"{load.databases:,}"),
        ("sent a day, TB", lambda load: f"{load.out_tb:,.2f}"),
        ("pictures fetched from us a day, TB", lambda load: f"{load.media_tb:,.2f}"),
        ("delivery rows of 30 days, TB", lambda load: f"{load.rows_tb:,.2f}"),
        ("kept for ever, TB a year", lambda load: f"{load.kept_tb_a_year:,.1f}"),
        ("euros a month", lambda load: f"{load.eur:,.0f}"),
        ("deliveries per second to the largest server, mean", lambda load: f"{load.largest:,.0f}"),
    ]
    return _table(["", "1 % share", "10 % share"], *([name, show(one), show(ten)] for name, show in figures))


def _sensitivity() -> str:
    cases: list[tuple[str, Assumed, Measured]] = [
        ("as above", ASSUMED, MEASURED),
        ("median of 10 followers rather than 3", replace(ASSUMED, median_followers=10), MEASURED),
        ("heavier tail (sigma 2.6)", replace(ASSUMED, spread=2.6), MEASURED),
        ("three posts a day", replace(ASSUMED, posts_a_day=3), MEASURED),
        ("half the CPU per delivery", ASSUMED, replace(MEASURED, delivery_us=MEASURED.delivery_us / 2)),
        ("accounts are told of, not read every five minutes", replace(ASSUMED, reads_a_day=5), MEASURED),
    ]
    rows = [["at 10 %", "deliveries per second", "rows per second", "machines", "primaries"]]
    for name, assumed, measured in cases:
        load = day(0.10, assumed, measured)
        rows.append(
            [name, f"{load.deliveries:,.0f}", f"{load.writes:,.0f}", f"{load.machines:,}", f"{load.databases:,}"]
        )
    return _table(*rows)


def _inputs() -> str:
    rows = [["input", "value"]]
    for group in (MEASURED, ASSUMED):
        rows += [[f"{type(group).__name__.lower()}: `{name}`", f"{value:,g}"] for name, value in vars(group).items()]
    return _table(*rows)


def written(page: str) -> str:
    """The page with its tables as they are now."""
    for name, table in tables().items():
        mark = re.compile(rf"(<!-- table: {name} -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)
        page, count = mark.subn(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"the page has no place for the table {name!r}")
    return page


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(written(PAGE.read_text()))
    else:
        for title, shown in tables().items():
            sys.stdout.write(f"{title}\n\n{shown}\n\n")
