"""Messages to `tasks.receive` on Celery's default queue: their client named no queue, and no process of ours reads it.

Somebody else may use that queue: what is not to `tasks.receive` is never touched.
"""

import json
from typing import Any, Final

import redis

from worker.queues import DEFAULT_QUEUE, RECEIVE, RECEIVE_QUEUE

#: How many are read at once: each may hold megabytes.
_LOOKED_AT: Final = 50


def messages(client: "redis.Redis") -> list[bytes]:
    """Those to us among the oldest on the queue, oldest first."""
    found: Any = client.lrange(DEFAULT_QUEUE, -_LOOKED_AT, -1)
    return [entry for entry in reversed(found) if _is_to_us(entry)]


def count(client: "redis.Redis") -> int:
    """How many messages are on the queue; 0 when none of the oldest is to us."""
    return int(client.llen(DEFAULT_QUEUE)) if messages(client) else 0


def warning(client: "redis.Redis") -> list[str]:
    """A sentence about them with what to type; nothing when there are none."""
    if not (waiting := count(client)):
        return []
    return [
        f"messages on the queue {DEFAULT_QUEUE}, which nobody reads: {waiting}. A client calls {RECEIVE} without "
        f'queue="{RECEIVE_QUEUE}". To record them: examrelay strays receive {DEFAULT_QUEUE}'
    ]


def take(client: "redis.Redis", queue: str | None) -> int:
    """Move those to us to `queue`, or remove them (None). Returns how many.

    When two do this at once, a message may be moved twice: the same delivery is the same event.
    """
    taken = 0
    while found := messages(client):
        pipeline: Any = client.pipeline()
        with pipeline:
            for entry in found:
                if queue is not None:
                    pipeline.lpush(queue, _readdressed(entry, queue))
                pipeline.lrem(DEFAULT_QUEUE, -1, entry)
            pipeline.execute()
        taken += len(found)
    return taken


def _is_to_us(entry: bytes) -> bool:
    try:
        return bool(json.loads(entry)["headers"]["task"] == RECEIVE)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _readdressed(entry: bytes, queue: str) -> str:
    """A worker that cannot record it now puts it back where its address says."""
    message = json.loads(entry)
    address = {"delivery_info": {"exchange": "", "routing_key": queue}}
    return json.dumps(message | {"properties": message["properties"] | address})
