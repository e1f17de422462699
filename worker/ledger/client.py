"""Connections to Redis, the ledger's scripts, and the check that this Redis keeps what it acknowledges."""

import os
import secrets
import threading
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import count, takewhile
from typing import Any, Final

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
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
#: Redis is there and reads its data.
LOADING: Final = BusyLoadingError
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
    """A client. A patient one (a worker's) rides out a restart of Redis; the other answers within seconds."""
    retry = Retry(ExponentialBackoff(cap=2.0, base=0.1), 15) if patient else Retry(NoBackoff(), 1)
    client: redis.Redis = redis.Redis.from_url(
        settings.redis.url,
        socket_timeout=10 if patient else 3,
        socket_connect_timeout=3,
        health_check_interval=30,
        retry=retry,
        retry_on_error=[redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError, redis.TimeoutError],
        client_name="examrelay",
        **settings.redis.tls,
    )
    return client


def connect_door(settings: Settings) -> "redis.asyncio.Redis":
    """The receiver's client: its deadline is the receiver's, so it tries twice at once and no more.

    Its pool refuses a request that finds no connection free, so `Door` has no more calls under way than there are.
    """
    return redis.asyncio.Redis.from_url(
        settings.redis.url,
        socket_timeout=2,
        socket_connect_timeout=1,
        max_connections=DOOR_CONNECTIONS,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 1),
        client_name="examrelay-door",
        **settings.redis.tls,
    )


#: What promise 1 needs of Redis. `appendfsync everysec` acknowledges before the disk has it, `WAITAOF` or not.
WANTED: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
#: Where `CONFIG GET` is refused.
UNTOLD: Final = dict.fromkeys(WANTED, "unknown (CONFIG GET is refused)")
#: A full Redis must be able to drain: above this share of `maxmemory` nothing new is taken.
FULL: Final = 0.85
_SECTIONS: Final = ("server", "replication", "persistence", "memory")


@dataclass(frozen=True)
class Look:
    """What Redis says of itself: `INFO` and the part of its configuration that matters."""

    info: Mapping[str, Any]
    config: Mapping[str, str]

    @property
    def full(self) -> bool:
        """Whether what is left of `maxmemory` is for what drains."""
        limit = self.info.get("maxmemory", 0)
        return bool(limit) and self.info["used_memory"] > FULL * limit

    @property
    def stops_on_bgsave_error(self) -> bool:
        """Whether a snapshot that failed stops writes: if snapshots are made at all. Where that is not told, yes."""
        return self.config.get("save", "?") != "" and self.config.get("stop-writes-on-bgsave-error", "yes") == "yes"

    @property
    def rewriting(self) -> bool:
        """Whether the append-only file is being written anew. Just switched on, it keeps nothing until that is done."""
        return bool(self.info.get("aof_rewrite_in_progress") or self.info.get("aof_rewrite_scheduled"))


def ask(pipeline: Any) -> None:
    """Queue the questions of a look, on a pipeline of either kind that is executed with `raise_on_error=False`."""
    for section in _SECTIONS:
        pipeline.info(section)
    pipeline.config_get(*WANTED, "save", "stop-writes-on-bgsave-error")


def answered(replies: Sequence[Any]) -> Look:
    """The look, from what the pipeline brought. Raises the error that Redis answered to an `INFO`."""
    *sections, config = replies
    for refused in sections:
        if isinstance(refused, Exception):
            raise refused
    if isinstance(config, Exception):
        return Look(ChainMap(*sections), UNTOLD)
    return Look(ChainMap(*sections), {text(name): text(value) for name, value in config.items()})


def look_at(client: "redis.Redis") -> Look:
    """One look, in one round trip. Raises what Redis raises."""
    with client.pipeline(transaction=False) as pipeline:
        ask(pipeline)
        return answered(pipeline.execute(raise_on_error=False))


def check_redis(client: "redis.Redis", settings: Settings) -> str:
    """Whether this Redis keeps what it acknowledges. Returns the durability in words.

    Raises ConfigurationError: not reachable, too old, a cluster, a replica, evicts, or would lose acknowledged events.
    """
    try:
        look = look_at(client)
    except RedisError as error:
        raise ConfigurationError(
            f"Redis at {settings.redis.shown} cannot be used: {error}. Check REDIS_URL and that Redis runs and may be "
            "reached."
        ) from None
    return judge_redis(look, settings)


def judge_redis(look: Look, settings: Settings) -> str:
    """As `check_redis`, of what it said."""
    redis_at = f"Redis at {settings.redis.shown}"
    version = look.info["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < (7, 2):
        raise ConfigurationError(f"{redis_at} is {version}; 7.2 or newer (or Valkey) is needed.")
    if "cluster" in (look.info.get("redis_mode"), look.info.get("server_mode")):  # Redis' name for it; Valkey 9's
        raise ConfigurationError(
            f"{redis_at} is a Redis Cluster, and one ledger needs one keyspace: use a Redis or Valkey without it "
            "(cluster-enabled no)."
        )
    if look.info.get("role") in ("slave", "replica"):
        raise ConfigurationError(f"{redis_at} is a replica and takes no writes: point REDIS_URL at its primary.")
    faults = [f"{name} is {look.config[name]}, must be {must}" for name, must in WANTED.items()
              if look.config[name] != must]  # fmt: skip
    if look.info.get("aof_last_write_status", "ok") != "ok":
        faults.append("its append-only file cannot be written (is the disk full?)")
    if faults and settings.durability == "fsync":
        raise ConfigurationError(
            f"{redis_at} may lose results that were acknowledged: {'; '.join(faults)}. Set these in its "
            "configuration (deploy/redis.conf), or accept the loss with EXAMRELAY_DURABILITY=memory."
        )
    return "fsync" if not faults else "memory: " + "; ".join(faults)


def in_pieces(fields: Mapping[bytes, bytes], name: str) -> bytes:
    """A text that a hash holds in pieces (`shared.lua`); empty when it holds none."""
    return b"".join(takewhile(bool, (fields.get(f"{name}:{number}".encode(), b"") for number in count(1))))


def text(value: Any) -> str:
    """What Redis gave, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
