"""What must hold of an event, and of an index's member: the ledger's rules, each as a question to Redis.

Reads only, a page at a time. By the time that one answer is read another may be out of date, so that whoever asks
(`books.py`) looks at a difference again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import ResponseError

from schemas.event import EventState, Reason
from schemas.outcome import Source
from worker.ledger import trace
from worker.ledger.client import text, text_of
from worker.ledger.keys import INDEX_OF, key
from worker.ledger.sealed import SealBroken, Sealer, SealUnknown

_STOPPED: Final = tuple(state for state in EventState if state.for_a_person)
#: States of an event whose version its delivery has.
_VERSIONED: Final = (EventState.READY, EventState.SYNCED, EventState.SUPERSEDED)
_FIELDS: Final = (
    "state",
    "source",
    "received_at",
    "receipts",
    "reason",
    "result",
    "registration",
    "delivery",
    "version",
    "intent",
    "who",
    "history",
    "history:1",
)
_RESULTS: Final = ("written", "unchanged")
_SHOWN: Final = 64
Fields = dict[str, str]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Difference:
    """One disagreement: what kind, of which event or key, at which registration, what it should be and what it is."""

    kind: str
    id: str
    registration: str | None
    expected: str
    found: str
    #: What to look at again.
    subject: str = ""


@dataclass(slots=True)
class Found:
    """What a look at a page has shown: where it differs, and what is to be counted of its events."""

    differences: list[Difference] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    #: Bucket -> the sum of the places that its events must have there.
    places: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that must hold: the command, whether its answer is right, and what a right one would be."""

    kind: str
    id: str
    expected: str
    command: tuple[str | int | float, ...]
    holds: Callable[[Any], bool]
    registration: str | None = None
    subject: str | None = None

    def difference(self, answer: Any) -> Difference | None:
        """None when the answer is right. A key of another type than ours is wrong, too."""
        if not isinstance(answer, ResponseError) and self.holds(answer):
            return None
        return Difference(self.kind, self.id, self.registration, self.expected, shown(answer), self.subject or self.id)


def ask(client: "redis.Redis", questions: Sequence[Question]) -> list[Difference]:
    """Where the answers are not right. One round trip."""
    answers = read(client, [question.command for question in questions])
    differences = (question.difference(answer) for question, answer in zip(questions, answers, strict=True))
    return [difference for difference in differences if difference is not None]


def read(client: "redis.Redis", commands: Iterable[tuple[str | int | float, ...]]) -> list[Any]:
    """The answers to commands, in one round trip; for a key of another type than ours the error."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return pipeline.execute(raise_on_error=False)


def paged(what: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of at most `size`."""
    waiting = iter(what)
    while page := list(islice(waiting, size)):
        yield page


def shown(answer: Any) -> str:
    """An answer for people. What is stored of a person is not shown."""
    if isinstance(answer, list):
        return ", ".join(shown(one) for one in answer)
    if isinstance(answer, bytes):
        return answer.decode() if len(answer) <= _SHOWN and answer.isascii() else "other content"
    return "nothing" if answer is None else str(answer)


def there(answer: Any) -> bool:
    """There is such a thing."""
    return answer is not None


def counted_as(fields: Fields) -> list[str]:
    """Under which names the counts hold an event."""
    state, more = fields["state"], None
    if state in _STOPPED:
        more = fields.get("reason")
    elif state == EventState.SYNCED:
        more = fields.get("result")
    return [state, f"{state}:{more}"] if more else [state]


