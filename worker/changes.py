"""What is to be written. Pure: (outcome, exam map, registration) -> values, their difference, the patch.

The exam map is applied here, at sync, so that a replay uses today's. Values are compared by meaning, and only the
difference is written: nothing to change means no write, and no letter.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

from schemas.event import Reason
from schemas.outcome import COMPLETE_REASONS, PROCTOR_ENDED, ExamOutcome, Source, Verdict
from schemas.rhythm import PatchOperation, Registration
from worker import custom_fields
from worker.errors import PermanentError
from worker.tenants import Exam

#: The score that is written where the exam map names none.
_OWN_SCORE: Final = {Source.CERTIVERSE: "reported", Source.DRILLSTER: "percent", Source.PROV: "reported"}
#: Certiverse's own words for how a sitting was ended; others may be free text.
_ENDS: Final = (
    "CandidateIntegrity", "CandidateLeft", "ProhibitedItem", "TestTakerTechnicalIssues", "Other", PROCTOR_ENDED,
)  # fmt: skip
_NO_VERDICT: Final = "none"
#: Not a plain field: {id: {member: value}}.
_CUSTOM: Final = "custom_field_values"
Values = dict[str, Any]


def values_of(outcome: ExamOutcome, exam: Exam, verdict: str | None, accepts: frozenset[Reason]) -> Values:
    """What the registration must say: `status`, and `score` and `exam_date` as far as the outcome has them.

    `verdict`: a person's answer, before any rule; `none` leaves the status as it is. Raises PermanentError:
    `result_contradictory`, `integrity_review`, `result_unscored`.
    """
    if exam.integrity == "hold" and Reason.INTEGRITY_REVIEW not in accepts:
        _refuse_terminated(outcome)
    if outcome.contradiction and Reason.RESULT_CONTRADICTORY not in accepts:
        raise PermanentError(Reason.RESULT_CONTRADICTORY, outcome.contradiction)
    decided = _answered(verdict) if verdict else _verdict(outcome, exam)
    words = {str(name): word for name, word in exam.status_words.items()}
    values: Values = {"status": words.get(decided, decided) if decided else None}
    score = outcome.scores.get(exam.score or _OWN_SCORE[outcome.source])
    if score is not None:
        values["score"] = _at_places(score, exam.score_places)
    if outcome.completed_at is not None:
        values["exam_date"] = outcome.completed_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if exam.custom_fields:
        values[_CUSTOM] = custom_fields.fields_of(outcome, exam.custom_fields)
    return {name: value for name, value in values.items() if value is not None}


def _refuse_terminated(outcome: ExamOutcome) -> None:
    if outcome.termination_reason or outcome.complete_reason == PROCTOR_ENDED:
        told = (outcome.termination_reason or PROCTOR_ENDED).partition(":")[0]
        why = told if told in _ENDS else "see the payload"  # what a proctor typed may be about a person
        raise PermanentError(Reason.INTEGRITY_REVIEW, f"ended by a proctor or terminated ({why})")
    if outcome.complete_reason not in (None, *COMPLETE_REASONS):
        raise PermanentError(
            Reason.INTEGRITY_REVIEW, "how the exam ended is none of the documented ways: see the payload"
        )


def _answered(verdict: str) -> str | None:
    return None if verdict == _NO_VERDICT else verdict


def _verdict(outcome: ExamOutcome, exam: Exam) -> Verdict:
    """The configured transformation's, else the platform's, else by threshold; none where it is unclear."""
    if outcome.unclear:
        raise PermanentError(Reason.RESULT_UNSCORED, outcome.unclear)
    if exam.transformation is not None:
        passed = [one.passed for one in outcome.transformations if one.id == exam.transformation]
        if len(passed) == 1 and passed[0] is not None:
            return Verdict.PASSED if passed[0] else Verdict.FAILED
        raise PermanentError(Reason.RESULT_UNSCORED, f"transformation {exam.transformation} says neither")
    if outcome.transformations_differ:
        raise PermanentError(Reason.RESULT_UNSCORED, "transformations contradict each other")
    if outcome.verdict is not None:
        return outcome.verdict
    score = outcome.scores.get(exam.score or _OWN_SCORE[outcome.source])
    if score is None or exam.threshold is None:
        raise PermanentError(Reason.RESULT_UNSCORED, "neither passed nor failed, and no threshold to tell")
    return Verdict.PASSED if score >= exam.threshold else Verdict.FAILED


def difference(values: Mapping[str, Any], registration: Registration) -> Values:
    """Of `values`, those that the registration does not say already."""
    plain = {name: value for name, value in values.items() if name != _CUSTOM}
    changed = {name: value for name, value in plain.items() if not _same(name, value, getattr(registration, name))}
    fields = custom_fields.difference(values.get(_CUSTOM, {}), registration.custom_field_values)
    return changed | ({_CUSTOM: fields} if fields else {})


def stand(values: Mapping[str, Any], registration: Registration) -> bool:
    """Whether the registration says all of `values`."""
    return not difference(values, registration)


def patch(
    changed: Mapping[str, Any], registration: Registration, guard: Literal["sys_version", "none"]
) -> list[PatchOperation]:
    """The operations that write `changed`, the fence first.

    `add` replaces a member or makes it (RFC 6902, 4.1), and these may be absent; `replace` would fail then.
    """
    plain = {name: value for name, value in changed.items() if name != _CUSTOM}
    operations = [PatchOperation(op="add", path=f"/{name}", value=value) for name, value in plain.items()]
    if _CUSTOM in changed:
        operations += custom_fields.operations(changed[_CUSTOM], registration.custom_field_values)
    if guard == "none":
        return operations
    if registration.sys_version is None:
        return [*_field_tests(plain, registration), *operations]
    return [PatchOperation(op="test", path="/sys_version", value=registration.sys_version), *operations]


def _field_tests(changed: Mapping[str, Any], registration: Registration) -> list[PatchOperation]:
    """Where Rhythm gives no version: at least the fields that we change must be as we read them."""
    present = ((name, getattr(registration, name)) for name in changed)
    return [PatchOperation(op="test", path=f"/{name}", value=value) for name, value in present if value is not None]


def _same(name: str, ours: Any, theirs: Any) -> bool:
    if theirs is None:
        return False
    if name == "score":
        return _same_score(Decimal(str(ours)), _decimal(theirs))
    if name == "exam_date":
        return _same_time(str(ours), str(theirs))
    return str(ours) == str(theirs)


def _same_score(ours: Decimal, theirs: Decimal | None) -> bool:
    """Equal at our places: a float that went through other hands may have a tail."""
    try:
        return theirs is not None and theirs.quantize(ours) == ours
    except InvalidOperation:
        return False


def _same_time(ours: str, theirs: str) -> bool:
    """Equal instants; a day alone equals any time on it."""
    try:
        mine, other = _instant(ours), _instant(theirs)
    except ValueError:
        return False
    return mine.date() == other.date() if len(theirs) == len("2026-01-31") else mine == other


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _at_places(score: Decimal, places: int) -> Decimal:
    return round(score, places) + 0


def _decimal(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
