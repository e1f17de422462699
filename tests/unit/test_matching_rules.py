"""Matching, as tables: which registration a result is for, or why a person must decide."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.addresses import spellings
from schemas.event import Reason
from schemas.outcome import Candidate, ExamOutcome, Source
from schemas.rhythm import Registration
from worker.errors import PermanentError, TransientError
from worker.exam_map import Exam
from worker.rules.matching import choose, confirm, named_ids, student_of, why_nobody, why_not
from worker.tenants import SourceRules

EXAM = Exam(exam_id="exam-1", codes=("CERT-1",))
COMPLETED = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
IDS = {"eligibilityId": "reg-1", "bookingId": "reg-2", "ticket.reference": "reg-3"}
AMBIGUOUS, NOT_FOUND = Reason.REGISTRATION_AMBIGUOUS, Reason.REGISTRATION_NOT_FOUND
DRAFT, OPEN, PASSED, FAILED = "draft", "registered", "passed", "failed"


def rules(*names: str, third_party: str | None = None) -> SourceRules:
    return SourceRules.model_construct(credentials=(), registration_ids=names, third_party=third_party)


def outcome(completed: datetime | None = COMPLETED, ids: dict[str, str] | None = None, **who: Any) -> ExamOutcome:
    who["email_sent"] = who.pop("email", None)
    return ExamOutcome(
        source=Source.CERTIVERSE,
        delivery="dlv-1",
        exam_codes=("CERT-1",),
        candidate=Candidate(**who),
        registration_ids=ids or {},
        completed_at=completed,
    )


def one(id: str = "a", status: str = OPEN, exam_date: str | None = None, **more: Any) -> Registration:
    told = {"id": id, "exam_id": "exam-1", "status": status, "exam_date": exam_date, "date": "2026-04-01T00:00:00Z"}
    return Registration(**told | more)


@pytest.mark.parametrize(
    ("names", "ids", "expected"),
    [
        pytest.param(["eligibilityId"], IDS, ["reg-1"], id="the default"),
        pytest.param(["bookingId", "eligibilityId"], IDS, ["reg-2", "reg-1"], id="in the order of the rules"),
        pytest.param(["eligibilityId", "bookingId"], {"bookingId": "reg-2"}, ["reg-2"], id="as far as sent"),
        pytest.param(["eligibilityId", "bookingId"], IDS | {"bookingId": "reg-1"}, ["reg-1"], id="each once"),
        pytest.param([], IDS, [], id="none may"),
    ],
)
def test_the_rules_say_which_ids_may_name_a_registration(
    names: list[str], ids: dict[str, str], expected: list[str]
) -> None:
    assert named_ids(outcome(ids=ids), rules(*names)) == expected


@pytest.mark.parametrize(
    ("third_party", "student_id", "third_party_ids", "expected"),
    [
        pytest.param(None, "stu-1", {"AMS": "x"}, "stu-1", id="the association's own id"),
        pytest.param("AMS", None, {"AMS": "stu-2"}, "stu-2", id="the configured third party's"),
        pytest.param("AMS", "stu-1", {"AMS": "stu-2"}, "stu-1", id="the own id first"),
        pytest.param("AMS", None, {"ams": "stu-2"}, None, id="another third party's"),
        pytest.param(None, None, {"AMS": "stu-2"}, None, id="no third party configured"),
    ],
)
def test_a_student_is_the_association_s_id_or_the_configured_third_party_s(
    third_party: str | None, student_id: str | None, third_party_ids: dict[str, str], expected: str | None
) -> None:
    candidate = Candidate(student_id=student_id, third_party_ids=third_party_ids)
    assert student_of(candidate, rules(third_party=third_party)) == expected


@pytest.mark.parametrize(
    ("who", "registration", "mismatch"),
    [
        pytest.param({"student_id": "s"}, {"student_id": "s"}, None, id="the student agrees"),
        pytest.param(
            {"student_id": "s", "email": "a@x"},
            {"student_id": "s", "email_address": "b@x"},
            None,
            id="the student agrees, the e-mail was changed",
        ),
        pytest.param({"student_id": "s"}, {"student_id": "t"}, "another student's", id="another student"),
        pytest.param(
            {"student_id": "s", "email": "a@x"},
            {"student_id": "t", "email_address": "a@x"},
            "another student's",
            id="another student with this e-mail",
        ),
        pytest.param({"email": "a@x"}, {"email_address": " A@X "}, None, id="the e-mail agrees, in any case"),
        pytest.param({"email": "a@x"}, {"email_address": "b@x"}, "e-mail", id="another e-mail"),
        pytest.param(
            {"student_id": "s", "email": "a@x"},
            {"email_address": "b@x"},
            "e-mail",
            id="another e-mail, no student in Rhythm",
        ),
        pytest.param({"email": "a@x"}, {"student_id": "t"}, None, id="nothing that both sides have"),
        pytest.param({}, {"student_id": "t", "email_address": "b@x"}, None, id="the outcome says nothing"),
        pytest.param({"student_id": "s"}, {"student_id": "s", "exam_id": "exam-2"}, "exam-2", id="another exam"),
        pytest.param({"student_id": "s"}, {"student_id": "s", "exam_id": None}, "None", id="no exam"),
        pytest.param({"student_id": "s"}, {"student_id": "s", "status": DRAFT}, "draft", id="a draft"),
        pytest.param({"student_id": "s"}, {"student_id": "s", "status": "cancelled"}, "cancelled", id="cancelled"),
        pytest.param({"student_id": "s"}, {"student_id": "s", "status": PASSED}, None, id="passed: compare decides"),
        pytest.param({"student_id": "s"}, {"student_id": "s", "date": "2027-01-01"}, None, id="dates do not count"),
    ],
)
def test_an_id_stands_only_if_exam_and_person_agree(
    who: dict[str, str], registration: dict[str, Any], mismatch: str | None
) -> None:
    named = one("reg-1", **registration)
    if mismatch is None:
        assert confirm(outcome(**who), EXAM, rules(), [named]) is named
        return
    with pytest.raises(PermanentError, match=mismatch) as caught:
        confirm(outcome(**who), EXAM, rules(), [named])
    assert caught.value.reason is Reason.REGISTRATION_MISMATCH
    assert "reg-1" in caught.value.detail


def test_ids_that_name_two_registrations_contradict_each_other() -> None:
    with pytest.raises(PermanentError, match="reg-1, reg-2") as caught:
        confirm(outcome(student_id="s"), EXAM, rules(), [one("reg-2"), one("reg-1")])
    assert caught.value.reason is Reason.REGISTRATION_MISMATCH


MAY_4, MAY_5, MAY_3 = "2026-05-04", "2026-05-05", "2026-05-03"
RETAKE = [one("first", FAILED, "2026-02-01"), one("retake", OPEN, MAY_4)]


@pytest.mark.parametrize(
    ("candidates", "ours", "expected"),
    [
        pytest.param([one("a")], (), "a", id="the only one"),
        pytest.param([], (), NOT_FOUND, id="none"),
        pytest.param([one("a", exam_id="exam-2")], (), NOT_FOUND, id="another exam's"),
        pytest.param([one("a", DRAFT)], (), NOT_FOUND, id="a draft"),
        pytest.param([one("a", "cancelled")], (), NOT_FOUND, id="a cancelled one"),
        pytest.param([one("a", "waitlisted")], (), NOT_FOUND, id="a status that nobody documented"),
        pytest.param([one("a", DRAFT), one("b")], (), "b", id="a draft beside an open one"),
        pytest.param(RETAKE, (), "retake", id="a retake: the open one"),
        pytest.param(RETAKE, ("first",), "first", id="a rescore of the first sitting: ours"),
        pytest.param([one("a", PASSED)], (), "a", id="settled alone: compare decides"),
        pytest.param([one("a", PASSED, MAY_4), one("b", "no show", "2026-02-01")], (), "a", id="settled: the nearest"),
        pytest.param([one("a", PASSED), one("b", FAILED)], (), AMBIGUOUS, id="settled: two"),
        pytest.param([one("a", "cancelled"), one("b")], ("a",), "b", id="ours, cancelled since"),
        pytest.param([one("a", FAILED), one("b", FAILED)], ("a", "b"), AMBIGUOUS, id="two of ours"),
        pytest.param([one("a"), one("b")], ("b",), "b", id="ours, set back to open since"),
        pytest.param([one("a", date="2026-05-04T12:30:01Z")], (), "a", id="registered a second after: the same day"),
        pytest.param([one("a", date="2026-05-04T23:59:59Z")], (), "a", id="registered late that day"),
        pytest.param([one("a", date="2026-05-05T00:00:00Z")], (), NOT_FOUND, id="registered the next day"),
        pytest.param([one("a", date="2026-05-05T01:00:00+02:00")], (), "a", id="the next day elsewhere"),
        pytest.param([one("a"), one("b", date="2026-05-04T14:00Z")], (), "a", id="one was there, one made that day"),
        pytest.param(
            [one("a", date="2026-05-04T12:30Z"), one("b", date="2026-05-04T14:00Z")],
            (),
            "a",
            id="one made at that very time, one later",
        ),
        pytest.param([one("a", FAILED), one("b", date="2026-05-04T14:00Z")], (), "a", id="not a retake of that day"),
        pytest.param([one("a", "waitlisted"), one("b", date="2026-05-04T14:00Z")], (), "b", id="one that cannot be it"),
        pytest.param([one("a", date="2026-05-04T12:30:00Z")], (), "a", id="registered at that very time"),
        pytest.param([one("a", date="2026-05-04T14:00:00+02:00")], (), "a", id="registered before, in another zone"),
        pytest.param([one("a", date=None)], (), "a", id="nobody knows when registered"),
        pytest.param([one("a", date="soon")], (), "a", id="a registration date that is none"),
        pytest.param([one("a", date="2026-06-01"), one("b")], (), "b", id="one registered later, one before"),
        pytest.param([one("a", FAILED, date="2026-06-01")], ("a",), "a", id="ours, whatever its date"),
        pytest.param([one("a", exam_date="2026-05-06")], (), NOT_FOUND, id="set for two days later"),
        pytest.param([one("a", exam_date=MAY_5)], (), "a", id="set for the next day: the same in some zone"),
        pytest.param([one("a", exam_date="2026-05-05T23:59:59Z")], (), "a", id="late on the next day"),
        pytest.param([one("a", exam_date="2026-05-06T01:00:00+03:00")], (), "a", id="the next day, seen from UTC"),
        pytest.param([one("a", exam_date="2025-11-01")], (), "a", id="set for long before"),
        pytest.param([one("a", exam_date="tba")], (), "a", id="an exam date that is none, alone"),
        pytest.param([one("a", exam_date=MAY_4), one("b", exam_date="2026-03-01")], (), "a", id="nearest: the day"),
        pytest.param([one("a", exam_date="2026-05-01"), one("b", exam_date="2026-05-02")], (), "b", id="nearest"),
        pytest.param([one("a", exam_date=MAY_4), one("b", exam_date=MAY_4)], (), AMBIGUOUS, id="tie: one day"),
        pytest.param([one("a", exam_date=MAY_3), one("b", exam_date=MAY_5)], (), AMBIGUOUS, id="tie: within a day"),
        pytest.param([one("a", exam_date=MAY_4), one("b", exam_date=MAY_5)], (), AMBIGUOUS, id="tie: the next day"),
        pytest.param(
            [one("a", exam_date="2026-05-04T00:00Z"), one("b", exam_date="2026-05-04T12:30Z")],
            (),
            AMBIGUOUS,
            id="tie: the time of day does not count",
        ),
        pytest.param([one("a"), one("b")], (), AMBIGUOUS, id="tie: two without a day"),
        pytest.param([one("a"), one("b", exam_date=MAY_4)], (), AMBIGUOUS, id="tie: one without a day"),
        pytest.param([one("a"), one("b", exam_date="2026-05-09")], (), "a", id="one without a day, one too late"),
    ],
)
def test_the_sitting_is_about_the_one_nearest_to_it_and_never_a_guess(
    candidates: Sequence[Registration], ours: tuple[str, ...], expected: str | Reason
) -> None:
    for order in (candidates, list(reversed(candidates))):
        assert chosen(outcome(), order, ours) == expected


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        pytest.param([one("a", exam_date="2026-05-09")], "a", id="alone"),
        pytest.param([one("a", date="2027-01-01")], "a", id="alone, registered whenever"),
        pytest.param([one("a", exam_date=MAY_4), one("b", exam_date=MAY_5)], AMBIGUOUS, id="two"),
        pytest.param(RETAKE, "retake", id="an open one and a settled one"),
    ],
)
def test_without_a_time_of_the_sitting_no_date_tells_candidates_apart(
    candidates: list[Registration], expected: str | Reason
) -> None:
    assert chosen(outcome(completed=None), candidates, ()) == expected


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        pytest.param([one("a", date="2026-05-04T10:00:00Z")], "a", id="the same day"),
        pytest.param([one("a", date="2026-05-04T10:00:00Z"), one("b")], AMBIGUOUS, id="which of the day was first"),
        pytest.param([one("a", date="2026-05-05")], NOT_FOUND, id="the next day"),
    ],
)
def test_a_completion_without_a_time_is_a_day(candidates: list[Registration], expected: str | Reason) -> None:
    assert chosen(outcome(completed=COMPLETED.replace(hour=0, minute=0)), candidates, ()) == expected


def chosen(told: ExamOutcome, candidates: Sequence[Registration], ours: tuple[str, ...]) -> str | Reason:
    try:
        return choose(told, EXAM, candidates, ours).id
    except PermanentError as error:
        return error.reason
    except TransientError as error:
        return NOT_FOUND if error.reason is NOT_FOUND else "waits for another reason"


def test_who_is_to_decide_is_shown_the_candidates() -> None:
    with pytest.raises(PermanentError, match="equally likely: a, b"):
        choose(outcome(), EXAM, [one("b"), one("a")], ())
    with pytest.raises(
        TransientError, match=r"none of a, b is open for exam exam-1 .*: a is for exam exam-2, b is draft"
    ):
        choose(outcome(), EXAM, [one("b", DRAFT), one("a", exam_id="exam-2")], ())


def test_the_detail_names_the_dates_that_exclude_of_a_few() -> None:
    with pytest.raises(TransientError, match=r"a was made on 2026-06-01, after the sitting on 2026-05-04$"):
        choose(outcome(), EXAM, [one("a", date="2026-06-01T09:00Z")], ())
    with pytest.raises(TransientError) as caught:
        choose(outcome(), EXAM, [one(f"r{number:02}", exam_date="2026-05-09") for number in range(20)], ())
    assert caught.value.detail.count("is set for 2026-05-09") == 5


KELVIN, E, DECOMPOSED = "\u212aay@x", "jos\u00e9@x", "jose\u0301@x"


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("A@X", " a@x ", True),
        ("a@x", "A@X", True),
        ("a@x", "b@x", False),
        (E, DECOMPOSED, True),
        (DECOMPOSED, E.upper(), True),
        (KELVIN, "kay@x", False),
        ("kay@x", KELVIN, False),
        (KELVIN, "Kay@x", False),
        (KELVIN, KELVIN, True),
        ("\u017fam@x", "sam@x", False),
        ("m\u0131ke@x", "mike@x", False),
        ("m\u0130ke@x", "mike@x", False),
        ("stra\u00dfe@x", "strasse@x", False),
        ("\uff41@x", "a@x", False),
        ("jose@x", E, False),
    ],
)
def test_an_address_is_another_if_it_only_looks_the_same(ours: str, theirs: str, same: bool) -> None:
    named = one("reg-1", email_address=theirs)
    try:
        agrees = confirm(outcome(email=ours), EXAM, rules(), [named]) is named
    except PermanentError:
        agrees = False
    assert agrees is same


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a@x", ["a@x"]),
        ("A@X", ["A@X", "a@x"]),
        (DECOMPOSED, [DECOMPOSED, E]),
        (E, [E, DECOMPOSED]),
        (E.upper(), [E.upper(), E, DECOMPOSED]),
    ],
)
def test_an_address_has_three_spellings_at_most(address: str, expected: list[str]) -> None:
    assert spellings(address) == expected


@pytest.mark.parametrize(
    ("told", "with_rules", "detail"),
    [
        pytest.param({}, rules("eligibilityId"), "no id of a registration", id="nothing at all"),
        pytest.param(
            {"ids": {"bookingId": "b"}},
            rules("eligibilityId"),
            "bookingId, which registration_ids does not",
            id="an id that the rules do not let name one",
        ),
        pytest.param(
            {"ids": {"eligibilityId": "a b"}},
            rules("eligibilityId"),
            "an id that no registration can have",
            id="an id that none can have",
        ),
        pytest.param(
            {"third_party_ids": {"X": "1"}},
            rules(third_party="ACME"),
            "of X, and third_party names ACME",
            id="another third party",
        ),
        pytest.param({"third_party_ids": {"X": "1"}}, rules(), "of X, and third_party names none", id="none named"),
        pytest.param({"third_party_ids": {"X": "1"}}, rules(third_party="X"), None, id="the third party"),
        pytest.param({"ids": {"eligibilityId": "reg-9"}}, rules("eligibilityId"), None, id="an id, there or not"),
        pytest.param({"student_id": "s"}, rules(), None, id="a student"),
        pytest.param({"email": "a@x"}, rules(), None, id="an address"),
    ],
)
def test_nobody_is_named_where_no_rule_finds_a_person(
    told: dict[str, Any], with_rules: SourceRules, detail: str | None
) -> None:
    why = why_nobody(outcome(**told), with_rules)
    assert why is None if detail is None else detail in str(why)


@pytest.mark.parametrize(
    ("registration", "said"),
    [
        (one(), None),
        (one(exam_id="exam-2"), "exam-2"),
        (one(status=DRAFT), "draft"),
        (one(date="2026-06-01"), "after the sitting"),
        (one(exam_date="2026-06-01"), "is set for 2026-06-01, after"),
    ],
)
def test_each_excluded_candidate_has_its_reason(registration: Registration, said: str | None) -> None:
    told = why_not(outcome(), EXAM, registration)
    assert told is None if said is None else said in str(told)
