"""Payloads as Certiverse sends them, of 3 KB and of 40 KB, and the registrations that they are about.

Every id is random, down to the items', so that nothing compresses better here than it would in the field.
"""

import json
import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.events import registration

#: (sections, items a section, topics): 3 KB and 40 KB of compact JSON.
SMALL: Final = (1, 6, 3)
BIG: Final = (5, 27, 9)
_COMPLETED: Final = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)

_EXAM: Final = {
    "examName": "Certificate One",
    "examCode": "CERT-1",
    "examFormName": "Certificate One Form A",
    "examFormId": "c0a4f7de-2f1e-4c52-a0d1-5d0f8f5f2b01",
    "languageCode": "en",
    "languageName": "English",
}


@dataclass(frozen=True)
class Sitting:
    """One candidate's exam: the body that the platform posts, and the registration in Rhythm that it is about."""

    registration: str
    student: str
    body: bytes

    @property
    def seed(self) -> dict[str, Any]:
        """The registration as the stand-in is seeded with it."""
        return registration(self.registration, student_id=self.student, email_address=f"{self.student}@example.org")


def sittings(count: int, size: tuple[int, int, int] = SMALL) -> list[Sitting]:
    """So many different sittings."""
    return [_sitting(size) for _ in range(count)]


def _sitting(size: tuple[int, int, int]) -> Sitting:
    sections, items, topics = size
    name, student = f"reg-{secrets.token_hex(8)}", f"stu-{secrets.token_hex(6)}"
    scaled = random.randint(400, 700)
    test_part = {
        "testPartName": "Main",
        "maxScore": 120,
        "rawScore": scaled // 7,
        "percent": scaled / 10,
        "rootSections": [_section(number, items) for number in range(sections)],
    }
    body = {
        "examDelivery": _delivery(name),
        "examReservation": {"storeExamSku": "SKU-CERT-1", "paymentType": "Voucher"},
        "candidate": {
            "candidateId": secrets.token_hex(8),
            "orgCandidateId": student,
            "firstName": "Ada",
            "lastName": f"Example {student}",
            "email": f"{student}@example.org",
        },
        "exam": _EXAM,
        "examResult": _result(scaled),
        "testParts": [test_part],
        "rootTopicOutcomes": [_topic(number) for number in range(topics)],
    }
    return Sitting(name, student, json.dumps(body, separators=(",", ":")).encode())


def _result(scaled: int) -> dict[str, Any]:
    return {
        "passFail": "Pass" if scaled >= 500 else "Fail",
        "reportedScore": scaled,
        "cutScore": 500,
        "cutScoreType": "Scaled",
        "maxRawScore": 120,
        "rawScore": scaled // 7,
        "percent": scaled / 10,
        "scaled": scaled,
        "timeOnExam": random.randint(30, 90),
        "maxTimeOnExam": 120,
        "isRescore": False,
    }


def _delivery(registration: str) -> dict[str, Any]:
    completed = _COMPLETED - timedelta(seconds=random.randint(0, 86_400))
    return {
        "deliverableId": secrets.token_hex(16),
        "deliveryDateTime": _instant(completed - timedelta(minutes=90)),
        "deliveryCompletedDateTime": _instant(completed),
        "bookingId": secrets.token_hex(8),
        "eligibilityId": registration,
        "deliveryType": "Live Proctored - Secure Browser",
        "status": "completed",
        "completeReasonCode": "candidate ended",
        "terminationReason": None,
        "deliveryExceptions": {"timeExtension": False},
    }


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _section(number: int, items: int) -> dict[str, Any]:
    return {
        "sectionName": f"Section {number + 1}",
        "maxScore": items,
        "rawScore": random.randint(0, items),
        "percent": random.randint(0, 1000) / 10,
        "robustPercent": random.randint(0, 1000) / 10,
        "outcomeBandName": random.choice(("Proficient", "Developing")),
        "items": [_item(order) for order in range(items)],
    }


def _item(order: int) -> dict[str, Any]:
    return {
        "itemName": f"CERT-{secrets.token_hex(4)}",
        "pretest": random.random() < 0.1,
        "score": random.randint(0, 1),
        "itemType": random.choice(("MC4", "MCR5-2")),
        "responses": [random.randint(1, 4)],
        "correctResponses": [random.randint(1, 4)],
        "orderPresented": order + 1,
        "time": random.randint(1000, 9000) / 100,
        "attempts": random.randint(1, 3),
        "notReached": False,
        "rootTopicId": str(order % 8),
        "topicId": f"{order % 8}.{random.randint(1, 9)}",
        "topicPath": f"Professional Practice>Standards and Ethics>{secrets.token_hex(3)}",
    }


def _topic(number: int) -> dict[str, Any]:
    return {
        "topicId": str(number),
        "topicName": f"Domain {number + 1}: Professional Practice",
        "maxScore": 15,
        "rawScore": random.randint(0, 15),
        "percent": random.randint(0, 1000) / 10,
        "robustPercent": random.randint(0, 1000) / 10,
    }
