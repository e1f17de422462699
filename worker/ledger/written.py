"""What the ledger remembers of registrations: what we last wrote there, and the newest version seen."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import redis

from worker.ledger.client import text, text_of
from worker.ledger.keys import key
from worker.ledger.queries import history_line
from worker.ledger.sealed import SealBroken, Sealer


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the ledger holds of a registration. All None: we never wrote to it."""

    #: The delivery of that event.
    delivery: str | None = None
    #: The event whose values they are.
    event: str | None = None
    #: What reads `values`. One registration's that cannot be opened must not stop the others.
    read: Callable[[], dict[str, Any] | None] = field(default=lambda: None, compare=False)
    #: The highest `sys_version` ever seen: a read below it is stale.
    sys_version: int | None = None
    rev: str = "0"
    #: The event whose intent is on it: its write may be in Rhythm although the ledger does not know yet.
    owner: str | None = None
    #: On top of which version the values were written.
    base: str | None = None
    #: What reads `accepted`.
    read_accepted: Callable[[], dict[str, Any] | None] = field(default=lambda: None, compare=False)

    @property
    def accepted(self) -> dict[str, Any] | None:
        """A person's override that an operator has accepted: `values` (None: gone), `by`, `at`. Raises as `values`."""
        return self.read_accepted()

    @property
    def values(self) -> dict[str, Any] | None:
        """What we wrote, by Rhythm's field name, as JSON values. Raises SealUnknown, SealBroken."""
        return self.read()


def remembered(
    client: "redis.Redis", sealer: Sealer, tenant: str, registrations: Iterable[str]
) -> dict[str, Remembered]:
    """What is remembered of each registration; one round trip, and another where we have written."""
    wanted = list(dict.fromkeys(registrations))
    if not wanted:
        return {}
    pipeline = client.pipeline(transaction=False)
    for registration in wanted:
        pipeline.hgetall(key(tenant, "registration", registration))
    records: list[Any] = pipeline.execute(raise_on_error=False)
    writers = [record[b"event"] for record in records if isinstance(record, dict) and b"event" in record]
    for writer in writers:
        pipeline.hget(key(tenant, "event", text(writer)), "delivery")
    deliveries = dict(zip(writers, pipeline.execute(raise_on_error=False), strict=True))
    every = zip(wanted, records, strict=True)
    return {name: _remembered(sealer, name, record, deliveries) for name, record in every}


def _remembered(sealer: Sealer, registration: str, found: Any, deliveries: dict[bytes, Any]) -> Remembered:
    delivery = None if isinstance(found, redis.ResponseError) else deliveries.get(found.get(b"event", b""))
    if isinstance(found, redis.ResponseError) or isinstance(delivery, redis.ResponseError):
        return Remembered(read=_broken)
    record = {name.decode(): value.decode() for name, value in found.items()}
    values = text_of(record, "values")
    return Remembered(
        None if delivery is None else text(delivery),
        record.get("event"),
        lambda: json.loads(sealer.open_text(values, registration)) if values else None,
        int(record["sys_version"]) if "sys_version" in record else None,
        record.get("rev", "0"),
        record.get("owner"),
        record.get("base"),
        lambda: json.loads(sealer.open_text(record["accepted"], registration)) if "accepted" in record else None,
    )


def _broken() -> None:
    """Of one registration's record nothing can be read; the others must not suffer."""
    raise SealBroken("no record of ours is under that key")


def accept(
    client: "redis.Redis", sealer: Sealer, tenant: str, registration: str, kept: Remembered, override: dict[str, Any]
) -> bool:
    """Note an override beside what we wrote, which stays. False when the registration was not left as in `kept`."""
    record = key(tenant, "registration", registration)
    with client.pipeline() as pipeline:
        pipeline.watch(record)
        rev, owner, event = pipeline.hmget(record, "rev", "owner", "event")
        if (text(rev), text(event)) != (kept.rev, kept.event) or owner is not None:
            return False
        pipeline.multi()
        pipeline.hset(record, "accepted", sealer.seal_text(json.dumps(override), registration))
        line = history_line(datetime.fromisoformat(override["at"]), "accept", override["by"])
        pipeline.append(key(tenant, "history", text(event)), line)
        try:
            pipeline.execute()
        except redis.WatchError:
            return False
    return True
