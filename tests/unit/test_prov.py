"""What a Prov score result means, as far as its fields can be guessed from the prose."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from schemas.outcome import ExamOutcome, Source, Verdict
from tests.samples import ABSENT, body, edited
from worker.errors import PermanentError
from worker.sources import read


def at(changes: dict[str, object]) -> ExamOutcome:
    """The sample `camel-case` with other values, by place."""
    result = read(Source.PROV, edited("prov/camel-case", changes))
    assert result
    return result


def detail(changes: dict[str, object]) -> str:
    with pytest.raises(PermanentError) as caught:
        at(changes)
    return caught.value.detail


@pytest.mark.parametrize(
    "name", ["candidateId", "CandidateId", "CandidateID", "candidate_id", "Candidate ID", "CANDIDATEID"]
)
def test_a_name_is_known_however_it_is_spelled(name: str) -> None:
    assert at({"candidateId": ABSENT, name: "P-1"}).candidate.student_id == "P-1"


def test_a_member_said_twice_with_one_value_is_said_once() -> None:
    assert at({"CandidateID": "P-3001", "candidate_id": ""}).candidate.student_id == "P-3001"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"CandidateID": "P-2"}, "candidateId: present twice, with different values"),
        ({"domains.0.DomainScore": 3}, "domains[0].score: present twice, with different values"),
        ({"result": "Pass", "Passed": False}, "result: present twice, with different values"),
        ({"result": "Pass", "result_flag": 0}, "result: present twice, with different values"),
        ({"result": "Pass", "ExamResult": "unknown"}, "result: present twice, with different values"),
        ({"Email": "a@example.org", "email_id": "b@example.org"}, "email: present twice, with different values"),
        ({"examCode": "A", "TestCode": "B"}, "examCode: present twice, with different values"),
        ({"overallScore": 70, "Score": "71"}, "overallScore: present twice, with different values"),
    ],
)
def test_a_member_said_twice_with_two_meanings_contradicts_itself(changes: dict[str, object], says: str) -> None:
    assert at(changes).contradiction == says


@pytest.mark.parametrize(
    "changes",
    [
        {"result": "Pass", "Passed": True, "result_flag": 1, "IsPassed": "P"},
        {"overallScore": 80, "Score": "80.00"},
        {"Email": "Ana@example.org", "email_id": "ana@Example.org"},
        {"examDate": "2026-03-06T13:15:00Z", "exam_date": "2026-03-06T14:15:00+01:00"},
        {"CandidateName": "A", "candidate_name": "B"},
    ],
)
def test_a_member_said_twice_with_one_meaning_is_said_once(changes: dict[str, object]) -> None:
    assert at(changes).contradiction is None


def test_the_more_telling_name_counts_beside_an_inner_number() -> None:
    assert at({"examCode": "FI-100", "ExamId": 4711}).exam_codes == ("FI-100",)
    assert at({"examCode": ABSENT, "ExamId": 4711}).exam_codes == ("4711",)
    assert at({"ClientCandidateId": "S-1", "candidateId": 77}).candidate.student_id == "S-1"
    assert at({"BookingId": "B", "AppointmentID": 9}).registration_ids["bookingId"] == "B"
    later = at({"examDate": "2026-03-06", "CompletedAt": "2026-03-06T12:00:00Z"})
    assert later.completed_at == datetime(2026, 3, 6, 12, tzinfo=UTC)
    assert later.contradiction is None


@pytest.mark.parametrize(
    ("sent", "percent"),
    [
        ({"MaxScore": 200, "overallScore": 75}, "37.5"),
        ({"max_points": "300", "overallScore": 200}, "66.666667"),
        ({"MaxScore": 200, "overallScore": 75, "percent": 40}, "40"),
        ({"MaxScore": 0, "overallScore": 75}, None),
        ({"MaxScore": None, "overallScore": 75}, None),
        ({"MaxScore": 100, "overallScore": None}, None),
    ],
)
def test_a_maximum_beside_the_score_makes_it_a_percentage(sent: dict[str, object], percent: str | None) -> None:
    scores = at({"percent": ABSENT} | sent if "percent" in body("prov/camel-case").decode() else sent).scores
    assert scores.get("percent") == (None if percent is None else Decimal(percent))
    assert ("max_raw" in scores) == bool(sent["MaxScore" if "MaxScore" in sent else "max_points"])


@pytest.mark.parametrize(
    ("result", "score", "mark", "contradicts"),
    [
        ("Pass", 60, 70, True),
        ("Fail", 70, 70, True),
        ("Pass", 70, 70, False),
        ("Pass", 1, 0, False),
        (None, 1, 70, False),
    ],
)
def test_a_result_against_its_own_pass_mark_contradicts_itself(
    result: object, score: int, mark: int, contradicts: bool
) -> None:
    told = at({"result": result, "overallScore": score, "PassingScore": mark})
    assert bool(told.contradiction) is contradicts


@pytest.mark.parametrize("sent", ["1", 1, "true", True, "pass", "Passed", "P"])
def test_a_flag_for_passed_is_passed(sent: object) -> None:
    assert at({"result": sent}).verdict is Verdict.PASSED


@pytest.mark.parametrize("sent", ["0", 0, "false", False, "FAIL", "failed", "f"])
def test_a_flag_for_failed_is_failed(sent: object) -> None:
    assert at({"result": sent}).verdict is Verdict.FAILED


@pytest.mark.parametrize("sent", ["78.5", "Completed", 2])
def test_a_result_that_is_no_flag_is_kept_and_decides_nothing(sent: object) -> None:
    unclear = at({"result": sent})
    assert unclear.verdict is None
    assert unclear.unclear == "result: not a word we know"
    assert unclear.details["result"] == str(sent)


@pytest.mark.parametrize("sent", [ABSENT, None, "", " "])
def test_without_a_flag_there_is_no_verdict_and_no_word(sent: object) -> None:
    unclear = at({"result": sent})
    assert unclear.verdict is None
    assert unclear.unclear is None
    assert "result" not in unclear.details


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("27-Jun-18 2:48:00 PM", datetime(2018, 6, 27, 14, 48, tzinfo=UTC)),
        ("27-Jun-2018 02:48 pm", datetime(2018, 6, 27, 14, 48, tzinfo=UTC)),
        ("27-Jun-2018", datetime(2018, 6, 27, tzinfo=UTC)),
        ("2018-06-27T14:48:00+02:00", datetime(2018, 6, 27, 12, 48, tzinfo=UTC)),
        ("2018-06-27", datetime(2018, 6, 27, tzinfo=UTC)),
        ("", None),
        (None, None),
    ],
)
def test_the_sitting_time_is_iso_8601_or_as_the_partner_interface_writes_it(
    sent: object, meant: datetime | None
) -> None:
    assert at({"examDate": sent}).completed_at == meant


@pytest.mark.parametrize("sent", ["06/07/2018", "6/27/2018 2:48 PM", 1530110880, "27-Juni-18"])
def test_a_date_that_could_mean_two_days_or_none_is_refused(sent: object) -> None:
    assert detail({"examDate": sent}) == "examDate: not an ISO 8601 date and time"


def test_the_delivery_is_candidate_exam_and_sitting_time() -> None:
    same = at({"examDate": "2026-03-06T14:15:00+01:00"})
    assert same.delivery == at({}).delivery
    others = [{"candidateId": "P-2"}, {"examCode": "FI-200"}, {"examDate": "2026-03-07"}, {"examDate": None}]
    assert len({at(change).delivery for change in others} | {at({}).delivery}) == 5


def test_parts_of_a_delivery_cannot_run_together() -> None:
    assert detail({"candidateId": "P-3001\nFI"}) == "candidateId: has control characters"


def test_without_a_candidate_id_the_e_mail_stands_in() -> None:
    outcome = at({"candidateId": "", "email": "Ottilie@Example.org"})
    assert outcome.candidate.email == "ottilie@example.org"
    assert outcome.delivery.startswith("ottilie@example.org\n")


@pytest.mark.parametrize("sent", [ABSENT, None, "", "  "])
def test_a_result_must_say_who(sent: object) -> None:
    assert detail({"candidateId": sent}) == "candidateId, email: one of them must be there"


@pytest.mark.parametrize(("sent", "complaint"), [(ABSENT, "missing"), (None, "blank"), ("", "blank")])
def test_a_result_must_say_which_exam(sent: object, complaint: str) -> None:
    assert detail({"examCode": sent}) == f"examCode: {complaint}"


@pytest.mark.parametrize("kind", ["domain", "topic", "section"])
@pytest.mark.parametrize("suffix", ["s", " scores", "Results"])
def test_scored_parts_are_read_under_each_of_their_names(kind: str, suffix: str) -> None:
    parts = [{f"{kind.title()}Name": "Safety", f"{kind}_score": "82.5", f"{kind}Code": 7, "percentage": 83}]
    (part,) = at({"domains": None, f"{kind}{suffix}": parts}).parts
    assert (part.kind, part.name, part.id) == (kind, "Safety", "7")
    assert part.scores == {"reported": Decimal("82.5"), "percent": Decimal(83)}


@pytest.mark.parametrize("sent", [ABSENT, None, []])
def test_scored_parts_are_optional(sent: object) -> None:
    assert at({"domains": sent}).parts == ()


def test_keys_that_carry_credentials_are_not_read() -> None:
    outcome = read(Source.PROV, body("prov/partner-spelling"))
    assert outcome
    assert "not-a-real" not in repr(outcome)


def test_names_of_people_go_no_further() -> None:
    assert "Ottilie" not in repr(at({}))
