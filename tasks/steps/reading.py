"""How a batch reads Rhythm: through the gate, each registration once, and never a state older than one already seen.

A read that fails for one event does not condemn the tenant. It is followed by the probe, a cheap read that owes nothing
to any event: if Rhythm answers that, the failure is the event's own (`EventFailure`), else the gate closes
(`ReadingStopped`).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from schemas.addresses import folded, spellings
from schemas.event import Policy
from schemas.rhythm import Registration
from worker.errors import ExamrelayError, TransientError
from worker.ledger.gate import Gate, GateClosed
from worker.rhythm.client import Rhythm
from worker.rhythm.failures import EventFailure, RhythmRejected, RhythmThrottled

_T = TypeVar("_T")
#: A paced tenant's turn did not come in time: soon again, others first.
_NEXT_TURN: Final = timedelta(seconds=1)
#: A probe that was answered speaks for Rhythm this long; what fails meanwhile is probed once, at the end of the batch.
VOUCHED_SECONDS: Final = 2.0
#: Searches that fail in a row, and none went through: not one odd id is to blame, so the ids are read one by one.
_SEARCHES_IN_VAIN: Final = 8
#: After this long a batch begins a step with one read at most: a write takes up to 15 s, and the task ends after 40 s.
READING_SECONDS: Final = 24.0
#: For the parts of a search that failed. The first part is read in any case.
_DIVIDING_SECONDS: Final = 4.0
#: Part of a batch that failed together, and that there was no time to divide: the others go first next time.
_FAILED_TOGETHER: Final = timedelta(seconds=2)
#: How long a batch waits for a gate that has closed, with what it has found.
LONGEST_PAUSE: Final = timedelta(seconds=10)


class ReadingStopped(Exception):
    """Rhythm may not or cannot be read now. Nothing of the batch is to blame."""

    def __init__(self, error: TransientError) -> None:
        super().__init__(error)
        self.error = error
        #: The gate keeps everything from being claimed while it is closed; this is for what it lets pass.
        self.delay = _NEXT_TURN


class OutOfTime(Exception):
    """The step's time is up before this event was looked at. It is due again after `delay`, without an attempt."""

    def __init__(self, delay: timedelta = timedelta(0)) -> None:
        super().__init__(delay)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Found:
    """What reading by id has shown."""

    registrations: dict[str, Registration] = field(default_factory=dict)
    #: Ids that could not be read, and why.
    failures: dict[str, Exception] = field(default_factory=dict)

    def get(self, id: str) -> Registration | None:
        """The registration; None when there is none. Raises what reading it failed with, or OutOfTime."""
        if id in self.failures:
            raise self.failures[id]
        return self.registrations.get(id)


