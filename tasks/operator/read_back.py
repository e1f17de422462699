"""Reads Rhythm back: whether each registration that we wrote last still says what we wrote. Writes nothing there.

Events are synced meanwhile, and a search may show an old state. So a difference counts only when it is seen twice: the
second time by a consistent read, during which no write to that registration was under way.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from schemas.rhythm import BATCH_LIMIT, Registration
from tasks.steps.reading import Reader, ReadingStopped
from worker.bootstrap import Services
from worker.errors import ExamrelayError
from worker.ledger.audit import marks
from worker.ledger.audit.books import Progress, walk_events
from worker.ledger.audit.events import Difference, paged, read
from worker.ledger.client import text
from worker.ledger.gate import Gate
from worker.ledger.keys import key
from worker.ledger.queries import redis_now
from worker.ledger.sealed import SealBroken, SealUnknown
from worker.ledger.written import Remembered, accept, remembered
from worker.rules import changes

#: An audit makes a fifth of the calls that the tenant's pace allows; results go first.
SHARE: Final = 5
#: Calls a second to a Rhythm without a pace.
UNPACED: Final = 2.0
#: The audit waits for a gate that opens within this; else it ends, and continues when it is run again.
LONGEST_CLOSED: Final = timedelta(seconds=60)
_TIMES_CLOSED: Final = 10
#: How often a registration to which a write is under way is looked at again, and the pause between.
_TIMES_BUSY: Final = 5
_BUSY_SECONDS: Final = 0.5
_T = TypeVar("_T")


@dataclass
class ReadBack:
    """What was read back, and where it differs."""

    registrations: int = 0
    #: Those to which a write was under way each time they were looked at.
    busy: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


@dataclass(slots=True)
class _SlowGate(Gate):
    """The tenant's gate, whose turns an audit takes at its own slow pace."""

    seconds: float = 0
    _next: float = 0

    def take(self) -> None:
        """Wait for the audit's own turn, then for one at the gate. Raises GateClosed."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self.seconds
        Gate.take(self)


class Auditor:
    """Reads one tenant's Rhythm back. `calls_per_second` replaces the audit's share of the tenant's pace."""

    def __init__(self, at: Services, tenant: str, calls_per_second: float | None = None) -> None:
        self._at = at
        self._tenant = tenant
        self._rules = at.tenants[tenant]
        pace = self._rules.rhythm.calls_per_second
        rate = calls_per_second or (pace / SHARE if pace else UNPACED)
        self._gate = _SlowGate(at.ledger.scripts, tenant, pace, seconds=1 / rate)

    def read_back(self, restart: bool = False, progress: Progress = lambda _: None) -> ReadBack:
        """Read every registration back. Continues an interrupted audit, unless `restart`.

        `progress` is called with the number of events gone through. Raises ReadingStopped.
        """
        done = ReadBack()
        mark = marks.Mark() if restart else marks.load(self._at.redis, self._tenant)
        self._confirm(mark.differing, done)
        walked = mark.walked
        for page in paged(walk_events(self._at.redis, self._tenant, mark.since, mark.seen), BATCH_LIMIT):
            walked += len(page)
            wrote = self._last_written(id for id, _, _ in page)
            suspects = self._suspects(wrote)
            done.registrations += len(wrote)
            self._confirm(suspects, done)
            _, since, seen = page[-1]
            differing = [difference.id for difference in done.differences]
            marks.save(self._at.redis, self._tenant, marks.Mark(since, seen, walked, differing))
            progress(walked)
        marks.forget(self._at.redis, self._tenant)
        return done

    def accept(self, registration: str, who: str) -> str:
        """Accept what a person made of a registration. Returns `accepted`, `holds`, `busy` or `unknown`.

        What we wrote is kept, so a later result of the same delivery is still held as `registration_edited`.
        Raises ReadingStopped.
        """
        kept = self._remembered([registration])[registration]
        if kept.values is None:
            return "unknown"
        current, at = self._patiently(lambda reader: reader.truth(registration)), self._at
        if not _differs(kept, current):
            return "holds"
        values = current and changes.as_now(kept.values, current)
        override = {"values": values, "by": who, "at": redis_now(at.redis).isoformat()}
        done = accept(at.redis, at.ledger.sealer, self._tenant, registration, kept, override)
        return "accepted" if done else "busy"

    def _last_written(self, ids: Iterable[str]) -> dict[str, Remembered]:
        """The registrations whose last values these events brought."""
        events = list(ids)
        written = read(self._at.redis, [("HGET", key(self._tenant, "event", id), "registration") for id in events])
        kept = self._remembered(text(id) for id in written if isinstance(id, bytes))
        return {id: last for id, last in kept.items() if last.event in events}

    def _remembered(self, registrations: Iterable[str]) -> dict[str, Remembered]:
        return remembered(self._at.redis, self._at.ledger.sealer, self._tenant, registrations)

    def _suspects(self, wrote: dict[str, Remembered]) -> list[str]:
        """Those that differ at first sight."""
        found = self._patiently(lambda reader: reader.by_id(wrote))
        return [id for id, kept in wrote.items() if id in found.failures or _differs(kept, found.get(id))]

    def _confirm(self, suspects: Iterable[str], done: ReadBack) -> None:
        """Look a second time, and again while a write is under way."""
        waiting = list(suspects)
        for _ in range(_TIMES_BUSY):
            if not waiting:
                return
            seen = {id: self._look_again(id) for id in waiting}
            done.differences += [result for result in seen.values() if isinstance(result, Difference)]
            waiting = [id for id, result in seen.items() if result is False]
            if waiting:
                time.sleep(_BUSY_SECONDS)
        done.busy += waiting

    def _look_again(self, id: str) -> Difference | bool:
        """The difference; True when there is none, False when it cannot be told yet."""
        before = self._remembered([id])[id]
        if before.owner is not None:
            return False
        try:
            current = self._patiently(lambda reader: reader.truth(id))
        except ExamrelayError:
            return False  # Rhythm fails for this one, and answers others
        if self._remembered([id])[id] != before:
            return False
        differs = _differs(before, current)
        return Difference("rhythm", id, id, *differs) if differs else True

    def _patiently(self, call: Callable[[Reader], _T]) -> _T:
        """A read, waiting for a gate that opens again soon. Raises ReadingStopped."""
        for _ in range(_TIMES_CLOSED):
            try:
                return call(Reader(self._at.rhythm(self._rules, self._gate), self._gate))
            except ReadingStopped as stopped:
                closed = stopped.error.retry_after or stopped.delay
                if closed > LONGEST_CLOSED:
                    raise
                time.sleep(closed.total_seconds())
        return call(Reader(self._at.rhythm(self._rules, self._gate), self._gate))


