"""How the log looks: JSON for machines, one plain line for people. Set up once, at the door."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(log_format: str, *, debug: bool = False) -> None:
    """`log_format` is 'auto' (text on a terminal, JSON otherwise), 'json' or 'text'.

    Remote text goes into fields only, and both renderers escape control characters there, so that a name with a
    newline in it forges no log line.
    """
    json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Whoever knocks with something that is no HTTP is not worth a line each.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
