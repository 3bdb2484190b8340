"""Set up the logs: structured, on stderr, so that stdout carries results alone."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

Format = Literal["auto", "console", "json"]


def configure(*, verbosity: int = 0, log_format: Format = "auto") -> None:
    """Send every log line to stderr; warnings by default, -v informs, -vv debugs."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # stderr as it is at the time of the line, not at the time of this call.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger(**bound: object) -> Any:
    """Give a logger that tells warnings alone until `configure` says otherwise, on stderr.

    structlog's own default would print everything, and on stdout.
    """
    if not structlog.is_configured():
        configure()
    return structlog.get_logger(**bound)


def _unchanged(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return event
