"""How a batch reads Rhythm: through the gate, each registration once, and never a state older than one already seen.

A read that fails for one event must not stop the whole tenant. It is followed by the probe, a cheap read that concerns
no event: if Rhythm answers the probe, the failure belongs to the event (`EventFailure`); if not, the gate closes
(`ReadingStopped`).
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
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
#: For so long after an answered probe a failure is the event's own; one more probe at the end of the batch confirms it.
VOUCHED_SECONDS: Final = 2.0
#: After so many failed searches, and none that worked, the search itself is at fault: the ids are read one by one.
_SEARCHES_IN_VAIN: Final = 8
#: For ids whose search failed and for which there was no time to divide it: the others go first next time.
_FAILED_TOGETHER: Final = timedelta(seconds=2)
#: How long a batch waits for a gate that has closed, with what it has found.
LONGEST_PAUSE: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Spans:
    """For how many seconds each step of a batch may read. The first read of a step is made in any case."""

    recall: float = 4.0
    #: A search for all of an exam.
    exam: float = 16.0
    look_up: float = 10.0
    #: Reads that are repeated because they showed an old state.
    repeat: float = 4.0
    settle: float = 4.0
    #: The parts of a search that failed.
    divide: float = 4.0
    #: All of them together: a write takes up to 15 s, and the task ends after 40 s.
    batch: float = 24.0


SPANS: Final = Spans()


class ReadingStopped(Exception):
    """Rhythm may not or cannot be read now. No event of the batch is the cause."""

    #: For a paced tenant whose turn did not come in time. While the gate is closed nothing is claimed anyway.
    delay: Final = timedelta(seconds=1)

    def __init__(self, error: TransientError) -> None:
        super().__init__(error)
        self.error = error


class OutOfTime(Exception):
    """The step's time was up before this event's turn came. It is due again after `delay`, without an attempt."""

    def __init__(self, delay: timedelta = timedelta(0)) -> None:
        super().__init__(delay)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Found:
    """The registrations that were read by id, and the ids that could not be read."""

    registrations: dict[str, Registration] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def get(self, id: str) -> Registration | None:
        """The registration; None when there is none. Raises what reading it failed with, or OutOfTime."""
        if id in self.failures:
            raise self.failures[id]
        return self.registrations.get(id)


class Reader:
    """One batch's reads, and what they have shown."""

    def __init__(self, rhythm: Rhythm, gate: Gate, spans: Spans = SPANS) -> None:
        self.rhythm = rhythm
        self.gate = gate
        self.spans = spans
        self._true: dict[str, Registration] = {}
        self._last = time.monotonic() + spans.batch
        self._ends, self._begun = float("inf"), False
        #: Reads that were answered, probes included.
        self.answers = 0
        self._vouched_until = 0.0

    # A step's time

    def allow(self, seconds: float) -> None:
        """Give the step that begins so much time for its reads."""
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
                    self.allow(self.spans.divide)
                else:
                    self._note(part, OutOfTime(_FAILED_TOGETHER), found)

    def _searched(self, ids: list[str], found: Found) -> None:
        self.in_time()
        for registration in self._read(lambda: self.rhythm.search(ids=ids)):
            found.registrations[registration.id] = self.newest(registration)
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
                    found.registrations[id] = self.newest(registration)

    def _one(self, id: str) -> Registration | None:
        """The registration; None also where Rhythm refuses to look for such an id."""
        try:
            return self._read(lambda: self.rhythm.get(id))
        except RhythmRejected:
            return None

    def of_student(self, student: str, exam_id: str) -> list[Registration]:
        """A person's registrations for an exam."""
        registrations = self._read(lambda: self.rhythm.student_exam(student, exam_id))
        return [self.newest(registration) for registration in registrations]

    def of_email(self, email: str, exam_id: str) -> list[Registration]:
        """The registrations with an e-mail address for an exam.

        Whether Rhythm's search compares letter by letter is not documented. So it is asked for the address as it was
        sent, then for its other spellings, until it finds somebody.
        """
        for spelling in spellings(email):
            listed = self._read(partial(self.rhythm.search, email=spelling, exam_ids=[exam_id]))
            theirs = [self.newest(one) for one in listed if folded(one.email_address or "") == folded(email)]
            if theirs:
                return theirs
        return []

    def of_exam(self, exam: str, statuses: Collection[str] = (), cursor: str = "") -> tuple[list[Registration], str]:
        """A page of the registrations for an exam, and the next one's cursor. Raises OutOfTime."""
        self.in_time()
        return self._read(lambda: self.rhythm.page_of_exam(exam, statuses, cursor))

    def truth(self, id: str) -> Registration | None:
        """The registration as it is now, by a consistent read. Raises OutOfTime."""
        self.in_time()
        registration = self._read(lambda: self.rhythm.get(id, consistent=True))
        if registration is not None:
            self._true[id] = registration
        return registration

    def not_before(self, registration: Registration, seen: int | None) -> Registration:
        """The registration, read again if a newer version of it was seen before."""
        if seen is None or registration.sys_version is None or registration.sys_version >= seen:
            return registration
        return self.truth(registration.id) or registration

    def newest(self, registration: Registration) -> Registration:
        """The registration, or a newer state of it that this batch has read."""
        true = self._true.get(registration.id)
        return true if true and (true.sys_version or 0) >= (registration.sys_version or 0) else registration

    def _read(self, call: Callable[[], _T]) -> _T:
        """What the call returns. Raises ReadingStopped; or this read's own failure, while Rhythm answers others."""
        try:
            result = call()
        except ExamrelayError as error:
            raise self.judged(error, self.answers) from None
        self._answered()
        return result

    # Whose failure it is

    def judged(self, error: ExamrelayError, answers: int, writing: bool = False) -> ExamrelayError:
        """The error of a failed call, as the event's own. Raises ReadingStopped: the gate is closed, or closes now.

        `answers`: the count when the call failed. `writing`: the question is whether our credentials may write.
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
        """Probe. If the probe fails as the call did, the batch stops with the error of the call."""
        try:
            self.prove(writing)
        except ReadingStopped as stopped:
            if isinstance(stopped.error, GateClosed) or stopped.error.reason is not error.reason:
                raise
            if error.retry_after:
                self.gate.close(error.reason, error.retry_after)  # the longer of two `Retry-After` counts
            raise ReadingStopped(error) from None

    def prove(self, writing: bool = False) -> None:
        """Probe: whether Rhythm answers and accepts our credentials. Raises ReadingStopped, the gate closed."""
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

    def wait(self) -> None:
        """Wait until a gate that has closed allows calls again, if that is soon. Raises ReadingStopped."""
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
