"""Scripted failures: what goes wrong, for which calls or registrations, and how often.

Says which fault is due; `app.py` and `endpoints.py` make it happen.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sandbox.calls import Call, Kind
from sandbox.options import Strict

OfCall = Literal["status", "hang", "reset", "apply_then_lose", "apply_late", "latency"]
OfRecord = Literal["stale", "item_error", "alter"]


class Match(Strict):
    """Which calls: every member given must fit. `stale`, `item_error`, `alter`: of which registrations (`ids`)."""

    methods: list[str] | None = None
    kind: Kind | list[Kind] | None = None
    ids: list[str] | None = None
    tenant: str | None = None

    def covers(self, call: Call, ids: tuple[str, ...]) -> bool:
        kinds = [self.kind] if isinstance(self.kind, str) else self.kind
        return (
            (self.methods is None or call.method in self.methods)
            and (kinds is None or call.kind in kinds)
            and (self.tenant is None or call.tenant == self.tenant)
            and (self.ids is None or not set(self.ids).isdisjoint(ids))
        )


class Fault(Strict):
    """One scripted failure."""

    match: Match = Match()
    #: status: this answer, nothing applied · hang: an answer after `seconds`, or never · reset: connection cut,
    #: nothing applied · apply_then_lose: applied, then cut · apply_late: cut, applied `delay_ms` later if the patch's
    #: own `test` still holds · latency: `ms` more, then on · stale: reads without consistentRead give the version
    #: before the last change · item_error: this registration's item of a batch fails with `status` · alter: the write
    #: is accepted, and `fields` are changed on the way.
    action: OfCall | OfRecord
    #: How often; None is always. Of a registration's faults each registration counts.
    times: int | None = Field(default=1, ge=1)
    #: So many fitting calls are let through first.
    skip: int = Field(default=0, ge=0)
    probability: float = Field(default=1, ge=0, le=1)
    seed: int = 0
    status: int = Field(default=500, ge=200, le=599)
    body: Any = {"message": "scripted failure"}
    headers: dict[str, str] = {}
    seconds: float | None = Field(default=None, ge=0)
    #: A hanging write is applied when it comes, or when its answer is due (without `seconds`: never).
    applied: Literal["first", "last"] = "last"
    delay_ms: float = Field(default=0, ge=0)
    ms: float = Field(default=0, ge=0)
    #: A registration is stale only so long after its last change.
    within_ms: float = Field(default=float("inf"), ge=0)
    fields: dict[str, Any] = {}


class Script:
    """A fault and how far it has been played. Deterministic: its own seeded random, asked once a fitting call."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.remaining, self.skip, self.hits = fault, fault.times, fault.skip, 0
        self._random = random.Random(fault.seed)

    def fires(self, call: Call) -> bool:
        if self.remaining == 0 or self._random.random() >= self.fault.probability:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        self.remaining = None if self.remaining is None else self.remaining - 1
        call.fault = self.fault.action
        return True

    def describe(self) -> dict[str, Any]:
        return self.fault.model_dump(exclude_unset=True) | {"remaining": self.remaining, "hits": self.hits}


class Faults:
    """The scripts in force, played in the order they were given."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []

    def latency_ms(self, call: Call) -> float:
        """Latencies add up, and do not keep another fault from happening."""
        return sum(fault.ms for fault in self._firing(call, call.ids, ("latency",)))

    def of_call(self, call: Call) -> Fault | None:
        """The first fault of the whole call that fires."""
        return next(self._firing(call, call.ids, ("status", "hang", "reset", "apply_then_lose", "apply_late")), None)

    def of_record(self, action: OfRecord, call: Call, registration_id: str) -> Fault | None:
        """The first fault of that action that fires for one registration of this call."""
        return next(self._firing(call, (registration_id,), (action,)), None)

    def _firing(self, call: Call, ids: tuple[str, ...], actions: tuple[str, ...]) -> Iterator[Fault]:
        for script in self.scripts:
            if script.fault.action in actions and script.fault.match.covers(call, ids) and script.fires(call):
                yield script.fault
