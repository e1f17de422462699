"""What a result writes to its registration. Pure: (outcome, exam map, registration) -> values, difference, patch.

The exam map is applied here, at sync, so that a replay uses the present one. Values are compared by meaning, and only
the difference is written: without a difference there is no write, and no letter.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final, Literal

from schemas.event import Reason
from schemas.outcome import COMPLETE_REASONS, PROCTOR_ENDED, TEST_PART_SCORING, ExamOutcome, Verdict
from schemas.platform import platform_of
from schemas.rhythm import PatchOperation, Registration
from worker.errors import PermanentError
from worker.exam_map import Exam
from worker.rules import custom_fields

#: Certiverse's own words for how a sitting was ended; others may be free text.
_ENDS: Final = ("CandidateIntegrity", "CandidateLeft", "ProhibitedItem", "TestTakerTechnicalIssues", "Other")
_NO_VERDICT: Final = "none"
#: Not a plain field: {id: {member: value}}.
_CUSTOM: Final = "custom_field_values"
#: By Rhythm's field name. None: the registration must not have the field.
Values = dict[str, Any]


def values_of(outcome: ExamOutcome, exam: Exam, verdict: str | None, accepts: frozenset[Reason]) -> Values:
    """The registration's new values: `status`, and `score` and `exam_date` as far as the outcome has them.

    `verdict`: a person's answer, before any rule; `none` leaves the status as it is. Raises PermanentError:
    `result_contradictory`, `integrity_review`, `result_unscored`, `score_missing` (of a score that the exam map names).
    """
    if exam.integrity == "hold" and Reason.INTEGRITY_REVIEW not in accepts:
        _refuse_terminated(outcome)
    if outcome.contradiction and Reason.RESULT_CONTRADICTORY not in accepts:
        raise PermanentError(Reason.RESULT_CONTRADICTORY, outcome.contradiction)
    decided: str | None = verdict or _verdict(outcome, exam)
    if decided == _NO_VERDICT:
        decided = None
    words = {str(name): word for name, word in exam.status_words.items()}
    values: Values = {"status": words.get(decided, decided) if decided else None}
    name = _score_name(outcome, exam)
    score = outcome.scores.get(name)
    if score is not None:
        values["score"] = _at_places(score, exam.score_places, _marks(outcome, exam, name))
    elif exam.score and Reason.SCORE_MISSING not in accepts:
        raise PermanentError(Reason.SCORE_MISSING, _why_missing(outcome, name))
    if outcome.completed_at is not None:
        values["exam_date"] = outcome.completed_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if exam.custom_fields:
        values[_CUSTOM] = custom_fields.fields_of(outcome, exam.custom_fields)
    return {name: value for name, value in values.items() if value is not None}


def _refuse_terminated(outcome: ExamOutcome) -> None:
    if outcome.termination_reason or outcome.complete_reason == PROCTOR_ENDED:
        end = (outcome.termination_reason or PROCTOR_ENDED).partition(":")[0]
        # A proctor's own text may be about a person: it is not repeated.
        why = end if end in (*_ENDS, PROCTOR_ENDED) else "see the payload"
        raise PermanentError(Reason.INTEGRITY_REVIEW, f"ended by a proctor or terminated ({why})")
    if outcome.complete_reason not in (None, *COMPLETE_REASONS):
        raise PermanentError(
            Reason.INTEGRITY_REVIEW, "how the exam ended is none of the documented ways: see the payload"
        )


def _verdict(outcome: ExamOutcome, exam: Exam) -> Verdict:
    """The configured transformation's, else the platform's, else by threshold. Raises `result_unscored`."""
    if outcome.unclear:
        raise PermanentError(Reason.RESULT_UNSCORED, outcome.unclear)
    if exam.transformation is not None and platform_of(outcome.source).transformations:
        passed = [one.passed for one in outcome.transformations if one.id == exam.transformation]
        if len(passed) == 1 and passed[0] is not None:
            return Verdict.PASSED if passed[0] else Verdict.FAILED
        raise PermanentError(Reason.RESULT_UNSCORED, f"transformation {exam.transformation} says neither")
    if outcome.transformations_differ:
        raise PermanentError(Reason.RESULT_UNSCORED, "transformations contradict each other")
    if outcome.verdict is not None:
        return outcome.verdict
    return _by_threshold(outcome, exam)


def _by_threshold(outcome: ExamOutcome, exam: Exam) -> Verdict:
    if exam.threshold is None:
        raise PermanentError(Reason.RESULT_UNSCORED, "neither passed nor failed, and no threshold to tell")
    name = _score_name(outcome, exam)
    score = outcome.scores.get(name)
    if score is None:
        raise PermanentError(Reason.RESULT_UNSCORED, f"neither passed nor failed; {_why_missing(outcome, name)}")
    if _points_or_percent(outcome, exam):
        raise PermanentError(
            Reason.RESULT_UNSCORED,
            "neither passed nor failed; it has points, and a percentage that is another number: "
            'name the one that the threshold is for in the exam map (score = "reported" or "percent")',
        )
    return Verdict.PASSED if score >= exam.threshold else Verdict.FAILED


def _points_or_percent(outcome: ExamOutcome, exam: Exam) -> bool:
    """Whether a threshold may be meant for either: points and percentage differ, and the exam map names neither."""
    points, percent = outcome.scores.get("reported"), outcome.scores.get("percent")
    return exam.score is None and platform_of(outcome.source).points_or_percent and percent not in (None, points)


def _score_name(outcome: ExamOutcome, exam: Exam) -> str:
    return exam.score or platform_of(outcome.source).usual_score


def _why_missing(outcome: ExamOutcome, name: str) -> str:
    if name in platform_of(outcome.source).scores:
        return f"the result has no {name} score, which the exam map is about"
    return f"{outcome.source} never sends the {name} score of the exam map: give its codes a line of their own there"


def _marks(outcome: ExamOutcome, exam: Exam, name: str) -> list[Decimal]:
    """What the score is compared with: the exam map's threshold, and the platform's cut if it is of the same kind.

    Certiverse, Exam Result Model: `reportedScore` is compared with `cutScore`; `cutScoreType` says what both are.
    """
    kind, cut = outcome.cut_score_type, outcome.scores.get("cut")
    if kind != name and (name != "reported" or kind == TEST_PART_SCORING):
        cut = None
    return [mark for mark in (exam.threshold, cut) if mark is not None and mark > 0]


def leaves_score(values: Mapping[str, Any], registration: Registration) -> bool:
    """Whether the registration would keep the score of another result beside the new verdict."""
    return "status" in values and "score" not in values and registration.score is not None


def cleared(values: Values, wrote: Mapping[str, Any], exam: Exam) -> Values:
    """`values`, and None for each custom field that an earlier result filled (`wrote`) and this one does not."""
    ids = {field.id for field in exam.custom_fields}
    fields = custom_fields.cleared(values.get(_CUSTOM, {}), wrote.get(_CUSTOM, {}), ids)
    return values | {_CUSTOM: fields} if fields else values


def difference(values: Mapping[str, Any], registration: Registration) -> Values:
    """The `values` that the registration does not have yet."""
    plain = {name: value for name, value in values.items() if name != _CUSTOM}
    changed = {name: value for name, value in plain.items() if not _same(name, value, getattr(registration, name))}
    fields = custom_fields.difference(values.get(_CUSTOM, {}), registration.custom_field_values)
    return changed | ({_CUSTOM: fields} if fields else {})


def stand(values: Mapping[str, Any], registration: Registration) -> bool:
    """Whether the registration has all of `values`."""
    return not difference(values, registration)


def as_now(values: Mapping[str, Any], found: Registration) -> Values:
    """What the registration says now where we wrote `values`; None where it says nothing."""
    now: Values = {}
    for name, value in values.items():
        if name == _CUSTOM:
            held = {entry.get("custom_field_id"): entry for entry in found.custom_field_values or ()}
            now[name] = {id: {part: held.get(id, {}).get(part) for part in member} for id, member in value.items()}
        else:
            says = getattr(found, name)
            now[name] = f"{says.normalize():f}" if isinstance(says, Decimal) else says
    return now


def patch(
    changed: Mapping[str, Any], registration: Registration, guard: Literal["sys_version", "none"]
) -> list[PatchOperation]:
    """The patch that writes `changed`. Its first operation is the guard `test /sys_version`.

    `add` replaces a member or creates it (RFC 6902, 4.1); `replace` fails on one that is absent.
    """
    plain = {name: value for name, value in changed.items() if name != _CUSTOM}
    operations = [
        PatchOperation(op="remove" if value is None else "add", path=f"/{name}", value=value)
        for name, value in plain.items()
    ]
    if _CUSTOM in changed:
        operations += custom_fields.operations(changed[_CUSTOM], registration.custom_field_values)
    if guard == "none":
        return operations
    if registration.sys_version is None:
        return [*_field_tests(plain, registration), *operations]
    return [PatchOperation(op="test", path="/sys_version", value=registration.sys_version), *operations]


def _field_tests(changed: Mapping[str, Any], registration: Registration) -> list[PatchOperation]:
    """The guard where Rhythm gives no version: the fields that we change must be as we read them."""
    present = ((name, getattr(registration, name)) for name in changed)
    return [PatchOperation(op="test", path=f"/{name}", value=value) for name, value in present if value is not None]


def _same(name: str, ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if name == "score":
        return _same_score(Decimal(str(ours)), _decimal(theirs))
    if name == "exam_date":
        return _same_time(str(ours), str(theirs))
    return str(ours) == str(theirs)


def _same_score(ours: Decimal, theirs: Decimal | None) -> bool:
    """Equal at our decimal places: other software may have turned the number into an inexact float."""
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


def _at_places(score: Decimal, places: int, marks: Sequence[Decimal]) -> Decimal:
    """The score rounded to `places`, but never across a threshold or cut (`marks`): then down, up, or not at all."""
    step, sides = Decimal(1).scaleb(-places), [score >= mark for mark in marks]
    for rounding in (ROUND_HALF_EVEN, ROUND_FLOOR, ROUND_CEILING):
        rounded = score.quantize(step, rounding)
        if [rounded >= mark for mark in marks] == sides:
            return rounded + 0
    return score


def _decimal(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
