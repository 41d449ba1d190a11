"""Probes answer by address; readiness fails in words; figures are told to those whom the settings let in, and name no
host and no handle; the status page tells everybody how late deliveries are."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text, update
from tests.rig import Bridge, Served, Stranger, eventually, free_socket, running_bridge

from threadbridge.config import load
from threadbridge.domain.hosts import Memory, standing
from threadbridge.errors import BadConfiguration
from threadbridge.storage import figures, ledger, migrate, schema
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.turns import Backlog
from threadbridge.telemetry import metrics
from threadbridge.web import standing as standings
from threadbridge.web.standing import in_words, why_not


def waiting(tx: Tx, account_id: int, *, lane: int, ago: float, host: str = "far.example") -> None:
    """A delivery that has been due for so long."""
    due_at = tx.now - timedelta(seconds=ago)
    uri = f"https://bridge.example/{time.monotonic_ns()}"
    number = ledger.add_activity(tx, account_id=account_id, uri=uri, kind="Create", order_key=uri, body=b"{}")
    assert number is not None
    said = ledger.activity(tx, number)
    assert said is not None
    ledger.add_deliveries(tx, said, [(f"https://{host}/inbox", host)], lane=lane, due_at=due_at)


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with running_bridge(tmp_path_factory.mktemp("probes"), worker=False) as running:
        running.account("carol")
        yield running


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standings, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(standings, "IDLE_TIMES", 0)
    monkeypatch.setattr(standings, "ASKED_SECONDS", 0.0)


# ── ready ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_late_posts_make_it_unready_and_late_bulk_does_not(bridge: Bridge) -> None:
    store = bridge.ground.store
    assert bridge.get("/readyz").text == "ok\n"
    store.transact_now(waiting, 1, lane=ledger.LANE_BULK, ago=100_000)
    assert bridge.get("/readyz").status_code == 200
    store.transact_now(waiting, 1, lane=ledger.LANE_POST, ago=1000)
    answer = bridge.get("/readyz")
    assert answer.status_code == 503
    assert re.search(r"new posts have waited 1,00\d s for their turn: is a worker running\?", answer.text)
    assert answer.headers["retry-after"] == "10"
    assert bridge.get("/livez").status_code == 200
    assert bridge.get("/readyz?backlog=no").status_code == 200
    told = bridge.get("/status.json").json()
    assert told["words"][0] == "New posts and answers are 17 minutes behind."
    assert 1000 <= told["lanes"]["post"]["age_seconds"] < 1100
    page = bridge.get("/status", accept="text/html")
    assert page.headers["content-type"].startswith("text/html")
    assert "New posts and answers are 17 minutes behind." in page.text
    assert "far.example" not in page.text + str(told)
    store.transact_now(_everything_arrived)
    assert bridge.get("/readyz").status_code == 200
    assert bridge.get("/status.json").json()["words"][0] == "New posts and answers leave at once."


def _everything_arrived(tx: Tx) -> None:
    tx.execute(update(schema.deliveries).values(state="delivered", ended_at=tx.now))


def test_an_older_database_makes_it_unready(bridge: Bridge) -> None:
    store = bridge.ground.store
    newest = store.read_now(lambda tx: tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    assert store.read_now(migrate.is_newest)
    store.transact_now(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '0001'")).rowcount)
    try:
        answer = bridge.get("/readyz")
        assert answer.status_code == 503
        assert "does not have the form that this program expects" in answer.text
    finally:
        store.transact_now(
            lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": newest}).rowcount
        )
    assert bridge.get("/readyz").status_code == 200


def test_a_database_that_is_away_makes_it_unready_and_not_dead(tmp_path: Path) -> None:
    with running_bridge(tmp_path, worker=False) as broken:
        assert broken.get("/readyz").status_code == 200
        file = broken.ground.store.file
        assert file is not None
        broken.ground.store._readers.dispose()
        aside = file.with_name("aside")
        file.rename(aside)
        file.mkdir()
        try:
            answer = broken.get("/readyz")
            assert answer.status_code == 503
            assert answer.text.startswith("not ready\nthe database cannot be asked: ")
            assert str(tmp_path) not in answer.text
            assert broken.get("/livez").status_code == 200
            own = broken.get(f"/metrics?{time.monotonic_ns()}")
            assert own.status_code == 200
            assert "threadbridge_http_requests_total" in own.text
            assert broken.get("/metrics?collect=shared").status_code == 503
        finally:
            file.rmdir()
            aside.rename(file)
        eventually(lambda: broken.get("/readyz").status_code == 200)


def test_what_is_judged(tmp_path: Path) -> None:
    config = load(data_dir=tmp_path, ready_free_bytes=1_000_000_000)
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def found(**lanes: Backlog) -> figures.Standing:
        numbers = {name: number for number, name in enumerate(metrics.LANES)}
        by_number = {numbers[name]: lane for name, lane in lanes.items()}
        return figures.Standing(at, by_number, {}, {}, {}, at - timedelta(hours=1), 3, 1)

    late = found(answer=Backlog(9, 8, 901.0), change=Backlog(5, 5, 9000.0))
    reasons = why_not(config, is_newest=True, free=999_000_000, standing=late)
    assert [reason.partition(":")[0] for reason in reasons] == [
        "only 999 MB are free in the data folder",
        "answers have waited 901 s for their turn",
    ]
    never = config.model_copy(update={"ready_backlog_seconds": 0.0})
    assert not why_not(never, is_newest=True, free=10**10, standing=late)
    assert in_words(late) == [
        "New posts and answers are 15 minutes behind.",
        "Edits and deletions are 2.5 hours behind.",
        "1 delivery waits for what goes before it.",
        "Accounts are not being read: new posts are not seen.",
        "1 account cannot be read.",
    ]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def scrape(bridge: Bridge, query: str = "", **headers: str) -> httpx2.Response:
    return httpx2.get(f"{bridge.base}/metrics{query}", headers=headers, trust_env=False)


def value(told: str, name: str, **labels: str) -> float:
    """The value of one series; 0 where there is none."""
    for line in told.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")) == labels:
            return float(found[2])
    return 0.0


def test_figures_count_what_is_done_and_name_nobody(tmp_path: Path) -> None:
    with running_bridge(tmp_path) as bridge:
        sock = free_socket()
        bob = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name="robertson")
        served = Served(bridge.loop, bob.create_app(), sock)
        bridge.account("caroline")
        before = scrape(bridge).text
        actor = f"{bridge.base}/ap/users/1"
        assert bob.post(f"{actor}/inbox", bob.activity("Follow", actor)).status_code == 202
        eventually(lambda: bob.of_kind("Accept"))
        forged = bob.post(f"{actor}/inbox", bob.activity("Like", actor), digest="SHA-256=" + "A" * 43 + "=")
        assert forged.status_code in (400, 401)
        for _ in range(3):
            assert bridge.get(actor).status_code == 200
        assert bridge.get("/@nobody-of-that-name", accept="text/html").status_code == 404
        bridge.get("/wp-login.php")

        def grown(name: str, **labels: str) -> float:
            return value(scrape(bridge).text, name, **labels) - value(before, name, **labels)

        sent = "threadbridge_delivery_attempts_total"
        eventually(lambda: grown(sent, lane="answer", outcome="delivered") == 1)
        assert grown("threadbridge_delivery_age_seconds_count", lane="answer") == 1
        assert grown("threadbridge_inbox_activities_total", verb="Follow", outcome="done") == 1
        assert grown("threadbridge_inbox_activities_total", verb="Like", outcome="refused") == 1
        assert grown("threadbridge_signature_seconds_count", operation="sign") >= 1
        assert grown("threadbridge_signature_seconds_count", operation="verify") >= 1
        assert grown("threadbridge_database_seconds_count", operation="write") >= 2
        route = "/ap/users/{account:number}/inbox"
        assert grown("threadbridge_http_requests_total", route=route, status="2xx") == 1
        assert grown("threadbridge_http_requests_total", route=route, status="4xx") == 1
        assert grown("threadbridge_http_requests_total", route="/@{handle}", status="4xx") == 1
        assert grown("threadbridge_http_requests_total", route="none", status="4xx") == 1
        assert grown("threadbridge_http_requests_total", route="ready document", status="2xx") >= 1
        eventually(lambda: value(scrape(bridge).text, "threadbridge_deliveries_last_hour", outcome="delivered") == 1)
        told = scrape(bridge).text
        assert value(told, "threadbridge_hosts", state="closed") == 1
        assert value(told, "threadbridge_disk_free_bytes") > 0
        assert value(told, "threadbridge_build_info", version=bridge.get("/status.json").json()["version"]) == 1
        assert bridge.get("/status.json").json()["deliveries_last_hour"]["delivered"] == 1
        for name in ("127.0.0.1", "robertson", "caroline", "nobody-of-that-name", "wp-login"):
            assert name not in told
        assert "threadbridge_hosts" not in scrape(bridge, "?collect=process").text
        assert "threadbridge_http_requests_total" not in scrape(bridge, "?collect=shared").text
        assert scrape(bridge, "?collect=hosts").status_code == 400
        served.stop()


def test_on_this_machine_only_unless_the_operator_says_otherwise(bridge: Bridge) -> None:
    assert scrape(bridge).status_code == 200
    port = bridge.authority.partition(":")[2]
    assert scrape(bridge, Host=f"localhost:{port}").status_code == 200
    before = bridge.everything()
    # What a proxy on this machine passes on in somebody's name, and a page whose name was pointed at this machine.
    for headers in (
        {"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.7"}, {"X-Real-IP": "203.0.113.7"},
        {"Via": "1.1 proxy"}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "bridge.example"}, {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
    ):  # fmt: skip
        refused = scrape(bridge, **headers)
        assert refused.status_code == 404, headers
        assert "threadbridge_" not in refused.text
    assert bridge.everything() == before


@pytest.mark.parametrize("who", ["off", "open", "token"])
def test_the_operator_says_who_may_read_them(tmp_path: Path, who: str) -> None:
    token: Any = "a token of many letters" if who == "token" else None
    with running_bridge(tmp_path, worker=False, metrics=who, metrics_token=token) as bridge:
        forwarded = {"X-Forwarded-For": "203.0.113.7", "Host": "10.0.0.7:9000"}
        wanted = {"off": (404, 404), "open": (200, 200), "token": (403, 403)}[who]
        assert (scrape(bridge).status_code, scrape(bridge, **forwarded).status_code) == wanted
        if who == "token":
            for wrong in ("", "Bearer", "Bearer a token of many letterS", "Basic a token of many letters"):
                assert scrape(bridge, Authorization=wrong).status_code == 403
            assert scrape(bridge, Authorization=f"Bearer {token}", **forwarded).status_code == 200
            assert token not in repr(bridge.services.config)


def test_a_token_has_to_be_set_and_long(tmp_path: Path) -> None:
    for token in (None, "", "short"):
        with pytest.raises(BadConfiguration, match="METRICS_TOKEN of at least 16 characters"):
            load(data_dir=tmp_path, metrics="token", metrics_token=token)
    with pytest.raises(BadConfiguration, match="THREADBRIDGE_METRICS"):
        load(data_dir=tmp_path, metrics="everybody")
    with pytest.raises(BadConfiguration, match="OTLP_ENDPOINT"):
        load(data_dir=tmp_path, otlp_endpoint="collector:4318")


def test_the_status_is_kept_for_seconds_and_read_by_anybody(bridge: Bridge) -> None:
    for path, accept in (("/status", "text/html"), ("/status.json", "application/json")):
        answer = bridge.get(path, accept=accept)
        assert answer.headers["cache-control"] == "public, max-age=5"
        same = bridge.get(path, accept=accept, **{"If-None-Match": answer.headers["etag"]})
        assert same.status_code in (200, 304)
    assert bridge.get("/status.json").headers["access-control-allow-origin"] == "*"


# ── in the database ──────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_are_counted_by_process_and_forgotten_after_a_day(store: Store) -> None:
    at = datetime(2026, 5, 1, 12, 30, 40, tzinfo=UTC)
    clock = [at - timedelta(hours=30)]
    store.clock = lambda: clock[0]

    def done(process: str, *outcomes: tuple[str, int]) -> None:
        store.transact_now(figures.count, process, figures.DELIVER, outcomes)

    done("a", ("delivered", 1000))
    clock[0] = at - timedelta(minutes=61)
    done("a", ("delivered", 100))
    clock[0] = at
    for process in ("a", "b"):
        done(process, ("delivered", 3), ("refused", 1), ("gone", 0))
        done(process, ("delivered", 4))
    store.transact_now(figures.count, "a", figures.READ, [("ok", 1)])
    assert store.read_now(figures.last_hour) == {"delivered": 14, "refused": 2}
    assert store.read_now(figures.last, figures.READ, "ok") == at
    assert store.read_now(figures.last, figures.READ, "sign_in_again") is None

    def rows(tx: Tx) -> int:
        return len(tx.execute(schema.figures.select()).all())

    assert store.read_now(rows) == 7
    store.transact_now(figures.forget)
    assert store.read_now(rows) == 6
    assert {lane.waiting for lane in store.read_now(figures.standing).lanes.values()} == {0}


def test_states_of_hosts_are_those_of_the_house(store: Store) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    store.clock = lambda: at
    before, after = at - timedelta(hours=1), at + timedelta(hours=1)
    memories: list[dict[str, Any]] = [
        {}, {"failures": 2}, {"failures": 9, "held_until": after}, {"failures": 9, "held_until": before},
        {"asked_until": after}, {"asked_until": before}, {"quota": 0, "quota_until": after},
        {"quota": 3, "quota_until": after}, {"parked_at": before, "held_until": after},
    ]  # fmt: skip

    def add(tx: Tx) -> None:
        for number, memory in enumerate(memories):
            tx.execute(schema.hosts.insert().values(host=f"{number}.example", **memory))

    store.transact_now(add)
    wanted = Counter(standing(Memory(**memory), at).state for memory in memories)
    assert store.read_now(figures.standing).hosts == dict(wanted)