def _differs(kept: Remembered, found: Registration | None) -> tuple[str, str] | None:
    """What the registration must say and what it says instead, and who likely made it so; None when it holds."""
    try:
        values, accepted = kept.values, kept.accepted
    except (SealUnknown, SealBroken) as error:
        return "values that can be opened", str(error)
    if values is None:
        return None  # never written, or forgotten
    if accepted is not None:
        return _differs_from_accepted(accepted["values"], found)
    if found is None:
        return _words(values), "no such registration"
    changed = changes.difference(values, found)
    if not changed:
        return None
    return _words(changed), f"{_words(changes.as_now(changed, found))}; {_by(found)}"


def _differs_from_accepted(accepted: dict[str, Any] | None, found: Registration | None) -> tuple[str, str] | None:
    if accepted is None or found is None:
        there = "no such registration" if found is None else f"a registration; {_by(found)}"
        return None if accepted is None and found is None else (_words(accepted or {}) or "none, as accepted", there)
    now = changes.as_now(accepted, found)
    given = {name: value for name, value in accepted.items() if value is not None}
    if now == accepted or (len(given) == len(accepted) and changes.stand(given, found)):
        return None
    return f"{_words(accepted)}, as accepted", f"{_words(now)}; {_by(found)}"


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"no {name}" if value is None else f"{name} {value}" for name, value in sorted(values.items()))


def _by(found: Registration) -> str:
    """Who changed the registration last: likely, for the last change may have been of another field."""
    return f"last changed by {found.sys_last_modified_by_id or 'nobody named'} at {found.sys_last_modified_at or '?'}"
