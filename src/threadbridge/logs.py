"""How the log looks: JSON for machines, one plain line for people. Set up once, at the door."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

from threadbridge.telemetry import trail
from threadbridge.telemetry.sampling import Sampler


def configure(
    log_format: str, *, debug: bool = False, quiet: bool = False, lines_per_minute: int | None = None
) -> None:
    """`log_format` is 'auto' (text on a terminal, JSON otherwise), 'json' or 'text'. `quiet` leaves out everything
    below a warning: commands that end say themselves what they did. With `lines_per_minute` lines of one kind that
    come more often are counted rather than written.

    Remote text goes into fields only, and both renderers escape control characters there, so that a name with a
    newline in it forges no log line.
    """
    json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        trail.mark,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*([] if lines_per_minute is None else [Sampler(lines_per_minute)]), *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving())),
        cache_logger_on_first_use=True,
    )
    # What libraries say looks the same, or whoever reads the log line by line stumbles over it.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    handler.addFilter(_no_cancellation)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Whoever knocks with something that is no HTTP is not worth a line each.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class _Forgiving:
    """Standard error, which may lie on a disk that is full: a line that cannot be written is lost, and what it was
    about goes on."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def _no_cancellation(record: logging.LogRecord) -> bool:
    """uvicorn reports each request that it cut off while shutting down as an error of the application."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
