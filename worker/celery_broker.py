"""Celery on Redis, kept alive: a transport that parks garbage, and a consumer that outlives a restart of Redis.

Both mend what Celery and kombu 5.7 do; a test with real processes fails when either is taken out. Nothing here knows of
events: what Celery loses or doubles is the ledger's to repair.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celery.worker.consumer import Consumer
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from worker.ledger import strays
from worker.ledger.keys import MALFORMED
from worker.ledger.sealed import Sealer

_LOG = logging.getLogger(__name__)
#: How many malformed entries are kept for a person to look at.
_PARKED: Final = 1000
#: Without these a message ends the worker (no JSON object) or is redelivered for ever (no id: kombu takes the KeyError
#: for a lost connection, https://github.com/celery/kombu/issues/2582).
_HEADERS: Final = ("id", "task")
#: Answers to `inspect` and `ping` wait on queues of this name; they are no tasks and have neither.
_REPLIES: Final = ".pidbox"
_NO_HEADERS: Final[tuple[str, ...]] = ()
_PROPERTIES: Final = ("delivery_tag", "delivery_info")


class Channel(redis.Channel):
    """A channel that hands on messages only; anything else found on a queue is parked in `er:malformed`."""

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu's, with the entry looked at before it is decoded or delivered."""
        try:
            try:
                popped = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not popped:
                raise redis.Empty
            queue, entry = bytes_to_str(popped[0]).rsplit(self.sep, 1)[0], popped[1]
            self._queue_cycle.rotate(queue)
            message = _message(entry, _NO_HEADERS if queue.endswith(_REPLIES) else _HEADERS)
            if message is None:
                self._park(queue, entry)
            else:
                self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _park(self, queue: str, entry: bytes | str) -> None:
        _LOG.error("not a Celery message on queue %s: parked in %s", queue, MALFORMED)
        with self.conn_or_acquire() as client:
            client.lpush(MALFORMED, _sealer.seal(entry.encode() if isinstance(entry, str) else entry, MALFORMED))
            client.ltrim(MALFORMED, 0, _PARKED - 1)


def _message(entry: bytes | str, needed: tuple[str, ...]) -> dict[str, Any] | None:
    """The message in a queue's entry, or None: it is none that a worker would survive, without the headers `needed`."""
    try:
        message = loads(bytes_to_str(entry))
        headers, properties = message["headers"], message["properties"]
        whole = (
            all(isinstance(headers[name], str) for name in needed)
            and all(properties[name] for name in _PROPERTIES)
            and isinstance(message["body"], str)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return message if whole else None


class Transport(redis.Transport):
    """kombu's Redis transport with guarded channels."""

    Channel = Channel


#: Garbage may be a payload that went astray.
_sealer = Sealer()


def install(keys: Sequence[bytes] = ()) -> None:
    """Use the guarded transport for `redis://` and `rediss://` in this process; seal what it parks."""
    global _sealer
    _sealer = Sealer(keys)
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "worker.celery_broker:Transport"


class SteadyConsumer(Consumer):
    """A consumer that survives a restart of Redis while it is busy.

    Celery 5.7 can exit then: where closing the remote-control channel fails first, the task channel stays open on a
    transport that has lost its client, and closing that raises an AttributeError that nobody catches. Closing every
    channel beforehand, twice where the first try fails, leaves it nothing to trip over. It depends on timing: in 16
    runs on 2026-11-22 a worker without this survived as well (docs/design.md).
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        transport = getattr(self.connection, "_transport", None)
        for channel in list(getattr(transport, "channels", None) or ()):
            _close(channel)
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, **options: Any) -> Callable[[Any], None]:
        """As Celery's, but what no task can take is kept as a stray: Celery would log it whole and drop it."""
        handle = super().create_task_handler(**options)

        def on_task_received(message: Any) -> None:
            why = _unfit(message, self.strategies)
            if why is None:
                handle(message)
                return
            task, body = message.headers["id"], message.body
            with message.channel.conn_or_acquire() as client:
                strays.keep(client, _sealer, why, task, body.encode() if isinstance(body, str) else body)
            _LOG.error("message %s kept as a stray: %s", task, why)
            message.ack_log_error(_LOG, self.connection_errors)
            if self.event_dispatcher:
                self.event_dispatcher.send("task-received", uuid=task, name="(none of ours)", args="", kwargs="")
                self.event_dispatcher.send("task-failed", uuid=task, exception=f"KeptAsStray({why!r})", traceback="")

        return on_task_received


def _unfit(message: Any, tasks: Mapping[str, Any]) -> str | None:
    """Why no task can take a message; None when one can."""
    if message.headers["task"] not in tasks:
        return "no task of ours has the name that it is for"
    try:
        args, kwargs, embedded = message.payload
    except Exception:  # noqa: BLE001  # whatever a decoder raises, and it may quote what it choked on
        return "its body cannot be read: it must be JSON, [args, kwargs, embed]"
    fits = isinstance(args, list | tuple) and isinstance(kwargs, dict) and isinstance(embedded, dict | None)
    return None if fits else "its body is not [args, kwargs, embed]"


def _close(channel: Any) -> None:
    """Close a channel whose connection is gone: the first try may fail on the socket, the second finds it gone."""
    for _ in range(2):
        try:
            channel.close()
        except Exception as error:  # noqa: BLE001  # whatever it is, the connection is lost already
            _LOG.info("closing a channel of a lost connection: %r", error)
        else:
            return
