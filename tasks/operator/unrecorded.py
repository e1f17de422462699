"""Strays, and queue entries that are not Celery messages: record or remove them.

Each act is noted: who, when, what, why (`strays.acts`).
"""

from typing import Any, Final

from kombu.utils.json import loads

from schemas.event import Receipt
from schemas.outcome import Source
from tasks.receive import bound
from worker import enqueue
from worker.bootstrap import Services
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable, Unchecked
from worker.ledger import misdirected, strays
from worker.queues import DEFAULT_QUEUE, RECEIVE_QUEUE

#: Stands for all messages to `tasks.receive` on Celery's default queue.
MISDIRECTED: Final = DEFAULT_QUEUE


def receive(at: Services, id: str, tenant: str, source: Source, path: str, by: str) -> Receipt:
    """Record the result that a stray holds, and remove the stray. `path`: in place of the one it was sent with.

    Raises ConfigurationError; Unchecked when Redis does not record it in time.
    """
    if id in (strays.EVERY_ENTRY, MISDIRECTED):
        raise ConfigurationError(f"{id} stands for several, and names no stray.")
    (content,) = contents(at, id)
    body, sent_path = _result(content)
    try:
        receipt = enqueue(tenant, source, body, path or sent_path)
    except Unacceptable as refused:
        raise ConfigurationError(f"{id}: {refused}.") from None
    except LedgerUnavailable as error:
        raise Unchecked(f"not recorded: {error}") from None
    strays.remove(at.redis, id, by, "receive", receipt.id)
    return receipt


def redirect(at: Services, by: str) -> int:
    """Move what is on Celery's default queue to where it belongs: a worker records it. Returns how many."""
    count = misdirected.take(at.redis, RECEIVE_QUEUE)
    strays.note(at.redis, by, "receive", MISDIRECTED)
    return count


def discard(at: Services, id: str, by: str, why: str) -> int:
    """Remove a stray, or all that is malformed or misdirected, for good. How many. Raises ConfigurationError."""
    count = len(contents(at, id))
    if id == MISDIRECTED:
        count = misdirected.take(at.redis, None)
    strays.remove(at.redis, id, by, "discard", why)
    return count


def contents(at: Services, id: str) -> list[bytes]:
    """What is kept under an id. Raises ConfigurationError when there is nothing."""
    if id == strays.EVERY_ENTRY:
        contents = strays.malformed(at.redis, at.ledger.sealer)
    elif id == MISDIRECTED:
        contents = misdirected.messages(at.redis)
    else:
        content = strays.content(at.redis, at.ledger.sealer, id)
        contents = [] if content is None else [content]
    if not contents:
        raise ConfigurationError(f"there is no stray {id}: `examrelay strays list` shows the strays.")
    return contents


def _result(content: bytes) -> tuple[bytes | str, str]:
    """The body and the path among the arguments that a message was sent with. Raises ConfigurationError."""
    try:
        args, kwargs = loads(content.decode())[:2]
        given: dict[str, Any] = bound(args, kwargs)
        body, path = given["body"], given["path"]
    except (ValueError, TypeError, KeyError, Unacceptable):
        body = path = None
    if not isinstance(body, bytes | str):
        raise ConfigurationError(
            "it holds no result that can be read: look with `examrelay strays show`, then post the result with "
            "`examrelay send`."
        )
    return body, path if isinstance(path, str) else ""