class Checks:
    """The rules for events and the indexes of a tenant. With a sealer, what is stored is opened."""

    def __init__(self, client: "redis.Redis", tenant: str, sealer: Sealer | None) -> None:
        self._client = client
        self._tenant = tenant
        self._sealer = sealer

    def events(self, ids: Sequence[str]) -> Found:
        """What must hold of events."""
        found, questions = Found(), list[Question]()
        answers = read(self._client, [("HMGET", self._key("event", id), *_FIELDS) for id in ids])
        for id, values in zip(ids, answers, strict=True):
            fields = _fields(values)
            wrong = _wrong(fields)
            if wrong:
                found.differences.append(Difference("event", id, None, *wrong, subject=id))
            if "state" in fields:
                found.counted.update(counted_as(fields))
                _add_places(found.places, fields)
                questions += self._of(id, fields)
        found.differences = self._still_in("events", found.differences + ask(self._client, questions))
        return found

    def members(self, index: str, ids: Sequence[str]) -> Found:
        """What must hold of an index's members: an event in the state that the index is for, that is recorded."""
        state = next(state for state, name in INDEX_OF.items() if name == index)
        questions = [
            Question(
                "index",
                id,
                f"{state}, as it is in {index}",
                ("HGET", self._key("event", id), "state"),
                lambda answer: answer == state.encode(),
            )
            for id in ids
        ]
        return Found(self._still_in(index, ask(self._client, questions)))

    def _still_in(self, index: str, differences: list[Difference]) -> list[Difference]:
        """Without those of events that have left it since: pruned, or moved on."""
        places = read(self._client, [("ZSCORE", self._key(index), one.subject) for one in differences])
        return [one for one, place in zip(differences, places, strict=True) if place is not None]

    def _of(self, id: str, fields: Fields) -> Iterator[Question]:
        state, registration = fields["state"], fields.get("registration")
        record = self._key("registration", registration or "")
        delivery = self._key("delivery", fields.get("delivery", ""))
        at, version = fields.get("received_at", ""), f"v:{fields.get('version')}"
        yield Question(
            "event", id, f"received at {at}", ("ZSCORE", self._key("events"), id), lambda one: one == _number(at)
        )
        if state != EventState.RECEIVED and not text_of(fields, "history"):
            yield Question("history", id, "a history", ("EXISTS", self._key("history", id)), bool)
        if state in INDEX_OF:
            yield from self._waiting(id, EventState(state))
        if state in _VERSIONED:
            same = {"delivery": fields.get("delivery", ""), "version": fields.get("version", "")}
            expected = f"{version} leads to it"
            yield Question("delivery", id, expected, ("HGET", delivery, version), self._is(id, same), registration)
        if "intent" in fields:
            yield Question("owner", id, id, ("HGET", record, "owner"), lambda one: one == id.encode(), registration)
        if state == EventState.SYNCED:
            yield Question("registration", id, "remembered", ("HGET", record, "rev"), there, registration)
        if fields.get("result") == "written":
            writer = self._is(id, {"state": state, "registration": registration or ""})
            yield Question("registration", id, "last written by it", ("HGET", record, "event"), writer, registration)

    def _waiting(self, id: str, state: EventState) -> Iterator[Question]:
        """An event that is not final is in its state's index, and has its payload."""
        yield Question("index", id, f"in {INDEX_OF[state]}", ("ZSCORE", self._key(INDEX_OF[state]), id), there)
        yield Question("payload", id, "a payload", ("GET", self._key("payload", id)), lambda one: self._opens(one, id))

    def _is(self, id: str, fields: Fields) -> Callable[[bytes | None], bool]:
        """The answer is this event, or another that says the same of itself."""

        def holds(answer: bytes | None) -> bool:
            if answer is None or answer == id.encode():
                return answer is not None
            (values,) = read(self._client, [("HMGET", self._key("event", text(answer)), *fields)])
            return bool(values == [value.encode() for value in fields.values()])

        return holds

    def _opens(self, stored: bytes | None, id: str) -> bool:
        if stored is None or self._sealer is None:
            return stored is not None
        try:
            self._sealer.open(stored, id)
        except (SealBroken, SealUnknown):
            return False
        return True

    def _key(self, *parts: str) -> str:
        return key(self._tenant, *parts)


def _add_places(places: "Counter[str]", fields: Fields) -> None:
    at = _number(fields.get("received_at"))
    if at is None:
        return
    for name in trace.names(fields.get("who", "")):
        places[trace.bucket(name)] += trace.place(name, at)


def _fields(values: Any) -> Fields:
    if isinstance(values, ResponseError):
        return {}
    return {name: text(value) for name, value in zip(_FIELDS, values, strict=True) if value is not None}


def _wrong(fields: Fields) -> tuple[str, str] | None:
    """What an event must say and does not: expected, found."""
    state = fields.get("state", "nothing")
    rules = (
        (state in set(EventState), "a state", state),
        (fields.get("source") in set(Source), "a source", fields.get("source", "nothing")),
        (_number(fields.get("received_at")) is not None, "received_at", fields.get("received_at", "nothing")),
        (_number(fields.get("receipts", "1")) is not None, "receipts", fields.get("receipts", "")),
        (state not in _STOPPED or fields.get("reason") in set(Reason), "a reason", fields.get("reason", "nothing")),
        (state != EventState.SYNCED or fields.get("result") in _RESULTS, "a result", fields.get("result", "nothing")),
        (state not in _VERSIONED or "version" in fields, "a version", "nothing"),
    )
    return next(((expected, found) for holds, expected, found in rules if not holds), None)


def _number(field: str | None) -> int | None:
    return int(field) if field is not None and field.isdecimal() else None
