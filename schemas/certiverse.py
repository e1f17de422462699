"""Certiverse's exam result, as its "Exam Result Model" describes it, and what it means.

The document leaves the types of some values open, and newer copies add fields. So a field that nothing depends on may
be absent, and a Decimal may come as text. docs/fields.md says for each documented field where it goes.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

from schemas.certiverse_parts import Scores, TestPart, Topic
from schemas.outcome import COMPLETE_REASONS, Candidate, ExamOutcome, Part, Source
from schemas.platform import Platform
from schemas.values import (
    DETAIL,
    DetailId,
    DetailInstant,
    Email,
    Flag,
    Id,
    Instant,
    Many,
    MaybeFlag,
    Payload,
    RequiredId,
    Result,
    Text,
    letters,
    without_blanks,
    without_none,
)

#: Compared without case, spaces, hyphens and underscores: they must not decide whether a person is held for review.
_COMPLETE_REASONS = {reason.replace(" ", ""): reason for reason in COMPLETE_REASONS}
_COMPLETED = "completed"


def _complete_reason(value: object) -> object:
    if not isinstance(value, str):
        return value
    return _COMPLETE_REASONS.get(re.sub(r"[\s_-]", "", value.lower()), value.strip() or None)


def _status(value: object) -> object:
    return (value.strip().casefold() or None) if isinstance(value, str) else value


def _country(value: object) -> object:
    """A country as text, or as the object of the JSON export: its code, else its name."""
    if not isinstance(value, dict):
        return value
    by_letters = {letters(name): member for name, member in value.items()}
    return by_letters.get("countrycode") or by_letters.get("countryname")


def _scalar(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


#: Name -> where it stands in `ExamResult`. Their order is part of a result's digest.
_DETAILS = {
    "passFail": ("exam_result", "unknown_word"),
    "deliveryType": ("exam_delivery", "delivery_type"),
    "timeExtension": ("exam_delivery", "time_extension"),
    "secureBrowser": ("exam_delivery", "secure_browser"),
    "deliveryCountry": ("exam_delivery", "delivery_country"),
    "storeExamSku": ("exam_reservation", "store_exam_sku"),
    "reservationDateTime": ("exam_reservation", "reservation_date_time"),
    "candidateReservationDateTime": ("exam_reservation", "candidate_reservation_date_time"),
    "paymentType": ("exam_reservation", "payment_type"),
    "voucherId": ("exam_reservation", "voucher_id"),
    "promoCode": ("exam_reservation", "promo_code"),
    "candidateId": ("candidate", "candidate_id"),
    "examName": ("exam", "exam_name"),
    "examCode": ("exam", "exam_code"),
    "examFormName": ("exam", "exam_form_name"),
    "examFormId": ("exam", "exam_form_id"),
    "languageCode": ("exam", "language_code"),
    "languageName": ("exam", "language_name"),
}


class DeliveryExceptions(Payload):
    time_extension: Annotated[Flag, DETAIL] = False


class Delivery(Payload):
    deliverable_id: RequiredId
    delivery_date_time: DetailInstant = None
    delivery_completed_date_time: Instant = None
    booking_id: Id = None
    eligibility_id: Id = None
    delivery_type: Text = None
    #: Case-folded.
    status: Annotated[str | None, BeforeValidator(_status)] = None
    complete_reason_code: Annotated[str | None, BeforeValidator(_complete_reason)] = None
    termination_reason: str | None = None
    delivery_exceptions: Annotated[DeliveryExceptions | None, DETAIL] = None
    secure_browser: Annotated[MaybeFlag, DETAIL] = None
    delivery_country: Annotated[str | None, BeforeValidator(_country), DETAIL] = None

    @property
    def time_extension(self) -> bool:
        return self.delivery_exceptions is not None and self.delivery_exceptions.time_extension


class Reservation(Payload):
    store_exam_sku: DetailId = None
    reservation_date_time: DetailInstant = None
    candidate_reservation_date_time: DetailInstant = None
    payment_type: Text = None
    voucher_id: Text = None
    promo_code: Text = None


class Person(Payload):
    """`Candidate` in the document. The person's names are not read: nothing is matched or written by them."""

    candidate_id: DetailId = None
    org_candidate_id: Id = None
    email: Email = None


