"""What the platforms send and what Rhythm holds beforehand, of one sitting. Pure; imports nothing of the product."""

import json
from typing import Any, Final

Json = dict[str, Any]
#: Stands in every personal value: it must be found nowhere but in the ledger and in Rhythm.
CANARY: Final = "Canary-Ximena"
#: (source, body, (status, score) or None for nonsense, whether it says that it replaces an earlier one)
Body = tuple[str, bytes, tuple[str, float] | None, bool]


def registration(who: str, exam: str, suffix: str = "") -> Json:
    return {
        "id": f"reg-{who}{suffix}",
        "exam_id": exam,
        "student_id": f"stu-{who}",
        "status": "registered",
        "email_address": f"{who}@example.org",
        "name": CANARY,
        "date": "2026-01-05T00:00:00Z",
        "notes": "as it was",
    }


def certiverse(who: str, score: float, *, named: bool = True, exam: str = "CERT-1", rescore: bool = False) -> Body:
    body = {
        "examDelivery": {
            "deliverableId": f"dlv-{who}",
            "deliveryDateTime": "2026-05-04T11:00:00Z",
            "deliveryCompletedDateTime": "2026-05-04T12:30:00Z",
            "eligibilityId": f"reg-{who}" if named else None,
            "completeReasonCode": "candidate ended",
        },
        "candidate": {"orgCandidateId": f"stu-{who}", "firstName": CANARY, "email": f"{who}@example.org"},
        "exam": {"examName": "Certified Example", "examCode": exam, "languageCode": "en"},
        "examResult": {
            "passFail": "Pass" if score >= 70 else "Fail",
            "reportedScore": score,
            "scaled": score,
            "cutScore": 70,
            "timeOnExam": 88.5,
            "maxTimeOnExam": 120,
            "isRescore": rescore,
        },
    }
    return "certiverse", json.dumps(body).encode(), _says(score), rescore


def drillster(who: str, score: float) -> Body:
    body = {
        "eventId": f"event-{who}",
        "eventType": "TEST_COMPLETED",
        "id": f"attempt-{who}",
        "started": "2026-05-04T11:00:00Z",
        "completed": "2026-05-04T12:30:00Z",
        "score": {"percentage": score},
        "test": {"id": "DRILL-2"},
        "user": {
            "id": f"user-{who}",
            "name": CANARY,
            "thirdPartyIds": [{"id": f"stu-{who}", "thirdParty": "ACME"}],
        },
    }
    return "drillster", json.dumps(body).encode(), _says(score), False


def prov(who: str, score: float) -> Body:
    body = {
        "CandidateName": CANARY,
        "CandidateID": f"stu-{who}",
        "ExamCode": "PROV-2",
        "OverallScore": str(score),
        "Result": "1" if score >= 70 else "0",
        "ExamDate": "2026-05-04T12:30:00Z",
    }
    return "prov", json.dumps(body).encode(), _says(score), False


def _says(score: float) -> tuple[str, float]:
    return ("passed" if score >= 70 else "failed"), score
