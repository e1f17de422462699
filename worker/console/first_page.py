"""The first page: is anything wrong? One sentence for each thing that is, then a row for each tenant."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from schemas.event import EventState, Reason
from tasks.operator.overview import overview
from worker.bootstrap import Services
from worker.console import wording
from worker.console.pictures import Picture, draw
from worker.console.visit import Visit
from worker.ledger import durability, hours, queries
from worker.ledger.processes import late

#: How many of a tenant's reasons stand in its row.
_REASONS_SHOWN: Final = 6
#: Work that is due for longer than this, with the gate open, is worth a sentence.
_LATE_SECONDS: Final = 120
_GATE: Final = {
    Reason.RHYTHM_THROTTLED: "has been throttling",
    Reason.RHYTHM_UNAVAILABLE: "has not been answering",
    Reason.CREDENTIALS_REFUSED: "has been refusing our credentials",
}


@dataclass(frozen=True)
class Row:
    """A tenant's row."""

    name: str
    picture: Picture
    waiting: int
    oldest_seconds: float
    #: State, reason, how many: what waits for a person, the most first.
    stopped: list[tuple[str, str, int]]
    more: int
    gate: dict[str, Any]
    #: Calls a second that are made at most, and that the tenants file allows; None: no limit is known.
    pace: float | None
    allowed: float | None
    refused: dict[str, list[str]]


def show(visit: Visit) -> Response:
    """`GET /`."""
    now = overview(visit.at)
    tenants = {name: found for name, found in now["tenants"].items() if name in visit.user.tenants}
    warnings = [one for one in now["warnings"] if visit.may_know(one)]
    says = list(_says(tenants, warnings, now["sweep_at"], visit.now))
    alive = [one for one in now["processes"] if one["silent_seconds"] <= 30]
    return visit.page(
        "overview.html",
        "Overview",
        says=says,
        on_their_way=sum(_waiting(found) for found in tenants.values()),
        rows=[_row(visit.at, name, found, visit.now) for name, found in tenants.items()],
        kinds={kind: sum(one["kind"] == kind for one in alive) for kind in ("web", "worker", "sweeper", "beat")},
        digests=sorted({one["digest"] for one in alive}),
        swept_at=now["sweep_at"],
        durability=now["durability"],
        memory=_memory(visit.at),
    )


def _says(tenants: dict[str, Any], warnings: list[str], swept: datetime | None, now: datetime) -> Iterator[str]:
    """What is wrong, and what waits for a person; nothing when all is well."""
    for state, what in ((EventState.HELD, "a decision"), (EventState.DEAD, "something to be put right")):
        count = sum(found["states"][state] for found in tenants.values())
        if count:
            yield f"{wording.several(count, 'result waits', 'results wait')} for {what}."
    for name, found in tenants.items():
        yield from _of_tenant(name, found)
    if late(swept, now):
        yield wording.sentence(f"the scheduled pass does not run: {late(swept, now)}")
    yield from map(wording.sentence, warnings)


def _of_tenant(name: str, found: dict[str, Any]) -> Iterator[str]:
    gate, waiting = found["gate"], _waiting(found)
    waits = wording.several(waiting, "result waits", "results wait")
    if gate["state"] != "open":
        does = _GATE.get(gate["reason"], f"may not be called ({gate['reason']})")
        began = f" since {wording.clock(gate['since'])}" if gate["since"] else ""
        comes = f"the next call is allowed at {wording.clock(gate['closed_until'])}"
        yield f"Rhythm of {name} {does}{began}; {waits}, {comes}."
    elif found["oldest_seconds"] > _LATE_SECONDS:
        yield f"{waits.capitalize()} at {name}, the oldest for {wording.span(found['oldest_seconds'])}."
    for source, lines in found["refused"].items():
        if lines:
            yield f"Deliveries from {source} to {name} were refused, last: {lines[0]}."


def _waiting(found: dict[str, Any]) -> int:
    return sum(found["states"][state] for state in EventState if state.waiting)


def _row(at: Services, name: str, found: dict[str, Any], now: datetime) -> Row:
    stopped = [(state, reason, count) for state in ("held", "dead") for reason, count in found[state].items()]
    stopped.sort(key=lambda one: -one[2])
    rules = at.tenants.tenants.get(name)
    allowed = rules.rhythm.calls_per_second if rules else None
    learned = queries.gate(at.redis, name).get("learned")
    paces = [pace for pace in (float(learned) if learned else None, allowed) if pace]
    return Row(
        name,
        draw(hours.last_day(at.redis, name, now)),
        _waiting(found),
        found["oldest_seconds"],
        stopped[:_REASONS_SHOWN],
        len(stopped) - _REASONS_SHOWN,
        found["gate"],
        min(paces, default=None),
        allowed,
        found["refused"],
    )


def _memory(at: Services) -> str:
    """How much of what it may use Redis uses."""
    info = durability.look_at(at.redis).info
    used, limit = info["used_memory"], info.get("maxmemory", 0)
    return f"{used / limit:.0%} of its memory" if limit else f"{used / 2**20:,.0f} MB, without a limit"
