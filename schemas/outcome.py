"""ExamOutcome: what a payload means, whichever platform sent it, before the exam map is applied.

Every source's payload model turns itself into this one form; everything after `prepare` uses only it. Two ways of
writing the same result give identical outcomes: scores have one spelling (`values.Number`), instants are in UTC, and
lists that a platform sends in no fixed order are sorted.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum

from pydantic import TypeAdapter

from schemas.addresses import folded

#: Prefix of every digest; a change of what the digest covers must change it, so that old and new never compare.
DIGEST_VERSION = "2"
_NOT_DIGESTED = {"source", "delivery", "event_ref", "rescore", "unclear", "contradiction", "candidate"}

#: The `cut_score_type` of an exam that its test parts decide: the exam's own score and cut do not.
TEST_PART_SCORING = "testpartscoring"
PROCTOR_ENDED = "proctor ended"
#: All that Certiverse documents of how a sitting ended (`completeReasonCode`).
COMPLETE_REASONS = (PROCTOR_ENDED, "candidate ended", "auto ended")
#: A completion more than this after the receipt is impossible: a missing time zone shifts it by at most 14 hours.
FUTURE = timedelta(days=1)
#: Some platforms leave out the seconds (Drillster), so a completion may appear up to this much before the start.
_ROUNDED = timedelta(minutes=1)


class Source(StrEnum):
    """An exam platform."""

    CERTIVERSE = "certiverse"
    DRILLSTER = "drillster"
    PROV = "prov"


class Verdict(StrEnum):
    """Whether the candidate passed. The words are Rhythm's status words."""

    PASSED = "passed"
    FAILED = "failed"


class VerdictAnswer(StrEnum):
    """What a person may answer in a platform's place."""

    PASSED = "passed"
    FAILED = "failed"
    #: Leave the status as it is, and write the rest.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who sat the exam, as far as the platform says. Personal data: for the ledger and Rhythm only."""

    #: The association's own id of the person (Certiverse `orgCandidateId`, Prov candidate id).
    student_id: str | None = None
    #: Ids by third party name (Drillster `thirdPartyIds`).
    third_party_ids: dict[str, str] = field(default_factory=dict)
    #: As it was sent: Rhythm may find the person only under this spelling.
    email_sent: str | None = None

    @property
    def email(self) -> str | None:
        """Folded (`schemas/addresses.py`)."""
        return self.email_sent and folded(self.email_sent)


@dataclass(frozen=True, slots=True)
class Transformation:
    """One Drillster score transformation; `passed` is present on binary ones only."""

    id: str
    passed: bool | None = None
    percentage: Decimal | None = None
    #: Free text such as "9½": never parsed as a number.
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A scored part of the exam: a test part, section, topic or domain."""

    kind: str
    name: str
    #: The platform's own id of it (a topic's display id).
    id: str | None = None
    #: The name of the part it belongs to (a section's test part).
    within: str | None = None
    scores: dict[str, Decimal] = field(default_factory=dict)
    verdict: Verdict | None = None
    cut_score_type: str | None = None
    #: The name of the outcome band it reached.
    band: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamOutcome:
    """The canonical form of one result of one delivery."""

    source: Source
    #: The platform's id of the sitting.
    delivery: str
    #: Drillster `eventId`; deduplicated on as well.
    event_ref: str | None = None
    rescore: bool = False
    #: What may name the exam in the exam map, most telling first.
    exam_codes: tuple[str, ...]
    candidate: Candidate
    #: What may name the registration, by the platform's field name (`eligibilityId`, `bookingId`, `ticket.reference`).
    registration_ids: dict[str, str] = field(default_factory=dict)
    #: Both in UTC.
    started_at: datetime | None = None
    completed_at: datetime | None = None
    #: As the platform says; None where it does not. The exam map's pass rule is applied at sync.
    verdict: Verdict | None = None
    #: Why there is no verdict although the payload has a pass/fail member that we cannot read. No threshold may then
    #: decide. Not personal.
    unclear: str | None = None
    #: Which two members contradict each other (`result_contradictory`). Not personal.
    contradiction: str | None = None
    #: `reported`, `scaled`, `percent`, `raw`, `cut`, `max_raw` ... as far as sent.
    scores: dict[str, Decimal] = field(default_factory=dict)
    cut_score_type: str | None = None
    transformations: tuple[Transformation, ...] = ()
    complete_reason: str | None = None
    termination_reason: str | None = None
    parts: tuple[Part, ...] = ()
    #: Everything else that a custom field may be filled from, by the platform's field name.
    details: dict[str, str | bool | Decimal] = field(default_factory=dict)

    @property
    def transformations_differ(self) -> bool:
        """Whether one transformation says passed and another failed."""
        return {True, False} <= {one.passed for one in self.transformations}

    def contradicting(self, received_at: datetime) -> "ExamOutcome":
        """The outcome, with impossible times added to its contradictions."""
        impossible = self._impossible_times(received_at)
        if not impossible:
            return self
        return replace(self, contradiction="; ".join(filter(None, (self.contradiction, *impossible))))

    def _impossible_times(self, received_at: datetime) -> list[str]:
        if self.completed_at is None:
            return []
        problems = []
        if self.completed_at - received_at > FUTURE:
            problems.append("completed more than a day after it was received")
        if self.started_at is not None and self._ended_by() <= self.started_at - _ROUNDED:
            problems.append("completed before it was started")
        return problems

    def _ended_by(self) -> datetime:
        """The latest possible completion: a day without a time is read as its midnight."""
        assert self.completed_at is not None
        day_alone = self.completed_at.timetz() == time(tzinfo=UTC)
        return self.completed_at + timedelta(days=1) - _ROUNDED if day_alone else self.completed_at

    @property
    def version(self) -> str:
        """Which result of the delivery this is: `o-` (original) or `r-` (rescore) and the digest."""
        return f"{'r' if self.rescore else 'o'}-{self.digest()}"

    def digest(self) -> str:
        """Digest of every value that could be written, and of the ids that say to which registration.

        The candidate's e-mail and third party ids are left out: a new address between two copies of a result does not
        make a second result.
        """
        # Without defaults, so that a field added to the model later does not change the digest of old results.
        document = _WRITER.dump_json(self, exclude=_NOT_DIGESTED, exclude_defaults=True)
        # JSON is self-delimiting, so no separator is needed before the student's id.
        return DIGEST_VERSION + hashlib.sha256(document + str(self.candidate.student_id).encode()).hexdigest()[:20]


#: Writes what is digested, as it did when the outcome was pydantic's: another writer's JSON may differ in a byte.
_WRITER = TypeAdapter(ExamOutcome)
