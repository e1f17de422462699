"""Logs. They get no personal data: only ids, states, reasons and counts."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from worker import sentry
from worker.harmless import harmless
from worker.settings import Settings

_SHARED = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def set_up(settings: Settings, process: str) -> None:
    """Logs go to stderr, what a person must know to Sentry. Called once a process, by its entry point."""
    set_up_logs(settings)
    structlog.contextvars.bind_contextvars(process=process)
    sentry.set_up(settings, process)


def _show(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Nothing hidden, and no line that looks like another entry. JSON escapes all of that."""
    lines = {"exception": "\n"}
    return {name: harmless(one, lines.get(name, "")) if isinstance(one, str) else one for name, one in entry.items()}


def set_up_logs(settings: Settings) -> None:
    """structlog and the standard library's loggers write the same lines to stderr."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    rendering: list[Any] = (
        [_show, structlog.dev.ConsoleRenderer()] if console else [structlog.processors.JSONRenderer()]
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    for ours in ("tasks", "worker"):
        logging.getLogger(ours).setLevel(level)  # only ours: what a library tells in detail may be personal
    for chatty in ("celery.worker.strategy", "celery.app.trace", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # a line for each hint is of no use; Flower shows them
    logging.getLogger("celery.beat").addFilter(lambda record: "Sending due task" not in str(record.msg))
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # below that it logs URLs, and those name students
