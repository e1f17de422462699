"""Why the receiver refuses what comes: Redis is short of memory, cannot write to its disk, or lacks replicas."""

from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from worker.ledger.client import told_config
from worker.ledger.door import FULL

_DISK: Final = "is its disk full, or not to be written?"


def why_refusing(client: "redis.Redis", replicas: int) -> str | None:
    """A sentence; None while what comes is taken. Two round trips."""
    told: dict[str, Any] = client.info()
    limit, used = told.get("maxmemory", 0), told.get("used_memory", 0)
    if limit and used > FULL * limit:
        return f"the receiver answers 503: {used / limit:.0%} of maxmemory is used, {FULL:.0%} may be"
    if told.get("aof_last_write_status", "ok") != "ok":
        return f"the receiver answers 503: Redis cannot write its append-only file: {_DISK}"
    if told.get("rdb_last_bgsave_status", "ok") != "ok" and _stops_on_bgsave_error(client):
        return f"the receiver answers 503: Redis cannot write its snapshot, and refuses writes: {_DISK}"
    if told.get("role") == "slave":
        return "the receiver answers 503: this Redis is a replica"
    connected = int(told.get("connected_slaves", 0))
    if connected < replicas:
        return f"the receiver answers 503: {connected} replicas are connected, EXAMRELAY_REPLICAS wants {replicas}"
    return None


def _stops_on_bgsave_error(client: "redis.Redis") -> bool:
    """Whether a snapshot that failed stops writes: if snapshots are made at all. Where that is not told, yes."""
    try:
        config = told_config(client.config_get("save", "stop-writes-on-bgsave-error"))
    except ResponseError:
        return True
    return bool(config.get("save")) and config.get("stop-writes-on-bgsave-error") == "yes"
