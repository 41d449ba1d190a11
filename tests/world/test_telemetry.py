"""What telemetry does by itself: ids that follow work into threads and transactions, lines that are counted instead
of written, traces that cost nothing until somebody wants them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import select
from tests.rig import eventually
from tests.stories.bridged_account import place

from threadbridge.errors import Conflict
from threadbridge.storage import jobs, schema
from threadbridge.storage.store import Store, Tx
from threadbridge.telemetry import traces, trail
from threadbridge.telemetry.sampling import Sampler

# ── ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_id_goes_into_transactions_of_many_at_once(store: Store) -> None:
    def seen(tx: Tx, number: int) -> tuple[str | None, str]:
        jobs.add(tx, "prune", str(number))
        return trail.current(), tx.trail

    async def one(number: int) -> None:
        with trail.begin() as begun:
            assert await store.transact(seen, number) == (begun, begun)
            assert await store.read(lambda tx: tx.trail) == begun
            kept = await store.read(
                lambda tx: tx.execute(
                    select(schema.jobs.c.trail).where(schema.jobs.c.key == str(number))
                ).scalar_one()
            )
            assert kept == begun
        assert trail.current() is None

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(30)))

    asyncio.run(all_of_them())
    held = store.transact_now(jobs.take, ["prune"], 8, 100)
    assert len({job.trail for job in held}) == 30
    # Outside of everything a transaction has an id of its own, one.
    assert len(store.transact_now(lambda tx: {tx.trail, tx.trail})) == 1


def test_what_is_told_after_the_commit_is_not_told_of_what_never_was(store: Store) -> None:
    told: list[str] = []

    def work(tx: Tx, name: str, fails: bool) -> None:
        jobs.add(tx, "prune", name)
        tx.after_commit(lambda: told.append(name))
        tx.after_commit(lambda: 1 // 0)
        if fails:
            raise Conflict("no")

    store.transact_now(work, "kept", False)
    with pytest.raises(Conflict):
        store.transact_now(work, "taken back", True)
    eventually(lambda: told)
    store.transact_now(work, "kept too", False)
    eventually(lambda: told == ["kept", "kept too"])


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_that_repeat_are_counted_and_trouble_never_is() -> None:
    now = [0.0]
    sampler = Sampler(2, lambda: now[0])

    def told(method: str, **event: Any) -> dict[str, Any] | None:
        try:
            return dict(sampler(None, method, dict(event)))
        except structlog.DropEvent:
            return None

    refused = {"event": "request refused", "reason": "bad digest"}
    assert [told("info", **refused) for _ in range(5)] == [refused, refused, None, None, None]
    assert told("info", event="request refused", reason="no signature")
    assert told("info", event="heard", kind="Like")
    assert all(told("warning", **refused) for _ in range(10))
    assert all(told("info", event="deliveries settled", delivered=1) for _ in range(10))
    now[0] = 60.0
    assert told("info", **refused) == {**refused, "left_out": 3}
    assert told("info", **refused) == refused
    assert told("info", **refused) is None


def test_the_log_bears_the_id_and_what_a_stranger_says_does_not_count(tmp_path: Path) -> None:
    program = """
import structlog
from threadbridge import logs
from threadbridge.telemetry import trail
logs.configure("json", lines_per_minute=3)
log = structlog.get_logger()
with trail.follow("a" * 32):
    for _ in range(5):
        log.info("heard", kind="Like", said="x\\n{\\"trail\\": \\"forged\\"}")
    log.warning("something")
log.info("outside")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line.get("trail")) for line in lines] == [
        ("heard", "a" * 32), ("heard", "a" * 32), ("heard", "a" * 32), ("something", "a" * 32), ("outside", None),
    ]  # fmt: skip


# ── traces ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.use(provider)
    yield exporter
    traces.end()


def test_a_post_is_one_trace_from_reading_to_settling(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    with place(tmp_path) as here:
        here.followed()
        here.heard("Accept")
        here.threads.post("Traced")
        here.heard("Create")

        def of(name: str) -> list[Any]:
            return [span for span in spans.get_finished_spans() if span.name == name]

        published = eventually(lambda: [s for s in of("publish") if s.attributes["kind"] == "Create"])[0]
        trace_id = published.context.trace_id
        wanted = {"read", "publish", "fan_out", "send"}
        eventually(lambda: wanted <= {s.name for s in spans.get_finished_spans() if s.context.trace_id == trace_id})
        asked = schema.activities.c
        kept = here.bridge.ground.store.read_now(
            lambda tx: tx.execute(select(asked.trail).where(asked.kind == "Create")).scalar_one()
        )
        assert f"{trace_id:032x}" == kept
        # The Follow and its Accept are another one, through the door.
        accepted = next(s for s in of("publish") if s.attributes["kind"] == "Accept")
        assert accepted.context.trace_id != trace_id
        assert any(s.context.trace_id == accepted.context.trace_id for s in of("inbox"))
        assert any(s.context.trace_id == accepted.context.trace_id for s in of("send"))
        assert of("claim")
        assert eventually(lambda: of("settle"))
        told = json.dumps([dict(s.attributes or {}) for s in spans.get_finished_spans()])
        assert "127.0.0.1" not in told
        assert "bob" not in told


def test_without_anybody_who_wants_them_nothing_is_imported() -> None:
    program = """
import sys, threadbridge.cli, threadbridge.server
from threadbridge.telemetry import traces
assert traces.span("send", lane=1) is traces.span("claim")
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_it_is_said_in_words(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["opentelemetry.exporter"] = None
from threadbridge.errors import BadConfiguration
from threadbridge.telemetry import traces
try:
    traces.configure("http://127.0.0.1:4318", "1")
except BadConfiguration as error:
    assert "pip install 'threadbridge[otel]'" in str(error), error
else:
    raise SystemExit("it was configured")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_spans_are_sent_to_a_collector() -> None:
    """Over HTTP, as a process with a THREADBRIDGE_OTLP_ENDPOINT does it."""
    program = """
import http.server, threading
got = []
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
from threadbridge.telemetry import traces, trail
traces.configure(f"http://127.0.0.1:{server.server_port}/", "1.2.3")
with trail.begin(), traces.span("read"):
    pass
traces.end()
assert got and got[0][0] == "/v1/traces", got
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
