"""What the ledger remembers of registrations: what we last wrote there, and the newest version seen."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from worker.ledger.keys import key


@dataclass(frozen=True, slots=True)
class Remembered:
    """One registration as we last left it. All None: we never wrote there."""

    delivery: str | None = None
    version: str | None = None
    #: What we wrote, by Rhythm's field name, as JSON values.
    values: dict[str, Any] | None = None
    #: The highest `sys_version` ever seen: a read below it is stale.
    sys_version: int | None = None
    rev: str = "0"


_FIELDS = ("delivery", "version", "values", "sys_version", "rev")


def remembered(client: "redis.Redis", tenant: str, registrations: Iterable[str]) -> dict[str, Remembered]:
    """What is remembered of each registration; one round trip."""
    wanted = list(dict.fromkeys(registrations))
    if not wanted:
        return {}
    pipeline = client.pipeline(transaction=False)
    for registration in wanted:
        pipeline.hmget(key(tenant, "registration", registration), *_FIELDS)
    return {name: _remembered(found) for name, found in zip(wanted, pipeline.execute(), strict=True)}


def _remembered(found: list[bytes | None]) -> Remembered:
    delivery, version, values, sys_version, rev = (None if value is None else value.decode() for value in found)
    return Remembered(
        delivery,
        version,
        json.loads(values) if values else None,
        int(sys_version) if sys_version else None,
        rev or "0",
    )
