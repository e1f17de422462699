"""Logs and Sentry. Neither gets personal data: only ids, states, reasons and counts."""

import logging
import sys
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.integrations.celery import CeleryIntegration

from worker.settings import Settings

_SHARED = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def set_up(settings: Settings, process: str) -> None:
    """Logs go to stderr, bugs to Sentry. Called once a process, by its entry point."""
    set_up_logs(settings)
    structlog.contextvars.bind_contextvars(process=process)
    if settings.sentry_dsn is not None:
        sentry_sdk.init(
            dsn=settings.sentry_dsn.get_secret_value(),
            # Each of these keeps payloads out: frames hold them, messages and breadcrumbs could quote them.
            include_local_variables=False,
            send_default_pii=False,
            max_breadcrumbs=0,
            default_integrations=False,
            integrations=[CeleryIntegration()],
            before_send=_without_values,
        )


def _without_values(event: Any, _hint: Any) -> Any:
    """An event with the types of its exceptions, but only our own messages: others may quote personal data."""
    for exception in event.get("exception", {}).get("values", ()):
        if not (exception.get("module") or "").startswith("worker."):
            exception["value"] = "(message withheld: it may quote personal data)"
    event.pop("extra", None)
    event.pop("logentry", None)
    return event


def set_up_logs(settings: Settings) -> None:
    """structlog and the standard library's loggers write the same lines to stderr."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("celery.worker.strategy", "celery.app.trace", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # a line for each hint is of no use; Flower shows them
    logging.getLogger("celery.beat").addFilter(lambda record: "Sending due task" not in str(record.msg))
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # below that it logs URLs, and those name students


def report_bug(error: BaseException, **tags: str) -> None:
    """Report to Sentry and to the log, with the ids of what was being done as tags."""
    with sentry_sdk.new_scope() as scope:
        for name, value in tags.items():
            scope.set_tag(name, value)
        sentry_sdk.capture_exception(error)
    structlog.get_logger().error("bug.caught", error=type(error).__name__, where=_where(error), **tags)


def _where(error: BaseException) -> str:
    """The innermost frame: file and line, no values."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
