"""Sentry: bugs, the first result of a reason and day that a person must see, the sweep's check-ins, traces.

Nothing personal: ids, states, reasons, types of exceptions and the places in the code where they were raised.
"""

import atexit
import hashlib
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import sentry_sdk
import structlog
from sentry_sdk.tracing import Transaction

from worker.settings import Settings, running_version

#: A process reports one kind of bug so often within so many seconds: one that meets 10,000 events is told by a handful.
_REPORTS: Final = (3, 600.0)
#: A monitor expects one check-in a minute, and takes no shorter interval.
_CHECK_INS: Final = (1, 60.0)
_MONITOR: Final[Any] = {"schedule": {"type": "interval", "value": 1, "unit": "minute"}, "checkin_margin": 2}
#: When what was reported, by its kind.
_reported: Final[dict[tuple[str, ...], list[float]]] = {}


def set_up(settings: Settings, process: str) -> None:
    """Begin to report, if SENTRY_DSN is set."""
    if settings.sentry_dsn is not None:
        sentry_sdk.init(
            dsn=settings.sentry_dsn.get_secret_value(),
            release=f"examrelay@{running_version()}",
            environment=settings.sentry_environment,
            traces_sample_rate=settings.sentry_traces_sample_rate or None,
            # Each of these keeps payloads out: frames hold them, messages and breadcrumbs could quote them, and
            # integrations report the arguments of tasks.
            include_local_variables=False,
            send_default_pii=False,
            max_breadcrumbs=0,
            default_integrations=False,
            before_send=without_values,
        )
        sentry_sdk.set_tag("process", process)
        atexit.register(flush)


def flush(**_: object) -> None:
    """Send what is still here, before a process ends."""
    sentry_sdk.flush(2)


def listens() -> bool:
    """Whether anything is reported."""
    return sentry_sdk.get_client().is_active()


def without_values(event: Any, _hint: Any) -> Any:
    """An event with the types of its exceptions, but only our own messages: others may quote personal data."""
    for exception in event.get("exception", {}).get("values", ()):
        if not (exception.get("module") or "").startswith("worker."):
            exception["value"] = "(message withheld: it may quote personal data)"
    event.pop("extra", None)
    event.pop("logentry", None)
    return event


def report_bug(error: BaseException, **tags: str) -> None:
    """Report to Sentry, unless this kind was reported lately, and to the log; with what was being done as tags."""
    raised = [*traceback.walk_tb(error.__traceback__)][-1:]  # the innermost frame, and its line
    places = (f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}" for frame, _ in raised)
    kind = ("bug", type(error).__name__, *places)
    if _due(kind, *_REPORTS):
        with sentry_sdk.new_scope() as scope:
            scope.fingerprint = list(kind)
            scope.set_tags(structlog.contextvars.get_contextvars() | tags)
            sentry_sdk.capture_exception(error)
    where = "".join(f"{frame.f_code.co_filename}:{line}" for frame, line in raised)
    structlog.get_logger().error("bug.caught", error=type(error).__name__, where=where, **tags)


def report_stopped(tags: Mapping[str, str]) -> None:
    """Report the first event of a day that a person must see for a reason."""
    with sentry_sdk.new_scope() as scope:
        scope.fingerprint = ["stopped", tags["state"], tags["reason"]]
        scope.set_tags(tags)
        sentry_sdk.capture_message(f"the first {tags['state']} result today: {tags['reason']}", "warning")


def check_in() -> None:
    """Tell Sentry's monitor that a sweep went through. It reports that none did; why, the bug says."""
    if listens() and _due(("check-in",), *_CHECK_INS):
        sentry_sdk.crons.capture_checkin("examrelay-sweep", status="ok", monitor_config=_MONITOR)


def _due(kind: tuple[str, ...], most: int, seconds: float) -> bool:
    """Whether this kind may be reported now: `most` times in so many seconds."""
    now = time.monotonic()
    lately = [at for at in _reported.get(kind, ()) if now - at < seconds]
    _reported[kind] = lately if len(lately) >= most else [*lately, now]
    return len(lately) < most


def _ids(event_id: str, rate: float) -> tuple[str, str] | None:
    """The ids of an event's trace and of its first span, made of the event's: nothing has to be handed on.

    None when it is not among those that are traced.
    """
    digest = hashlib.sha256(event_id.encode()).hexdigest()
    return (digest[:32], digest[32:48]) if int(digest[48:], 16) < rate * 16**16 else None


def _rate() -> float:
    return sentry_sdk.get_client().options.get("traces_sample_rate") or 0 if listens() else 0


def received(event_id: str, began: float, **tags: str) -> None:
    """The beginning of a result's trace, if it is traced: the receiver has recorded it; `began`: when (Unix time)."""
    if (rate := _rate()) and (ids := _ids(event_id, rate)):
        span = Transaction("receiver", True, op="http.server", trace_id=ids[0], span_id=ids[1], start_timestamp=began)
        with sentry_sdk.new_scope() as scope, sentry_sdk.start_transaction(span):
            scope.set_tags(tags)


@contextmanager
def traced(event_ids: Iterable[str]) -> Iterator[None]:
    """Around a batch: it goes on with the trace of the first of its events that has one."""
    rate = _rate()
    ids = next((ids for id in event_ids if (ids := _ids(id, rate))), None) if rate else None
    if ids is None:
        yield
        return
    span = Transaction("batch", True, op="queue.process", trace_id=ids[0], parent_span_id=ids[1])
    with sentry_sdk.new_scope() as scope, sentry_sdk.start_transaction(span):
        scope.set_tags(structlog.contextvars.get_contextvars())
        yield


def called(call: str, status: int | None, seconds: float) -> None:
    """A call to Rhythm has ended: a span, if its batch is traced."""
    if span := sentry_sdk.get_current_span():
        child = span.start_child(op="http.client", name=call, start_timestamp=time.time() - seconds)
        child.set_http_status(status or 504)
        child.finish()
