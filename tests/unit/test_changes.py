"""What is to be written, as tables: values, what differs by meaning, and the operations."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.event import Reason
from schemas.outcome import Candidate, ExamOutcome, Source, Transformation, Verdict
from schemas.rhythm import Registration
from worker.changes import Values, difference, patch, stand, values_of
from worker.errors import PermanentError
from worker.tenants import Exam

COMPLETED = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
WHEN = "2026-05-04T12:30:00Z"
P, F = Verdict.PASSED, Verdict.FAILED
UNSCORED, INTEGRITY = Reason.RESULT_UNSCORED, Reason.INTEGRITY_REVIEW


def outcome(verdict: Verdict | None = P, score: str | None = None, **more: Any) -> ExamOutcome:
    scores = {} if score is None else {"reported": Decimal(score)}
    told = {"source": Source.CERTIVERSE, "delivery": "dlv-1", "exam_codes": ("CERT-1",), "candidate": Candidate()}
    return ExamOutcome(**told | {"verdict": verdict, "scores": scores} | more)  # type: ignore[arg-type]


def exam(**more: Any) -> Exam:
    return Exam(exam_id="exam-1", codes=("CERT-1",), **more)


def values(told: ExamOutcome, rules: Exam, verdict: str | None = None, accepts: tuple[Reason, ...] = ()) -> Values:
    return values_of(told, rules, verdict, frozenset(accepts))


def said(*passed: bool | None) -> tuple[Transformation, ...]:
    """Transformations t0, t1 ... and what each says."""
    return tuple(Transformation(id=f"t{number}", passed=one) for number, one in enumerate(passed))


@pytest.mark.parametrize(
    ("told", "rules", "expected"),
    [
        pytest.param(outcome(P), exam(), P, id="the platform's: passed"),
        pytest.param(outcome(F), exam(), F, id="the platform's: failed"),
        pytest.param(outcome(F, "99"), exam(threshold=70), F, id="the platform's before the threshold"),
        pytest.param(outcome(None, "70"), exam(threshold=70), P, id="at the threshold"),
        pytest.param(outcome(None, "69.999"), exam(threshold=70), F, id="below, however it is rounded"),
        pytest.param(outcome(None, "70.000"), exam(threshold="70.0"), P, id="by meaning"),
        pytest.param(outcome(None, "70"), exam(), UNSCORED, id="no verdict, no threshold"),
        pytest.param(outcome(None), exam(threshold=70), UNSCORED, id="no verdict, no score"),
        pytest.param(outcome(None, "70"), exam(threshold=70, score="scaled"), UNSCORED, id="not that score"),
        pytest.param(outcome(None, scores={"scaled": 500}), exam(threshold=450, score="scaled"), P, id="another score"),
        pytest.param(outcome(None, "99", unclear="?"), exam(threshold=70), UNSCORED, id="unclear: no threshold helps"),
        pytest.param(outcome(None, transformations=said(True)), exam(transformation="t0"), P, id="transformation"),
        pytest.param(outcome(P, transformations=said(False)), exam(transformation="t0"), F, id="it goes first"),
        pytest.param(outcome(None, transformations=said(True, False)), exam(transformation="t1"), F,
                     id="it settles a contradiction"),
        pytest.param(outcome(P, transformations=said(None)), exam(transformation="t0"), UNSCORED, id="it says neither"),
        pytest.param(outcome(P, transformations=said(True)), exam(transformation="t9"), UNSCORED, id="it is not there"),
        pytest.param(outcome(P, transformations=said(True) * 2), exam(transformation="t0"), UNSCORED, id="it is twice"),
    ],
)  # fmt: skip
def test_the_status_is_the_transformation_s_else_the_platform_s_else_by_threshold(
    told: ExamOutcome, rules: Exam, expected: Verdict | Reason
) -> None:
    if isinstance(expected, Verdict):
        assert values(told, rules)["status"] == expected
        return
    with pytest.raises(PermanentError) as caught:
        values(told, rules)
    assert caught.value.reason is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("passed", {"status": "passed"}), ("failed", {"status": "failed"}), ("none", {})],
)
@pytest.mark.parametrize(
    "told", [outcome(None), outcome(P), outcome(F), outcome(None, unclear="?")], ids=["none", "passed", "failed", "?"]
)
def test_a_persons_verdict_goes_before_any_rule_and_none_leaves_the_status(
    told: ExamOutcome, answer: str, expected: Values
) -> None:
    assert values(told, exam(), answer) == expected


@pytest.mark.parametrize(
    ("score", "places", "expected"),
    [
        ("82.5", 2, "82.5"), ("82.505", 2, "82.5"), ("82.515", 2, "82.52"), ("82.5", 0, "82"), ("1e3", 2, "1000"),
        ("0.0000001", 6, "0"), ("-0.001", 2, "0"), ("999999999999.9999995", 6, "1000000000000"),
    ],
)  # fmt: skip
def test_a_score_is_written_with_the_places_of_the_exam_map(score: str, places: int, expected: str) -> None:
    written = values(outcome(P, score), exam(score_places=places))["score"]
    assert written == Decimal(expected)
    assert not written.is_signed()


@pytest.mark.parametrize(
    ("source", "rules", "expected"),
    [
        pytest.param(Source.CERTIVERSE, exam(), "1", id="Certiverse reports"),
        pytest.param(Source.PROV, exam(), "1", id="Prov reports"),
        pytest.param(Source.DRILLSTER, exam(), "2", id="Drillster has percentages"),
        pytest.param(Source.DRILLSTER, exam(score="raw"), "3", id="the exam map says which"),
        pytest.param(Source.CERTIVERSE, exam(score="scaled"), None, id="not sent: not written"),
    ],
)
def test_which_score_is_written(source: Source, rules: Exam, expected: str | None) -> None:
    told = outcome(P, source=source, scores={"reported": Decimal(1), "percent": Decimal(2), "raw": Decimal(3)})
    assert values(told, rules).get("score") == (None if expected is None else Decimal(expected))


def test_the_exam_date_is_the_completion_in_utc() -> None:
    assert values(outcome(completed_at="2026-05-04T14:30:00+02:00"), exam())["exam_date"] == WHEN
    assert "exam_date" not in values(outcome(completed_at=None), exam())


@pytest.mark.parametrize(
    ("more", "held"),
    [
        ({"complete_reason": "proctor ended"}, True),
        ({"complete_reason": "Proctor Ended"}, True),
        ({"termination_reason": "CandidateIntegrity"}, True),
        ({"complete_reason": "candidate ended"}, False),
        ({"complete_reason": None}, False),
    ],
)
def test_a_sitting_that_was_ended_waits_for_review_unless_the_map_or_a_person_says_otherwise(
    more: dict[str, Any], held: bool
) -> None:
    told = outcome(P, **more)
    assert values(told, exam(integrity="write")) == {"status": "passed"}
    assert values(told, exam(), accepts=(INTEGRITY,)) == {"status": "passed"}
    if not held:
        assert values(told, exam()) == {"status": "passed"}
        return
    for rules, accepts in ((exam(), ()), (exam(), (UNSCORED,))):
        with pytest.raises(PermanentError) as caught:
            values(told, rules, "passed", accepts)
        assert caught.value.reason is INTEGRITY


def test_the_words_of_a_proctor_stay_out_of_the_detail() -> None:
    with pytest.raises(PermanentError) as caught:
        values(outcome(P, termination_reason="Other: Ada had a phone"), exam())
    assert "Ada" not in caught.value.detail


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "same"),
    [
        pytest.param("status", P, "passed", True, id="status: equal"),
        pytest.param("status", P, "failed", False, id="status: other"),
        pytest.param("status", "passed", None, False, id="status: absent"),
        pytest.param("score", Decimal("82.50"), 82.5, True, id="score: another spelling"),
        pytest.param("score", "82.50", 82.5, True, id="score: ours from the ledger"),
        pytest.param("score", Decimal("70.00"), 70, True, id="score: a whole number"),
        pytest.param("score", Decimal("70.10"), "70.1", True, id="score: theirs as text"),
        pytest.param("score", Decimal("82.50"), 82.504, True, id="score: a tail beyond our places"),
        pytest.param("score", Decimal("82.50"), 82.506, False, id="score: other at our places"),
        pytest.param("score", Decimal("82"), 82.4, True, id="score: no places"),
        pytest.param("score", Decimal("82.50"), 82.6, False, id="score: other"),
        pytest.param("score", Decimal("0.00"), None, False, id="score: zero is not absent"),
        pytest.param("score", Decimal("1.00"), "1e40", False, id="score: theirs beyond reason"),
        pytest.param("exam_date", WHEN, WHEN, True, id="date: equal"),
        pytest.param("exam_date", WHEN, "2026-05-04T14:30:00.000+02:00", True, id="date: the same instant"),
        pytest.param("exam_date", WHEN, "2026-05-04T12:30:00", True, id="date: without a zone it is UTC"),
        pytest.param("exam_date", WHEN, "2026-05-04T12:30:01Z", False, id="date: a second later"),
        pytest.param("exam_date", WHEN, "2026-05-04", True, id="date: its day"),
        pytest.param("exam_date", WHEN, "2026-05-05", False, id="date: another day"),
        pytest.param("exam_date", WHEN, "2026-05-04T00:00:00Z", False, id="date: midnight is an instant"),
        pytest.param("exam_date", WHEN, "May 4th", False, id="date: not readable"),
        pytest.param("exam_date", WHEN, "0001-01-01T00:00:00+14:00", False, id="date: before all time"),
        pytest.param("exam_date", WHEN, None, False, id="date: absent"),
    ],
)
def test_values_are_compared_by_meaning(name: str, ours: Any, theirs: Any, same: bool) -> None:
    registration = Registration(id="reg-1", **{name: theirs})
    assert difference({name: ours}, registration) == ({} if same else {name: ours})
    assert stand({name: ours}, registration) is same


FULL = Registration(id="reg-1", status="registered", score=50, exam_date=WHEN, sys_version=7)
BARE = Registration(id="reg-1", status="registered")
CHANGED = {"status": "passed", "score": Decimal("82.50")}
ADDS = [("add", "/status", "passed"), ("add", "/score", Decimal("82.50"))]


@pytest.mark.parametrize(
    ("registration", "guard", "fence"),
    [
        pytest.param(FULL, "sys_version", [("test", "/sys_version", 7)], id="guarded by the version"),
        pytest.param(FULL, "none", [], id="not guarded"),
        pytest.param(FULL.model_copy(update={"sys_version": None}), "sys_version",
                     [("test", "/status", "registered"), ("test", "/score", Decimal(50))], id="no version: by fields"),
        pytest.param(BARE, "sys_version", [("test", "/status", "registered")], id="an absent field cannot be tested"),
        pytest.param(BARE, "none", [], id="no version, not guarded"),
    ],
)  # fmt: skip
def test_a_patch_is_the_difference_behind_its_fence(registration: Registration, guard: Any, fence: list[Any]) -> None:
    told = [(one.op, one.path, one.value) for one in patch(CHANGED, registration, guard)]
    assert told == fence + ADDS


def test_a_verdict_is_written_in_the_words_of_the_exam_map() -> None:
    exam = Exam(exam_id="exam-1", codes=("CERT-1",), status_words={Verdict.FAILED: "no show"})
    assert values_of(outcome(verdict=Verdict.FAILED), exam, None, frozenset())["status"] == "no show"
    assert values_of(outcome(verdict=Verdict.PASSED), exam, None, frozenset())["status"] == "passed"
