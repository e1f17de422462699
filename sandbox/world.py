"""Everything the stand-in holds, and what a test may do to it and read of it.

A reset is a new world, so that what is still under way touches only the old.
"""

from typing import Any

from sandbox.calls import Call, Log
from sandbox.options import Fault, Options
from sandbox.registrations import Registration, Registrations

Json = dict[str, Any]


class World:
    """One process, one event loop: no locks."""

    def __init__(self) -> None:
        self.options, self.registrations, self.log = Options(), Registrations(), Log()
        #: In the order in which they are played.
        self.faults: list[Fault] = []
        #: Token -> when it expires; and how many were ever issued.
        self.tokens: dict[str, float] = {}
        self.tokens_issued = 0
        #: Tenant -> how full its bucket of the rate limit was, and when.
        self.buckets: dict[str, tuple[float, float]] = {}

    def fault(self, call: Call, ids: tuple[str, ...], *actions: str) -> Fault | None:
        """The first fault that fires, of a call or of single registrations of it."""
        for fault in self.faults:
            if fault.action in actions and fault.fires(call, ids):
                return fault
        return None


class Acts:
    """What can be asked for over `/_sandbox/<act>/<argument>...`, named arguments as JSON; `control.py` says more."""

    def __init__(self) -> None:
        self.world = World()

    def reset(self) -> None:
        self.world = World()

    def seed(self, tenant: str, registrations: list[Registration]) -> None:
        for registration in registrations:
            self.world.registrations.seed(tenant, registration)

    def registrations(self, tenant: str) -> dict[str, Registration]:
        return {name: one.current for name, one in self.world.registrations.of(tenant).items()}

    def record(self, tenant: str, name: str) -> Json:
        record = self.world.registrations.of(tenant)[name]
        letters = [one for one in self.letters() if (one["tenant"], one["registration"]) == (tenant, name)]
        return {"registration": record.current, "history": record.history, "letters": letters}

    def edit(self, tenant: str, name: str, fields: Json) -> Registration:
        record = self.world.registrations.of(tenant)[name]
        after = {member: value for member, value in (record.current | fields).items() if value is not None}
        return self.world.registrations.save(record, after, "registrar", "edit")

    def letters(self) -> list[Json]:
        return self.world.registrations.letters

    def requests(self, after: int) -> list[Json]:
        return [one for one in self.world.log.entries if one["n"] > after]

    def counts(self) -> Json:
        log = self.world.log
        calls = {"calls": log.calls, "by_kind": log.by_kind, "by_status": log.by_status}
        effects = {"writes": self.world.registrations.writes, "letters": len(self.letters())}
        return {**calls, **effects, "tokens": self.world.tokens_issued}

    def options(self, **changes: Any) -> Json:
        self.world.options = Options.model_validate(self.world.options.model_dump() | changes)
        self.world.buckets.clear()
        return self.world.options.model_dump()

    def fault(self, **given: Any) -> None:
        self.world.faults.append(Fault.model_validate(given))

    def faults(self, instead: list[Json]) -> None:
        self.world.faults = [Fault.model_validate(each) for each in instead]

    def expire_tokens(self) -> None:
        self.world.tokens.clear()
