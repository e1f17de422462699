"""Where an interrupted audit of Rhythm goes on."""

import json
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final

import redis

from worker.ledger.keys import key

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
    stored: Any = client.get(key(tenant, "audit_mark"))
    return Mark(**json.loads(stored)) if stored else Mark()


def save(client: "redis.Redis", tenant: str, mark: Mark) -> None:
    """Go on from here."""
    client.set(key(tenant, "audit_mark"), json.dumps(asdict(mark)), px=KEPT)


def forget(client: "redis.Redis", tenant: str) -> None:
    """Begin anew."""
    client.delete(key(tenant, "audit_mark"))