class Reader:
    """One batch's reads, and what they have shown."""

    def __init__(self, rhythm: Rhythm, gate: Gate) -> None:
        self.rhythm = rhythm
        self.gate = gate
        self._true: dict[str, Registration] = {}
        self._last = time.monotonic() + READING_SECONDS
        self._ends, self._begun = float("inf"), False
        #: Reads that were answered, probes included.
        self.answers = 0
        self._vouched_until = 0.0

    # A step's time

    def allow(self, seconds: float) -> None:
        """Give the step that begins so much time for its reads; the first of them is made in any case."""
        now = time.monotonic()
        self._ends, self._begun = max(now, min(now + seconds, self._last)), False

    def in_time(self) -> None:
        """Raises OutOfTime: the step's time is up, and it has read something."""
        if self._begun and time.monotonic() >= self._ends:
            raise OutOfTime
        self._begun = True

    # Reads

    def by_id(self, ids: Iterable[str], apart: Iterable[str] = ()) -> Found:
        """The registrations there are among `ids`: one GET, or one search; those of `apart` one by one.

        A search that fails is divided until the ids that Rhythm fails for are alone.
        """
        singly = list(dict.fromkeys(apart))
        together = [id for id in dict.fromkeys(ids) if id not in singly]
        found = Found()
        if len(together) > 1:
            self._search(together, found)
        else:
            singly = together + singly
        self._one_by_one(singly, found)
        return found

    def _search(self, ids: list[str], found: Found) -> None:
        parts, in_vain = deque([ids]), 0
        while parts:
            part = parts.popleft()
            if len(part) == 1 or in_vain == _SEARCHES_IN_VAIN:
                self._one_by_one(part, found)
                continue
            try:
                self._searched(part, found)
                in_vain = -len(ids)  # searches do work
            except OutOfTime as late:
                self._note(part, late, found)
            except ExamrelayError:
                in_vain += 1
                parts += [part[: len(part) // 2], part[len(part) // 2 :]]
                if part is ids:
                    self.allow(_DIVIDING_SECONDS)
                else:
                    self._note(part, OutOfTime(_FAILED_TOGETHER), found)

    def _searched(self, ids: list[str], found: Found) -> None:
        self.in_time()
        for registration in self._read(lambda: self.rhythm.search(ids=ids)):
            found.registrations[registration.id] = self._newest(registration)
        for id in ids:
            found.failures.pop(id, None)

    def _note(self, ids: Iterable[str], late: OutOfTime, found: Found) -> None:
        for id in ids:
            found.failures.setdefault(id, late)

    def _one_by_one(self, ids: Iterable[str], found: Found) -> None:
        for id in ids:
            try:
                self.in_time()
                registration = self._one(id)
            except OutOfTime as late:
                self._note([id], late, found)
            except ExamrelayError as error:
                found.failures[id] = error
            else:
                found.failures.pop(id, None)
                if registration is not None:
                    found.registrations[id] = self._newest(registration)

    def _one(self, id: str) -> Registration | None:
        """The registration; None also where Rhythm refuses to look for such an id."""
        try:
            return self._read(lambda: self.rhythm.get(id))
        except RhythmRejected:
            return None

    def of_student(self, student: str, exam_id: str) -> list[Registration]:
        """A person's registrations for an exam."""
        found = self._read(lambda: self.rhythm.student_exam(student, exam_id))
        return [self._newest(registration) for registration in found]

    def of_email(self, email: str, exam_id: str) -> list[Registration]:
        """The registrations with an e-mail address for an exam.

        Whether Rhythm's search compares letter by letter is not documented, so the address is looked for as it was
        sent, then in its other spellings, until somebody is found.
        """
        for spelling in spellings(email):
            found = self._read(partial(self.rhythm.search, email=spelling, exam_ids=[exam_id]))
            same = [self._newest(one) for one in found if folded(one.email_address or "") == folded(email)]
            if same:
                return same
        return []

    def of_exam(self, exam_id: str) -> list[Registration]:
        """Some of the registrations for an exam: a page."""
        return self._read(lambda: self.rhythm.page_of_exam(exam_id))

    def truth(self, id: str) -> Registration | None:
        """The registration as it is now, whatever a plain read would show. Raises OutOfTime."""
        self.in_time()
        found = self._read(lambda: self.rhythm.get(id, consistent=True))
        if found is not None:
            self._true[id] = found
        return found

    def not_before(self, registration: Registration, seen: int | None) -> Registration:
        """The registration, read again if it is older than a version that was seen before."""
        if seen is None or registration.sys_version is None or registration.sys_version >= seen:
            return registration
        return self.truth(registration.id) or registration

    def _newest(self, registration: Registration) -> Registration:
        known = self._true.get(registration.id)
        return known if known and (known.sys_version or 0) >= (registration.sys_version or 0) else registration

    def _read(self, call: Callable[[], _T]) -> _T:
        """Raises ReadingStopped; or what Rhythm has against this one read, whatever its tries of others."""
        try:
            found = call()
        except ExamrelayError as error:
            raise self.judged(error, self.answers) from None
        self._answered()
        return found

    # Whose failure it is

    def judged(self, error: ExamrelayError, answers: int, writing: bool = False) -> ExamrelayError:
        """A failed call's error, as its event's own. Raises ReadingStopped: the gate is closed, or closes.

        `answers`: how many there were when it failed. `writing`: what is in question is whether we may write.
        """
        if isinstance(error, GateClosed):
            raise ReadingStopped(error)
        if isinstance(error, RhythmThrottled):
            self.close(error)
        if not isinstance(error, TransientError) or error.reason.policy is not Policy.GATE:
            self._answered()  # a refusal or a 404 is an answer
            return error
        if answers == self.answers and (writing or time.monotonic() >= self._vouched_until):
            self._prove_against(error, writing)
        return EventFailure(error, answers)

    def _prove_against(self, error: TransientError, writing: bool) -> None:
        """The probe. If it fails as this call did, what stopped the batch is told in the call's own words."""
        try:
            self.prove(writing)
        except ReadingStopped as stopped:
            if isinstance(stopped.error, GateClosed) or stopped.error.reason is not error.reason:
                raise
            if error.retry_after:
                self.gate.close(error.reason, error.retry_after)  # of two answers the one that asks for more counts
            raise ReadingStopped(error) from None

    def prove(self, writing: bool = False) -> None:
        """The probe: whether Rhythm answers, and takes our credentials. Raises ReadingStopped, the gate closed."""
        try:
            self.rhythm.probe(writing)
        except GateClosed as closed:
            raise ReadingStopped(closed) from None
        except TransientError as error:
            self.close(error)
        self._answered()
        self._vouched_until = time.monotonic() + VOUCHED_SECONDS

    def close(self, error: TransientError) -> None:
        """Close the gate. Raises ReadingStopped."""
        self.gate.close(error.reason, error.retry_after)
        raise ReadingStopped(error) from None

    def has_time(self) -> bool:
        """Whether this batch may begin something more."""
        return time.monotonic() < self._last

    def wait_after(self, error: ExamrelayError | None) -> None:
        """As `wait`, after a write that was not processed. Raises ReadingStopped."""
        if isinstance(error, RhythmThrottled):
            self.gate.close(error.reason, error.retry_after)
        self.wait()

    def wait(self) -> None:
        """Until a gate that has closed lets Rhythm be called again, if that is soon. Raises ReadingStopped."""
        try:
            self.prove()
        except ReadingStopped as stopped:
            pause = stopped.error.retry_after or LONGEST_PAUSE
            late = time.monotonic() + pause.total_seconds() > self._last
            if pause > LONGEST_PAUSE or late or not isinstance(stopped.error, GateClosed):
                raise
            time.sleep(pause.total_seconds())
            self.prove()

    def _answered(self) -> None:
        self.answers += 1
        if self.gate.probing:
            self.gate.open()
