"""Strays: messages that name no tenant or source that we know, or have no body. Kept for a person."""

import base64
import hashlib
import json
from datetime import datetime
from typing import Any, Final, NamedTuple

import redis

from worker.ledger import queries
from worker.ledger.client import script_text, text
from worker.ledger.keys import MALFORMED, STRAYS, STRAYS_ACTS, STRAYS_AT
from worker.ledger.sealed import Sealer
from worker.ledger.times import cursor, instant, milliseconds, place_at

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


class Stray(NamedTuple):
    """When a stray came, why it is one, its bytes, and Celery's id of the message."""

    id: str
    why: str
    at: datetime
    bytes: int
    task: str


def page(client: "redis.Redis", size: int = 50, after: str = "") -> tuple[list[Stray], str]:
    """The newest strays, or those after a cursor; and the next cursor ("" at the end). Raises ConfigurationError."""
    if client.zcard(STRAYS_AT) < client.hlen(STRAYS):  # an earlier release kept some without their time
        for id, kept in client.hscan_iter(STRAYS, count=size):
            client.zadd(STRAYS_AT, {id: int(kept.partition(b"\n")[0])}, nx=True)
    start = 0
    if after:
        at, last = place_at(after)
        score = milliseconds(at - instant(0))
        same = client.zrange(STRAYS_AT, score, score, byscore=True)
        start = client.zcount(STRAYS_AT, f"({score}", "+inf") + sum(text(id) >= last for id in same)
    placed: list[Any] = client.zrange(STRAYS_AT, start, start + size, desc=True, withscores=True)
    ids = [id for id, _ in placed[:size]]
    kept_of: Any = client.hmget(STRAYS, ids) if ids else []
    found = [_stray(text(id), kept) for id, kept in zip(ids, kept_of, strict=True) if kept]
    return found, cursor(instant(placed[size - 1][1]), text(ids[-1])) if len(placed) > size else ""


def _stray(id: str, kept: bytes) -> Stray:
    at, about, _ = kept.split(b"\n", 2)
    return Stray(id=id, at=instant(at), **json.loads(about))


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
            pipeline.zrem(STRAYS_AT, id)
        pipeline.lpush(STRAYS_ACTS, act)
        pipeline.ltrim(STRAYS_ACTS, 0, _ACTS_KEPT - 1)
        pipeline.execute()


def acts(client: "redis.Redis") -> list[str]:
    """What people did with strays: when, who, what, why; the newest first."""
    return [text(line) for line in client.lrange(STRAYS_ACTS, 0, -1)]
