"""How a batch reads Rhythm: through the gate, each registration once, and never a state older than one already seen."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from schemas.addresses import folded, spellings
from schemas.event import Policy
from schemas.rhythm import Registration
from worker.errors import ExamrelayError, TransientError
from worker.ledger.gate import Gate, GateClosed
from worker.rhythm import Rhythm

_T = TypeVar("_T")
#: A paced tenant's turn did not come in time: soon again, others first.
_NEXT_TURN: Final = timedelta(seconds=1)


class ReadingStopped(Exception):
    """Rhythm may not or cannot be read now. Nothing of the batch is to blame."""

    def __init__(self, error: TransientError) -> None:
        super().__init__(error)
        self.error = error
        #: The gate keeps everything from being claimed while it is closed; this is for what it lets pass.
        self.delay = _NEXT_TURN


class Reader:
    """One batch's reads, and what they have shown."""

    def __init__(self, rhythm: Rhythm, gate: Gate) -> None:
        self.rhythm = rhythm
        self.gate = gate
        self._true: dict[str, Registration] = {}

    def by_id(self, ids: Iterable[str]) -> dict[str, Registration]:
        """The registrations there are among `ids`: one GET, or one search; one by one if that search is refused."""
        wanted = list(dict.fromkeys(ids))
        found: list[Registration | None] = []
        try:
            if len(wanted) > 1:
                found += self._read(lambda: self.rhythm.search(ids=wanted))
                wanted = []
        except ExamrelayError:
            pass  # for an odd id among them, which must not be the others' trouble
        found += map(self._one, wanted)
        return {registration.id: self._newest(registration) for registration in found if registration}

    def _one(self, id: str) -> Registration | None:
        """The registration; None also where Rhythm refuses to look for such an id."""
        try:
            return self._read(lambda: self.rhythm.get(id))
        except ExamrelayError:
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
        """The registration as it is now, whatever a plain read would show."""
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
        """A read that fails for Rhythm's reasons closes the gate and stops the batch; one that is answered opens it."""
        try:
            found = call()
        except GateClosed as closed:
            raise ReadingStopped(closed) from None
        except ExamrelayError as error:
            if isinstance(error, TransientError) and error.reason.policy is Policy.GATE:
                self.gate.close(error.reason, error.retry_after)
                raise ReadingStopped(error) from None
            self._answered()
            raise
        self._answered()
        return found

    def _answered(self) -> None:
        if self.gate.probing:
            self.gate.open()
