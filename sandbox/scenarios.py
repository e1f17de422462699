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
    state: str
    reason: str | None = None
    source: str = "certiverse"
    method: str = "POST"
    path: str = ""


@dataclass(frozen=True)
class Scenario:
    """Deliveries in order, each sent when the one before has ended; and what Rhythm must say then."""

    name: str
    deliveries: tuple[Delivery, ...]
    why: str
    #: What Rhythm has beforehand; the first one's change is shown.
    registrations: tuple[Json, ...] = ()
    #: Members of the first registration at the end, and how many writes and letters it took.
    expected: Json = field(default_factory=dict)
    writes: int = 0
    letters: int = 0


@dataclass(frozen=True)
class Candidate:
    """One who sat an exam, and the ids that belong to that."""

    run: str
    first_name: str
    last_name: str

    @property
    def id(self) -> str:
        """Part of every id of theirs."""
        return f"{self.first_name.lower()}-{self.run}"

    def registration(self, suffix: str = "", **more: Any) -> Json:
        """An open registration for `exam-1`."""
        return {
            "id": f"reg-{self.id}{suffix}", "exam_id": "exam-1", "student_id": f"stu-{self.id}",
            "email_address": f"{self.id}@example.org", "name": f"{self.first_name} {self.last_name}",
            "date": "2026-01-05T00:00:00Z", "status": "registered", **more,
        }  # fmt: skip

    def result(
        self, score: float, *, passed: bool, named: bool = True, exam: str = "CERT-1", rescore: bool = False
    ) -> Json:
        """Certiverse's ExamResult; `named`: its eligibility id is the registration's."""
        completed = (datetime.now(UTC) - timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
        return {
            "examDelivery": {
                "deliverableId": f"dlv-{self.id}", "deliveryDateTime": _text(completed - timedelta(minutes=90)),
                "deliveryCompletedDateTime": _text(completed), "deliveryType": "Live Proctored", "status": "completed",
                "eligibilityId": f"reg-{self.id}" if named else None, "completeReasonCode": "candidate ended",
            },
            "candidate": {
                "candidateId": f"cv-{self.id}", "orgCandidateId": f"stu-{self.id}", "firstName": self.first_name,
                "lastName": self.last_name, "email": f"{self.id}@example.org",
            },
            "exam": {"examName": "Certified Example", "examCode": exam, "languageCode": "en"},
            "examResult": {
                "passFail": "Pass" if passed else "Fail", "reportedScore": score, "scaled": score, "cutScore": 70,
                "cutScoreType": "scaled", "timeOnExam": 88.5, "maxTimeOnExam": 120, "isRescore": rescore,
            },
        }  # fmt: skip


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _sent(payload: Json, *, indent: int | None = None) -> bytes:
    return json.dumps(payload, indent=indent).encode()


def scenarios(run: str) -> list[Scenario]:
    """All of them. `run` becomes part of every id."""
    return [*_results(run), *_more_than_one(run), *_other_platforms(run), *_stopped(run)]


def _results(run: str) -> list[Scenario]:
    """One result, one write."""
    ana, bo = Candidate(run, "Ana", "Quill"), Candidate(run, "Bo", "Marrow")
    return [
        Scenario(
            "passed", (Delivery(_sent(ana.result(82.5, passed=True)), "synced"),),
            "named by its eligibility id", (ana.registration(),), {"status": "passed", "score": 82.5},
            writes=1, letters=1,
        ),
        Scenario(
            "failed", (Delivery(_sent(bo.result(51, passed=False, named=False)), "synced"),),
            "no id: found by student and exam", (bo.registration(),), {"status": "failed", "score": 51},
            writes=1, letters=1,
        ),
    ]  # fmt: skip


def _more_than_one(run: str) -> list[Scenario]:
    """Several deliveries of one sitting."""
    cem, dee, eli = Candidate(run, "Cem", "Tarn"), Candidate(run, "Dee", "Hollis"), Candidate(run, "Eli", "Fenn")
    original, rescore = cem.result(68, passed=False), cem.result(71, passed=True, rescore=True)
    first_rescore, late_original = dee.result(74, passed=True, rescore=True), dee.result(69, passed=False)
    again = eli.result(83, passed=True)
    return [
        Scenario(
            "original, then rescore", (Delivery(_sent(original), "synced"), Delivery(_sent(rescore), "synced")),
            "the rescore replaces the original", (cem.registration(),), {"status": "passed", "score": 71},
            writes=2, letters=2,
        ),
        Scenario(
            "rescore, then original",
            (Delivery(_sent(first_rescore), "synced"), Delivery(_sent(late_original), "superseded")),
            "the older result never overwrites the newer", (dee.registration(),), {"status": "passed", "score": 74},
            writes=1, letters=1,
        ),
        Scenario(
            "delivered three times",
            (
                Delivery(_sent(again), "synced"), Delivery(_sent(again), "synced"),
                Delivery(_sent(again, indent=1), "duplicate"),
            ),
            "same bytes: the same event; other bytes, same result: a duplicate; one write", (eli.registration(),),
            {"status": "passed", "score": 83}, writes=1, letters=1,
        ),
    ]  # fmt: skip


def _drillster(who: Candidate, percentage: float, **more: Any) -> Json:
    """Drillster's TestCompletedEvent, without who sat it."""
    at = _text(datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1))
    return {
        "id": f"attempt-{who.id}", "started": at, "completed": at, "score": {"percentage": percentage},
        "test": {"id": "DRILL-2"}, **more,
    }  # fmt: skip


