"""Reading the ledger: one event with its history, counts, listings. Changes nothing."""

import heapq
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final, NamedTuple

import redis

from schemas.event import Event, EventState, HistoryEntry, Reason
from schemas.outcome import Source
from worker.ledger.client import script_text, text, text_of
from worker.ledger.keys import INDEX_OF, MALFORMED, STRAYS, SWEEP, TENANTS, key
from worker.ledger.times import instant

_PAGE: Final = 500
#: How many events `find.lua` looks at and gives in one call at most: about a millisecond of Redis.
_LOOKED_AT: Final = 2000
_TAKEN: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Those of them that are by when an event is due, not by when it was received.
DUE: Final = tuple(state for state in EventState if state.waiting)
_BY_DUE: Final = {INDEX_OF[state] for state in DUE}


def tenants(client: "redis.Redis") -> list[str]:
    """Every tenant that ever had an event here."""
    return sorted(text(name) for name in client.smembers(TENANTS))


def swept_at(client: "redis.Redis") -> datetime | None:
    """When the last sweep was, or None."""
    at = client.hget(SWEEP, "at")
    return None if at is None else instant(at)


def redis_now(client: "redis.Redis") -> datetime:
    """Redis' own time, which every time in the ledger is."""
    seconds, microseconds = client.time()
    return instant(seconds * 1000 + microseconds // 1000)


def closed_until(client: "redis.Redis", tenant: str) -> datetime | None:
    """When the tenant's Rhythm may be called again, which may be past; None while it answers."""
    at = client.hget(key(tenant, "gate"), "closed_until")
    return None if at is None else instant(at)


def gate(client: "redis.Redis", tenant: str) -> dict[str, str]:
    """The tenant's gate as it is kept. While Rhythm answers it has no `reason`, `closed_until` and `since`."""
    return {text(name): text(value) for name, value in client.hgetall(key(tenant, "gate")).items()}


def refusals(client: "redis.Redis", tenant: str, source: Source) -> list[str]:
    """The last refusals at the receiver, newest first: when, status, why."""
    return [text(line) for line in client.lrange(key(tenant, "refused", source), 0, -1)]


def stray_count(client: "redis.Redis") -> int:
    """How many strays there are."""
    return int(client.hlen(STRAYS))


def malformed(client: "redis.Redis") -> int:
    """How many queue entries were not Celery messages."""
    return int(client.llen(MALFORMED))


def counts(client: "redis.Redis", tenant: str) -> dict[str, int]:
    """How many events are in each state, and accepted and pruned; with `held:{reason}` and the like."""
    return {text(name): int(number) for name, number in client.hgetall(key(tenant, "counts")).items()}


def state_counts(found: dict[str, int]) -> dict[str, int]:
    """Of `counts`, those of the states alone."""
    return {state.value: found.get(state, 0) for state in EventState}


def oldest_due(client: "redis.Redis", tenant: str, state: EventState) -> datetime | None:
    """Since when the most overdue event of a waiting state has been due; None when there is none.

    Of held and dead events: when the oldest was received.
    """
    first = client.zrange(key(tenant, INDEX_OF[state]), 0, 0, withscores=True)
    return instant(first[0][1]) if first else None


def waiting_reasons(client: "redis.Redis", tenant: str, state: EventState, *, singly: bool = False) -> dict[str, int]:
    """The reasons of `received` or `ready` events that failed and are due again later, and how many have each.

    Reads the 2,000 that are due last: an event that was never tried has no reason, and is due before them.
    `singly`: for an account that must not read every key, as SORT demands. It takes 16 ms of CPU instead of 0.5.
    """
    place, event = key(tenant, INDEX_OF[state]), key(tenant, "event", "")
    if singly:
        pipeline = client.pipeline(transaction=False)
        for id in client.zrange(place, 0, _LOOKED_AT - 1, desc=True):
            pipeline.hget(event + text(id), "reason")
        reasons: list[Any] = pipeline.execute()
    else:  # by hand, because redis-py's `sort_ro` sends SORT, which a Redis that is at its maxmemory refuses
        asked = ("BY", "nosort", "LIMIT", 0, _LOOKED_AT, "GET", f"{event}*->reason", "DESC")
        reasons = client.execute_command("SORT_RO", place, *asked)
    return dict(Counter(text(reason) for reason in reasons if reason is not None).most_common())


def moved_at(client: "redis.Redis", tenant: str) -> datetime | None:
    """When a worker last moved an event, or spent an attempt; or None."""
    at = client.get(key(tenant, "moved"))
    return None if at is None else instant(at)


def event(client: "redis.Redis", tenant: str, id: str) -> Event | None:
    """One event with its history, or None."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(key(tenant, "event", id))
    pipeline.get(key(tenant, "history", id))
    pipeline.zscore(key(tenant, "due:process"), id)
    pipeline.zscore(key(tenant, "due:sync"), id)
    fields, history, *due = pipeline.execute()
    return event_of(tenant, id, fields, history, next((score for score in due if score is not None), None))


def event_of(
    tenant: str, id: str, fields: dict[bytes, bytes], history: bytes | None, due: float | None
) -> Event | None:
    """An Event from what Redis holds; None from nothing."""
    if not fields:
        return None
    stored: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    received = int(stored["received_at"])
    return Event.model_validate(
        stored
        | {
            "id": id,
            "tenant": tenant,
            "detail": stored.get("detail") or None,
            "received_at": instant(received),
            "due_at": None if due is None else instant(due),
            "history": _history(received, text_of(stored, "history"), (history or b"").decode()),
        }
    )


def _history(received: int, moves: str, others: str) -> list[HistoryEntry]:
    """All that happened to an event. `moves`: after its receipt, counted from it. `others`: at their own times."""
    entries = [*_entries(moves, received), *_entries(others, 0)]
    if not any(entry.move == "record" for entry in entries):  # an earlier release wrote it down
        entries.append(HistoryEntry(at=instant(received), move="record", by="receiver"))
    return sorted(entries, key=lambda entry: (entry.at, entry.move != "record"))


def history_line(at: datetime, move: str, by: str) -> str:
    """What happened beside the moves, as `history:{id}` holds it."""
    return f"{stamp(at)}\t{move}\t{by}\n"


def _entries(lines: str, since: int) -> Iterator[HistoryEntry]:
    for line in lines.splitlines():
        at, move, by, *reason = line.split("\t")
        yield HistoryEntry(at=instant(since + int(at)), move=move, by=by, reason=reason[0] if reason else None)


def ids(client: "redis.Redis", tenant: str, state: EventState | None = None) -> Iterator[str]:
    """The ids of a tenant's events, newest first; of one state when that has an index, else of all."""
    index = key(tenant, INDEX_OF.get(state, "events") if state else "events")
    start = 0
    while page := client.zrange(index, start, start + _PAGE - 1, desc=True):
        yield from (text(id) for id in page)
        start += _PAGE


class Wanted(NamedTuple):
    """Which events a listing is about. None takes any."""

    states: frozenset[EventState] | None = None
    source: Source | None = None
    reason: Reason | None = None
    #: Received then or later.
    since: datetime | None = None
    #: Received before then.
    until: datetime | None = None

    def takes(self, event: Event) -> bool:
        """Whether an event is one of them."""
        return (
            (self.states is None or event.state in self.states)
            and self.source in (None, event.source)
            and self.reason in (None, event.reason)
            and (self.since is None or event.received_at >= self.since)
            and (self.until is None or event.received_at < self.until)
        )


def listing(client: "redis.Redis", tenant: str, wanted: Wanted, *, oldest: bool = False) -> Iterator[Event]:
    """A tenant's events that match, newest or oldest first by when they were received, without their history.

    None is skipped or shown twice because others come and go meanwhile. Where there is an index of the states wanted
    that one is walked: all that wait for a person are found so. Else it is all events of the time range, up to as many
    as are in the final state wanted.
    """
    lanes = [_walk(client, tenant, *lane, oldest) for lane in _lanes(client, tenant, wanted)]
    last = None
    for event in heapq.merge(*lanes, key=place, reverse=not oldest):
        if event.id != last:  # it moved from one index to another meanwhile
            yield event
        last = event.id


def place(event: Event) -> tuple[datetime, str]:
    """Where an event stands in a listing."""
    return event.received_at, event.id


def reach(client: "redis.Redis", tenant: str, wanted: Wanted, most: int) -> datetime | None:
    """How far back a listing comes that looks at `most` events, as many of each index; None: to its end."""
    ends, until = list[Any](), "+inf" if wanted.until is None else f"({stamp(wanted.until)}"
    indexes = {index for index, _ in _lanes(client, tenant, wanted)} - _BY_DUE
    for index in indexes:
        beyond = int(client.zcount(key(tenant, index), "-inf", until)) - most // len(indexes)
        if beyond > 0:
            ends += client.zrange(key(tenant, index), beyond, beyond, withscores=True)
    return instant(max(score for _, score in ends)) if ends else None


def _lanes(client: "redis.Redis", tenant: str, wanted: Wanted) -> Iterator[tuple[str, Wanted]]:
    """The indexes to be walked for a listing, and what is wanted of each."""
    states = wanted.states
    if states is None and wanted.reason not in (None, Reason.FORGOTTEN):
        states = frozenset(INDEX_OF)  # a final event has no other reason
    if states is None:
        yield "events", wanted
        return
    walked = set(states - INDEX_OF.keys())
    for state in states & INDEX_OF.keys():
        if state in DUE and client.zcard(key(tenant, INDEX_OF[state])) > _LOOKED_AT:
            walked.add(state)
        else:
            yield INDEX_OF[state], wanted._replace(states=frozenset([state]))
    if walked:
        yield "events", wanted._replace(states=frozenset(walked))


def _walk(client: "redis.Redis", tenant: str, index: str, wanted: Wanted, oldest: bool) -> Iterator[Event]:
    """The events of one index that match, in the order of a listing."""
    found = _found(client, tenant, index, wanted, oldest)
    yield from sorted(found, key=place, reverse=not oldest) if index in _BY_DUE else found


def _found(client: "redis.Redis", tenant: str, index: str, wanted: Wanted, oldest: bool) -> Iterator[Event]:
    """The same, in the order of the index. Ends when all of a final state were found."""
    find, after = client.register_script(script_text("find")), [b"", b""]
    since, until = stamp(wanted.since), stamp(wanted.until)
    filters, bounds = _filters(wanted), [since or "-inf", until or "+inf"]
    if index != "events":  # by when it was received in an index that is by when it is due
        filters = [*_filters(wanted._replace(states=None)), *_received(since, until)]
        bounds = ["-inf" if index in _BY_DUE else bounds[0], "+inf"]
    seen, most = 0, 0.0
    while after and (seen < most or seen < (most := _most(client, tenant, index, wanted))):
        arguments = [tenant, index, int(not oldest), *bounds, *after, _LOOKED_AT, _TAKEN, json.dumps(filters)]
        after, _, in_state, events = find(args=arguments)
        seen += in_state
        for id, fields in events:
            event = event_of(tenant, text(id), dict(zip(fields[::2], fields[1::2], strict=True)), None, None)
            if event:
                yield event


def _most(client: "redis.Redis", tenant: str, index: str, wanted: Wanted) -> float:
    """How many events there are of the state wanted, if it is a final one, which nothing leaves but to be pruned."""
    states = wanted.states or ()
    if index != "events" or len(states) != 1 or INDEX_OF.keys() & states:
        return inf
    return counts(client, tenant).get(next(iter(states)), 0)


def _filters(wanted: Wanted) -> list[dict[str, Any]]:
    """What `find.lua` compares. The state comes first: it counts those."""
    wishes = (("state", wanted.states), ("source", {wanted.source}), ("reason", {wanted.reason}))
    return [
        {"field": field, "values": dict.fromkeys(values, True)}
        for field, values in wishes
        if values and None not in values
    ]


def _received(since: int | None, until: int | None) -> list[dict[str, Any]]:
    if since is None and until is None:
        return []
    return [{"field": "received_at", "from": since or 0, "below": until or 2**53}]


def stamp(at: datetime | None) -> int | None:
    """The first whole millisecond that is not before `at`."""
    return None if at is None else -((_EPOCH - at) // timedelta(milliseconds=1))
