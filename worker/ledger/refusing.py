"""Why the receiver refuses what comes, though Redis is as configured: it is full, cannot write, or lacks replicas."""

from typing import Final

import redis

from worker.ledger.client import FULL, Look, look_at

_DISK: Final = "is its disk full, or not to be written?"


def why_refused(client: "redis.Redis", replicas: int) -> str | None:
    """As `why_refusing`, in an operator's words; None while what comes is taken."""
    why = why_refusing(look_at(client), replicas)
    return f"the receiver answers 503: {why}" if why else None


def why_refusing(look: Look, replicas: int) -> str:
    """Why nothing is taken; empty: it is. Pure. What is configured wrongly is `judge_redis`'s."""
    told = look.info
    if look.full:
        return f"{told['used_memory'] / told['maxmemory']:.0%} of maxmemory is used, {FULL:.0%} may be"
    if told.get("aof_last_write_status", "ok") != "ok":
        return f"Redis cannot write its append-only file: {_DISK}"
    if told.get("rdb_last_bgsave_status", "ok") != "ok" and look.stops_on_bgsave_error:
        return f"Redis cannot write its snapshot, and refuses writes: {_DISK}"
    connected = int(told.get("connected_slaves", 0))
    if connected < replicas:
        return f"{connected} replicas are connected, EXAMRELAY_REPLICAS wants {replicas}"
    return ""
