"""Matching: which registration a result is about. Pure over fetched candidates: one of them, or a reason.

Never a guess: what is ambiguous or contradictory raises, with the candidates' ids for the person who decides.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from schemas.event import Reason
from schemas.outcome import Candidate, ExamOutcome
from schemas.rhythm import Registration, Status
from worker.errors import PermanentError, TransientError
from worker.tenants import Exam, SourceRules

#: How far a registration's `exam_date` may be from the sitting and still be the same day in some zone.
_SAME_DAY: Final = timedelta(days=1)
_NEVER: Final = (Status.DRAFT, Status.CANCELLED)
_SETTLED: Final = (Status.PASSED, Status.FAILED, Status.NO_SHOW)


def named_ids(outcome: ExamOutcome, rules: SourceRules) -> list[str]:
    """The ids in the outcome that this source's rules let name a registration, each once."""
    named = (outcome.registration_ids.get(name) for name in rules.registration_ids)
    return list(dict.fromkeys(id for id in named if id))


def student_of(candidate: Candidate, rules: SourceRules) -> str | None:
    """Rhythm's student id of the candidate: the association's own id, else the configured third party's."""
    third_party = candidate.third_party_ids.get(rules.third_party) if rules.third_party else None
    return candidate.student_id or third_party


def confirm(outcome: ExamOutcome, exam: Exam, rules: SourceRules, named: Sequence[Registration]) -> Registration:
    """The registration that the outcome names by id, if nothing contradicts it.

    Raises PermanentError (`registration_mismatch`): several, or another exam, student or e-mail, or a draft or
    cancelled one.
    """
    if len(named) > 1:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"its ids name several registrations: {_ids(named)}")
    registration = named[0]
    problem = _contradiction(outcome, exam, rules, registration)
    if problem:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"registration {registration.id}: {problem}")
    return registration


def _contradiction(outcome: ExamOutcome, exam: Exam, rules: SourceRules, registration: Registration) -> str | None:
    student, email = student_of(outcome.candidate, rules), outcome.candidate.email
    unfit = cannot_be(registration, exam)
    if unfit:
        return unfit
    if student and registration.student_id:
        return None if student == registration.student_id else "is another student's"
    if email and registration.email_address and email != registration.email_address.strip().casefold():
        return "has another e-mail address"
    return None


def cannot_be(registration: Registration, exam: Exam) -> str | None:
    """Why nobody, not even a person who names it, can mean this registration by a result for `exam`; else None."""
    if registration.exam_id != exam.exam_id:
        return f"is for exam {registration.exam_id}, the result for {exam.exam_id}"
    return f"is {registration.status}" if registration.status in _NEVER else None


def answered(exam: Exam, registration: Registration) -> Registration:
    """The registration that an operator named: whose it is was their decision.

    Raises PermanentError (`registration_mismatch`): another exam's, or a draft or cancelled one.
    """
    unfit = cannot_be(registration, exam)
    if unfit:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"registration {registration.id}, the answer given: {unfit}")
    return registration


def choose(outcome: ExamOutcome, exam: Exam, candidates: Sequence[Registration], ours: Collection[str]) -> Registration:
    """The one of this person's registrations for this exam that the sitting is about.

    `ours`: the ids of those that this delivery wrote last. Raises TransientError (`registration_not_found`) or
    PermanentError (`registration_ambiguous`).
    """
    written = [one for one in candidates if one.id in ours and one.exam_id == exam.exam_id and one.status not in _NEVER]
    if len(written) == 1:
        return written[0]
    timely = [one for one in candidates if why_not(outcome, exam, one) is None]
    open_ones = [one for one in timely if one.status == Status.REGISTERED]
    settled = [one for one in timely if one.status in _SETTLED]
    best = _nearest(outcome, open_ones or settled)
    if not best:
        raise TransientError(Reason.REGISTRATION_NOT_FOUND, _why_none(candidates, exam))
    if len(best) > 1:
        raise PermanentError(Reason.REGISTRATION_AMBIGUOUS, f"equally likely: {_ids(best)}")
    return best[0]


def why_not(outcome: ExamOutcome, exam: Exam, registration: Registration) -> str | None:
    """Why the sitting cannot be about a registration of this person; None when it can.

    Nobody sits an exam before registering for it, nor long before the day that it is set for.
    """
    completed, sitting = outcome.completed_at, registration.exam_at
    if registration.exam_id != exam.exam_id:
        return f"is for exam {registration.exam_id}"
    if registration.status in _NEVER:
        return f"is {registration.status}"
    if completed and registration.registered_at and registration.registered_at > completed:
        return "was made after the sitting"
    if completed and sitting and sitting.date() > (completed + _SAME_DAY).date():
        return "is set for a day after the sitting"
    return None


def _nearest(outcome: ExamOutcome, candidates: Sequence[Registration]) -> list[Registration]:
    """Those nearest to the sitting by calendar day. One whose day is unknown ties with every other."""
    if len(candidates) < 2 or outcome.completed_at is None:
        return list(candidates)
    distances = [_days_away(outcome, one) for one in candidates]
    if None in distances:
        return list(candidates)
    nearest = min(days for days in distances if days is not None)
    return [one for one, days in zip(candidates, distances, strict=True) if days == nearest]


def _days_away(outcome: ExamOutcome, registration: Registration) -> int | None:
    if registration.exam_at is None or outcome.completed_at is None:
        return None
    days = abs((registration.exam_at.date() - outcome.completed_at.date()).days)
    return 0 if timedelta(days=days) <= _SAME_DAY else days


def _ids(registrations: Sequence[Registration]) -> str:
    return ", ".join(sorted(one.id for one in registrations))


def _why_none(candidates: Sequence[Registration], exam: Exam) -> str:
    if not candidates:
        return "no registration of this person for this exam"
    return f"none of {_ids(candidates)} is open for exam {exam.exam_id} at that time"
