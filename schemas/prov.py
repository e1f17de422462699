"""Prov's score result, provisionally: Prov's public "CustomerAPI" describes its content in prose and names no field.

So a field is found by any of its `spellings`, without regard to case, spaces and underscores: `candidateId`,
`CandidateID`, `candidate_id` and `Candidate ID` are one name. To fit a real message, add its names to the spellings of
the classes below. Keys that carry credentials (`apiKey`, `secretKey`) are not read here.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BeforeValidator, model_validator

from schemas.members import Spelled
from schemas.outcome import Candidate, ExamOutcome, Part, Source, Verdict
from schemas.platform import Platform
from schemas.values import (
    DETAIL,
    DetailId,
    DetailNumber,
    Email,
    Id,
    Instant,
    Many,
    Number,
    PassFail,
    RequiredId,
    Result,
    Text,
    against_the_cut,
    refuse,
    verdict,
    without_blanks,
    without_none,
)

#: Decimal places of a percentage that is worked out.
_PERCENT_PLACES = 6
#: `27-Jun-18 2:48:00 PM`, as Prov's partner interface writes it. A date in figures alone is not guessed at.
_DATE_FORMATS = ("%d-%b-%y %I:%M:%S %p", "%d-%b-%Y %I:%M:%S %p", "%d-%b-%y %I:%M %p", "%d-%b-%Y %I:%M %p", "%d-%b-%Y")
_MONTH_NAMED = re.compile(r"[0-9]{1,2}-[A-Za-z]{3}-")
_FLAGS = {"1": Verdict.PASSED.value, "0": Verdict.FAILED.value}


def _date(value: object) -> object:
    """A date in Prov's form as ISO 8601; anything else unchanged."""
    if not isinstance(value, str) or not _MONTH_NAMED.match(value.strip()):
        return value
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(value.strip(), form).replace(tzinfo=UTC).isoformat()
        except ValueError:
            continue
    return value


def _flag(value: object) -> object:
    """1 and 0 count as words for passed and failed."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    return _FLAGS.get(str(value).strip(), value)


SittingTime = Annotated[Instant, BeforeValidator(_date)]
ResultFlag = Annotated[PassFail, BeforeValidator(_flag)]


class ScoredPart(Spelled):
    spellings = {
        "name": "name, domain name, topic name, section name | domain, topic, section, title",
        "id": "code, domain code, topic code, section code | id, domain id, topic id, section id",
        "score": "domain score, topic score, section score",
        "percent": "percentage, score percent, score percentage",
    }
    name: RequiredId
    id: DetailId = None
    score: DetailNumber = None
    percent: DetailNumber = None

    def to_part(self, kind: str) -> Part:
        scores = without_none({"reported": self.score, "percent": self.percent})
        return Part(kind=kind, name=self.name, id=self.id, scores=scores)


ScoredParts = Annotated[Many[ScoredPart], DETAIL]


class ScoreResult(Spelled, Result):
    """The result of one sitting."""

    spellings = {
        "candidateId": "client candidate id, unique candidate id, external candidate id | candidateId",
        "email": "email address, email id, candidate email, candidate email id",
        "examCode": "test code | exam id",  # an exam id beside a code is an inner number
        "examName": "test name, exam title",
        "overallScore": "score, total score, final score, exam score",
        "maxScore": "maximum score, max points, maximum points, max raw score, max marks, points possible, out of",
        "passMark": "pass score, passing score, passing mark, pass points, cut score",
        "percent": "percentage, score percent, score percentage, overall percentage",
        "result": "pass fail, passed, is passed, exam result, result flag",
        "examDate": "completed, completed at, completion date | exam date time, test date time | examDate, test date",
        "resultId": "score result id, exam result id",
        "bookingId": "bookingId | appointment id",
        "domains": "domain topic information, domain scores, domain score, domain information, domain info,"
        " domain results",
        "topics": "topic scores, topic score, topic results",
        "sections": "section scores, section score, section results",
    }
    candidate_id: Id = None
    email: Email = None
    exam_code: RequiredId
    exam_name: Text = None
    overall_score: Number = None
    max_score: Number = None
    pass_mark: Number = None
    percent: Number = None
    result: ResultFlag = None
    exam_date: SittingTime = None
    result_id: Id = None
    eligibility_id: Id = None
    booking_id: Id = None
    domains: ScoredParts = None
    topics: ScoredParts = None
    sections: ScoredParts = None

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        return self if self.candidate_id or self.email else refuse("candidateId, email: one of them must be there")

    @property
    def delivery(self) -> str:
        """Candidate, exam code and sitting time, as Prov names no sitting. Personal (`personal_sitting` in the row)."""
        sitting = self.exam_date.isoformat() if self.exam_date else ""
        # The separator is a control character, which no id may hold: two sittings cannot give the same text.
        # `casefold`, not `addresses.folded`: that is how the first release did it, and names of sittings never change.
        return "\n".join((self.candidate_id or (self.email or "").casefold(), self.exam_code, sitting))

    @property
    def scores(self) -> dict[str, Decimal]:
        """Without a percentage, it is worked out from the maximum: 75 of 200 are 37.5. A maximum of 0 was never set."""
        largest = self.max_score if self.max_score and self.max_score > 0 else None
        percent = self.percent
        if percent is None and largest is not None and self.overall_score is not None:
            percent = round(100 * self.overall_score / largest, _PERCENT_PLACES).normalize()
        return without_none({"reported": self.overall_score, "percent": percent, "max_raw": largest})

    @property
    def contradiction(self) -> str | None:
        """A result against the score and the pass mark sent beside it."""
        if self.overall_score is None or self.pass_mark is None or self.pass_mark <= 0:
            return None
        by_score = Verdict.PASSED if self.overall_score >= self.pass_mark else Verdict.FAILED
        return against_the_cut(verdict(self.result), by_score)

    def to_outcome(self) -> ExamOutcome:
        return ExamOutcome(
            source=Source.PROV,
            delivery=self.delivery,
            event_ref=self.result_id,
            exam_codes=(self.exam_code,),
            candidate=Candidate(student_id=self.candidate_id, email_sent=self.email),
            registration_ids=without_none({"eligibilityId": self.eligibility_id, "bookingId": self.booking_id}),
            completed_at=self.exam_date,
            verdict=verdict(self.result),
            unclear="result: not a word we know" if self.unknown_word else None,
            contradiction=self.contradiction,
            scores=self.scores,
            parts=self._parts(),
            details=self._details(),
        )

    @property
    def unknown_word(self) -> str | None:
        """The result word if we do not know it: kept in the details, and a person decides."""
        return None if verdict(self.result) else self.result

    def _details(self) -> dict[str, str | bool | Decimal]:
        return without_blanks({"result": self.unknown_word, "examName": self.exam_name, "examCode": self.exam_code})

    def _parts(self) -> tuple[Part, ...]:
        lists = {"domain": self.domains, "topic": self.topics, "section": self.sections}
        return tuple(part.to_part(kind) for kind, parts in lists.items() for part in parts or ())


PLATFORM = Platform(
    source=Source.PROV,
    title="Prov",
    model=ScoreResult,
    sample="camel-case",
    registration_ids=("eligibilityId", "bookingId"),
    personal_sitting=True,
    usual_score="reported",
    points_or_percent=True,
    scores=("reported", "percent", "max_raw"),
    members=("delivery", "event_ref", "completed_at"),
    parts=dict.fromkeys(("domain", "topic", "section"), ("reported", "percent")),
    details=("result", "examName", "examCode"),
)
