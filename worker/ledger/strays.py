"""Strays: messages that name no tenant or source that we know, or have no body. Kept for a person."""

import base64
import hashlib
import json
from typing import Any, Final

import redis

from worker.ledger import queries
from worker.ledger.client import script_text, text
from worker.ledger.keys import MALFORMED, STRAYS, STRAYS_ACTS
from worker.ledger.sealed import Sealer

_ACTS_KEPT: Final = 1000


def keep(client: "redis.Redis", sealer: Sealer, why: str, task: str, content: bytes) -> str:
    """Keep a message's content, sealed. Returns the stray's id; the same content again is the same stray.

    `why` is for people and quotes nothing of it; `task` is Celery's id of the message. Raises what Redis raises.
    """
    id = "stray_" + base64.b32encode(hashlib.sha256(content).digest()[:20]).decode().lower()[:26]
    about = json.dumps({"why": why, "task": task[:64], "bytes": len(content)})
    client.eval(script_text("stray"), 0, id, about, sealer.seal(content, id))
    return id


def content(client: "redis.Redis", sealer: Sealer, id: str) -> bytes | None:
    """What a stray's message held: `[args, kwargs]` as JSON, or its whole body. None when there is no such stray."""
    found: Any = client.hget(STRAYS, id)
    return None if found is None else sealer.open(found.split(b"\n", 2)[2], id)


def malformed(client: "redis.Redis", sealer: Sealer) -> list[bytes]:
    """What was on a queue and no message, the newest first."""
    entries: Any = client.lrange(MALFORMED, 0, -1)
    return [sealer.open(entry, MALFORMED) for entry in entries]


def note(client: "redis.Redis", by: str, move: str, id: str) -> None:
    """Note what a person did that leaves the strays as they are: a look at what one holds."""
    client.lpush(STRAYS_ACTS, " ".join((queries.redis_now(client).isoformat(timespec="seconds"), by, move, id)))
    client.ltrim(STRAYS_ACTS, 0, _ACTS_KEPT - 1)


def remove(client: "redis.Redis", id: str | None, act: str) -> None:
    """Remove a stray (None: all that is malformed), and note who did, why: `act`."""
    with client.pipeline() as pipeline:
        if id is None:
            pipeline.delete(MALFORMED)
        else:
            pipeline.hdel(STRAYS, id)
        pipeline.lpush(STRAYS_ACTS, act)
        pipeline.ltrim(STRAYS_ACTS, 0, _ACTS_KEPT - 1)
        pipeline.execute()


def acts(client: "redis.Redis") -> list[str]:
    """What people did with strays: when, who, what, why; the newest first."""
    return [text(line) for line in client.lrange(STRAYS_ACTS, 0, -1)]
