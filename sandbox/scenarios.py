"""What the demo sends and what must come of it: a table, one entry a scenario. Everyone in it is made up.

Each run has ids of its own, so that it can be repeated on the same data.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Delivery:
    """One delivery, and the state and reason in which its event must end (`ready`: where it must wait)."""

    body: bytes
    state: str = "synced"
    reason: str | None = None
    source: str = "certiverse"
    #: The path that it is put to; posted if none.
    put: str = ""


@dataclass(frozen=True)
class Scenario:
    """Deliveries in order, each sent when the one before has ended; and what Rhythm must say then."""

    name: str
    why: str
    deliveries: list[Delivery]
    #: What Rhythm has beforehand; the first one's change is shown.
    registrations: list[Json] = field(default_factory=list)
    #: Status and score of the first registration at the end, and how many writes, each with a letter, that took.
    ends: str = "registered"
    writes: int = 0


def registration(who: str, exam_id: str = "exam-1", suffix: str = "") -> Json:
    """An open one."""
    return {
        "id": f"reg-{who}{suffix}", "exam_id": exam_id, "student_id": f"stu-{who}", "status": "registered",
        "email_address": f"{who}@example.org", "name": who.title(), "date": "2026-01-05T00:00:00Z",
    }  # fmt: skip


def certiverse(who: str, score: float, *, named: bool = True, exam: str = "CERT-1", rescore: bool = False) -> bytes:
    """Certiverse's ExamResult, passed from 70; `named`: its eligibility id is the registration's."""
    return _sent({
        "examDelivery": {
            "deliverableId": f"dlv-{who}", "deliveryDateTime": _ago(4), "deliveryCompletedDateTime": _ago(2),
            "eligibilityId": f"reg-{who}" if named else None, "completeReasonCode": "candidate ended",
        },
        "candidate": {"orgCandidateId": f"stu-{who}", "firstName": who.title(), "email": f"{who}@example.org"},
        "exam": {"examName": "Certified Example", "examCode": exam, "languageCode": "en"},
        "examResult": {
            "passFail": "Pass" if score >= 70 else "Fail", "reportedScore": score, "scaled": score, "cutScore": 70,
            "timeOnExam": 88.5, "maxTimeOnExam": 120, "isRescore": rescore,
        },
    })  # fmt: skip


def drillster(who: str, score: Json, **named: Any) -> bytes:
    """Drillster's TestCompletedEvent."""
    times = {"started": _ago(1), "completed": _ago(1)}
    return _sent({"id": f"attempt-{who}", "score": score, "test": {"id": "DRILL-2"}, **times, **named})


def prov(who: str, score: str) -> bytes:
    """Prov's result, passed."""
    return _sent({
        "CandidateName": who.title(), "CandidateID": f"stu-{who}", "ExamCode": "PROV-2", "OverallScore": score,
        "Result": "1", "ExamDate": _ago(24), "Domains": [{"DomainName": "Safety", "DomainScore": 82}],
    })  # fmt: skip


def _sent(payload: Json) -> bytes:
    return json.dumps(payload).encode()


def _ago(hours: int) -> str:
    return (datetime.now(UTC).replace(minute=0, second=0) - timedelta(hours=hours)).isoformat(timespec="seconds")


def scenarios(run: str) -> list[Scenario]:
    """All of them. `run` becomes part of every id."""
    return [*_written(run), *_other_platforms(run), *_stopped(run)]


def _written(run: str) -> list[Scenario]:
    """Certiverse's results: what they make of the registration."""
    ana, bo, cem, dee, eli = (f"{name}-{run}" for name in ("ana", "bo", "cem", "dee", "eli"))
    again = certiverse(eli, 83)
    return [
        Scenario("passed", "named by its eligibility id",
                 [Delivery(certiverse(ana, 82.5))], [registration(ana)], "passed 82.5", writes=1),
        Scenario("failed", "no id: found by student and exam",
                 [Delivery(certiverse(bo, 51, named=False))], [registration(bo)], "failed 51", writes=1),
        Scenario("original, then rescore", "the rescore replaces the original",
                 [Delivery(certiverse(cem, 68)), Delivery(certiverse(cem, 71, rescore=True))],
                 [registration(cem)], "passed 71", writes=2),
        Scenario("rescore, then original", "the older result never overwrites the newer",
                 [Delivery(certiverse(dee, 74, rescore=True)), Delivery(certiverse(dee, 69), "superseded")],
                 [registration(dee)], "passed 74", writes=1),
        Scenario("delivered three times",
                 "same bytes: the same event; other bytes, same result: a duplicate; one write",
                 [Delivery(again), Delivery(again), Delivery(again + b"\n", "duplicate")],
                 [registration(eli)], "passed 83", writes=1),
    ]  # fmt: skip


def _other_platforms(run: str) -> list[Scenario]:
    jo, kit, lou, mo = (f"{name}-{run}" for name in ("jo", "kit", "lou", "mo"))
    passed = {"transformations": [{"id": "pass-at-70", "passed": True, "result": "passed"}], "percentage": 91}
    user = {"id": f"user-{jo}", "name": "Jo Ash", "thirdPartyIds": [{"id": f"stu-{jo}", "thirdParty": "ACME"}]}
    regular = drillster(jo, passed, eventId=f"event-{jo}", eventType="TEST_COMPLETED", user=user)
    ticket = {"id": f"ticket-{kit}", "reference": f"reg-{kit}"}
    anonymous, put = drillster(kit, {"percentage": 64}, ticket=ticket), f"TEST_COMPLETED/event-{kit}"
    question = _sent({"eventId": f"event-{mo}", "eventType": "QUESTION_ANSWERED", "id": "question-1"})
    return [
        Scenario("Drillster, a user", "its third party id is the student's; a transformation says passed",
                 [Delivery(regular, source="drillster")], [registration(jo, "exam-2")], "passed 91", writes=1),
        Scenario("Drillster, anonymous, put twice",
                 "its ticket names the registration; below the threshold; the same event",
                 [Delivery(anonymous, source="drillster", put=put)] * 2,
                 [registration(kit, "exam-2")], "failed 64", writes=1),
        Scenario("Drillster, no result", "a question was answered: not a result",
                 [Delivery(question, "ignored", source="drillster")], ends="none"),
        Scenario("Prov", "its candidate id is the student's",
                 [Delivery(prov(lou, "78.5"), source="prov")], [registration(lou, "exam-2")], "passed 78.5", writes=1),
    ]  # fmt: skip


def _stopped(run: str) -> list[Scenario]:
    """What must not be written, or not yet."""
    fay, gus, hao, ivy = (f"{name}-{run}" for name in ("fay", "gus", "hao", "ivy"))
    return [
        Scenario("malformed JSON", "accepted and buried: refused, the platform might hold back all later results",
                 [Delivery(certiverse(fay, 90)[:-40], "dead", "invalid_json")], [registration(fay)]),
        Scenario("unknown exam", "waits for a line in the exam map",
                 [Delivery(certiverse(gus, 77, exam="CERT-9"), "held", "unknown_exam")], [registration(gus)]),
        Scenario("no registration", "tried again for 72 hours: the registration may come later",
                 [Delivery(certiverse(hao, 79), "ready", "registration_not_found")], ends="none"),
        Scenario("ambiguous match", "two open registrations fit: a person decides",
                 [Delivery(certiverse(ivy, 88, named=False), "held", "registration_ambiguous")],
                 [registration(ivy, suffix="-1"), registration(ivy, suffix="-2")]),
    ]  # fmt: skip
