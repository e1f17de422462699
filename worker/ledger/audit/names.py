"""What must hold of the candidates' names (`trace.py`): each name of an event has its place in a bucket, and no other.

Whole buckets are compared by the sum of their places. Only where these differ is each place looked at, and each event
asked: at rest that is nowhere, under load where an event was named after it was seen. To ask for the place of every
name would take 0.2 ms of Redis each, at a million events.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import redis
from redis.exceptions import ResponseError

from worker.ledger import trace
from worker.ledger.audit.events import Difference, Found, Question, ask, paged, read, there
from worker.ledger.client import text
from worker.ledger.keys import key

#: Places of a bucket that are looked at together.
_PLACES: Final = 500
#: Uneven buckets that are looked at: they are kept in memory meanwhile.
_AT_MOST: Final = 100


class NameChecks:
    """The rules for a tenant's buckets."""

    def __init__(self, client: "redis.Redis", tenant: str) -> None:
        self._client = client
        self._tenant = tenant
        self._held: dict[str, set[int]] = {}

    def uneven(self, expected: "Counter[str]", seen: Collection[str], until: float) -> list[str]:
        """The first buckets, of those seen and those that events have names in, whose sum is not the expected one.

        `until`: places of events received later are left out.
        """
        for bucket in sorted({*seen, *expected}):
            places = [place for place in self._places(bucket) if trace.received_at(place) <= until]
            if sum(places) != expected[bucket]:
                self._held[bucket] = set(places)
            if len(self._held) == _AT_MOST:
                break
        return list(self._held)

    def events(self, ids: Sequence[str]) -> Found:
        """Events are found by their candidates, as far as their names are in an uneven bucket."""
        questions = []
        fields = read(self._client, [("HMGET", key(self._tenant, "event", id), "who", "received_at") for id in ids])
        for id, values in zip(ids, fields, strict=True):
            if isinstance(values, ResponseError) or None in values or not values[1].isdigit():
                continue  # reported by another check
            for name in trace.names(text(values[0])):
                bucket, place = trace.bucket(name), trace.place(name, int(values[1]))
                if place not in self._held.get(bucket, {place}):
                    command = ("LPOS", key(self._tenant, "names", bucket), place)
                    questions.append(Question("names", id, "found by its candidate", command, there))
        return Found(ask(self._client, questions))

    def buckets(self, buckets: Sequence[str]) -> Found:
        """A bucket holds each place as often as there are names of events that have it."""
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
