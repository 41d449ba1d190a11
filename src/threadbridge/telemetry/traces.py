"""Traces for OpenTelemetry, when the operator wants them: `read`, `publish`, `fan_out`, `claim`, `send`, `settle`,
`inbox`.

Rule: without the extra `otel` and a `THREADBRIDGE_OTLP_ENDPOINT` a span is a shared object that does nothing, and no
library is imported. A trace has the id of the trail (`trail`), so that what one process wrote down and another
carries out is one trace, and the log and the trace are found by the same name. Attributes are numbers and our own
words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from threadbridge.errors import BadConfiguration
from threadbridge.telemetry import trail

_NOTHING: AbstractContextManager[None] = nullcontext()
_tracer: Any = None
_provider: Any = None


def configure(endpoint: str, version: str) -> None:
    """Send traces to an OTLP collector over HTTP (`http://collector:4318`). Raises BadConfiguration without the
    extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise BadConfiguration(
            "THREADBRIDGE_OTLP_ENDPOINT needs the extra 'otel'",
            hint="Install it: pip install 'threadbridge[otel]'.",
        ) from None
    provider = TracerProvider(
        resource=Resource.create({"service.name": "threadbridge", "service.version": version}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    use(provider)


def use(provider: Any) -> None:
    """Take spans to this provider of the OpenTelemetry SDK; None for nowhere."""
    global _tracer, _provider  # noqa: PLW0603 (one process, one place where its traces go)
    _provider = provider
    _tracer = provider.get_tracer("threadbridge") if provider is not None else None


def end() -> None:
    """Send what is left, and trace no more."""
    if _provider is not None:
        _provider.shutdown()
    use(None)


def span(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    """A piece of work, for as long as the block runs. What the block raises is an event of the span."""
    return _NOTHING if _tracer is None else _span(name, attributes)


@contextmanager
def _span(name: str, attributes: dict[str, str | int]) -> Iterator[None]:
    from opentelemetry import trace

    context = None
    held = trail.current()
    above = trace.get_current_span().get_span_context()
    if held is not None and (not above.is_valid or f"{above.trace_id:032x}" != held):
        # What stands above was somewhere else, or in another process: its place is known by the trail alone.
        parent = trace.SpanContext(
            int(held, 16), int(held[:16], 16) or 1, is_remote=True, trace_flags=trace.TraceFlags(1)
        )
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    with _tracer.start_as_current_span(name, context=context, attributes=attributes):
        yield
