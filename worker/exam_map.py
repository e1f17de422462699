"""The exam map: which results are which of Rhythm's exams, and what of them is written. Pure.

What no platform of the tenant can send is refused at start: nobody would notice that it is never written.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.outcome import Verdict
from schemas.vocabulary import Vocabulary

_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
#: What a verdict's word must not be: it would say the contrary.
_OPPOSITE: Final = {Verdict.PASSED: ("failed", "no show"), Verdict.FAILED: ("passed",)}


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CustomField(_Line):
    """A custom field of the registration, and what of the outcome it is filled from."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z\d:_-]{1,300}__c$")]
    #: `scores.NAME`, `details.NAME`, `parts.KIND.NAME.SCORE`, or one of the outcome's own (see docs/fields.md).
    value: _Text
    #: Without it: as the value is.
    kind: Literal["string", "numeric", "boolean"] | None = None


class Exam(_Line):
    """One line of the exam map: which results are this Rhythm exam's, and what of them is written."""

    exam_id: _Text
    codes: Annotated[tuple[_Text, ...], Field(min_length=1)]
    #: Which of the outcome's scores becomes Rhythm's `score`: a result without it waits for a person. Not given:
    #: `reported`, of Drillster `percent`, as far as there is one.
    score: _Text | None = None
    score_places: Annotated[int, Field(ge=0, le=6)] = 2
    #: Passed at or above this score, where the platform gives no verdict.
    threshold: Decimal | None = None
    #: The transformation that decides about Drillster's results.
    transformation: _Text | None = None
    #: Rhythm's word for a verdict, where it is not the verdict itself.
    status_words: dict[Verdict, Literal["registered", "passed", "failed", "no show"]] = {}
    custom_fields: tuple[CustomField, ...] = ()
    #: What to do with a sitting that a proctor ended or terminated.
    integrity: Literal["hold", "write"] = "hold"


def mistakes(exam: Exam, spoken: Sequence[Vocabulary]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What of a line cannot be meant: the key's place, and what is wrong with it. Upper and lower case differ.

    `spoken`: the names that the tenant's platforms use.
    """
    scores = sorted({score for one in spoken for score in one.scores})
    if exam.score is not None and exam.score not in scores:
        yield ("score",), f"no platform of this tenant sends a score {exam.score}; there are: {', '.join(scores)}"
    if exam.transformation and not any(one.transformations for one in spoken):
        yield ("transformation",), "no platform of this tenant sends transformations: only Drillster does"
    compared = {exam.score} if exam.score else {one.usual for one in spoken}
    if exam.threshold is not None and (exam.threshold < 0 or (compared == {"percent"} and exam.threshold > 100)):
        yield ("threshold",), "no score can be so: a percentage is 0 to 100, and no score is less than 0"
    for verdict, word in exam.status_words.items():
        if word in _OPPOSITE[verdict]:
            yield ("status_words", verdict), f"{verdict} cannot be written as {word}"
    for place, field in enumerate(exam.custom_fields):
        if not any(one.has(field.value) for one in spoken):
            named = dict.fromkeys(source for one in spoken for source in one.sources())
            what = f"no platform of this tenant sends {field.value}; there are: {', '.join(named)}"
            yield ("custom_fields", place, "value"), what
        if field.id in [one.id for one in exam.custom_fields[:place]]:
            yield ("custom_fields", place, "id"), f"{field.id} is filled twice"
