"""receive: takes results from a Celery client that has none of our code. The only message that carries a payload.

The payload is recorded as the receiver would. A message that names no tenant or source we have is kept as a stray, and
one that cannot be recorded now goes back to the queue. Its request hides the arguments from events, inspect and logs.
"""

import inspect
import random
import time
from contextlib import suppress
from typing import Any, Final

import structlog
from celery import shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.worker.request import Request
from kombu.utils.json import dumps

from worker import enqueue, queues
from worker.bootstrap import services
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable
from worker.ledger import strays
from worker.sentry import report_bug

#: Shown in place of arguments. If it were empty, Celery would show the arguments.
HIDDEN: Final = "(hidden)"
#: The pause before a message goes back to the queue, where it is popped again at once.
PAUSE_SECONDS: Final = 1.0
#: The headers that are kept of a message. Others could make it expire, wait, or show what it holds.
_HEADERS: Final = ("id", "task", "lang", "origin", "root_id", "parent_id", "retries")

_LOG = structlog.get_logger()


class KeptAsStray(Exception):
    """Shows a task as FAILURE in Flower. The message is safe, sealed, in `er:strays`; the text quotes nothing of it."""


class HiddenRequest(Request):
    """A request that hides its arguments, and that cannot expire, wait, be revoked or be terminated."""

    def __init__(
        self, message: Any, *, headers: Any = None, body: Any = None, decoded: bool = False, **more: Any
    ) -> None:
        sent = headers or message.headers
        args, kwargs, _ = body if decoded else message.payload
        kept = {name: sent.get(name) for name in _HEADERS} | {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
        # As two positional arguments: Celery cannot hand every keyword (`self`) to a task.
        super().__init__(message, headers=kept, body=([args, kwargs], {}, {}), decoded=True, **more)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `inspect` and Flower's worker page show."""
        return {**super().info(safe=True), "args": HIDDEN, "kwargs": HIDDEN}

    def revoked(self) -> bool:
        """Never: nobody can throw a result away by the id of its message."""
        return False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Does nothing: recording must not be interrupted."""


@shared_task(
    name=queues.RECEIVE,
    Request=HiddenRequest,
    typing=False,
    time_limit=queues.OTHER_TASK_SECONDS,
    acks_on_timeout=False,  # back to the queue
    throws=(Exception,),  # Celery itself logs nothing; this module logs what is safe
)
def receive(args: list[Any], kwargs: dict[str, Any]) -> None:
    """`tasks.receive(tenant, source, body, path=None)`, as its request hands it on. Recorded once this has run."""
    task = str(receive.request.id)
    try:
        _record(task, args, kwargs)
    except KeptAsStray:
        raise
    except Exception as error:  # noqa: BLE001  # any bug: neither recorded nor a stray, so back to the queue
        _LOG.warning("receive.put_back", task=task, why=type(error).__name__)
        with suppress(SoftTimeLimitExceeded):
            time.sleep(PAUSE_SECONDS * (1 + random.random()))  # jitter
        raise Reject("not recordable now: back to the queue", requeue=True) from None


def _record(task: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Record, or keep as a stray (raises KeptAsStray). Any other exception: it could not be kept now."""
    try:
        enqueue(**bound(args, kwargs))
    except Unacceptable as refused:
        why = str(refused)
    except (LedgerUnavailable, ConfigurationError, SoftTimeLimitExceeded):
        raise
    except Exception as error:  # noqa: BLE001  # it would fail each time, so a person has to look
        report_bug(error, task=task)
        why = f"a bug of ours: {type(error).__name__}"
    else:
        return
    at = services()
    id = strays.keep(at.redis, at.ledger.sealer, why, task, dumps([args, kwargs]).encode())
    _LOG.warning("stray.kept", stray=id, task=task, why=why)
    raise KeptAsStray(f"{id}: {why}")


def bound(args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name. Bound by hand, because a call that does not fit must not lose its payload.

    Raises Unacceptable.
    """
    try:
        arguments = inspect.signature(enqueue).bind(*args, **kwargs)
    except TypeError:
        raise Unacceptable("the arguments are not (tenant, source, body, path=None)") from None
    arguments.apply_defaults()
    return arguments.arguments
