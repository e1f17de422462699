"""Reading the ledger: one event with its history, counts, listings. Changes nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import redis

from schemas.event import Event, EventState, HistoryEntry, Reason
from schemas.outcome import Source
from worker.ledger.client import in_pieces, text
from worker.ledger.events import instant
from worker.ledger.keys import MALFORMED, STRAYS, SWEEP, TENANTS, key

_PAGE: Final = 500
#: States that have an index of their own; the others are found by walking `events`.
_INDEXES: Final = {
    EventState.RECEIVED: "due:process",
    EventState.READY: "due:sync",
    EventState.HELD: "held",
    EventState.DEAD: "dead",
}
DUE: Final = {EventState.RECEIVED: "due:process", EventState.READY: "due:sync"}
_MOVED: Final = {EventState.RECEIVED: "moved:process", EventState.READY: "moved:sync"}


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
    """The last refusals at the door, newest first: when, status, why."""
    return [text(line) for line in client.lrange(key(tenant, "refused", source), 0, -1)]


def malformed(client: "redis.Redis") -> int:
    """How many entries were on a queue and were no message."""
    return int(client.llen(MALFORMED))


@dataclass(frozen=True, slots=True)
class Stray:
    """A message on nobody's books: when it came, why, Celery's id of it, and how large it is."""

    id: str
    at: datetime
    why: str
    task: str
    bytes: int


def strays(client: "redis.Redis") -> list[Stray]:
    """Every stray, newest first. What they hold is sealed (`strays.py`)."""
    found = []
    for id, kept in client.hscan_iter(STRAYS, count=_PAGE):
        at, told, _ = kept.split(b"\n", 2)
        found.append(Stray(text(id), instant(at), **json.loads(told)))
    return sorted(found, key=lambda stray: stray.at, reverse=True)


def counts(client: "redis.Redis", tenant: str) -> dict[str, int]:
    """How many events are in each state, and accepted and pruned; with `held:{reason}` and the like."""
    return {text(name): int(number) for name, number in client.hgetall(key(tenant, "counts")).items()}


def state_counts(found: dict[str, int]) -> dict[str, int]:
    """Of `counts`, those of the states alone."""
    return {state.value: found.get(state, 0) for state in EventState}


def oldest_due(client: "redis.Redis", tenant: str, state: EventState) -> datetime | None:
    """Since when the most overdue event of a waiting state has been due; None when there is none."""
    first = client.zrange(key(tenant, DUE[state]), 0, 0, withscores=True)
    return instant(first[0][1]) if first else None


def moved_at(client: "redis.Redis", tenant: str, state: EventState) -> datetime | None:
    """When a worker last settled events that were waiting in this state, or None."""
    at = client.get(key(tenant, _MOVED[state]))
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
    told: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    return Event(
        id=id,
        tenant=tenant,
        source=Source(told["source"]),
        state=EventState(told["state"]),
        reason=Reason(told["reason"]) if "reason" in told else None,
        detail=told.get("detail") or None,
        result=told.get("result"),
        registration=told.get("registration"),
        delivery=told.get("delivery"),
        version=told.get("version"),
        received_at=instant(told["received_at"]),
        due_at=None if due is None else instant(due),
        attempts=int(told.get("attempts", 0)),
        receipts=int(told.get("receipts", 1)),
        history=[*_folded(in_pieces(fields, "history"), int(told["received_at"])), *_entries(history or b"", 0)],
    )


def _folded(told: bytes, received: int) -> list[HistoryEntry]:
    """The history in a final event, which begins after its receipt and is counted from it."""
    return [HistoryEntry(at=instant(received), move="record", by="door"), *_entries(told, received)] if told else []


def _entries(told: bytes, since: int) -> Iterator[HistoryEntry]:
    """A line each."""
    for line in told.decode().splitlines():
        at, move, by, *reason = line.split("\t")
        yield HistoryEntry(at=instant(since + int(at)), move=move, by=by, reason=reason[0] if reason else None)


def ids(client: "redis.Redis", tenant: str, state: EventState | None = None) -> Iterator[str]:
    """The ids of a tenant's events, newest first; of one state when that has an index, else of all."""
    index = key(tenant, _INDEXES.get(state, "events") if state else "events")
    start = 0
    while page := client.zrange(index, start, start + _PAGE - 1, desc=True):
        yield from (text(id) for id in page)
        start += _PAGE


def listing(
    client: "redis.Redis",
    tenant: str,
    *,
    state: EventState | None = None,
    source: Source | None = None,
    reason: Reason | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Event]:
    """A tenant's events that match every filter given, newest first, without their history."""
    page: list[str] = []
    for id in ids(client, tenant, state):
        page.append(id)
        if len(page) == _PAGE:
            yield from _matching(client, tenant, page, state, source, reason, since, until)
            page = []
    yield from _matching(client, tenant, page, state, source, reason, since, until)


def _matching(
    client: "redis.Redis",
    tenant: str,
    page: list[str],
    state: EventState | None,
    source: Source | None,
    reason: Reason | None,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[Event]:
    pipeline = client.pipeline(transaction=False)
    for id in page:
        pipeline.hgetall(key(tenant, "event", id))
    for id, fields in zip(page, pipeline.execute(), strict=True):
        found = event_of(tenant, id, fields, None, None)
        if (
            found
            and (state is None or found.state == state)
            and (source is None or found.source == source)
            and (reason is None or found.reason == reason)
            and (since is None or found.received_at >= since)
            and (until is None or found.received_at < until)
        ):
            yield found
