"""What a claim hands to a task: events, and what the ledger holds of their deliveries."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from schemas.event import EventState, Reason
from schemas.outcome import Source
from worker.ledger.sealed import SealBroken, SealUnknown


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another version of the same delivery, and where its event stands (None: pruned)."""

    version: str
    event: str
    state: EventState | None
    received_at: datetime
    #: It is about another person, as far as their names in the ledger tell (`strangers` in `shared.lua`).
    stranger: bool = False
    #: What it was about to write when it left, where that may have been applied since.
    doubt: "Intent | None" = None


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """What the ledger holds of a delivery: the version applied last, where to, and its other versions."""

    applied: str | None = None
    registration: str | None = None
    rev: str = "0"
    siblings: tuple[Sibling, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """What was about to be written when an earlier try ended, and on top of which version of the registration."""

    registration: str
    #: The remote's version, which only the remote's own code can read; None where the remote gave none.
    base: str | None
    values: str

    @classmethod
    def from_json(cls, stored: str) -> Self:
        """The intent in its stored form."""
        members = json.loads(stored)
        base = members["base"]
        return cls(**members | {"base": None if base is None else str(base)})  # 0.1.0 stored a number


@dataclass(frozen=True, slots=True)
class Work:
    """One claimed event."""

    id: str
    state: EventState
    source: Source
    path: str
    received_at: datetime
    attempts: int
    first_attempt_at: datetime | None
    #: An operator's answers: `registration`, `verdict`, `accept` (reasons).
    answers: dict[str, Any]
    #: A reason that the receiver knew already.
    problem: Reason | None
    delivery: str | None
    version: str | None
    intent: Intent | None
    #: The payload, sealed: one that cannot be opened is that event's trouble alone.
    sealed: bytes
    delivery_record: DeliveryRecord = DeliveryRecord()
    #: Its last try met a failure of Rhythm's, and it may have been its own.
    failed: bool = False
    #: Why its answers or its intent could not be opened: raised by whoever begins to work on it.
    trouble: SealUnknown | SealBroken | None = None

    @property
    def accepts(self) -> frozenset[Reason]:
        """The reasons that an operator's answers disarm."""
        return frozenset(map(Reason, self.answers.get("accept", ())))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` says of an event. `answer`: ready, lost, duplicate, or the reason why it must be held."""

    answer: str
    detail: str
    delivery: str
    version: str
    delivery_record: DeliveryRecord


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim took. `others`: another tenant waits its turn. `buried`: events that ended too many workers."""

    works: tuple[Work, ...]
    now: datetime
    others: bool
    buried: tuple[str, ...] = ()
