"""Where an interrupted audit of Rhythm goes on."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import redis

from worker.ledger.client import text
from worker.ledger.keys import key
from worker.ledger.times import milliseconds

#: What was read longer ago is read again.
KEPT: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far an audit came: the moment of the last event, how many of that moment, how many events in all."""

    since: float = 0.0
    seen: int = 0
    walked: int = 0
    #: Registrations found different so far.
    differing: list[str] = field(default_factory=list)


def load(client: "redis.Redis", tenant: str) -> Mark:
    """The mark; the beginning when there is none."""
    kept: Any = client.hgetall(key(tenant, "audit"))
    if not kept:
        return Mark()
    differing: Any = client.smembers(key(tenant, "audit.differing"))
    return Mark(float(kept[b"since"]), int(kept[b"seen"]), int(kept[b"walked"]), sorted(map(text, differing)))


def save(client: "redis.Redis", tenant: str, mark: Mark) -> None:
    """Go on from here."""
    place, differing = key(tenant, "audit"), key(tenant, "audit.differing")
    pipeline = client.pipeline()
    pipeline.hset(place, mapping={"since": mark.since, "seen": mark.seen, "walked": mark.walked})
    pipeline.pexpire(place, milliseconds(KEPT))
    if mark.differing:
        pipeline.sadd(differing, *mark.differing)
        pipeline.pexpire(differing, milliseconds(KEPT))
    pipeline.execute()


def forget(client: "redis.Redis", tenant: str) -> None:
    """Begin anew."""
    client.delete(key(tenant, "audit"), key(tenant, "audit.differing"))
