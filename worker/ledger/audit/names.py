"""What must hold of the buckets of candidates' names (`trace.py`): they have no places but those of events.

That each name of an event has its place is asked with the event. Buckets are compared by how many places they hold.
Only where that differs is each place looked at: at rest nowhere, under load where an event was named after it was seen.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Final

import redis
from redis.exceptions import ResponseError

from worker.ledger import trace
from worker.ledger.audit.events import Difference, Found, paged, read
from worker.ledger.client import text
from worker.ledger.keys import key

#: Places of a bucket that are looked at together.
_PLACES: Final = 500
#: Uneven buckets that are looked at.
_AT_MOST: Final = 100


class NameChecks:
    """The rules for a tenant's buckets."""

    def __init__(self, client: "redis.Redis", tenant: str) -> None:
        self._client = client
        self._tenant = tenant

    def uneven(self, names: "Counter[str]", seen: Collection[str], until: float) -> list[str]:
        """The first buckets that do not hold as many places as there are `names` of events in them.

        `seen`: other buckets that there are. `until`: places of events received later are left out.
        """
        held = (
            (bucket, sum(trace.received_at(place) <= until for place in self._places(bucket)))
            for bucket in sorted({*seen, *names})
        )
        return list(islice((bucket for bucket, places in held if places != names[bucket]), _AT_MOST))

    def buckets(self, buckets: Sequence[str]) -> Found:
        """In a bucket there are as many of each place as names of events have it."""
        found = Found()
        for bucket in buckets:
            held = Counter(self._places(bucket))
            for places in paged(held, _PLACES):
                named = self._named(bucket, {trace.received_at(place) for place in places})
                found.differences += [
                    Difference("names", f"{bucket} {place}", None, str(named[place]), str(held[place]), bucket)
                    for place in places
                    if named[place] != held[place]
                ]
        return found

    def _named(self, bucket: str, times: Collection[int]) -> Counter[int]:
        """How often events received at these times have each place in a bucket."""
        events = key(self._tenant, "events")
        received = read(self._client, [("ZRANGE", events, at, at, "BYSCORE") for at in times])
        each = [(at, text(id)) for at, ids in zip(times, received, strict=True) for id in ids]
        whos = read(self._client, [("HGET", key(self._tenant, "event", id), "who") for _, id in each])
        return Counter(
            trace.place(name, at)
            for (at, _), who in zip(each, whos, strict=True)
            if isinstance(who, bytes)
            for name in trace.names(text(who))
            if trace.bucket(name) == bucket
        )

    def _places(self, bucket: str) -> Iterator[int]:
        """What a bucket holds; what is no place counts as one that nobody has, and so does a key of another type."""
        try:
            for page in trace.pages(self._client, key(self._tenant, "names", bucket)):
                yield from (int(place) if place.isdigit() else -1 for place in page)
        except ResponseError:
            yield -1
