"""Drillster's TestCompletedEvent, as "PUSH TestCompletedEvent object" describes it, and what it means.

An event may say its type and id in the body, in the URL (`{eventType}` or `{eventType}/{eventId}` below the source, a
setting of each webhook), or, as the document's own anonymous example, not at all. The URL's part arrives here as the
validation context `{"path": ...}`, percent-encoded as it was sent.
"""

from collections.abc import Callable
from decimal import Decimal
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
#: The types that Drillster documents ("PUSH events", the deprecated ones too) and that are no result.
OTHER_TYPES = frozenset({
    "ACCOUNT_CREATED", "GROUP_MEMBER_ADDED", "GROUP_MEMBER_REMOVED", "OBJECTIVE_BECAME_OK", "OBJECTIVE_BECAME_NOK",
    "OBJECTIVE_MET", "OBJECTIVE_NO_LONGER_MET", "QUESTION_ANSWERED",
})  # fmt: skip


def _addressed(info: ValidationInfo) -> list[str]:
    """The segments of the path: nothing, a type, or a type and an id."""
    path = (info.context or {}).get("path") or ""
    try:
        segments = [unquote(segment, errors="strict") for segment in path.strip("/").split("/") if segment]
    except UnicodeDecodeError:
        refuse("the path is not UTF-8")
    return segments if len(segments) <= 2 else refuse("the path has more than a type and an id")


def _or_in_path(place: int) -> Callable[[object, ValidationInfo], object]:
    """A value that may stand in the path instead. Where both say it they must agree, in every letter."""

    def merge(value: object, info: ValidationInfo) -> object:
        said = value.strip() if isinstance(value, str) else value
        addressed = _addressed(info)[place : place + 1]
        if not addressed:
            return said
        return addressed[0] if said in (None, "", addressed[0]) else refuse("differs from the path")

    return merge


EventType = Annotated[Id, BeforeValidator(_or_in_path(0)), Field(validate_default=True)]
EventId = Annotated[Id, BeforeValidator(_or_in_path(1)), Field(validate_default=True)]


class Kind(Message):
    """As much of an event as tells whether it is a result at all."""

    event_type: EventType = None

    @property
    def is_result(self) -> bool:
        """Whether it may be a completed test. Only what is documented as something else is none."""
        return self.event_type not in OTHER_TYPES


class ScoreTransformation(Payload):
    id: RequiredId
    #: Text for people, such as "9½": never read as a number.
    result: Text = None
    #: On binary transformations only.
    passed: MaybeFlag = None
    percentage: Annotated[Percentage, DETAIL] = None

    @property
    def contradiction(self) -> str | None:
        """Where `result` is a word for passed or failed, and the opposite of what `passed` says."""
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
        """What every transformation that says passed or not agrees on.

        None where none says it and where they contradict each other: which one counts is for the exam map to say, and
        no threshold decides instead (`ExamOutcome.transformations_differ`).
        """
        if len(self._said) != 1:
            return None
        return Verdict.PASSED if True in self._said else Verdict.FAILED

    @property
    def _said(self) -> set[bool]:
        return {item.passed for item in self.transformations or () if item.passed is not None}


class Test(Payload):
    __test__ = False  # or pytest would try to collect it
    id: RequiredId


class ThirdPartyId(Payload):
    id: Id = None
    third_party: Id = None


class User(Payload):
    """The name is left: nothing is matched or written by it."""

    id: DetailId = None
    email_address: Email = None
    third_party_ids: Many[ThirdPartyId] = None

    def ids_by_third_party(self) -> dict[str, str]:
        """One id for each third party. A third party that gives a person two ids cannot say who it is: left out."""
        ids: dict[str, set[str]] = {}
        for item in self.third_party_ids or ():
            if item.third_party and item.id:
                ids.setdefault(item.third_party, set()).add(item.id)
        return {third_party: of_it.pop() for third_party, of_it in ids.items() if len(of_it) == 1}


class Ticket(Payload):
    """What an anonymous test was taken with. Everything but the id is optional when a ticket is made."""

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
        """A whole result of a type that nobody documents is unclear, not nothing."""
        return None if self.event_type in (None, TEST_COMPLETED) else "eventType: not one that Drillster documents"

    @property
    def contradiction(self) -> str | None:
        return next((item.contradiction for item in self.score.transformations or () if item.contradiction), None)

    def to_outcome(self) -> ExamOutcome:
        """The user counts where there is a ticket as well, but the ticket's reference is kept."""
        return ExamOutcome(
            source=Source.DRILLSTER,
            delivery=self.id,
            event_ref=self.event_id,
            exam_codes=(self.test.id,),
            candidate=self._candidate(),
            registration_ids=without_none({"ticket.reference": self.ticket.reference if self.ticket else None}),
            started_at=self.started,
            completed_at=self.completed,
            verdict=self.score.verdict,
            unclear=self.unclear,
            contradiction=self.contradiction,
            scores=without_none({"percent": self.score.percentage}),
            transformations=tuple(item.to_transformation() for item in self.score.transformations or ()),
            details=self._details(),
        )

    def _candidate(self) -> Candidate:
        if self.user:
            return Candidate(third_party_ids=self.user.ids_by_third_party(), email=self.user.email_address)
        return Candidate(email=self.ticket.email_address if self.ticket else None)

    def _details(self) -> dict[str, str | bool | Decimal]:
        user, ticket = self.user or User(), self.ticket or Ticket()
        return without_none({"test.id": self.test.id, "user.id": user.id, "ticket.id": ticket.id})


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
