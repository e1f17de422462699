"""How many events were received and synced in each hour of the last day."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import redis

from worker.ledger.keys import key
from worker.ledger.times import instant, milliseconds

_HOUR: Final = 3_600_000  # milliseconds
#: How many hours there are figures for, the present one included.
_SHOWN: Final = 24


class Hour(NamedTuple):
    """An hour, by when it began."""

    began: datetime
    received: int
    synced: int


def last_day(client: "redis.Redis", tenant: str, now: datetime) -> list[Hour]:
    """The last hours, the oldest first. `now`: Redis' own time. The cost does not depend on the number of events."""
    this = milliseconds(now - instant(0)) // _HOUR
    hours = range(this - _SHOWN + 1, this + 1)
    pipeline = client.pipeline(transaction=False)
    for hour in hours:
        pipeline.zcount(key(tenant, "events"), hour * _HOUR, f"({(hour + 1) * _HOUR}")
        pipeline.get(key(tenant, "synced", str(hour)))
    found: list[Any] = pipeline.execute()
    every = zip(hours, found[::2], found[1::2], strict=True)
    return [Hour(instant(hour * _HOUR), int(received), int(synced or 0)) for hour, received, synced in every]
