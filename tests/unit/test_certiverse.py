"""What a Certiverse exam result means."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from schemas.outcome import ExamOutcome, Source, Verdict
from tests.samples import ABSENT, big_certiverse, body, edited
from worker.errors import PermanentError
from worker.sources import read

#: What no field is written as.
ODD = [[[]], {"a": 1}, "\ud83d", float("nan"), "x\n", 1e999, 10**1000, True, None]
PASSED, FAILED = Verdict.PASSED, Verdict.FAILED


def outcome(**changes: object) -> ExamOutcome:
    """The sample `passed` with other members of `examResult`."""
    return at({f"examResult.{member}": value for member, value in changes.items()})


def at(changes: dict[str, object]) -> ExamOutcome:
    """The sample `passed` with other values, by place."""
    result = read(Source.CERTIVERSE, edited("certiverse/passed", changes))
    assert result
    return result


def detail(changes: dict[str, object]) -> str:
    with pytest.raises(PermanentError) as caught:
        at(changes)
    return caught.value.detail


@pytest.mark.parametrize("word", ["pass", "Passed", "P", " TRUE ", True])
def test_a_word_for_passed_is_passed(word: object) -> None:
    assert outcome(passFail=word, reportedScore=1).verdict is PASSED


@pytest.mark.parametrize("word", ["fail", "FAILED", "f", "False", False])
def test_a_word_for_failed_is_failed(word: object) -> None:
    assert outcome(passFail=word, reportedScore=999).verdict is FAILED


@pytest.mark.parametrize("absent", [ABSENT, None, "", "  "])
@pytest.mark.parametrize(("reported", "verdict"), [(500, PASSED), ("500.00", PASSED), (499.99, FAILED), (-1, FAILED)])
def test_without_a_word_the_reported_score_decides_against_the_cut(
    absent: object, reported: object, verdict: Verdict
) -> None:
    assert outcome(passFail=absent, reportedScore=reported, cutScore=500).verdict is verdict


@pytest.mark.parametrize("missing", ["reportedScore", "cutScore"])
def test_without_a_word_and_without_both_scores_there_is_no_verdict(missing: str) -> None:
    unscored = outcome(passFail=None, **{missing: ""})
    assert unscored.verdict is None
    assert unscored.unclear is None


@pytest.mark.parametrize("kind", ["TestPartScoring", "test part scoring", 4, "4"])
def test_under_test_part_scoring_the_scores_of_the_exam_decide_nothing(kind: object) -> None:
    unclear = outcome(passFail=None, cutScoreType=kind, reportedScore=90, cutScore=70)
    assert unclear.verdict is None
    assert unclear.unclear == "passFail: absent under test part scoring"
    assert unclear.cut_score_type == "testpartscoring"
    assert outcome(passFail="Fail", cutScoreType=kind, reportedScore=90, cutScore=70).verdict is FAILED


@pytest.mark.parametrize("word", ["Provisional Pass", "passing", "1", 1, "n/a"])
def test_an_unknown_word_is_kept_and_not_overruled_by_the_scores(word: object) -> None:
    unclear = outcome(passFail=word)
    assert unclear.verdict is None
    assert unclear.unclear == "passFail: not a word we know"
    assert unclear.details["passFail"] == str(word)


def test_a_known_word_is_not_kept_so_that_two_spellings_are_one_result() -> None:
    assert outcome(passFail="P").version == outcome(passFail="Passed").version


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("Scaled", "scaled"),
        ("PercentScore", "percent"),
        ("percent score", "percent"),
        ("RAW", "raw"),
        (1, "scaled"),
        (2, "percent"),
        ("3", "raw"),
        ("Angoff Score", "Angoff Score"),
        (7, "7"),
        ("", None),
        (None, None),
        (True, "True"),
        ({}, "?"),
    ],
)
def test_the_cut_score_type_is_read_however_it_is_written_and_is_never_fatal(sent: object, meant: str | None) -> None:
    assert outcome(cutScoreType=sent).cut_score_type == meant


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (520, "520"),
        (520.25, "520.25"),
        ("520.25", "520.25"),
        (" 5.2E2 ", "520"),
        (".5", ".5"),
        (-0.5, "-0.5"),
        (0, "0"),
    ],
)
def test_a_number_is_read_from_a_number_or_a_text(sent: object, meant: str) -> None:
    assert outcome(reportedScore=sent).scores["reported"] == Decimal(meant)


@pytest.mark.parametrize("sent", [None, "", " ", ABSENT])
def test_a_blank_number_is_an_absent_number(sent: object) -> None:
    assert "reported" not in outcome(reportedScore=sent).scores


@pytest.mark.parametrize(
    "sent",
    [
        *(True, False, "NaN", "Infinity", "-inf", float("nan"), float("inf"), "1_000", "75,0", "٣", "0x1F", "five"),
        *([], {}, "1e999999999", "1e-999999999", 10**12, 1e300, -1e300, "9" * 41, "1" * 1_000_000, "0." + "1" * 99),
    ],
)
def test_what_is_no_number_is_refused(sent: object) -> None:
    assert detail({"examResult.reportedScore": sent}).startswith("examResult.reportedScore: not a number")


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("2026-03-04T15:33:30Z", datetime(2026, 3, 4, 15, 33, 30, tzinfo=UTC)),
        ("2026-03-04T15:33:30", datetime(2026, 3, 4, 15, 33, 30, tzinfo=UTC)),
        ("2026-03-04T15:33Z", datetime(2026, 3, 4, 15, 33, tzinfo=UTC)),
        ("2026-03-04 15:33:30", datetime(2026, 3, 4, 15, 33, 30, tzinfo=UTC)),
        ("2026-03-04T15:33:30.1234567Z", datetime(2026, 3, 4, 15, 33, 30, 123456, tzinfo=UTC)),
        ("2026-03-04T10:33:30.1234567-05:00", datetime(2026, 3, 4, 15, 33, 30, 123456, tzinfo=UTC)),
        ("2026-03-04t15:33z", datetime(2026, 3, 4, 15, 33, tzinfo=UTC)),
        ("2026-03-04", datetime(2026, 3, 4, tzinfo=UTC)),
        ("0001-01-01T00:00:00", None),
        ("0001-01-01T00:00:00+02:00", None),
        ("0001-01-01T00:00:00-05:00", None),
        ("0001-01-01", None),
        ("9999-12-31T23:59:59.9999999", None),
        ("9999-12-31T23:59:59.9999999-05:00", None),
        ("9999-12-31T23:59:59.9999999+14:00", None),
        ("9999-12-31", None),
        ("", None),
        (None, None),
        (ABSENT, None),
    ],
)
def test_an_instant_is_read_in_every_form_that_dotnet_writes(sent: object, meant: datetime | None) -> None:
    assert at({"examDelivery.deliveryCompletedDateTime": sent}).completed_at == meant


@pytest.mark.parametrize(
    "sent",
    [
        *(1772632800, "1772632800", "04/03/2026", "yesterday", "20260304", "20260304T153330Z", "2026-W10-3"),
        *("2026-063", "2026-03-04x15:33:30Z", "2026-03-04T24:00:00Z", "2026-03-04T15", "2026-03-04T15Z", "2026-02-30"),
        *("2026-3-4", "2026-03-04T15:33:30 +00:00", "0000-00-00", "2026-03-04T1533", True, [], {}),
    ],
)
def test_what_is_no_instant_is_refused(sent: object) -> None:
    place = "examDelivery.deliveryCompletedDateTime"
    assert detail({place: sent}) == f"{place}: not an ISO 8601 date and time"


def test_the_reservation_is_kept_as_an_instant_whatever_its_offset() -> None:
    kept = at({"examReservation.candidateReservationDateTime": "2026-03-04T19:30:00.0000000+05:30"})
    assert kept.details["candidateReservationDateTime"] == "2026-03-04T14:00:00+00:00"


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        *((ABSENT, False), (None, False), ("", False), ("false", False), ("False ", False), (" no", False), (0, False)),
        *(("True", True), (True, True), (" TRUE ", True), ("yes", True), ("1 ", True), (1, True)),
    ],
)
def test_a_result_is_a_rescore_only_if_it_says_so(sent: object, meant: bool) -> None:
    assert outcome(isRescore=sent).rescore is meant


@pytest.mark.parametrize(("sent", "kept"), [(True, True), ("false", False), ("", None), (None, None), (ABSENT, None)])
def test_whether_a_secure_browser_was_used_may_be_unknown(sent: object, kept: bool | None) -> None:
    changes: dict[str, object] = {"examDelivery.secureBrowser": sent} if sent is not ABSENT else {}
    assert at(changes).details.get("secureBrowser") is kept


def test_an_original_and_its_rescore_are_versions_of_one_delivery() -> None:
    original = read(Source.CERTIVERSE, body("certiverse/rescored-original"))
    rescore = read(Source.CERTIVERSE, body("certiverse/rescored"))
    assert original
    assert rescore
    assert original.delivery == rescore.delivery
    assert (original.version[0], rescore.version[0]) == ("o", "r")


def test_a_rescore_of_the_same_values_is_still_another_version() -> None:
    assert outcome(isRescore=True).version != outcome(isRescore=False).version
    assert outcome(isRescore=True).digest() == outcome(isRescore=False).digest()


@pytest.mark.parametrize("place", ["examDelivery.deliverableId", "exam.examCode"])
@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (ABSENT, "missing"),
        (None, "blank"),
        (" ", "blank"),
        (1.5, "a fraction cannot be an id"),
        (float("nan"), "a fraction cannot be an id"),
        (True, "not text"),
        ("a\nb", "has control characters"),
        ("x" * 256, "too long"),
    ],
)
def test_without_delivery_or_exam_there_is_no_result(place: str, sent: object, complaint: str) -> None:
    assert detail({place: sent}) == f"{place}: {complaint}"


def test_an_id_may_be_a_number_and_is_stripped() -> None:
    assert at({"examDelivery.deliverableId": 4711}).delivery == "4711"
    assert at({"examDelivery.deliverableId": " a b\u00a0c "}).delivery == "a b\u00a0c"


@pytest.mark.parametrize("place", ["examDelivery.eligibilityId", "candidate.orgCandidateId", "exam.examFormId"])
def test_an_optional_id_is_refused_if_it_cannot_be_one(place: str) -> None:
    assert detail({place: "x" * 256}) == f"{place}: too long"
    assert detail({place: 1.5}) == f"{place}: a fraction cannot be an id"


def test_only_ids_that_are_there_may_name_the_registration() -> None:
    assert at({"examDelivery.eligibilityId": " ", "examDelivery.bookingId": None}).registration_ids == {}
    assert at({"examDelivery.eligibilityId": ABSENT}).registration_ids == {"bookingId": "BK-20400"}


def test_the_exam_is_named_by_its_code_first_then_its_sku_then_its_form() -> None:
    form = "c0a4f7de-2f1e-4c52-a0d1-5d0f8f5f2b01"
    assert at({}).exam_codes == ("CSE-1", "SKU-CSE-1", form)
    assert at({"examReservation": None}).exam_codes == ("CSE-1", form)
    assert at({"examReservation.storeExamSku": "CSE-1"}).exam_codes == ("CSE-1", form)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Norway", "Norway"),
        ({"countryCode": "NO", "countryName": "Norway"}, "NO"),
        ({"countryCode": None, "countryName": "Norway"}, "Norway"),
        ({}, None),
        ("", None),
        (None, None),
    ],
)
def test_the_country_is_a_text_or_an_object(sent: object, kept: str | None) -> None:
    assert at({"examDelivery.deliveryCountry": sent}).details.get("deliveryCountry") == kept


@pytest.mark.parametrize("sent", ["proctor ended", "Proctor Ended", "ProctorEnded", "proctor_ended"])
def test_an_exam_that_a_proctor_ended_is_known_however_it_is_written(sent: str) -> None:
    assert at({"examDelivery.completeReasonCode": sent}).complete_reason == "proctor ended"


def test_another_reason_is_kept_as_it_came() -> None:
    assert at({"examDelivery.completeReasonCode": "Power Cut"}).complete_reason == "Power Cut"
    assert at({"examDelivery.completeReasonCode": "candidate ended 2"}).complete_reason == "candidate ended 2"
    assert at({"examDelivery.completeReasonCode": 2}).complete_reason == "2"
    assert at({"examDelivery.terminationReason": "Other: Left, twice"}).termination_reason == "Other: Left, twice"
    assert at({"examDelivery.terminationReason": " "}).termination_reason is None


def test_custom_data_may_be_null_as_a_whole_or_value_by_value() -> None:
    assert "customData.Region" not in at({"customData": None}).details
    sent = [{"name": "Years", "value": 4}, {"name": "Member", "value": True}, {"name": "Note", "value": None}]
    kept = {key: value for key, value in at({"customData": sent}).details.items() if key.startswith("customData.")}
    assert kept == {"customData.Years": "4", "customData.Member": "true"}


def test_an_item_is_parsed_as_json_and_otherwise_left_alone() -> None:
    odd = [{"itemName": 7, "responses": "none", "score": "?"}, "not even an object"]
    assert at({"testParts.0.rootSections.0.items": odd}) == at({})


@pytest.mark.parametrize("status", ["completed", "Completed", " COMPLETED ", "", None, ABSENT])
def test_a_delivery_that_is_over_is_a_result(status: object) -> None:
    assert at({"examDelivery.status": status}).unclear is None


@pytest.mark.parametrize("status", ["inProgress", "complete", "finished", "NoShow", "completed?", "0", 1])
def test_a_whole_result_with_another_status_is_unclear_and_one_that_is_not_whole_is_refused(status: object) -> None:
    assert at({"examDelivery.status": status}).unclear == "examDelivery.status: not completed"
    assert detail({"examDelivery.status": status, "exam": ABSENT}) == "exam: missing"


@pytest.mark.parametrize("kind", ["Cancelled", "NoShow", "Rescheduled", "anything"])
def test_a_result_in_a_booking_notification_that_is_not_of_a_completion_is_unclear(kind: str) -> None:
    assert at({"notificationType": kind}).unclear == "notificationType: not completed"
    assert at({"notificationType": "Completed"}) == at({})


@pytest.mark.parametrize(
    ("reported", "cut", "verdict"),
    [(0, 0, None), (80, 0, None), (80, -1, None), (0, 0.01, FAILED), ("0.0", "0.00", None)],
)
def test_a_cut_of_zero_was_never_set(reported: object, cut: object, verdict: Verdict | None) -> None:
    told = outcome(passFail=None, reportedScore=reported, cutScore=cut, cutScoreType=None)
    assert told.verdict is verdict
    assert bool(told.unclear) == (Decimal(str(reported)) == Decimal(str(cut)) == 0)


@pytest.mark.parametrize("kind", ["Angoff", 7, True, {}, [], "Scaled?"])
def test_without_a_word_an_unknown_cut_score_type_decides_nothing(kind: object) -> None:
    assert outcome(passFail=None, cutScoreType=kind).verdict is None
    assert outcome(passFail=None, cutScoreType=kind).unclear
    assert outcome(passFail="Pass", cutScoreType=kind).verdict is PASSED


@pytest.mark.parametrize(
    ("word", "reported", "kind", "says"),
    [
        ("Pass", 499.99, "Scaled", "passed, though the score is below the cut"),
        (True, 0, "Percent", "passed, though the score is below the cut"),
        ("f", 500, None, "failed, though the score reaches the cut"),
        ("Fail", 900, "Angoff", "failed, though the score reaches the cut"),
        ("Pass", 500, "Scaled", None),
        ("Fail", 499, "Raw", None),
        ("Pass", 1, "TestPartScoring", None),
        ("Fail", 999, 4, None),
        ("Pass", None, "Scaled", None),
        ("no word", 1, "Scaled", None),
    ],
)
def test_a_verdict_against_its_own_score_and_cut_contradicts_itself(
    word: object, reported: object, kind: object, says: str | None
) -> None:
    assert outcome(passFail=word, reportedScore=reported, cutScore=500, cutScoreType=kind).contradiction == says


@pytest.mark.parametrize("cut", [0, -1, None])
def test_a_cut_that_was_never_set_contradicts_nothing(cut: object) -> None:
    assert outcome(passFail="Fail", reportedScore=10, cutScore=cut).contradiction is None


@pytest.mark.parametrize(
    "place",
    [
        *("examDelivery.deliveryDateTime", "examDelivery.deliveryType", "examDelivery.deliveryExceptions"),
        *("examDelivery.deliveryExceptions.timeExtension", "examDelivery.secureBrowser"),
        *("examReservation", "examReservation.storeExamSku", "examReservation.reservationDateTime"),
        *("examReservation.candidateReservationDateTime", "examReservation.voucherId", "candidate.candidateId"),
        *("candidate.firstName", "exam.examName", "exam.languageCode", "examResult.timeOnExam"),
        *("testParts", "testParts.0", "testParts.0.rawScore", "testParts.0.passFail", "testParts.0.testPartName"),
        *("testParts.0.rootSections", "testParts.0.rootSections.0", "testParts.0.rootSections.1.percent"),
        *("rootTopicOutcomes", "rootTopicOutcomes.0", "rootTopicOutcomes.0.topicId", "customData", "customData.0"),
    ],
)
@pytest.mark.parametrize(
    "sent",
    [[[]], {"a": 1}, "\ud83d", float("nan"), "x\n", 1e999, 10**1000, True, None],
    ids=lambda sent: repr(sent)[:12],
)
def test_what_nothing_depends_on_costs_no_result(place: str, sent: object) -> None:
    told, whole = at({place: sent}), at({})
    assert (told.verdict, told.delivery, told.completed_at) == (whole.verdict, whole.delivery, whole.completed_at)
    assert (told.scores | {"minutes": 0}, told.contradiction) == (whole.scores | {"minutes": 0}, None)


def test_what_cannot_be_read_of_a_part_is_left_out_alone() -> None:
    odd = at({"testParts.0.rootSections.1.percent": "most", "rootTopicOutcomes.0": 7})
    whole = at({})
    assert len(odd.parts) == len(whole.parts) - 1
    assert [part.name for part in odd.parts] == [part.name for part in whole.parts if part != whole.parts[3]]


def test_custom_data_of_one_name_and_two_values_says_neither() -> None:
    names = [("A", "1"), ("A", "2"), ("B", "3"), ("B", "3"), ("C", None), ("C", "4"), ("", "5")]
    sent = [{"name": name, "value": value} for name, value in names]
    kept = {key: value for key, value in at({"customData": [*sent, None, 7]}).details.items() if key[:6] == "custom"}
    assert kept == {"customData.B": "3", "customData.C": "4", "customData.": "5"}


@pytest.mark.parametrize(
    "empty", ["00000000-0000-0000-0000-000000000000", "{00000000-0000-0000-0000-000000000000}", "0" * 32]
)
def test_an_empty_guid_is_an_id_that_was_never_set(empty: str) -> None:
    ids = ("examDelivery.eligibilityId", "examDelivery.bookingId", "candidate.orgCandidateId")
    told = at(dict.fromkeys(ids, empty) | {"examDelivery.deliverableId": empty})
    assert (told.registration_ids, told.candidate.student_id) == ({}, None)
    assert told.delivery == empty, "a result is not lost for it; another of that name is a conflict"


def test_names_of_people_go_no_further() -> None:
    assert "Okonjo" not in repr(at({}))


def test_a_result_with_many_items_means_what_it_means_with_few() -> None:
    big = big_certiverse()
    assert 35_000 < len(big) < 45_000
    assert read(Source.CERTIVERSE, big) == at({})
