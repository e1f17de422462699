"""What a Drillster TestCompletedEvent means."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from schemas.drillster import OTHER_TYPES
from schemas.outcome import ExamOutcome, Source, Verdict
from tests.samples import ABSENT, body, edited
from worker.errors import PermanentError
from worker.sources import read

EVENT_ID = "ed5c3c37-511b-454e-be1f-282d781e2526"
PASSED, FAILED = Verdict.PASSED, Verdict.FAILED


def at(changes: dict[str, object], path: str = "") -> ExamOutcome:
    """The sample `regular` with other values, by place."""
    result = read(Source.DRILLSTER, edited("drillster/regular", changes), path)
    assert result
    return result


def detail(changes: dict[str, object], path: str = "") -> str:
    with pytest.raises(PermanentError) as caught:
        at(changes, path)
    return caught.value.detail


def transformations(*passed: bool | None) -> list[dict[str, object]]:
    return [{"id": f"t{number}", "result": "9½", "passed": value} for number, value in enumerate(passed)]


@pytest.mark.parametrize(
    ("passed", "verdict"),
    [
        ([True], PASSED),
        ([False], FAILED),
        ([None, True, None], PASSED),
        ([True, True], PASSED),
        ([False, False], FAILED),
        ([True, False], None),
        ([None], None),
        ([], None),
    ],
)
def test_the_verdict_is_what_all_transformations_that_say_it_agree_on(
    passed: list[bool | None], verdict: Verdict | None
) -> None:
    outcome = at({"score.transformations": transformations(*passed)})
    assert outcome.verdict is verdict
    assert outcome.transformations_differ == (True in passed and False in passed)
    assert [item.passed for item in outcome.transformations] == passed


@pytest.mark.parametrize("sent", [ABSENT, None])
def test_a_score_may_have_no_transformations(sent: object) -> None:
    outcome = at({"score.transformations": sent, "score.percentage": 100})
    assert outcome.verdict is None
    assert outcome.scores == {"percent": Decimal(100)}


def test_the_text_of_a_transformation_is_never_a_number() -> None:
    (only,) = at({"score.transformations.0": {"id": "grade", "result": "9½", "percentage": 95}}).transformations
    assert (only.result, only.percentage, only.passed) == ("9½", Decimal(95), None)
    (number,) = at({"score.transformations.0.result": 9}).transformations
    assert number.result == "9"


@pytest.mark.parametrize("sent", [0, 100, 64.5, "64.5"])
def test_a_percentage_is_from_0_to_100_with_fractions(sent: object) -> None:
    assert at({"score.percentage": sent}).scores["percent"] == Decimal(str(sent))


@pytest.mark.parametrize("sent", [-0.01, 100.01, 1000, "101"])
def test_a_percentage_out_of_range_is_refused(sent: object) -> None:
    assert detail({"score.percentage": sent}) == "score.percentage: not between 0 and 100"


@pytest.mark.parametrize(
    "place",
    ["score.transformations.0.percentage", "score.transformations.0.result", "started", "user.id", "user.name", "x"],
)
@pytest.mark.parametrize("sent", [-1, "\ud83d", [], {"a": None}, "\x00"])
def test_what_nothing_depends_on_costs_no_result(place: str, sent: object) -> None:
    assert at({place: sent}).verdict is PASSED


def test_null_in_a_list_says_nothing() -> None:
    outcome = at({"score.transformations": [None, {"id": "t", "passed": False}], "user.thirdPartyIds": [None]})
    assert (outcome.verdict, outcome.candidate.third_party_ids) == (FAILED, {})
    ids = [{"thirdParty": "A", "id": None}, {"thirdParty": "B", "id": "0" * 32}, {"thirdParty": "C", "id": "3"}]
    assert at({"user.thirdPartyIds": ids}).candidate.third_party_ids == {"C": "3"}


@pytest.mark.parametrize(
    ("passed", "result", "contradicts"),
    [
        *((True, "passed", False), (False, "FAIL", False), (True, "you passed", False), (None, "failed", False)),
        *((True, "failed", True), (False, " Pass ", True), (True, "F", True)),
    ],
)
def test_a_transformation_must_not_say_both(passed: bool | None, result: str, contradicts: bool) -> None:
    outcome = at({"score.transformations": [{"id": "t", "passed": passed, "result": result}]})
    assert bool(outcome.contradiction) is contradicts


@pytest.mark.parametrize(
    ("path", "in_body", "event_ref"),
    [
        ("", True, EVENT_ID),
        ("TEST_COMPLETED", True, EVENT_ID),
        (f"TEST_COMPLETED/{EVENT_ID}", True, EVENT_ID),
        (f"TEST_COMPLETED/{EVENT_ID}", False, EVENT_ID),
        ("TEST_COMPLETED/a%2Fb%20%C3%A9", False, "a/b é"),
        ("/TEST%5FCOMPLETED/", False, None),
        ("", False, None),
    ],
)
def test_type_and_id_come_from_the_body_else_from_the_path(path: str, in_body: bool, event_ref: str | None) -> None:
    outcome = at({} if in_body else {"eventId": ABSENT, "eventType": ABSENT}, path)
    assert outcome.event_ref == event_ref


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("QUESTION_ANSWERED", "eventType: differs from the path"),
        ("test_completed", "eventType: differs from the path"),
        ("TEST_COMPLETED/another", "eventId: differs from the path"),
        (f"TEST_COMPLETED/{EVENT_ID.upper()}", "eventId: differs from the path"),
        (f"QUESTION_ANSWERED/{EVENT_ID.upper()}", "eventType: differs from the path; eventId: differs from the path"),
    ],
)
def test_body_and_path_that_disagree_are_refused(path: str, complaint: str) -> None:
    assert detail({}, path) == complaint


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("a/b/c", "the path has more than a type and an id"),
        ("TEST_COMPLETED/%ff", "the path is not UTF-8"),
        ("TEST_COMPLETED/a%0Ab", "eventId: has control characters"),
    ],
)
def test_a_path_that_says_something_else_is_refused(path: str, complaint: str) -> None:
    assert complaint in detail({"eventType": ABSENT, "eventId": ABSENT}, path)


@pytest.mark.parametrize(
    "kind",
    ["TestCompleted", "test_completed", "TEST-COMPLETED", "COURSE_TEST_DONE", "question_answered", "TEST COMPLETED", 5],
)
def test_a_whole_result_of_a_type_that_is_not_documented_is_unclear_and_another_is_refused(kind: object) -> None:
    assert at({"eventType": kind}).unclear == "eventType: not one that Drillster documents"
    assert detail({"eventType": kind, "score": ABSENT}) == "score: missing"


@pytest.mark.parametrize("kind", sorted(OTHER_TYPES))
def test_another_type_is_no_result_wherever_it_is_said_and_whether_or_not_the_rest_fits(kind: str) -> None:
    assert read(Source.DRILLSTER, edited("drillster/regular", {"eventType": kind})) is None
    assert read(Source.DRILLSTER, edited("drillster/regular", {"eventType": kind, "score": ABSENT})) is None
    assert read(Source.DRILLSTER, b"{}", kind) is None


@pytest.mark.parametrize("place", ["id", "score", "test", "completed"])
def test_without_a_type_an_event_must_have_the_shape_of_a_completed_test(place: str) -> None:
    assert read(Source.DRILLSTER, edited("drillster/regular", {"eventType": ABSENT}))
    assert detail({"eventType": ABSENT, place: ABSENT}) == f"{place}: missing"


@pytest.mark.parametrize("sent", [ABSENT, None])
def test_an_event_must_say_who(sent: object) -> None:
    assert detail({"user": sent}) == "user, ticket: one of them must be there"


def test_where_user_and_ticket_are_both_there_the_user_counts_and_the_reference_is_kept() -> None:
    outcome = read(Source.DRILLSTER, body("drillster/user-and-ticket"))
    assert outcome
    assert outcome.candidate.email == "testee15@example.org"
    assert outcome.registration_ids == {"ticket.reference": "reg-2015"}


def test_e_mail_and_third_party_ids_are_optional() -> None:
    outcome = at({"user.emailAddress": None, "user.thirdPartyIds": None})
    assert outcome.candidate.email is None
    assert outcome.candidate.third_party_ids == {}


def test_two_ids_of_one_third_party_say_nothing_and_the_same_twice_says_it_once() -> None:
    sent = [("A", "1"), ("A", "2"), ("B", "3"), ("B", "3")]
    ids = [{"thirdParty": third_party, "id": id_} for third_party, id_ in sent]
    assert at({"user.thirdPartyIds": ids}).candidate.third_party_ids == {"B": "3"}


def test_instants_may_lack_seconds() -> None:
    outcome = at({"started": "2024-01-11T16:54Z", "completed": "2024-01-11T17:01"})
    assert outcome.started_at == datetime(2024, 1, 11, 16, 54, tzinfo=UTC)
    assert outcome.completed_at == datetime(2024, 1, 11, 17, 1, tzinfo=UTC)


def test_a_test_must_have_been_completed_some_time() -> None:
    assert detail({"completed": ""}) == "completed: blank"
    assert at({"started": None}).started_at is None


def test_the_attempt_is_the_delivery_and_the_test_is_the_exam() -> None:
    outcome = at({})
    assert outcome.delivery == "qpynjYetO5Ti7sHOsSERVg"
    assert outcome.exam_codes == ("On7tRw6J9hYCrRF1G7hqtQ",)


def test_one_attempt_reported_twice_is_one_version_whatever_the_event_id() -> None:
    assert at({"eventId": "another"}).version == at({}).version
    assert at({"eventId": "another"}).event_ref != at({}).event_ref


def test_names_of_people_go_no_further() -> None:
    assert "Jane Doe" not in repr(at({}))
