"""Connections to Redis, the ledger's scripts, and the check that this Redis keeps what it acknowledges."""

import os
import secrets
import threading
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from itertools import count, takewhile
from typing import Any, Final

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from worker.errors import ConfigurationError
from worker.ledger.keys import SAID
from worker.settings import Settings

SCRIPTS: Final[tuple[str, ...]] = (
    "record", "claim", "settle", "intend", "release", "steer", "sweep", "gate", "token", "seen",
)  # fmt: skip
#: By a nonce of the event's own; by what they set.
KNOW_THEIR_REPEAT: Final = ("record", "seen", "release")
#: Two record, two look at memory and say that we are here, and the others are for notes of refusals.
DOOR_CONNECTIONS: Final = 16
#: Redis errors that a later try may not meet.
UNAVAILABLE: Final = (RedisError, OSError, TimeoutError)
#: Redis is there and refuses: a key is not what it must be.
REFUSED: Final = ResponseError


@cache
def script_text(name: str) -> str:
    """A script as Redis gets it: its `#!` line, what all share, then its own lines."""
    folder = files("worker.ledger") / "lua"
    shebang, _, body = (folder / f"{name}.lua").read_text().partition("\n")
    return f"{shebang}\n{(folder / 'shared.lua').read_text()}\n{body}"


class Scripts:
    """The ledger's scripts on one synchronous connection pool."""

    def __init__(self, client: "redis.Redis") -> None:
        self._scripts = {name: client.register_script(script_text(name)) for name in SCRIPTS}
        self._caller = secrets.token_hex(6)

    def __call__(self, name: str, *args: str | bytes | float) -> Any:
        """Run a script. Repeated by redis-py because its reply was lost, it gives the same answer (`shared.lua`)."""
        if name in KNOW_THEIR_REPEAT:
            return self._scripts[name](args=args)
        said = f"{SAID}{self._caller}.{os.getpid()}.{threading.get_ident()}"
        return self._scripts[name](keys=[said], args=[*args, secrets.token_hex(8)])

    def queue(self, pipeline: "redis.client.Pipeline", name: str, *args: str | bytes | float) -> None:
        """Run a script with the pipeline: one that knows its own repeat, for a pipeline is repeated whole."""
        self._scripts[name](args=args, client=pipeline)


def connect(settings: Settings, *, patient: bool = True) -> "redis.Redis":
    """A client. A patient one (a worker's) rides out a restart of Redis; the other answers within seconds.

    Raises ConfigurationError for an address that is none.
    """
    retry = Retry(ExponentialBackoff(cap=2.0, base=0.1), 15) if patient else Retry(NoBackoff(), 1)
    try:
        client: redis.Redis = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=10 if patient else 3,
            socket_connect_timeout=3,
            health_check_interval=30,
            retry=retry,
            retry_on_error=[redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError, redis.TimeoutError],
            client_name="examrelay",
        )
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL is no address of a Redis: {error}.") from None
    return client


def connect_door(settings: Settings) -> "redis.asyncio.Redis":
    """The receiver's client: its deadline is the receiver's, so it tries twice at once and no more.

    Its pool refuses a request that finds no connection free, so `Door` has no more calls under way than there are.
    """
    return redis.asyncio.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=2,
        socket_connect_timeout=1,
        max_connections=DOOR_CONNECTIONS,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 1),
        client_name="examrelay-door",
    )


def check_redis(client: "redis.Redis", settings: Settings) -> str:
    """Whether this Redis keeps what it acknowledges. Returns the durability in words.

    Raises ConfigurationError: not reachable, too old, evicts, or would lose acknowledged events.
    """
    try:
        version = client.info("server")["redis_version"]
        config = _config(client)
    except RedisError as error:
        raise ConfigurationError(
            f"Redis at {_address(settings)} cannot be used: {error}. Check REDIS_URL and that Redis runs and may be "
            "reached."
        ) from None
    return judge_redis(version, config, settings)


def judge_redis(version: str, config: dict[str, str], settings: Settings) -> str:
    """As `check_redis`, of what it said."""
    address = _address(settings)
    if tuple(int(part) for part in version.split(".")[:2]) < (7, 2):
        raise ConfigurationError(f"Redis at {address} is {version}; 7.2 or newer (or Valkey) is needed.")
    faults = [
        f"{name} is {config[name]}, must be {wanted}" for name, wanted in WANTED.items() if config[name] != wanted
    ]
    if faults and settings.durability == "fsync":
        raise ConfigurationError(
            f"Redis at {address} may lose results that were acknowledged: {'; '.join(faults)}. Set these in its "
            "configuration (deploy/redis.conf), or accept the loss with EXAMRELAY_DURABILITY=memory."
        )
    return "fsync" if not faults else "memory: " + "; ".join(faults)


def _address(settings: Settings) -> str:
    return settings.redis_url.get_secret_value().rpartition("@")[2]


#: What promise 1 needs of Redis. `appendfsync everysec` acknowledges before the disk has it, `WAITAOF` or not.
WANTED: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
#: Where `CONFIG GET` is refused.
UNTOLD: Final = dict.fromkeys(WANTED, "unknown (CONFIG GET is refused)")


def _config(client: "redis.Redis") -> dict[str, str]:
    try:
        return told_config(client.config_get(*WANTED))
    except (NoScriptError, ResponseError):
        return UNTOLD


def told_config(found: dict[Any, Any]) -> dict[str, str]:
    """What `CONFIG GET` answered, as text."""
    return {text(name): text(value) for name, value in found.items()}


def in_pieces(fields: Mapping[bytes, bytes], name: str) -> bytes:
    """A text that a hash holds in pieces (`shared.lua`); empty when it holds none."""
    return b"".join(takewhile(bool, (fields.get(f"{name}:{number}".encode(), b"") for number in count(1))))


def text(value: Any) -> str:
    """What Redis gave, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
