"""Whether the ledger agrees with itself: every event in one state, in that state's index, and counted there."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import redis

from schemas.event import EventState
from worker.ledger import index
from worker.ledger.client import text
from worker.ledger.keys import key

_INDEX_OF: Final = {
    "due:process": EventState.RECEIVED,
    "due:sync": EventState.READY,
    "held": EventState.HELD,
    "dead": EventState.DEAD,
}
_FIELDS: Final = ("state", "reason", "result", "registration", "intent")
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """One disagreement: what kind, of which event or registration, what it should be and what it is."""

    kind: str
    id: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Books:
    """A tenant's books: what was accepted, what is accounted for, and where they disagree."""

    accepted: int
    accounted: int
    pruned: int
    differences: tuple[Difference, ...]


def books(client: "redis.Redis", tenant: str) -> Books:
    """Look at every event of a tenant. Exact only while nothing moves; under load, look twice."""
    counts = index.counts(client, tenant)
    counted: Counter[str] = Counter()
    differences: list[Difference] = []
    members = {name: {text(id) for id in client.zrange(key(tenant, name), 0, -1)} for name in _INDEX_OF}
    for id, fields in _events(client, tenant):
        differences += _misplaced(id, fields, members)
        counted.update(_counted_as(fields))
    stray = {id: name for name, ids in members.items() for id in ids}
    differences += [Difference("index", id, "no event", f"in {name}") for id, name in stray.items()]
    differences += _miscounted(counts, counted)
    accepted, pruned = counts.get("accepted", 0), counts.get("pruned", 0)
    accounted = sum(counted[state] for state in EventState)
    if accepted != accounted + pruned:
        differences.append(Difference("conservation", tenant, str(accepted), f"{accounted} and {pruned} pruned"))
    return Books(accepted, accounted, pruned, tuple(differences))


def _events(client: "redis.Redis", tenant: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    page: list[str] = []
    for id in index.ids(client, tenant):
        page.append(id)
        if len(page) == _PAGE:
            yield from _read(client, tenant, page)
            page = []
    yield from _read(client, tenant, page)


def _read(client: "redis.Redis", tenant: str, page: list[str]) -> Iterator[tuple[str, dict[str, str | None]]]:
    pipeline = client.pipeline(transaction=False)
    for id in page:
        pipeline.hmget(key(tenant, "event", id), *_FIELDS)
    for id, values in zip(page, pipeline.execute(), strict=True):
        told = (None if value is None else text(value) for value in values)
        yield id, dict(zip(_FIELDS, told, strict=True))


def _misplaced(id: str, fields: dict[str, str | None], members: dict[str, set[str]]) -> list[Difference]:
    """Takes the event out of `members` where it belongs there; what is left in the end is stray."""
    state = fields["state"]
    if state not in set(EventState):
        return [Difference("state", id, "a state", str(state))]
    wanted = {name for name, of in _INDEX_OF.items() if of == state}
    found = {name for name, ids in members.items() if id in ids}
    for name in found & wanted:
        members[name].discard(id)
    if found == wanted:
        return []
    for name in found:
        members[name].discard(id)
    return [Difference("index", id, f"{state}: {sorted(wanted)}", str(sorted(found)))]


def _counted_as(fields: dict[str, str | None]) -> list[str]:
    state = str(fields["state"])
    if state in (EventState.HELD, EventState.DEAD) and fields["reason"]:
        return [state, f"{state}:{fields['reason']}"]
    if state == EventState.SYNCED and fields["result"]:
        return [state, f"{state}:{fields['result']}"]
    return [state]


def _miscounted(counts: dict[str, int], counted: "Counter[str]") -> list[Difference]:
    names = (set(counts) | set(counted)) - {"accepted", "pruned"}
    return [
        Difference("count", name, str(counted[name]), str(counts.get(name, 0)))
        for name in sorted(names)
        if counts.get(name, 0) != counted[name] and not _ever_grows(name)
    ]


def _ever_grows(name: str) -> bool:
    """`synced:{result}` counts what was done; pruning does not take it back."""
    return name.startswith("synced:")
