"""Whether this Redis keeps what it acknowledges, and whether it takes deliveries now."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from worker.errors import ConfigurationError
from worker.ledger.client import text
from worker.ledger.sentinel import found
from worker.settings import Settings

#: What promise 1 needs of Redis. `appendfsync everysec` acknowledges before the disk has it, `WAITAOF` or not.
WANTED: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
#: What a managed Redis says where `CONFIG GET` is refused or leaves names out: `INFO` has these two, and no word of
#: `appendfsync`. What nobody tells is unknown.
_TOLD_BY_INFO: Final[Mapping[str, tuple[str, Mapping[object, str]]]] = {
    "appendonly": ("aof_enabled", {0: "no", 1: "yes"}),
    "maxmemory-policy": ("maxmemory_policy", {}),
}
#: Share of `maxmemory` above which no deliveries are taken: processing what is there needs memory too.
FULL: Final = 0.85
_SECTIONS: Final = ("server", "replication", "persistence", "memory")


@dataclass(frozen=True)
class Look:
    """What Redis says of itself: `INFO` and the part of its configuration that matters."""

    info: Mapping[str, Any]
    config: Mapping[str, str]

    def setting(self, name: str) -> str:
        """One of `WANTED` as it is set; empty when nobody tells."""
        field, words = _TOLD_BY_INFO.get(name, ("", {}))
        told = self.info.get(field, "")
        return self.config.get(name) or words.get(told, str(told))

    @property
    def full(self) -> bool:
        """Whether the rest of `maxmemory` is kept for processing what is there."""
        limit = self.info.get("maxmemory", 0)
        return bool(limit) and self.info["used_memory"] > FULL * limit

    @property
    def aof_failed(self) -> bool:
        """Whether the last write to the append-only file failed."""
        return bool(self.info.get("aof_last_write_status", "ok") != "ok")

    @property
    def stops_on_bgsave_error(self) -> bool:
        """Whether Redis refuses writes after a failed snapshot. Not when it makes none; unknown counts as yes."""
        return self.config.get("save", "?") != "" and self.config.get("stop-writes-on-bgsave-error", "yes") == "yes"

    @property
    def rewriting(self) -> bool:
        """Whether the append-only file is being rewritten. Just switched on, it keeps nothing until that is done."""
        return bool(self.info.get("aof_rewrite_in_progress") or self.info.get("aof_rewrite_scheduled"))


def ask(pipeline: Any) -> None:
    """Queue the questions of a look, on a pipeline of either kind that is executed with `raise_on_error=False`."""
    for section in _SECTIONS:
        pipeline.info(section)
    pipeline.config_get(*WANTED, "save", "stop-writes-on-bgsave-error", "dir")


def answered(replies: Sequence[Any]) -> Look:
    """The look, from what the pipeline brought. Raises the error that Redis answered to an `INFO`."""
    *sections, config = replies
    for refused in sections:
        if isinstance(refused, Exception):
            raise refused
    known = {} if isinstance(config, Exception) else config
    return Look(ChainMap(*sections), {text(name): text(value) for name, value in known.items()})


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
        look, named = look_at(client), found(client)
    except RedisError as error:
        raise ConfigurationError(
            f"Redis at {settings.redis.shown} cannot be used: {error}. Check REDIS_URL and that Redis runs and may be "
            "reached."
        ) from None
    return judge_redis(look, settings) + named


def judge_redis(look: Look, settings: Settings) -> str:
    """As `check_redis`, of a look that was taken."""
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
        raise ConfigurationError(
            f"{redis_at} is a replica and takes no writes: point REDIS_URL at its primary, or wait if a failover is "
            "under way."
        )
    return _durability(look, settings, redis_at)


def _durability(look: Look, settings: Settings, redis_at: str) -> str:
    told = {name: look.setting(name) for name in WANTED}
    faults = [
        f"{name} is {told[name]}, must be {must}" for name, must in WANTED.items() if told[name] not in ("", must)
    ]
    unknown = "; ".join(f"{name} is unknown, for CONFIG GET is refused" for name in WANTED if not told[name])
    if look.aof_failed:
        faults.append("its append-only file cannot be written (is the disk full?)")
    if faults and settings.durability != "memory":
        raise ConfigurationError(
            f"{redis_at} may lose results that were acknowledged: {'; '.join(faults)}. Set these in its "
            "configuration (deploy/redis.conf), or accept the loss with EXAMRELAY_DURABILITY=memory."
        )
    if unknown and settings.durability == "fsync":
        raise ConfigurationError(
            f"{redis_at} does not say whether it keeps results that were acknowledged: {unknown}. Allow this user "
            "CONFIG GET. On a managed Redis without it set EXAMRELAY_DURABILITY=promised if its provider promises that "
            "each write is synced to disk before it is acknowledged (AOF, fsync on every write), else memory."
        )
    words = "; ".join(filter(None, [*faults, unknown]))
    return f"{settings.durability}: {words}" if words else "fsync"


def why_refused(client: "redis.Redis", replicas: int) -> str | None:
    """Why the receiver refuses deliveries, in an operator's words; None while it takes them."""
    why = why_refusing(look_at(client), replicas)
    return f"the receiver answers 503: {why}" if why else None


def why_refusing(look: Look, replicas: int) -> str:
    """Why a Redis that is configured well takes no deliveries; empty while it does."""
    disk = "is its disk full, or not to be written?"
    if look.full:
        return f"{look.info['used_memory'] / look.info['maxmemory']:.0%} of maxmemory is used, {FULL:.0%} may be"
    if look.aof_failed:
        return f"Redis cannot write its append-only file: {disk}"
    if look.info.get("rdb_last_bgsave_status", "ok") != "ok" and look.stops_on_bgsave_error:
        return f"Redis cannot write its snapshot, and refuses writes: {disk}"
    connected = int(look.info.get("connected_slaves", 0))
    if connected < replicas:
        return f"{connected} replicas are connected, EXAMRELAY_REPLICAS wants {replicas}"
    return ""
