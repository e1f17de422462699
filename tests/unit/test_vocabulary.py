"""The names that the exam map may use are those that the payload models really make, no more and no fewer."""

import json
from collections.abc import Collection
from typing import Any

import pytest
from schemas.vocabulary import VOCABULARIES, Vocabulary

from schemas.outcome import ExamOutcome, Source
from worker.sources import read

WHEN = "2026-05-04T12:30:00Z"
_SCORED = {"maxScore": 9, "rawScore": 8, "percent": 80, "robustPercent": 81}
_DOMAIN = [{"name": "Ethics", "id": "d-1", "score": 5, "percent": 50}]
#: Every member that is documented, or read, with a value.
WHOLE: dict[Source, dict[str, Any]] = {
    Source.CERTIVERSE: {
        "examDelivery": {
            "deliverableId": "dlv-1", "deliveryDateTime": "2026-05-04T11:00:00Z", "deliveryCompletedDateTime": WHEN,
            "bookingId": "b-1", "eligibilityId": "e-1", "deliveryType": "Unproctored", "status": "completed",
            "completeReasonCode": "candidate ended", "terminationReason": "Other", "secureBrowser": True,
            "deliveryExceptions": {"timeExtension": True}, "deliveryCountry": {"countryCode": "US"},
        },
        "examReservation": {
            "storeExamSku": "SKU-1", "reservationDateTime": WHEN, "candidateReservationDateTime": WHEN,
            "paymentType": "Voucher", "voucherId": "v-1", "promoCode": "p-1",
        },
        "candidate": {"candidateId": "c-1", "orgCandidateId": "stu-1", "email": "a@example.org"},
        "exam": {
            "examName": "One", "examCode": "CERT-1", "examFormName": "A", "examFormId": "f-1", "languageCode": "en",
            "languageName": "English",
        },
        "examResult": {
            "passFail": "a word that nobody knows", "reportedScore": 80, "cutScore": 70, "cutScoreType": "Scaled",
            "maxRawScore": 100, "rawScore": 80, "percent": 80, "scaled": 80, "timeOnExam": 60, "maxTimeOnExam": 90,
        },
        "testParts": [
            {"testPartName": "P", "reportedScore": 80, "cutScore": 70, **_SCORED,
             "rootSections": [{"sectionName": "S", **_SCORED}]},
        ],
        "rootTopicOutcomes": [{"topicId": "t-1", "topicName": "T", **_SCORED}],
        "customData": [{"name": "Region", "value": "North"}],
    },
    Source.DRILLSTER: {
        "eventId": "ev-1", "eventType": "TEST_COMPLETED", "id": "att-1", "started": WHEN, "completed": WHEN,
        "score": {"percentage": 80, "transformations": [{"id": "t", "passed": True, "percentage": 80, "result": "8"}]},
        "test": {"id": "DRILL-2"}, "user": {"id": "u-1", "emailAddress": "a@example.org"},
        "ticket": {"id": "k-1", "reference": "reg-1"},
    },
    Source.PROV: {
        "candidateId": "stu-1", "examCode": "PROV-2", "examName": "Two", "overallScore": 80, "maxScore": 100,
        "percent": 80, "result": "a word that nobody knows", "examDate": WHEN, "resultId": "r-1",
        "eligibilityId": "e-1", "bookingId": "b-1", "domains": _DOMAIN, "topics": _DOMAIN, "sections": _DOMAIN,
    },
}  # fmt: skip
_MEMBERS = (
    "delivery", "event_ref", "started_at", "completed_at", "complete_reason", "termination_reason", "cut_score_type",
)  # fmt: skip


def whole(source: Source) -> tuple[ExamOutcome, Vocabulary]:
    outcome = read(source, json.dumps(WHOLE[source]).encode())
    assert outcome is not None
    return outcome, VOCABULARIES[source]


@pytest.mark.parametrize("source", Source)
def test_each_platform_sends_the_scores_ids_and_members_of_its_list(source: Source) -> None:
    outcome, named = whole(source)
    assert set(named.scores) == set(outcome.scores)
    assert set(named.registration_ids) == set(outcome.registration_ids)
    assert set(named.members) == {name for name in _MEMBERS if getattr(outcome, name) is not None}
    assert named.usual in named.scores
    assert named.transformations is bool(outcome.transformations)


@pytest.mark.parametrize("source", Source)
def test_each_platform_sends_the_details_of_its_list(source: Source) -> None:
    outcome, named = whole(source)
    assert {name.partition(".")[0] + "." if name.startswith("customData.") else name for name in outcome.details} == {
        *named.details
    }


@pytest.mark.parametrize("source", Source)
def test_each_platform_sends_the_parts_of_its_list(source: Source) -> None:
    outcome, named = whole(source)
    sent: dict[str, Collection[str]] = {}
    for part in outcome.parts:
        sent[part.kind] = {*sent.get(part.kind, ()), *part.scores}
    assert {kind: set(scores) for kind, scores in named.parts.items()} == sent


@pytest.mark.parametrize(
    ("value", "of"),
    [
        ("scores.percent", {Source.CERTIVERSE, Source.DRILLSTER, Source.PROV}),
        ("scores.scaled", {Source.CERTIVERSE}), ("scores.Scaled", set()), ("scores.", set()), ("scores", set()),
        ("details.customData.Region", {Source.CERTIVERSE}), ("details.customData.a.b", {Source.CERTIVERSE}),
        ("details.customData", set()), ("details.customData.", set()), ("details.examCode.x", set()),
        ("details.test.id", {Source.DRILLSTER}), ("details.examName", {Source.CERTIVERSE, Source.PROV}),
        ("parts.topic.Ethics.raw", {Source.CERTIVERSE}), ("parts.topic.Ethics v1.2.reported", {Source.PROV}),
        ("parts.topic.percent", set()), ("parts.chapter.Ethics.percent", set()), ("parts.topic.Ethics.scaled", set()),
        ("event_ref", {Source.DRILLSTER, Source.PROV}), ("delivery", set(Source)), ("verdict", set()), ("", set()),
    ],
)  # fmt: skip
def test_a_custom_field_s_source_is_known_by_the_platforms_that_send_it(value: str, of: set[Source]) -> None:
    assert {source for source, named in VOCABULARIES.items() if named.has(value)} == of


@pytest.mark.parametrize("source", Source)
def test_every_source_that_is_shown_as_possible_is(source: Source) -> None:
    named = VOCABULARIES[source]
    assert all(named.has(value) for value in named.sources())
