"""Set up the logs: structured, on stderr, so that stdout carries results alone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import structlog

Format = Literal["auto", "console", "json"]


@dataclass
class _Asked:
    """What `configure` was told last; structlog hears of it with the first line that is told."""

    level: int = logging.WARNING
    log_format: Format = "auto"
    is_heard: bool = False


_asked = _Asked()


def configure(*, verbosity: int = 0, log_format: Format = "auto") -> None:
    """Send every log line to stderr; warnings by default, -v informs, -vv debugs."""
    _asked.level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    _asked.log_format, _asked.is_heard = log_format, False


_ids: ContextVar[dict[str, object] | None] = ContextVar("ids", default=None)


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Put these into every line that is told within the block: what deployment, build, revision."""
    # Ours, not structlog's, which is not loaded unless a line is told.
    token = _ids.set({**(_ids.get() or {}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


@dataclass(frozen=True)
class Logger:
    """Tells lines of the level that was asked for. Most runs tell none, and structlog is not loaded.

    It takes as long as a third of `migrator status`.
    """

    bound: dict[str, object] = field(default_factory=dict)

    def debug(self, event: str, **fields: object) -> None:
        self._tell(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._tell(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._tell(logging.WARNING, event, fields)

    def _tell(self, level: int, event: str, fields: dict[str, object]) -> None:
        if level >= _asked.level:
            ids = {**(_ids.get() or {}), **self.bound}
            _structlog().get_logger(**ids).log(level, event, **fields)


def logger(**bound: object) -> Logger:
    """Give a logger that tells warnings alone until `configure` says otherwise, on stderr."""
    return Logger(bound)


def _structlog() -> Any:
    import structlog

    if _asked.is_heard:
        return structlog
    _asked.is_heard = True
    log_format = _asked.log_format
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_asked.level),
        # stderr as it is at the time of the line, not at the time of this call.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    return structlog


def _unchanged(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return event
