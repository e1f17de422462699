"""Connections to Redis, and the ledger's scripts."""

import json
import os
import secrets
import threading
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from importlib.resources import files
from itertools import count, takewhile
from typing import Any, Final

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from worker.ledger.keys import ANSWERS, FINAL, INDEX_OF
from worker.ledger.sentinel import FROZEN_SECONDS, asyncio_primary_pool, primary_pool
from worker.ledger.times import IDENTITY_KEPT, PAYLOAD_KEPT, milliseconds
from worker.queues import HINT_QUEUE, PROCESS, RECEIVE_QUEUE, TAKEN
from worker.settings import Settings

#: Scripts that need no stored answer: they may run twice.
REPEATABLE: Final = ("seen", "look", "prepare")
SCRIPTS: Final = (*REPEATABLE, "claim", "apply", "intend", "steer", "sweep", "gate", "token")
#: A hint, which the scripts send (`shared.lua`), as Celery's message protocol 2 wants it:
#: https://docs.celeryq.dev/en/stable/internals/protocol.html. The scripts fill in `$tenant` and `$id`.
HINT: Final = {
    "body": json.dumps([["$tenant"], {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {
        "lang": "py",
        "task": PROCESS,
        "id": "$id",
        "root_id": "$id",
        **dict.fromkeys(("parent_id", "group", "eta", "expires")),
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "['$tenant']",
        "kwargsrepr": "{}",
        "origin": "the ledger",
    },
    "properties": {
        "correlation_id": "$id",
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": HINT_QUEUE},
        "priority": 0,
        "delivery_tag": "$id",
    },
}
#: Two record, one looks at Redis and notes refusals; the others are room for calls that were given up.
RECORDER_CONNECTIONS: Final = 16
#: Redis errors that a later try may not meet.
UNAVAILABLE: Final = (RedisError, OSError, TimeoutError)
#: Redis is there and reads its data.
LOADING: Final = BusyLoadingError
#: Redis is there and refuses: a key is not what it must be.
REFUSED: Final = ResponseError
#: Redis is at its `maxmemory`.
FULL: Final = OutOfMemoryError


@cache
def script_text(name: str, payload_kept: timedelta = PAYLOAD_KEPT) -> str:
    """A script as Redis gets it: its `#!` line, what Python decides, what all scripts share, then its own lines."""
    folder = files("worker.ledger") / "lua"
    shebang, _, body = (folder / f"{name}.lua").read_text().partition("\n")
    return "\n".join((shebang, facts(payload_kept), (folder / "shared.lua").read_text(), body))


def facts(payload_kept: timedelta) -> str:
    """What Python decides and the scripts need as well, as Lua constants."""
    constants = {
        "INDEX": "{ " + ", ".join(f"{state} = '{index}'" for state, index in INDEX_OF.items()) + " }",
        "FINAL": "{ " + ", ".join(f"{state} = true" for state in sorted(FINAL)) + " }",
        "IDENTITY_KEPT": milliseconds(IDENTITY_KEPT),
        "PAYLOAD_KEPT": milliseconds(payload_kept),
        "HINT_QUEUE": f"'{HINT_QUEUE}'",
        "RECEIVE_QUEUE": f"'{RECEIVE_QUEUE}'",
        "TAKEN": f"'{TAKEN}'",
        "HINT": f"[==[{json.dumps(HINT)}]==]",
    }
    return "\n".join(f"local {name} = {value}" for name, value in constants.items())


class Scripts:
    """The ledger's scripts on one synchronous connection pool."""

    def __init__(self, client: "redis.Redis", payload_kept: timedelta = PAYLOAD_KEPT) -> None:
        self._scripts = {name: client.register_script(script_text(name, payload_kept)) for name in SCRIPTS}
        self._caller = secrets.token_hex(6)

    def __call__(self, name: str, *args: str | bytes | float) -> Any:
        """Run a script. Repeated by redis-py because its reply was lost, it gives the same answer (`shared.lua`)."""
        if name in REPEATABLE:
            return self._scripts[name](args=args)
        answer_key = f"{ANSWERS}{self._caller}.{os.getpid()}.{threading.get_ident()}"
        return self._scripts[name](keys=[answer_key], args=[*args, secrets.token_hex(8)])


def connect(settings: Settings, *, patient: bool = True) -> "redis.Redis":
    """A client. A `patient` one (workers) retries through a restart of Redis; the other fails within seconds."""
    retry = Retry(ExponentialBackoff(cap=2.0, base=0.1), 15) if patient else Retry(NoBackoff(), 1)
    return _client(
        settings,
        socket_timeout=10 if patient else 3,
        socket_connect_timeout=3,
        health_check_interval=30,
        retry=retry,
        retry_on_error=[redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError, redis.TimeoutError],
        client_name="examrelay",
    )


def connect_recorder(settings: Settings) -> "redis.asyncio.Redis":
    """The receiver's client: its deadline is the receiver's, so it tries twice at once and no more.

    Its pool refuses a request that finds no connection free, so `Recorder` has no more calls under way than there are.
    """
    options: dict[str, Any] = {
        "socket_timeout": 2,
        "socket_connect_timeout": 1,
        "max_connections": RECORDER_CONNECTIONS,
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 1),
        "client_name": "examrelay-receiver",
    }
    if settings.redis.sentinels:
        return redis.asyncio.Redis.from_pool(asyncio_primary_pool(settings.redis, **options))
    return redis.asyncio.Redis.from_url(settings.redis.url, **options, **settings.redis.tls)


def connect_blocking_recorder(settings: Settings) -> "redis.Redis":
    """The client of `worker.enqueue`: a second to connect, a second for an answer.

    It repeats once what went out on a connection that is lost, and nothing that took too long.
    """
    return _client(
        settings,
        socket_timeout=1,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        client_name="examrelay-enqueue",
    )


def _client(settings: Settings, **options: Any) -> "redis.Redis":
    if settings.redis.sentinels:
        options["socket_timeout"] = min(options["socket_timeout"], FROZEN_SECONDS)
        return redis.Redis.from_pool(primary_pool(settings.redis, **options))
    client: redis.Redis = redis.Redis.from_url(settings.redis.url, **options, **settings.redis.tls)
    return client


def text_of(fields: Mapping[str, str], name: str) -> str:
    """A text that a hash holds, or nothing. Earlier builds stored it in pieces: `name:1` and so on."""
    return fields.get(name) or "".join(takewhile(bool, (fields.get(f"{name}:{number}", "") for number in count(1))))


def text(value: Any) -> str:
    """What Redis gave, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
