"""Prov's score result, provisionally: Prov's public "CustomerAPI" names its content in prose and no field of it.

So fields are known by what they say, however they are spelled: `candidateId`, `CandidateID`, `candidate_id` and
`Candidate ID` are one. To fit a real message, add its names to the `spellings` of the class below; the first word of
each line is the name that errors and docs/fields.md use. Keys that carry credentials (`apiKey`, `secretKey`) are not
read here.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from schemas.outcome import Candidate, ExamOutcome, Part, Source, Verdict
from schemas.values import Email, Id, Instant, Many, Number, PassFail, Payload, RequiredId, known, refuse, told, verdict

#: `27-Jun-18 2:48:00 PM`, as Prov's partner interface writes it. A date in figures alone is not guessed at.
_DATE_FORMATS = ("%d-%b-%y %I:%M:%S %p", "%d-%b-%Y %I:%M:%S %p", "%d-%b-%y %I:%M %p", "%d-%b-%Y %I:%M %p", "%d-%b-%Y")
_MONTH_NAMED = re.compile(r"[0-9]{1,2}-[A-Za-z]{3}-")
_FLAGS = {"1": Verdict.PASSED, "0": Verdict.FAILED}


def _date(value: object) -> object:
    """A date in Prov's way as an ISO 8601 one; all else as it is."""
    if not isinstance(value, str) or not _MONTH_NAMED.match(value.strip()):
        return value
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(value.strip(), form).replace(tzinfo=UTC).isoformat()
        except ValueError:
            continue
    return value


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


SittingTime = Annotated[Instant, BeforeValidator(_date)]


class Spelled(Payload):
    """An object whose members may be spelled in several ways."""

    #: Name -> what else it is called; case, spaces and underscores do not count.
    spellings: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    @cache
    def _names(cls) -> dict[str, str]:
        return {_letters(word): name for name, words in cls.spellings.items() for word in (name, *words)}

    @model_validator(mode="before")
    @classmethod
    def _by_our_names(cls, sent: object) -> object:
        """Refuses a member that is there twice, in two spellings with two values: which one counts is unknown."""
        if not isinstance(sent, dict):
            return sent
        ours: dict[str, object] = {}
        for key, value in sent.items():
            name = cls._names().get(_letters(key))
            if name is None or value in (None, ""):
                continue
            if ours.setdefault(name, value) != value:
                refuse(f"{name}: said twice, differently")
        return ours


class ScoredPart(Spelled):
    spellings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "name": ("domain", "domain name", "topic", "topic name", "section", "section name", "title"),
        "id": ("domain id", "domain code", "topic id", "topic code", "section id", "section code", "code"),
        "score": ("domain score", "topic score", "section score"),
        "percent": ("percentage", "score percent", "score percentage"),
    }
    name: RequiredId
    id: Id = None
    score: Number = None
    percent: Number = None

    def to_part(self, kind: str) -> Part:
        scores = known({"reported": self.score, "percent": self.percent})
        return Part(kind=kind, name=self.name, id=self.id, scores=scores)


ScoredParts = Many[ScoredPart]


class ScoreResult(Spelled):
    """The result of one sitting."""

    spellings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "candidateId": ("client candidate id", "unique candidate id", "external candidate id"),
        "email": ("email address", "email id", "candidate email", "candidate email id"),
        "examCode": ("test code", "exam id"),
        "examName": ("test name", "exam title"),
        "overallScore": ("score", "total score", "final score", "exam score"),
        "percent": ("percentage", "score percent", "score percentage", "overall percentage"),
        "result": ("pass fail", "passed", "is passed", "exam result", "result flag"),
        "examDate": ("exam date time", "test date", "test date time", "completed", "completed at", "completion date"),
        "resultId": ("score result id", "exam result id"),
        "eligibilityId": (),
        "bookingId": ("appointment id",),
        "domains": (
            "domain topic information",
            "domain scores",
            "domain score",
            "domain information",
            "domain info",
            "domain results",
        ),
        "topics": ("topic scores", "topic score", "topic results"),
        "sections": ("section scores", "section score", "section results"),
    }
    candidate_id: Id = None
    email: Email = None
    exam_code: RequiredId
    exam_name: str | None = None
    overall_score: Number = None
    percent: Number = None
    result: PassFail = None
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
    def is_result(self) -> bool:
        """Nothing else is known to be sent."""
        return True

    @property
    def delivery(self) -> str:
        """Candidate, exam code and sitting time, for Prov names no sitting.

        It holds personal data in the clear: the ledger makes keys of its HMAC only.
        """
        sitting = self.exam_date.isoformat() if self.exam_date else ""
        # No id holds a control character, so that no two sittings run together.
        # The address as the first release folded it: the names of sittings never change.
        return "\n".join((self.candidate_id or (self.email or "").casefold(), self.exam_code, sitting))

    @property
    def verdict(self) -> Verdict | None:
        """What `result` says. A word that is not known is kept in the details, and a person decides."""
        return _FLAGS.get(self.result or "") or verdict(self.result)

    def to_outcome(self) -> ExamOutcome:
        return ExamOutcome(
            source=Source.PROV,
            delivery=self.delivery,
            event_ref=self.result_id,
            exam_codes=(self.exam_code,),
            candidate=Candidate(student_id=self.candidate_id, email=self.email),
            registration_ids=known({"eligibilityId": self.eligibility_id, "bookingId": self.booking_id}),
            completed_at=self.exam_date,
            verdict=self.verdict,
            unclear="result: not a word we know" if self.unknown_word else None,
            scores=known({"reported": self.overall_score, "percent": self.percent}),
            parts=self._parts(),
            details=self._details(),
        )

    @property
    def unknown_word(self) -> str | None:
        return None if self.verdict else self.result

    def _details(self) -> dict[str, str | bool | Decimal]:
        return told({"result": self.unknown_word, "examName": self.exam_name, "examCode": self.exam_code})

    def _parts(self) -> tuple[Part, ...]:
        lists = {"domain": self.domains, "topic": self.topics, "section": self.sections}
        return tuple(part.to_part(kind) for kind, parts in lists.items() for part in parts or ())