def _other_platforms(run: str) -> list[Scenario]:
    """Drillster, regular and anonymous; Prov."""
    jo, kit, lou, mo = (Candidate(run, *name.split()) for name in ("Jo Ash", "Kit Rowan", "Lou Vane", "Mo Teal"))
    for_exam_2 = {"exam_id": "exam-2"}
    passed = {"transformations": [{"id": "pass-at-70", "passed": True, "result": "passed"}], "percentage": 91}
    user = {"id": f"user-{jo.id}", "name": "Jo Ash", "thirdPartyIds": [{"id": f"stu-{jo.id}", "thirdParty": "ACME"}]}
    regular = _drillster(jo, 91, eventId=f"event-{jo.id}", eventType="TEST_COMPLETED", user=user) | {"score": passed}
    anonymous = _drillster(kit, 64, ticket={"id": f"ticket-{kit.id}", "reference": f"reg-{kit.id}"})
    put = Delivery(_sent(anonymous), "synced", None, "drillster", "PUT", f"TEST_COMPLETED/event-{kit.id}")
    question = {"eventId": f"event-{mo.id}", "eventType": "QUESTION_ANSWERED", "id": "question-1"}
    prov = {
        "CandidateName": "Lou Vane", "CandidateID": f"stu-{lou.id}", "ExamCode": "PROV-2", "OverallScore": "78.5",
        "Result": "1", "ExamDate": _text(datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)),
        "Domains": [{"DomainName": "Safety", "DomainScore": 82}],
    }  # fmt: skip
    return [
        Scenario(
            "Drillster, a user", (Delivery(_sent(regular), "synced", None, "drillster"),),
            "its third party id is the student's; a transformation says passed", (jo.registration(**for_exam_2),),
            {"status": "passed", "score": 91}, writes=1, letters=1,
        ),
        Scenario(
            "Drillster, anonymous, put twice", (put, put),
            "its ticket names the registration; below the threshold; the same event", (kit.registration(**for_exam_2),),
            {"status": "failed", "score": 64}, writes=1, letters=1,
        ),
        Scenario(
            "Drillster, no result", (Delivery(_sent(question), "ignored", None, "drillster"),),
            "a question was answered: not a result",
        ),
        Scenario(
            "Prov", (Delivery(_sent(prov), "synced", None, "prov"),),
            "its candidate id is the student's", (lou.registration(**for_exam_2),),
            {"status": "passed", "score": 78.5}, writes=1, letters=1,
        ),
    ]  # fmt: skip


def _stopped(run: str) -> list[Scenario]:
    """What must not be written, or not yet."""
    fay, gus, hao, ivy = (Candidate(run, *name.split()) for name in ("Fay Brook", "Gus Pike", "Hao Wren", "Ivy Slate"))
    return [
        Scenario(
            "malformed JSON", (Delivery(_sent(fay.result(90, passed=True))[:-40], "dead", "invalid_json"),),
            "accepted and buried: refused, the platform might hold back all later results", (fay.registration(),),
            {"status": "registered"},
        ),
        Scenario(
            "unknown exam", (Delivery(_sent(gus.result(77, passed=True, exam="CERT-9")), "held", "unknown_exam"),),
            "waits for a line in the exam map", (gus.registration(),), {"status": "registered"},
        ),
        Scenario(
            "no registration", (Delivery(_sent(hao.result(79, passed=True)), "ready", "registration_not_found"),),
            "tried again for 72 hours: the registration may come later",
        ),
        Scenario(
            "ambiguous match",
            (Delivery(_sent(ivy.result(88, passed=True, named=False)), "held", "registration_ambiguous"),),
            "two open registrations fit: a person decides", (ivy.registration("-1"), ivy.registration("-2")),
            {"status": "registered"},
        ),
    ]  # fmt: skip
