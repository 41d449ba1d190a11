"""How the log looks: JSON for machines, one plain line for people. Set up once, at the door."""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog


def configure(log_format: str, *, debug: bool = False, quiet: bool = False) -> None:
    """`log_format` is 'auto' (text on a terminal, JSON otherwise), 'json' or 'text'. `quiet` leaves out everything
    below a warning: commands that end say themselves what they did.

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
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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


def _no_cancellation(record: logging.LogRecord) -> bool:
    """uvicorn reports each request that it cut off while shutting down as an error of the application."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
