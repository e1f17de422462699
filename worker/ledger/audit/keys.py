"""What must hold of the ledger's keys, found by SCAN: each belongs to a recorded event, and points to others.

So is found what no event leads to: an event that is in no index, a payload that outlived its event.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import redis
from redis.exceptions import ResponseError

from schemas.event import EventState
from worker.ledger.audit.events import Difference, Fields, Found, Question, ask, read, there
from worker.ledger.client import text
from worker.ledger.keys import FINAL, key

#: Keys that live and go with an event.
_OF_EVENTS: Final = ("event", "history", "payload", "outcome")
_FIELDS: Final = ("state", "registration", "intent", "delivery", "version")


@dataclass(frozen=True, slots=True)
class _Pointer:
    """An event that a record leads to, and what it must be. `lasting`: it cannot have been pruned."""

    event: str
    fits: Callable[[Fields], bool]
    lasting: bool = False


Look = Callable[[str, Fields], Iterator[_Pointer]]


class KeyChecks:
    """The rules for a tenant's keys. `pruned`: whether an event that is gone may have been pruned."""

    def __init__(self, client: "redis.Redis", tenant: str, pruned: bool) -> None:
        self._client = client
        self._tenant = tenant
        self._pruned = pruned
        #: The buckets of names that were among the keys.
        self.buckets: set[str] = set()

    def keys(self, names: Sequence[str]) -> Found:
        """What must hold of keys, by their names."""
        parts = [(name, *name.removeprefix(f"er:{self._tenant}:").partition(":")[::2]) for name in names]
        self.buckets.update(id for _, kind, id in parts if kind == "names")
        questions = [question for name, kind, id in parts for question in self._of_event(name, kind, id)]
        questions += self._expiring([(name, id) for name, kind, id in parts if kind == "payload"])
        found = Found(ask(self._client, questions))
        for kind, look in (("delivery", self._delivery), ("registration", self._registration)):
            found.differences += self._records([(name, id) for name, one, id in parts if one == kind], kind, look)
        found.differences = self._still_there(found.differences)
        return found

    def _still_there(self, differences: list[Difference]) -> list[Difference]:
        """Without those of keys that have gone since they were found."""
        exist = read(self._client, [("EXISTS", one.subject) for one in differences])
        return [one for one, exists in zip(differences, exist, strict=True) if exists]

    def _of_event(self, name: str, kind: str, id: str) -> Iterator[Question]:
        if kind in _OF_EVENTS:
            command = ("ZSCORE", key(self._tenant, "events"), id)
            yield Question(kind, id, "a recorded event", command, there, subject=name)
        if kind == "outcome":
            command = ("HGET", key(self._tenant, "event", id), "state")
            yield Question(kind, id, "none, unless ready", command, lambda one: one == b"ready", subject=name)

    def _expiring(self, payloads: Sequence[tuple[str, str]]) -> Iterator[Question]:
        """A payload goes some time after its event is final."""
        states = read(self._client, [("HGET", key(self._tenant, "event", id), "state") for _, id in payloads])
        for (name, id), state in zip(payloads, states, strict=True):
            if isinstance(state, bytes) and text(state) in FINAL:
                yield Question("payload", id, "expires", ("PTTL", name), lambda one: one != -1, subject=name)

    def _records(self, named: Sequence[tuple[str, str]], kind: str, look: Look) -> list[Difference]:
        """Where records do not lead to the events that they should."""
        pointers, differences = list[tuple[str, str, _Pointer]](), list[Difference]()
        hashes = read(self._client, [("HGETALL", name) for name, _ in named])
        for (name, id), fields in zip(named, hashes, strict=True):
            if isinstance(fields, ResponseError):
                differences.append(Difference(kind, id, None, "a record", str(fields), name))
                continue
            record = {text(field): text(value) for field, value in fields.items()}
            pointers += [(name, id, pointer) for pointer in look(id, record)]
        commands = [("HMGET", key(self._tenant, "event", pointer.event), *_FIELDS) for _, _, pointer in pointers]
        for (name, id, pointer), values in zip(pointers, read(self._client, commands), strict=True):
            found = {} if isinstance(values, ResponseError) else _fields(values)
            may_be_gone = self._pruned and not pointer.lasting
            if not (pointer.fits(found) if found else may_be_gone):
                about, expected = id if kind == "registration" else None, f"leads to {pointer.event or 'an event'}"
                state = found.get("state", "nothing")
                differences.append(Difference(kind, id, about, f"{expected}, of its own", state, name))
        return differences

    def _delivery(self, id: str, record: Fields) -> Iterator[_Pointer]:
        """Each version leads to an event that brought it; the one applied to one that is synced."""
        for name, event in record.items():
            if name.startswith("v:"):
                yield _Pointer(event, partial(_brought, id, record, name[2:], event, self._pruned))
        if "applied" in record:
            event = record.get(f"v:{record['applied']}", "")
            yield _Pointer(event, lambda one: one.get("state") == EventState.SYNCED, lasting=not event)

    def _registration(self, id: str, record: Fields) -> Iterator[_Pointer]:
        """Its owner is about to write there; the event whose values it keeps has done so."""
        if "owner" in record:
            yield _Pointer(
                record["owner"], lambda one: _at(one, EventState.READY, id) and "intent" in one, lasting=True
            )
        if "event" in record:
            yield _Pointer(record["event"], lambda one: _at(one, EventState.SYNCED, id))


def _fields(values: Sequence[bytes | None]) -> Fields:
    return {name: text(value) for name, value in zip(_FIELDS, values, strict=True) if value is not None}


def _at(event: Fields, state: EventState, registration: str) -> bool:
    return event.get("state") == state and event.get("registration") == registration


def _brought(id: str, record: Fields, version: str, event: str, pruned: bool, found: Fields) -> bool:
    """Whether an event brought this version. One prepared anew by a newer release may have brought another since.

    One that was pruned and delivered again has the same id, and no delivery until it is prepared.
    """
    now = found.get("version")
    if pruned and "delivery" not in found:
        return True
    return found.get("delivery") == id and (now == version or record.get(f"v:{now}") == event)
