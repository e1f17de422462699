"""Strays: messages that name no tenant or source that we know, or have no body. Kept for a person, for a time."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, cast

import redis

from schemas.outcome import Source
from worker.ledger import queries
from worker.ledger.client import script_text, text
from worker.ledger.keys import MALFORMED, STRAYS, STRAYS_ACTS, STRAYS_FORGOTTEN, SWEEP, key
from worker.ledger.sealed import Sealer
from worker.ledger.times import IDENTITY_KEPT, instant

#: Stands for all that was on a queue and no message; with a digest behind it, for one such entry.
EVERY_ENTRY: Final = "malformed"
_ACTS_KEPT: Final = 1000
#: How many are read together: each may hold a large body.
_PAGE: Final = 16


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
    return [sealer.open(_parted(entry)[1], MALFORMED) for entry in entries]


def parked(client: "redis.Redis", sealer: Sealer, entry: bytes | str) -> bytes:
    """The stored form of what is no message, for the list `MALFORMED`."""
    content = entry.encode() if isinstance(entry, str) else entry
    return b"%d\n" % (queries.redis_now(client).timestamp() * 1000) + sealer.seal(content, MALFORMED)


def _parted(entry: bytes) -> tuple[datetime | None, bytes]:
    """When it was parked, and its content, sealed. Earlier releases noted no time."""
    at, _, sealed = entry.partition(b"\n")
    return (instant(at), sealed) if at.isdigit() else (None, entry)


def contents(client: "redis.Redis") -> Iterator[tuple[str, str, bytes]]:
    """Of each stray, and of what is no message: its id for `remove`, what its content is sealed for, and that."""
    for id, kept in client.hscan_iter(STRAYS, count=_PAGE):
        yield text(id), text(id), kept.split(b"\n", 2)[2]
    for start in range(-_PAGE, -client.llen(MALFORMED) - _PAGE, -_PAGE):  # from the end where none are added
        entries: Any = client.lrange(MALFORMED, start, start + _PAGE - 1)
        yield from ((_entry_id(entry), MALFORMED, _parted(entry)[1]) for entry in entries)


def _entry_id(entry: bytes) -> str:
    return f"{EVERY_ENTRY}.{hashlib.sha256(entry).hexdigest()[:26]}"


def note(client: "redis.Redis", by: str, move: str, id: str, why: str = "") -> None:
    """Note what a person did that leaves the strays as they are: a look at what one holds."""
    client.lpush(STRAYS_ACTS, _line(client, by, move, id, why))
    client.ltrim(STRAYS_ACTS, 0, _ACTS_KEPT - 1)


def _line(client: "redis.Redis", *words: str) -> str:
    return " ".join((queries.redis_now(client).isoformat(timespec="seconds"), *" ".join(words).split()))


def remove(client: "redis.Redis", id: str, by: str, move: str, why: str = "") -> bool:
    """Remove a stray, or what is no message (`EVERY_ENTRY`: all of that), and note who did and why. False: it was gone.

    What was forgotten (`move`) is not kept when the same message comes again.
    """
    line = _line(client, by, move, id, why)
    with client.pipeline() as pipeline:
        if id == EVERY_ENTRY:
            pipeline.delete(MALFORMED)
        elif id.startswith(EVERY_ENTRY):
            entries: Any = client.lrange(MALFORMED, 0, -1)
            pipeline.lrem(MALFORMED, -1, next((entry for entry in entries if _entry_id(entry) == id), ""))
        else:
            pipeline.hdel(STRAYS, id)
        pipeline.lpush(STRAYS_ACTS, line)
        pipeline.ltrim(STRAYS_ACTS, 0, _ACTS_KEPT - 1)
        if move == "forget":
            pipeline.set(STRAYS_FORGOTTEN + id, 1, px=IDENTITY_KEPT)
        return bool(pipeline.execute()[0])


def prune(client: "redis.Redis", kept: timedelta, tenants: Iterable[str]) -> None:
    """Remove what is older than `kept`: strays, what is no message, notes of refusals. A call looks at a page."""
    before, begin = queries.redis_now(client) - kept, int(client.hget(SWEEP, "strays") or 0)
    scanned: Any = client.hscan(STRAYS, begin, count=_PAGE)
    (end, page), entries = scanned, cast(list[bytes], client.lrange(MALFORMED, -_PAGE, -1))
    old = [text(id) for id, stray in page.items() if instant(stray.partition(b"\n")[0]) < before]
    parked = ((_parted(entry)[0], entry) for entry in entries)
    for id in (*old, *(_entry_id(entry) for at, entry in parked if at and at < before)):
        remove(client, id, "sweep", "prune")
    for place in (key(tenant, "refused", source) for tenant in tenants for source in Source):
        line = client.lindex(place, -1)
        if line and text(line) < before.isoformat():  # a line begins with its time
            client.lrem(place, -1, text(line))
    if (begin, end) != (0, 0):
        client.hset(SWEEP, "strays", end)


def acts(client: "redis.Redis") -> list[str]:
    """What people and the sweep did with strays: when, who, what, why; the newest first."""
    return [text(line) for line in client.lrange(STRAYS_ACTS, 0, -1)]
