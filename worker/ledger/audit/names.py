"""What must hold of the candidates' names (`trace.py`): each name of an event has its place in a bucket, and no other.

Whole buckets are compared by how many places they hold and by their sum. Only where these differ is each place looked
at, and each event asked: at rest that is nowhere, under load where an event was named since it was walked past.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import redis
from redis.exceptions import ResponseError

from worker.ledger import trace
from worker.ledger.audit.events import Difference, Found, Sums, paged, read
from worker.ledger.client import text
from worker.ledger.keys import key

#: Places of a bucket that are looked at together.
_PLACES: Final = 500
#: Uneven buckets that are looked at: they are kept in memory meanwhile.
_AT_MOST: Final = 100


class NameChecks:
    """The rules for a tenant's buckets. `until`: places of events received later are left out."""

    def __init__(self, client: "redis.Redis", tenant: str, until: float) -> None:
        self._client = client
        self._tenant = tenant
        self._until = until
        self._held: dict[str, set[int]] = {}

    def uneven(self, walked: Sums, seen: Collection[str]) -> list[str]:
        """The first buckets, of those seen and those that events have names in, that do not hold what events say."""
        for bucket in sorted({*seen, *walked}):
            places = [place for place in self._places(bucket) if trace.received_at(place) <= self._until]
            if (len(places), sum(places)) != walked.get(bucket, (0, 0)):
                self._held[bucket] = set(places)
            if len(self._held) == _AT_MOST:
                break
        return list(self._held)

    def buckets(self, names: Sequence[str]) -> Found:
        """In a bucket there are as many of each place as names of events have it."""
        found = Found()
        for name in names:
            held = Counter(self._places(name))
            for places in paged(held, _PLACES):
                have = self._have(name, {trace.received_at(place) for place in places})
                found.differences += [
                    Difference("names", f"{name} {place}", None, str(have[place]), str(held[place]), name)
                    for place in places
                    if have[place] != held[place]
                ]
        return found

    def events(self, ids: Sequence[str]) -> Found:
        """Events are found by their candidates, as far as their names are in an uneven bucket."""
        found = Found()
        fields = read(self._client, [("HMGET", key(self._tenant, "event", id), "who", "received_at") for id in ids])
        for id, told in zip(ids, fields, strict=True):
            if isinstance(told, ResponseError) or None in told or not told[1].isdigit():
                continue  # Another check tells of it.
            for name in trace.names(text(told[0])):
                bucket, place = trace.bucket(name), trace.place(name, int(told[1]))
                if bucket in self._held and place not in self._held[bucket] and place not in self._places(bucket):
                    found.differences.append(Difference("names", id, None, "found by its candidate", "nothing", id))
        return found

    def _have(self, bucket: str, times: Collection[int]) -> Counter[int]:
        """How often events received at these times have each place in a bucket."""
        events = key(self._tenant, "events")
        received = read(self._client, [("ZRANGE", events, at, at, "BYSCORE") for at in times])
        each = [(at, text(id)) for at, ids in zip(times, received, strict=True) for id in ids]
        whos = read(self._client, [("HGET", key(self._tenant, "event", id), "who") for _, id in each])
        told = [(at, text(who)) for (at, _), who in zip(each, whos, strict=True) if isinstance(who, bytes)]
        return Counter(
            trace.place(one, at) for at, who in told for one in trace.names(who) if trace.bucket(one) == bucket
        )

    def _places(self, bucket: str) -> Iterator[int]:
        """What a bucket holds; what is no place counts as one that nobody has, and so does a key of another type."""
        try:
            for page in trace.pages(self._client, key(self._tenant, "names", bucket)):
                yield from (int(one) if one.isdigit() else -1 for one in page)
        except ResponseError:
            yield -1
