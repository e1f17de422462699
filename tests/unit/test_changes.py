"""What is to be written, as tables: values, what differs by meaning, and the operations."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.event import Reason
from schemas.outcome import Candidate, ExamOutcome, Source, Transformation, Verdict
from schemas.rhythm import Registration
from worker.errors import PermanentError
from worker.exam_map import Exam
from worker.rules.changes import Values, difference, leaves_score, patch, stand, values_of

COMPLETED = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
WHEN = "2026-05-04T12:30:00Z"
P, F = Verdict.PASSED, Verdict.FAILED
UNSCORED, INTEGRITY = Reason.RESULT_UNSCORED, Reason.INTEGRITY_REVIEW


def outcome(verdict: Verdict | None = P, score: str | None = None, **more: Any) -> ExamOutcome:
    scores = {} if score is None else {"reported": Decimal(score)}
    told = {"source": Source.CERTIVERSE, "delivery": "dlv-1", "exam_codes": ("CERT-1",), "candidate": Candidate()}
    return ExamOutcome(**told | {"verdict": verdict, "scores": scores} | more)  # type: ignore[arg-type]


def drilled(verdict: Verdict | None, transformations: tuple[Transformation, ...], **more: Any) -> ExamOutcome:
    """What Drillster says."""
    return outcome(verdict, source=Source.DRILLSTER, transformations=transformations, **more)


def proved(points: str, percent: str | None, verdict: Verdict | None = None) -> ExamOutcome:
    """What Prov says."""
    scores = {"reported": Decimal(points)} | ({"percent": Decimal(percent)} if percent else {})
    return outcome(verdict, source=Source.PROV, scores=scores)


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
        pytest.param(
            outcome(None, scores={"scaled": Decimal(500)}), exam(threshold=450, score="scaled"), P, id="another score"
        ),
        pytest.param(outcome(None, "99", unclear="?"), exam(threshold=70), UNSCORED, id="unclear: no threshold helps"),
        pytest.param(drilled(None, said(True)), exam(transformation="t0"), P, id="transformation"),
        pytest.param(drilled(P, said(False)), exam(transformation="t0"), F, id="it goes first"),
        pytest.param(drilled(None, said(True, False)), exam(transformation="t1"), F, id="it settles a contradiction"),
        pytest.param(drilled(P, said(None)), exam(transformation="t0"), UNSCORED, id="it says neither"),
        pytest.param(drilled(P, said(True)), exam(transformation="t9"), UNSCORED, id="it is not there"),
        pytest.param(drilled(P, said(True) * 2), exam(transformation="t0"), UNSCORED, id="it is twice"),
        pytest.param(outcome(F), exam(transformation="t0"), F, id="it decides about Drillster's results only"),
        pytest.param(outcome(None, "70"), exam(transformation="t0", threshold=70), P, id="and no other's threshold"),
        pytest.param(proved("75", "37.5"), exam(threshold=70), UNSCORED, id="points or a percentage: not said"),
        pytest.param(proved("480", "75"), exam(threshold=70), UNSCORED, id="the same where both would be enough"),
        pytest.param(proved("75", "75"), exam(threshold=70), P, id="points of a hundred are a percentage"),
        pytest.param(proved("75", None), exam(threshold=70), P, id="no maximum: what is reported"),
        pytest.param(proved("75", "37.5"), exam(threshold=70, score="percent"), F, id="a threshold in percent"),
        pytest.param(proved("75", "37.5"), exam(threshold=70, score="reported"), P, id="a threshold in points"),
        pytest.param(proved("75", "37.5", P), exam(threshold=70), P, id="the platform's verdict needs no threshold"),
    ],
)
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
        ("82.5", 2, "82.5"),
        ("82.505", 2, "82.5"),
        ("82.515", 2, "82.52"),
        ("82.5", 0, "82"),
        ("1e3", 2, "1000"),
        ("0.0000001", 6, "0"),
        ("-0.001", 2, "0"),
        ("999999999999.9999995", 6, "1000000000000"),
    ],
)
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
    ],
)
def test_which_score_is_written(source: Source, rules: Exam, expected: str | None) -> None:
    told = outcome(P, source=source, scores={"reported": Decimal(1), "percent": Decimal(2), "raw": Decimal(3)})
    assert values(told, rules).get("score") == (None if expected is None else Decimal(expected))


MISSING = Reason.SCORE_MISSING


@pytest.mark.parametrize(
    ("source", "score", "detail"),
    [
        (Source.CERTIVERSE, "scaled", "the result has no scaled score"),
        (Source.DRILLSTER, "scaled", "drillster never sends the scaled score"),
        (Source.PROV, "raw", "prov never sends the raw score"),
    ],
)
@pytest.mark.parametrize("verdict", [None, "passed", "none"])
def test_a_score_that_the_exam_map_names_and_the_result_lacks_is_a_persons_to_accept(
    source: Source, score: str, detail: str, verdict: str | None
) -> None:
    told = outcome(P, "70", source=source)
    with pytest.raises(PermanentError, match=detail) as caught:
        values(told, exam(score=score), verdict)
    assert caught.value.reason is MISSING
    assert "score" not in values(told, exam(score=score), verdict, (MISSING,))


def test_a_score_that_the_exam_map_does_not_name_may_be_absent() -> None:
    assert values(outcome(P), exam()) == {"status": "passed"}


def test_without_a_verdict_the_detail_says_that_the_score_for_the_threshold_is_absent() -> None:
    with pytest.raises(PermanentError, match="neither passed nor failed; the result has no scaled score"):
        values(outcome(None, "70"), exam(threshold=70, score="scaled"))


SCALED, PARTS = "scaled", "testpartscoring"


@pytest.mark.parametrize(
    ("score", "places", "threshold", "cut", "kind", "expected"),
    [
        pytest.param("69.996", 2, 70, None, None, "69.99", id="up to the threshold: down"),
        pytest.param("69.6", 0, 70, None, None, "69", id="no places"),
        pytest.param("69.996", 2, 71, None, None, "70.00", id="up, and still below"),
        pytest.param("70.004", 2, "70.003", None, None, "70.01", id="down below the threshold: up"),
        pytest.param("69.995", 2, "69.996", None, None, "69.99", id="a threshold with more places"),
        pytest.param("70.4", 0, "70.2", None, None, "71", id="a threshold with places, a score without"),
        pytest.param("70", 2, 70, None, None, "70.00", id="at the threshold"),
        pytest.param("69.996", 2, None, 70, None, "69.99", id="the platform's cut"),
        pytest.param(
            "69.996", 2, None, 70, SCALED, "69.99", id="the cut, whatever it is: reported is compared with it"
        ),
        pytest.param("69.996", 2, None, 70, PARTS, "70.00", id="not under test part scoring"),
        pytest.param("69.996", 2, None, 0, None, "70.00", id="a cut that was never set"),
        pytest.param("-0.001", 2, None, 0, None, "0.00", id="and no sign"),
        pytest.param("69.9965", 2, "69.998", "69.993", None, "69.9965", id="between two marks: not rounded"),
    ],
)
def test_a_score_is_never_rounded_across_what_it_is_compared_with(
    score: str, places: int, threshold: Any, cut: Any, kind: str | None, expected: str
) -> None:
    scores = {"reported": Decimal(score)} | ({} if cut is None else {"cut": Decimal(cut)})
    rules = exam(threshold=threshold, score_places=places)
    written = values(outcome(F, scores=scores, cut_score_type=kind), rules)["score"]
    assert str(written) == expected
    assert stand({"score": str(written)}, Registration(id="reg-1", score=float(written)))


@pytest.mark.parametrize(("kind", "expected"), [(SCALED, "69.99"), ("percent", "70.00"), (None, "70.00")])
def test_another_score_is_compared_with_the_cut_only_where_both_are_of_one_kind(
    kind: str | None, expected: str
) -> None:
    told = outcome(F, scores={"scaled": Decimal("69.996"), "cut": Decimal(70)}, cut_score_type=kind)
    assert str(values(told, exam(score=SCALED))["score"]) == expected


def test_the_exam_date_is_the_completion_in_utc() -> None:
    completed = datetime.fromisoformat("2026-05-04T14:30:00+02:00")
    assert values(outcome(completed_at=completed), exam())["exam_date"] == WHEN
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
        pytest.param("score", None, None, True, id="score: none, and none wanted"),
        pytest.param("score", None, 65, False, id="score: there, and none wanted"),
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
        pytest.param(
            FULL.model_copy(update={"sys_version": None}),
            "sys_version",
            [("test", "/status", "registered"), ("test", "/score", Decimal(50))],
            id="no version: by fields",
        ),
        pytest.param(BARE, "sys_version", [("test", "/status", "registered")], id="an absent field cannot be tested"),
        pytest.param(BARE, "none", [], id="no version, not guarded"),
    ],
)
def test_a_patch_is_the_difference_behind_its_fence(registration: Registration, guard: Any, fence: list[Any]) -> None:
    told = [(one.op, one.path, one.value) for one in patch(CHANGED, registration, guard)]
    assert told == fence + ADDS


def test_a_value_that_must_not_be_there_is_removed_behind_the_same_fence() -> None:
    told = [(one.op, one.path) for one in patch({"status": "passed", "score": None}, FULL, "sys_version")]
    assert told == [("test", "/sys_version"), ("add", "/status"), ("remove", "/score")]


@pytest.mark.parametrize(
    ("told", "score", "leaves"),
    [
        ({"status": "passed"}, 65, True),
        ({"status": "passed"}, None, False),
        ({"status": "passed", "score": 70}, 65, False),
        ({}, 65, False),
    ],
)
def test_a_score_is_left_where_a_verdict_comes_without_one(told: Values, score: Any, leaves: bool) -> None:
    assert leaves_score(told, Registration(id="reg-1", score=score)) is leaves


def test_a_verdict_is_written_in_the_words_of_the_exam_map() -> None:
    exam = Exam(exam_id="exam-1", codes=("CERT-1",), status_words={Verdict.FAILED: "no show"})
    assert values_of(outcome(verdict=Verdict.FAILED), exam, None, frozenset())["status"] == "no show"
    assert values_of(outcome(verdict=Verdict.PASSED), exam, None, frozenset())["status"] == "passed"
