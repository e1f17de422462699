"""Payloads as the platforms send them; arguments set what a test is about."""

import json
from typing import Any

NOT_GIVEN: Any = object()


def certiverse(
    delivery: str = "dlv-1",
    registration: str | None = "reg-1",
    *,
    passed: bool | None = True,
    score: float | None = 82.5,
    rescore: bool = False,
    exam: str = "CERT-1",
    student: str | None = "stu-1",
    email: str = "ada@example.org",
    completed: str = "2026-05-04T12:30:00Z",
    termination: str | None = None,
    **more: Any,
) -> bytes:
    """A Certiverse ExamResult of about 1 KB. `more`: members of `examResult`."""
    result: dict[str, Any] = {"maxRawScore": 100, "rawScore": 80, "percent": 80.0, "timeOnExam": 61.5}
    result |= {"maxTimeOnExam": 90, "isRescore": rescore, "scaled": score} | more
    if passed is not None:
        result["passFail"] = "Pass" if passed else "Fail"
    return json.dumps(
        {
            "examDelivery": {
                "deliverableId": delivery,
                "deliveryDateTime": "2026-05-04T11:00:00Z",
                "deliveryCompletedDateTime": completed,
                "bookingId": f"booking-{delivery}",
                "eligibilityId": registration,
                "deliveryType": "Unproctored",
                "status": "completed",
                "completeReasonCode": "proctor ended" if termination else "candidate ended",
                "terminationReason": termination,
                "deliveryExceptions": {"timeExtension": False},
            },
            "examReservation": {},
            "candidate": {
                "candidateId": "c-1",
                "orgCandidateId": student,
                "firstName": "Ada",
                "lastName": "Example",
                "email": email,
            },
            "exam": {
                "examName": "Certificate One",
                "examCode": exam,
                "examFormName": "Form A",
                "examFormId": "form-a",
                "languageCode": "en",
                "languageName": "English",
            },
            "examResult": result,
            "testParts": [],
            "rootTopicOutcomes": [],
        }
    ).encode()


def registration(id: str = "reg-1", **more: Any) -> dict[str, Any]:
    """A registration of `ada` for `exam-1`, as the stand-in is seeded with it."""
    return {
        "id": id,
        "exam_id": "exam-1",
        "student_id": "stu-1",
        "email_address": "ada@example.org",
        "status": "registered",
        "date": "2026-04-01T00:00:00Z",
        "sys_version": 1,
    } | more
