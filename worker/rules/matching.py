"""Matching: which registration a result is about. Pure over the fetched candidates: one of them, or a reason.

Never a guess: an ambiguous or contradictory case raises, with the candidates' ids for the person who decides.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from schemas.addresses import folded
from schemas.event import Reason
from schemas.outcome import Candidate, ExamOutcome
from schemas.rhythm import NEVER, OPEN, REGISTRATION_ID, SETTLED, Registration
from worker.errors import PermanentError, TransientError
from worker.exam_map import Exam
from worker.tenants import SourceRules

#: How far a registration's `exam_date` may be from the sitting and still be the same day in some zone.
_SAME_DAY: Final = timedelta(days=1)
#: How many candidates a detail says the dates of.
_SHOWN: Final = 5


def named_ids(outcome: ExamOutcome, rules: SourceRules) -> list[str]:
    """The ids in the outcome that this source's rules let name a registration, each once."""
    named = (outcome.registration_ids.get(name) for name in rules.registration_ids)
    return list(dict.fromkeys(id for id in named if id))


def student_of(candidate: Candidate, rules: SourceRules) -> str | None:
    """Rhythm's student id of the candidate: the association's own id, else the configured third party's."""
    third_party = candidate.third_party_ids.get(rules.third_party) if rules.third_party else None
    return candidate.student_id or third_party


def why_nobody(outcome: ExamOutcome, rules: SourceRules) -> str | None:
    """Why nothing in the result identifies who sat the exam, with the ids that are not used; None if something does.

    An id that no registration can have identifies nobody.
    """
    candidate, ids = outcome.candidate, named_ids(outcome, rules)
    if candidate.email or student_of(candidate, rules) or any(REGISTRATION_ID.fullmatch(id) for id in ids):
        return None
    unused = [
        f"{name}, which registration_ids does not name"
        for name in outcome.registration_ids
        if name not in rules.registration_ids
    ]
    if candidate.third_party_ids:
        named = f"names {rules.third_party}" if rules.third_party else "names none"
        unused.append(f"thirdPartyIds of {', '.join(sorted(candidate.third_party_ids))}, and third_party {named}")
    if ids:
        unused.append("an id that no registration can have")
    there = f"; there is {'; '.join(unused)}" if unused else ""
    return f"no id of a registration, no student id and no e-mail address that could be used{there}"


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
    if email and registration.email_address and email != folded(registration.email_address):
        return "has another e-mail address"
    return None


def cannot_be(registration: Registration, exam: Exam) -> str | None:
    """Why a result for `exam` can never be written to this registration, even if a person names it; else None."""
    if registration.exam_id != exam.exam_id:
        return f"is for exam {registration.exam_id}, the result for {exam.exam_id}"
    return f"is {registration.status}" if registration.status in NEVER else None


def answered(exam: Exam, registration: Registration) -> Registration:
    """The registration that an operator named; whether it is this person's was the operator's decision.

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
    written = [one for one in candidates if one.id in ours and one.exam_id == exam.exam_id and one.status not in NEVER]
    if len(written) == 1:
        return written[0]
    likely = [one for one in candidates if one.status in OPEN | SETTLED and why_not(outcome, exam, one) is None]
    timely = _first_there(likely, outcome.completed_at)
    open_ones = [one for one in timely if one.status in OPEN]
    settled = [one for one in timely if one.status in SETTLED]
    best = _nearest(outcome, open_ones or settled)
    if not best:
        raise TransientError(Reason.REGISTRATION_NOT_FOUND, _why_none(outcome, exam, candidates))
    if len(best) > 1:
        raise PermanentError(Reason.REGISTRATION_AMBIGUOUS, f"equally likely: {_ids(best)}")
    return best[0]


def open_ones_decide(outcome: ExamOutcome, exam: Exam, candidates: Sequence[Registration]) -> bool:
    """Whether `choose` takes the same one of these as of all this person's registrations, if all open ones are here.

    One open registration made before the completion and nearer than the other open ones: `choose` then looks neither
    at settled ones nor at those made later. Only for a delivery that has written nothing, since that would come first.
    """
    fit = [one for one in candidates if one.status in OPEN and why_not(outcome, exam, one) is None]
    return len(_nearest(outcome, _made_before(fit, outcome.completed_at))) == 1


def why_not(outcome: ExamOutcome, exam: Exam, registration: Registration) -> str | None:
    """Why the sitting cannot be about a registration of this person; None when it can.

    Nobody sits an exam before the day of registering for it, nor long before the day that it is set for. Days are
    UTC's, and a completion without a time of day is a day.
    """
    completed, sitting = outcome.completed_at, registration.exam_at
    if registration.exam_id != exam.exam_id:
        return f"is for exam {registration.exam_id}"
    if registration.status in NEVER:
        return f"is {registration.status}"
    if completed and registration.registered_at and registration.registered_at.date() > completed.date():
        return f"was made on {registration.registered_at:%Y-%m-%d}, after the sitting on {completed:%Y-%m-%d}"
    if completed and sitting and sitting.date() > (completed + _SAME_DAY).date():
        return f"is set for {sitting:%Y-%m-%d}, after the sitting on {completed:%Y-%m-%d}"
    return None


def _first_there(timely: list[Registration], completed: datetime | None) -> list[Registration]:
    """The registrations made before the completion; if there are none, those made later on the same day.

    A person who fails in the morning and registers again at noon must not get the morning's result on the second one.
    """
    return _made_before(timely, completed) or timely


def _made_before(timely: list[Registration], completed: datetime | None) -> list[Registration]:
    if completed is None or completed.time() == datetime.min.time():
        return timely
    return [one for one in timely if one.registered_at is None or one.registered_at <= completed]


def _nearest(outcome: ExamOutcome, candidates: Sequence[Registration]) -> list[Registration]:
    """The nearest to the sitting by calendar day. One whose day is unknown ties with every other."""
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


def _why_none(outcome: ExamOutcome, exam: Exam, candidates: Sequence[Registration]) -> str:
    if not candidates:
        return "no registration of this person for this exam"
    each = sorted((one.id, why_not(outcome, exam, one) or f"is {one.status}") for one in candidates)
    why = ", ".join(f"{id} {reason}" for id, reason in each[:_SHOWN])
    return f"none of {_ids(candidates)} is open for exam {exam.exam_id} at that time: {why}"
