"""Celery on Redis: a transport that loses no result and parks garbage; a consumer that survives a restart of Redis.

They mend faults of Celery and kombu 5.7; tests/acceptance/test_survival.py and test_taking.py fail without them.
Nothing here knows of events: hints that are lost and messages that come twice are repaired by the ledger.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from celery.worker.consumer import Consumer
from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from worker.ledger import strays
from worker.ledger.client import FULL
from worker.ledger.keys import MALFORMED
from worker.ledger.sealed import Sealer
from worker.ledger.sentinel import PrimaryConnection, PrimarySSLConnection, primary_pool
from worker.queues import RECEIVE_QUEUE, TAKEN
from worker.redis_address import RedisAddress

_LOG = logging.getLogger(__name__)
#: How many malformed entries are kept for a person to look at.
_PARKED: Final = 1000
#: What the headers and properties of a task's message must have. A message without an id is delivered again for ever:
#: kombu takes the KeyError for a lost connection (https://github.com/celery/kombu/issues/2582).
_HEADERS: Final = ("id", "task")
#: Queues of this name hold answers to `inspect` and `ping`. They are not tasks and have neither header.
_REPLIES: Final = ".pidbox"
_PROPERTIES: Final = ("delivery_tag", "delivery_info")

#: Notes a message before it is delivered, unless it was taken and the sweep has moved it back. Allowed at `maxmemory`
#: (kombu's own way is not, and loses hints there): a worker notes no more than it works on.
_NOTE: Final = """#!lua flags=allow-oom
if ARGV[4] ~= '' and redis.call('LREM', KEYS[3], 1, ARGV[4]) == 0 then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
"""
#: Between two tries to take a message from a Redis that is at its `maxmemory`.
_PAUSE_SECONDS: Final = 2.0


class QoS(redis.QoS):
    """What a channel delivered and nobody has acknowledged."""

    def can_consume(self) -> bool:
        """Whether one more may be delivered. What the channel and its `Taker` hold counts together."""
        all_of_them = [channel.qos for channel in self.channel.together]
        limit = all_of_them[0].prefetch_count
        return not limit or sum(len(qos._delivered) - len(qos._dirty) for qos in all_of_them) < limit

    def append(self, message: Any, delivery_tag: str) -> None:
        """As kombu's, but by `_NOTE`."""
        noted = dumps([message._raw, message.delivery_info["exchange"], message.delivery_info["routing_key"]])
        keys = (self.unacked_index_key, self.unacked_key, TAKEN)
        taken, self.channel.taken = self.channel.taken, ""
        with self.channel.conn_or_acquire() as client:
            if not client.eval(_NOTE, len(keys), *keys, delivery_tag, time.time(), noted, taken):
                raise redis.Empty
        virtual.QoS.append(self, message, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """As kombu's. At `maxmemory` a message cannot go back: it stays noted, and goes back when that times out."""
        try:
            super().reject(delivery_tag, requeue)
        except FULL:
            virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """As kombu's, but later when Redis is at its `maxmemory`."""
        with suppress(FULL):
            super().restore_visible(*args, **options)


class Channel(redis.Channel):
    """A channel that delivers messages only; anything else found on a queue is parked in `er:malformed`."""

    QoS = QoS
    #: The entry that a `Taker` has taken and not noted.
    taken: bytes | str = ""

    #: Of the sentinels that name the primary, if there are any.
    address: RedisAddress | None = None
    from_transport_options = (*redis.Channel.from_transport_options, "address")

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        #: This one, and its `Taker` once it has one.
        self.together: list[Channel] = [self]
        if "address" in connection.client.transport_options:
            self.connection_class, self.connection_class_ssl = PrimaryConnection, PrimarySSLConnection
        super().__init__(connection, **kwargs)

    def _get_pool(self, asynchronous: bool = False) -> Any:
        """As kombu's, or of connections to the primary, as every part has them."""
        pool = super()._get_pool(asynchronous)
        return primary_pool(self.address, **self._connparams(asynchronous)) if self.address else pool

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """As kombu's, but `RECEIVE_QUEUE` is consumed by a `Taker`."""
        if queue != RECEIVE_QUEUE or isinstance(self, Taker):
            return super().basic_consume(queue, *args, **options)
        if self.together == [self]:
            self.together.append(Taker(self))
        return self.together[1].basic_consume(queue, *args, **options)

    def _queue_bind(self, *args: Any) -> None:
        """As kombu's. At `maxmemory` it must do without: else the worker connects again and again."""
        with suppress(FULL):
            super()._queue_bind(*args)

    def basic_cancel(self, consumer_tag: str) -> None:
        """As kombu's, here and in the `Taker`. Each ignores what it does not consume."""
        for channel in self.together[self.together.index(self) :]:
            super(Channel, channel).basic_cancel(consumer_tag)

    def _popped(self, **options: Any) -> tuple[str, bytes | str] | None:
        """The reply of Redis: a queue and an entry, or nothing."""
        popped = self.client.parse_response(self.client.connection, "BRPOP", **options)
        return popped and (bytes_to_str(popped[0]).rsplit(self.sep, 1)[0], popped[1])

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu's, but the entry is checked before it is delivered."""
        try:
            try:
                popped = self._popped(**options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not popped:
                raise redis.Empty
            queue, entry = popped
            self._queue_cycle.rotate(queue)
            message = _message(entry, () if queue.endswith(_REPLIES) else _HEADERS)
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
        with self.conn_or_acquire() as client, client.pipeline() as pipeline:
            pipeline.lpush(MALFORMED, strays.parked(client, _sealer, entry))
            pipeline.ltrim(MALFORMED, 0, _PARKED - 1)
            pipeline.lrem(TAKEN, 1, entry)
            pipeline.execute()


class Taker(Channel):
    """Consumes the one queue whose messages carry results, beside a channel and under its limit.

    BRPOP sends an entry to a worker that may be dead when it arrives: then it is lost (celery/kombu#305). BLMOVE leaves
    it in `TAKEN` until it is noted or parked, and the sweep moves back what it finds there.
    """

    _resumes_at = 0.0

    def __init__(self, beside: Channel) -> None:
        super().__init__(beside.connection)
        self.together = beside.together
        self.connection.channels.append(self)  # closed with the others

    def _brpop_start(self, *_: Any) -> None:
        if time.monotonic() >= self._resumes_at:
            self._in_poll, self._brpop_sent_at = self.client.connection, time.monotonic()
            self.client.connection.send_command("BLMOVE", RECEIVE_QUEUE, TAKEN, "RIGHT", "LEFT", self.brpop_timeout)

    def _popped(self, **options: Any) -> tuple[str, bytes | str] | None:
        try:
            entry = self.client.parse_response(self.client.connection, "BLMOVE", **options)
        except FULL:
            _LOG.warning("Redis is at its maxmemory: %s waits", RECEIVE_QUEUE)
            self._resumes_at = time.monotonic() + _PAUSE_SECONDS
            return None
        self.taken = entry or ""
        return entry and (RECEIVE_QUEUE, entry)


def _message(entry: bytes | str, required_headers: tuple[str, ...]) -> dict[str, Any] | None:
    """The message in a queue's entry; None when a worker would not survive it."""
    try:
        message = loads(bytes_to_str(entry))
        headers, properties = message["headers"], message["properties"]
        whole = (
            all(isinstance(headers[name], str) for name in required_headers)
            and all(properties[name] for name in _PROPERTIES)
            and isinstance(message["body"], str)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return message if whole else None


class Transport(redis.Transport):
    """kombu's Redis transport with the channels of this module."""

    Channel = Channel


#: Garbage may be a payload that was sent to the wrong queue: it is sealed like one.
_sealer = Sealer()


def install(keys: Sequence[bytes] = ()) -> None:
    """Use this transport in this process. `keys` seal what it parks."""
    global _sealer
    _sealer = Sealer(keys)
    for scheme in ("redis", "rediss", "sentinel"):
        TRANSPORT_ALIASES[scheme] = "worker.celery_broker:Transport"


class SteadyConsumer(Consumer):
    """A consumer that survives a restart of Redis, and that loses no message which no task can take."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """As Celery's, but every channel of the lost connection is closed first.

        Celery 5.7 exits when Redis goes away while a task runs: closing the remote-control channel fails first, the
        task channel stays open on a transport without a client, and closing that one raises an AttributeError that
        nobody catches (docs/design.md).
        """
        transport = getattr(self.connection, "_transport", None)
        for channel in list(getattr(transport, "channels", None) or ()):
            _close(channel)
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, **options: Any) -> Callable[[Any], None]:
        """As Celery's, but a message that no task can take is kept as a stray. Celery would log and delete it."""
        handle = super().create_task_handler(**options)

        def on_task_received(message: Any) -> None:
            if (why := _unfit(message, self.strategies)) is None:
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
    except Exception:  # any error of a decoder, and its text may quote the body
        return "its body cannot be read: it must be JSON, [args, kwargs, embed]"
    fits = isinstance(args, list | tuple) and isinstance(kwargs, dict) and isinstance(embedded, dict | None)
    return None if fits else "its body is not [args, kwargs, embed]"


def _close(channel: Any) -> None:
    """Close a channel of a lost connection. The first try may fail on its socket; the second finds the socket gone."""
    for _ in range(2):
        try:
            channel.close()
        except Exception as error:  # whatever it is, the connection is lost
            _LOG.info("closing a channel of a lost connection: %r", error)
        else:
            return