class Exam(Payload):
    exam_name: Text = None
    exam_code: RequiredId
    exam_form_name: Text = None
    exam_form_id: Id = None
    language_code: Text = None
    language_name: Text = None


class CustomData(Payload):
    name: str
    value: Annotated[str | None, BeforeValidator(_scalar)] = None


class ExamResult(Result):
    """The whole payload. What must be there: who, which exam, which delivery, and a result.

    It is a result whatever its status: an unknown status makes the verdict unclear, and never means "no result".
    """

    exam_delivery: Delivery
    exam_reservation: Annotated[Reservation | None, DETAIL] = None
    candidate: Person
    exam: Exam
    exam_result: Scores
    test_parts: Annotated[Many[TestPart], DETAIL] = None
    root_topic_outcomes: Annotated[Many[Topic], DETAIL] = None
    custom_data: Annotated[Many[CustomData], DETAIL] = None
    #: The status of a booking. A result has `Completed`; other documented statuses are booking notifications.
    notification_type: Annotated[str | None, BeforeValidator(_status)] = None

    @property
    def unclear(self) -> str | None:
        """Why the verdict cannot be told. `completed` is the only documented status; an absent one counts as it."""
        if self.exam_delivery.status not in (None, _COMPLETED):
            return "examDelivery.status: not completed"
        if self.notification_type not in (None, _COMPLETED):
            return "notificationType: not completed"
        return self.exam_result.unclear

    def to_outcome(self) -> ExamOutcome:
        delivery, result = self.exam_delivery, self.exam_result
        return ExamOutcome(
            source=Source.CERTIVERSE,
            delivery=delivery.deliverable_id,
            rescore=result.is_rescore,
            exam_codes=self._exam_codes(),
            candidate=Candidate(student_id=self.candidate.org_candidate_id, email_sent=self.candidate.email),
            registration_ids=without_none({"eligibilityId": delivery.eligibility_id, "bookingId": delivery.booking_id}),
            started_at=delivery.delivery_date_time,
            completed_at=delivery.delivery_completed_date_time,
            verdict=result.verdict,
            unclear=self.unclear,
            contradiction=result.contradiction,
            scores=result.scores,
            cut_score_type=result.cut_score_type,
            complete_reason=delivery.complete_reason_code,
            termination_reason=delivery.termination_reason or None,
            parts=self._parts(),
            details=self._details(),
        )

    def _exam_codes(self) -> tuple[str, ...]:
        """The code, the shop's name of the exam (SKU), and the form, which may change with a rescore."""
        sku = self.exam_reservation.store_exam_sku if self.exam_reservation else None
        named = (self.exam.exam_code, sku, self.exam.exam_form_id)
        return tuple(dict.fromkeys(code for code in named if code))

    def _parts(self) -> tuple[Part, ...]:
        of_test_parts = (part for test_part in self.test_parts or () for part in test_part.to_parts())
        return (*of_test_parts, *(topic.to_part() for topic in self.root_topic_outcomes or ()))

    def _details(self) -> dict[str, str | bool | Decimal]:
        sent = {name: getattr(getattr(self, part), member, None) for name, (part, member) in _DETAILS.items()}
        written = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in sent.items()}
        return without_blanks(written | self._custom_data())

    def _custom_data(self) -> dict[str, str | None]:
        """By name. A name with two different values is left out."""
        values: dict[str, set[str]] = {}
        for item in self.custom_data or ():
            if item.value:
                values.setdefault(item.name, set()).add(item.value)
        return {f"customData.{name}": values[name].pop() for name in sorted(values) if len(values[name]) == 1}


_COUNTED = ("raw", "max_raw", "percent", "robust_percent")
PLATFORM = Platform(
    source=Source.CERTIVERSE,
    title="Certiverse",
    model=ExamResult,
    sample="passed",
    registration_ids=("eligibilityId", "bookingId"),
    candidate_id="candidateId",
    usual_score="reported",
    scores=("reported", "scaled", "percent", "raw", "max_raw", "cut", "minutes", "max_minutes"),
    members=("delivery", "started_at", "completed_at", "complete_reason", "termination_reason", "cut_score_type"),
    parts={"test_part": (*_COUNTED, "reported", "cut"), "section": _COUNTED, "topic": _COUNTED},
    details=(*_DETAILS, "customData."),
)
