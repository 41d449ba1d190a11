"""Figures of this process, for Prometheus; and figures that all processes share, told by the one that is asked.

    threadbridge_http_…          requests by route and class of status
    threadbridge_inbox_…         what other servers said, by verb and outcome
    threadbridge_signature_…     how long signing and verifying take
    threadbridge_delivery_…      attempts by lane and outcome, and how old what arrives is
    threadbridge_fan_out_…       addressing an activity
    threadbridge_job_…           work by kind
    threadbridge_reads_…         reads of connected accounts
    threadbridge_database_…      how long whoever asks the database waits
    threadbridge_backlog_… and the others of `Shared`: read from the database when somebody asks

Rule: every label has few values and all of them are ours: lanes, verbs, states, routes as they are written in the
table of routes. What is measured costs a microsecond, and never fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LANES = ("answer", "post", "change", "bulk")
"""The lanes of `storage.ledger` by their numbers, most urgent first."""
_QUICK = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_SLOW = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 10_800, 86_400)

REGISTRY = CollectorRegistry()

BUILD = Gauge("threadbridge_build_info", "1, with the version.", ["version"], registry=REGISTRY)
REQUESTS = Counter("threadbridge_http_requests", "HTTP requests answered.", ["route", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "threadbridge_http_request_seconds",
    "Time to the end of the answer.",
    ["route"],
    buckets=_QUICK,
    registry=REGISTRY,
)
ACTIVITIES = Counter(
    "threadbridge_inbox_activities", "Activities that arrived.", ["verb", "outcome"], registry=REGISTRY
)
SIGNATURE_SECONDS = Histogram(
    "threadbridge_signature_seconds",
    "Time to sign; time to verify, with the key at hand or fetched.",
    ["operation"],
    buckets=_QUICK,
    registry=REGISTRY,
)
ATTEMPTS = Counter(
    "threadbridge_delivery_attempts", "Attempts to deliver, written down.", ["lane", "outcome"], registry=REGISTRY
)
DELIVERED_AGE = Histogram(
    "threadbridge_delivery_age_seconds",
    "From the moment at which a delivery was written down to the one at which it had arrived.",
    ["lane"],
    buckets=_SLOW,
    registry=REGISTRY,
)
FAN_OUT_SECONDS = Histogram(
    "threadbridge_fan_out_seconds", "Time to address one activity.", buckets=_SLOW, registry=REGISTRY
)
JOBS = Counter("threadbridge_jobs", "Jobs that were done, put off or failed.", ["kind", "outcome"], registry=REGISTRY)
JOB_SECONDS = Histogram("threadbridge_job_seconds", "Time of a job.", ["kind"], buckets=_SLOW, registry=REGISTRY)
READS = Counter(
    "threadbridge_reads", "Reads of connected accounts, ok or in trouble.", ["outcome"], registry=REGISTRY
)
DATABASE_SECONDS = Histogram(
    "threadbridge_database_seconds",
    "How long whoever asks the database waits, the queue included.",
    ["operation"],
    buckets=_QUICK,
    registry=REGISTRY,
)
_PROCESS = ProcessCollector(registry=REGISTRY)

_READY = REQUESTS.labels("ready document", "2xx")
_READING = DATABASE_SECONDS.labels("read")
_WRITING = DATABASE_SECONDS.labels("write")
_SIGNING = SIGNATURE_SECONDS.labels("sign")
_VERIFYING = SIGNATURE_SECONDS.labels("verify")


def lane_name(lane: int) -> str:
    """The name of a lane by its number."""
    return LANES[lane] if 0 <= lane < len(LANES) else "other"


def ready_document() -> None:
    """A document was answered as it lay there."""
    _READY.inc()


def request(route: str, status: int, seconds: float) -> None:
    """A request was answered. `route` as it is written in the table of routes."""
    _requests(route, status // 100).inc()
    _request_seconds(route).observe(seconds)


def activity(verb: str, outcome: str) -> None:
    """An activity had this outcome."""
    _activities(verb, outcome).inc()


def attempts(lane: int, outcome: str, count: int = 1) -> None:
    """Attempts to deliver ended like this."""
    _attempts(lane, outcome).inc(count)


def arrived(lane: int, seconds: float) -> None:
    """A delivery arrived, so long after it had been written down."""
    _delivered_age(lane).observe(max(seconds, 0))


def job(kind: str, outcome: str, seconds: float) -> None:
    """A job was done, put off or failed."""
    JOBS.labels(kind, outcome).inc()
    JOB_SECONDS.labels(kind).observe(seconds)


def read(outcome: str) -> None:
    """An account was read ('ok'), or could not be (the kind of trouble)."""
    READS.labels(outcome).inc()


class Timed:
    """Measures the block, whatever becomes of it. (A class, since this runs for every statement and signature.)"""

    __slots__ = ("_begun", "_histogram")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._histogram.observe(time.perf_counter() - self._begun)


def fanning_out() -> Timed:
    """An activity is being addressed."""
    return Timed(FAN_OUT_SECONDS)


def signing() -> Timed:
    """Something is being signed."""
    return Timed(_SIGNING)


def verifying() -> Timed:
    """A signature is being verified."""
    return Timed(_VERIFYING)


def asking(*, writes: bool) -> Timed:
    """The database is being asked."""
    return Timed(_WRITING if writes else _READING)


# Finding a series by its labels costs more than counting in it.


@lru_cache(maxsize=1024)
def _requests(route: str, hundreds: int) -> Counter:
    return REQUESTS.labels(route, f"{hundreds}xx")


@lru_cache(maxsize=1024)
def _request_seconds(route: str) -> Histogram:
    return REQUEST_SECONDS.labels(route)


@lru_cache(maxsize=1024)
def _activities(verb: str, outcome: str) -> Counter:
    return ACTIVITIES.labels(verb, outcome)


@lru_cache(maxsize=1024)
def _attempts(lane: int, outcome: str) -> Counter:
    return ATTEMPTS.labels(lane_name(lane), outcome)


@lru_cache(maxsize=64)
def _delivered_age(lane: int) -> Histogram:
    return DELIVERED_AGE.labels(lane_name(lane))


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Shared:
    """What the database knows, the same for every process. Ages in seconds."""

    waiting: Mapping[int, int]
    due: Mapping[int, int]
    age: Mapping[int, float]
    """By lane: deliveries that wait, those that could go now, the age of the oldest of these."""
    jobs: Mapping[tuple[str, str], int]
    """By (kind, 'waiting' or 'failed')."""
    hosts: Mapping[str, int]
    """By state of the breaker."""
    accounts_in_trouble: int
    last_read: float | None
    """Unix time of the last successful read of an account."""
    last_hour: Mapping[str, int]
    """Deliveries by how they ended within the last hour."""
    disk_free: int


def is_version(version: str) -> None:
    """Which version tells these figures."""
    # When each of them began is of no use to anybody, and doubles what is told.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD.labels(version).set(1)


def own() -> bytes:
    """The figures of this process, as Prometheus reads them."""
    return generate_latest(REGISTRY)


def shared(figures: Shared) -> bytes:
    """The figures that all processes share."""
    registry = CollectorRegistry()
    registry.register(_Told(figures))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, figures: Shared) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        told = self._figures
        yield _by(
            "threadbridge_backlog_deliveries",
            "Deliveries not over yet: all that wait, and those of them that could go now.",
            ["lane", "state"],
            [((name, "waiting"), told.waiting.get(lane, 0)) for lane, name in enumerate(LANES)]
            + [((name, "due"), told.due.get(lane, 0)) for lane, name in enumerate(LANES)],
        )
        yield _by(
            "threadbridge_backlog_age_seconds",
            "How long the oldest delivery that could go has been waiting for its turn.",
            ["lane"],
            [((name,), told.age.get(lane, 0.0)) for lane, name in enumerate(LANES)],
        )
        yield _by("threadbridge_jobs_kept", "Jobs by kind.", ["kind", "state"], sorted(told.jobs.items()))
        yield _by(
            "threadbridge_hosts",
            "Hosts that we deliver to, by state of their breaker.",
            ["state"],
            [((state,), count) for state, count in sorted(told.hosts.items())],
        )
        yield _by(
            "threadbridge_accounts_in_trouble",
            "Connected accounts that cannot be read.",
            [],
            [((), told.accounts_in_trouble)],
        )
        yield _by(
            "threadbridge_deliveries_last_hour",
            "Deliveries that ended within the last hour.",
            ["outcome"],
            [((outcome,), count) for outcome, count in sorted(told.last_hour.items())],
        )
        if told.last_read is not None:
            yield _by(
                "threadbridge_last_read_timestamp_seconds",
                "When an account was last read successfully.",
                [],
                [((), told.last_read)],
            )
        yield _by("threadbridge_disk_free_bytes", "Free space in the data folder.", [], [((), told.disk_free)])


def _by(
    name: str, about: str, labels: list[str], values: Sequence[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for given, value in values:
        family.add_metric(list(given), value)
    return family
