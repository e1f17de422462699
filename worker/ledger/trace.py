"""Finding a candidate's, a registration's or a delivery's events, both ways, without walking the ledger.

A candidate goes by names: HMACs of the student id, the e-mail, the platform's candidate id. An event keeps its names
(`who`), and a tenant's 1,024 buckets hold a place for each: 10 bytes that tell when the event was received, and ten
bits of the name. A look-up reads one bucket, finds the events by their time, and takes those that have the name. The
scripts update both together.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

import redis

from schemas.addresses import folded
from schemas.event import Event, EventState
from schemas.outcome import Source
from worker.ledger import queries
from worker.ledger.client import text
from worker.ledger.identity import Identity
from worker.ledger.keys import key

#: Characters of a name (60 bits): a million candidates share one with a probability of one in a million.
LENGTH: Final = 12
#: Places of a bucket that one command reads.
_PAGE: Final = 1000
#: Ten bits of the name stand beside each time, so that few events are looked at in vain.
_BITS: Final = 1024


def name_of(identity: Identity, tenant: str, value: str) -> str:
    """The ledger's name for a candidate who is identified by `value`. Each tenant has its own names."""
    value = value.strip()
    return identity.of(f"candidate\0{tenant}\0{folded(value) if '@' in value else value}", LENGTH)


def who(identity: Identity, tenant: str, values: Iterable[str | None]) -> str:
    """All names of a candidate, as an event keeps them: the first of `values` that is there names the person best."""
    named = (name_of(identity, tenant, value) for value in values if value and value.strip())
    return "".join(dict.fromkeys(named))


def names(who: str) -> list[str]:
    """Each of the names that an event keeps."""
    return [who[start : start + LENGTH] for start in range(0, len(who), LENGTH)]


def bucket(name: str) -> str:
    """Which bucket a name is in. `shared.lua` says the same."""
    return name[:2]


def place(name: str, received_at: int) -> int:
    """What the bucket holds for a name of an event. `shared.lua` says the same."""
    return received_at * _BITS + _bits(name)


def received_at(place: int) -> int:
    """When the event was received that a place is of."""
    return place // _BITS


def _bits(name: str) -> int:
    return (ord(name[2]) * 32 + ord(name[3])) % _BITS


def of_candidate(client: "redis.Redis", tenant: str, name: str) -> list[str]:
    """The ids of a candidate's events, oldest first."""
    places = (int(one) for page in pages(client, key(tenant, "names", bucket(name))) for one in page)
    times = dict.fromkeys(received_at(one) for one in places if one % _BITS == _bits(name))
    pipeline = client.pipeline(transaction=False)
    for at in times:
        pipeline.zrange(key(tenant, "events"), at, at, byscore=True)
    ids = [text(id) for page in pipeline.execute() for id in page]
    for id in ids:
        pipeline.hget(key(tenant, "event", id), "who")
    return [id for id, who in zip(ids, pipeline.execute(), strict=True) if who and name in names(text(who))]


def nameless(client: "redis.Redis", tenant: str) -> Iterator[tuple[str, Any, bool]]:
    """The events that keep a payload and have no candidate's name; the payload, and whether nobody has read it yet."""
    ids = queries.ids(client, tenant)
    while page := list(islice(ids, _PAGE)):
        pipeline = client.pipeline(transaction=False)
        for id in page:
            pipeline.hmget(key(tenant, "event", id), "who", "state")
        for id, (who, state) in zip(page, pipeline.execute(), strict=True):
            if not who and (kept := client.get(key(tenant, "payload", id))):
                yield id, kept, state == EventState.RECEIVED.encode()


def of_registration(client: "redis.Redis", tenant: str, registration: str) -> list[str]:
    """The ids of the events that wrote to a registration, or tried, or were held when they came to it."""
    record: Any = client.hgetall(key(tenant, "registration", registration))
    tried = [text(field)[2:] for field in record if field.startswith(b"e:")]
    return list(dict.fromkeys([*tried, *(text(record[field]) for field in (b"event", b"owner") if field in record)]))


def of_delivery(client: "redis.Redis", tenant: str, event: Event) -> list[str]:
    """The ids of all events of an event's delivery: those that brought a version, and their copies."""
    if event.delivery is None:
        return [event.id]
    record: Any = client.hgetall(key(tenant, "delivery", event.delivery))
    versions = [text(id) for field, id in record.items() if field.startswith(b"v:")]
    who = client.hget(key(tenant, "event", event.id), "who")
    same = of_candidate(client, tenant, names(text(who))[0]) if who else []
    pipeline = client.pipeline(transaction=False)
    for id in same:
        pipeline.hget(key(tenant, "event", id), "delivery")
    kept = pipeline.execute()
    copies = [id for id, delivery in zip(same, kept, strict=True) if delivery and text(delivery) == event.delivery]
    return list(dict.fromkeys([event.id, *versions, *copies]))


def of_sitting(client: "redis.Redis", tenant: str, id: str) -> list[str]:
    """The ids of the events that brought results under a platform's own id of a sitting, or under its `eventId`."""
    pipeline = client.pipeline(transaction=False)
    for source in Source:
        pipeline.get(key(tenant, "ref", source, id))
    meant = [text(ref).rpartition(" ")[0] for ref in pipeline.execute() if ref]
    for delivery in [*meant, *(f"{source}:{id}" for source in Source)]:
        pipeline.hgetall(key(tenant, "delivery", delivery))
    return [text(event) for record in pipeline.execute() for field, event in record.items() if field.startswith(b"v:")]


def events(client: "redis.Redis", tenant: str, ids: Iterable[str]) -> list[Event]:
    """The events there are among `ids`, with their history, oldest first."""
    found = (queries.event(client, tenant, id) for id in ids)
    return sorted((event for event in found if event), key=lambda event: event.received_at)


def registrations(client: "redis.Redis", tenant: str, ids: Iterable[str]) -> list[dict[str, Any]]:
    """What the ledger holds of each registration, without the values: the last that wrote, and who is about to."""
    records = []
    for id in dict.fromkeys(ids):
        fields: Any = client.hmget(key(tenant, "registration", id), "rev", "event", "owner", "sys_version", "accepted")
        rev, event, owner, sys_version, accepted = (None if one is None else text(one) for one in fields)
        version = int(sys_version) if sys_version else None
        members = {"id": id, "rev": rev, "event": event, "owner": owner, "sys_version": version}
        records.append(members | {"accepted": accepted is not None})
    return records


def pages(client: "redis.Redis", place: str) -> Iterator[list[Any]]:
    """What a bucket holds, page by page."""
    start = 0
    while page := client.lrange(place, start, start + _PAGE - 1):
        yield page
        start += _PAGE
