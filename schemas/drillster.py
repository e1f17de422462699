"""Drillster's TestCompletedEvent, as "PUSH TestCompletedEvent object" describes it, and what it means.

An event may have its type and id in the body, in the URL (`{eventType}` or `{eventType}/{eventId}` below the source, a
setting of each webhook) or, like the document's own anonymous example, nowhere. The part of the URL arrives here as the
validation context `{"path": ...}`, percent-encoded as it was sent.
"""

from collections.abc import Callable
from typing import Annotated, Self
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from schemas.outcome import Candidate, ExamOutcome, Source, Transformation, Verdict
from schemas.platform import Path, Platform
from schemas.values import (
    DETAIL,
    DetailId,
    DetailInstant,
    Email,
    Id,
    Many,
    MaybeFlag,
    Message,
    Payload,
    Percentage,
    RequiredId,
    RequiredInstant,
    RequiredPercentage,
    Result,
    Text,
    refuse,
    verdict,
    without_none,
)

TEST_COMPLETED = "TEST_COMPLETED"
#: The other types that Drillster documents ("PUSH events", the deprecated ones too): not results.
OTHER_TYPES = frozenset(
    {
        "ACCOUNT_CREATED",
        "GROUP_MEMBER_ADDED",
        "GROUP_MEMBER_REMOVED",
        "OBJECTIVE_BECAME_OK",
        "OBJECTIVE_BECAME_NOK",
        "OBJECTIVE_MET",
        "OBJECTIVE_NO_LONGER_MET",
        "QUESTION_ANSWERED",
    }
)


def _segments(info: ValidationInfo) -> list[str]:
    """Of the path: none, a type, or a type and an id."""
    path = (info.context or {}).get("path") or ""
    try:
        segments = [unquote(segment, errors="strict") for segment in path.strip("/").split("/") if segment]
    except UnicodeDecodeError:
        refuse("the path is not UTF-8")
    return segments if len(segments) <= 2 else refuse("the path has more than a type and an id")


def _or_in_path(place: int) -> Callable[[object, ValidationInfo], object]:
    """A value that may stand in the path instead. If it is in both, they must be equal, case included."""

    def merge(value: object, info: ValidationInfo) -> object:
        in_body = value.strip() if isinstance(value, str) else value
        in_path = _segments(info)[place : place + 1]
        if not in_path:
            return in_body
        return in_path[0] if in_body in (None, "", in_path[0]) else refuse("differs from the path")

    return merge


EventType = Annotated[Id, BeforeValidator(_or_in_path(0)), Field(validate_default=True)]
EventId = Annotated[Id, BeforeValidator(_or_in_path(1)), Field(validate_default=True)]


class Kind(Message):
    event_type: EventType = None

    @property
    def is_result(self) -> bool:
        """False only for a type that is documented as something else."""
        return self.event_type not in OTHER_TYPES


class ScoreTransformation(Payload):
    id: RequiredId
    #: Text for people, such as "9½".
    result: Text = None
    #: On binary transformations only.
    passed: MaybeFlag = None
    percentage: Annotated[Percentage, DETAIL] = None

    @property
    def contradiction(self) -> str | None:
        """`result` is a word for passed or failed, and the opposite of `passed`."""
        word = verdict(self.result)
        if word is None or self.passed in (None, word is Verdict.PASSED):
            return None
        return "score.transformations: passed and result contradict each other"

    def to_transformation(self) -> Transformation:
        return Transformation(id=self.id, passed=self.passed, percentage=self.percentage, result=self.result or None)


class Score(Payload):
    percentage: RequiredPercentage
    transformations: Many[ScoreTransformation] = None

    @property
    def verdict(self) -> Verdict | None:
        """What all transformations with `passed` agree on; None where none has it, or they contradict each other.

        Which of them counts is then for the exam map to say (`ExamOutcome.transformations_differ`).
        """
        passed = {item.passed for item in self.transformations or () if item.passed is not None}
        if len(passed) != 1:
            return None
        return Verdict.PASSED if True in passed else Verdict.FAILED


class Test(Payload):
    __test__ = False  # or pytest would try to collect it
    id: RequiredId


class ThirdPartyId(Payload):
    id: Id = None
    third_party: Id = None


class User(Payload):
    """The name is not read: nothing is matched or written by it."""

    id: DetailId = None
    email_address: Email = None
    third_party_ids: Many[ThirdPartyId] = None

    def ids_by_third_party(self) -> dict[str, str]:
        """One id for each third party. A third party with two ids for one person does not identify them: left out."""
        ids: dict[str, set[str]] = {}
        for item in self.third_party_ids or ():
            if item.third_party and item.id:
                ids.setdefault(item.third_party, set()).add(item.id)
        return {third_party: of_it.pop() for third_party, of_it in ids.items() if len(of_it) == 1}


class Ticket(Payload):
    """What an anonymous test was taken with."""

    id: DetailId = None
    email_address: Email = None
    reference: Id = None


class TestCompletedEvent(Kind, Result):
    """The whole event, of a regular attempt (`user`) or an anonymous one (`ticket`)."""

    __test__ = False
    event_id: EventId = None
    id: RequiredId
    started: DetailInstant = None
    completed: RequiredInstant
    score: Score
    test: Test
    user: User | None = None
    ticket: Ticket | None = None

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        return self if self.user or self.ticket else refuse("user, ticket: one of them must be there")

    @property
    def unclear(self) -> str | None:
        """A whole result of an undocumented type is unclear; it is not ignored."""
        return None if self.event_type in (None, TEST_COMPLETED) else "eventType: not one that Drillster documents"

    @property
    def contradiction(self) -> str | None:
        return next((item.contradiction for item in self.score.transformations or () if item.contradiction), None)

    def to_outcome(self) -> ExamOutcome:
        """Where there are both, the user counts, and the ticket's reference is kept."""
        user, ticket = self.user or User(), self.ticket or Ticket()
        return ExamOutcome(
            source=Source.DRILLSTER,
            delivery=self.id,
            event_ref=self.event_id,
            exam_codes=(self.test.id,),
            candidate=Candidate(
                third_party_ids=user.ids_by_third_party(),
                email_sent=user.email_address if self.user else ticket.email_address,
            ),
            registration_ids=without_none({"ticket.reference": ticket.reference}),
            started_at=self.started,
            completed_at=self.completed,
            verdict=self.score.verdict,
            unclear=self.unclear,
            contradiction=self.contradiction,
            scores=without_none({"percent": self.score.percentage}),
            transformations=tuple(item.to_transformation() for item in self.score.transformations or ()),
            details=without_none({"test.id": self.test.id, "user.id": user.id, "ticket.id": ticket.id}),
        )


PLATFORM = Platform(
    source=Source.DRILLSTER,
    title="Drillster",
    model=TestCompletedEvent,
    kind=Kind,
    paths=(
        Path("POST", "{event_type}", "Deliver a Drillster event whose type is in the URL."),
        Path("PUT", "{event_type}/{event_id}", "Deliver a Drillster event whose type and id are in the URL."),
    ),
    parameters={
        "event_type": "Drillster's event type, where the body does not say it.",
        "event_id": "Drillster's event id, percent-encoded, where the body does not say it.",
    },
    sample="regular",
    registration_ids=("ticket.reference",),
    third_party_ids=True,
    candidate_id="user.id",
    usual_score="percent",
    scores=("percent",),
    members=("delivery", "event_ref", "started_at", "completed_at"),
    transformations=True,
    details=("test.id", "user.id", "ticket.id"),
)
