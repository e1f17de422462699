"""The exam map: which results are which of Rhythm's exams, and what of them is written. Pure.

A name that no platform of the tenant can send is refused at start; otherwise nobody would notice that the field is
never written.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from schemas.outcome import Source, Verdict
from schemas.platform import Platform, platform_of
from worker.sections import Section, Text

#: Words that a verdict must not be mapped to, because they mean the opposite.
_OPPOSITE: Final = {Verdict.PASSED: ("failed", "no show"), Verdict.FAILED: ("passed",)}


class CustomField(Section):
    """A custom field of the registration, and what of the outcome it is filled from."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z\d:_-]{1,300}__c$")]
    #: `scores.NAME`, `details.NAME`, `parts.KIND.NAME.SCORE`, or one of the outcome's own (see docs/fields.md).
    value: Text
    #: Without it: as the value is.
    kind: Literal["string", "numeric", "boolean"] | None = None


class Exam(Section):
    """One line of the exam map: which results are this Rhythm exam's, and what of them is written."""

    exam_id: Text
    codes: Annotated[tuple[Text, ...], Field(min_length=1)]
    #: Which of the outcome's scores becomes Rhythm's `score`: a result without it waits for a person. Not given:
    #: the platform's `usual_score`, as far as there is one.
    score: Text | None = None
    score_places: Annotated[int, Field(ge=0, le=6)] = 2
    #: Passed at or above this score, where the platform gives no verdict.
    threshold: Decimal | None = None
    #: The transformation that decides, of results that have some (Drillster).
    transformation: Text | None = None
    #: Rhythm's word for a verdict, where it is not the verdict itself.
    status_words: dict[Verdict, Literal["registered", "passed", "failed", "no show"]] = {}
    custom_fields: tuple[CustomField, ...] = ()
    #: What to do with a sitting that a proctor ended or terminated.
    integrity: Literal["hold", "write"] = "hold"


def mistakes(exam: Exam, platforms: Sequence[Platform]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What cannot be meant in a line of a tenant with these platforms: the key's place, and what is wrong there."""
    scores = sorted({score for platform in platforms for score in platform.scores})
    if exam.score is not None and exam.score not in scores:
        yield ("score",), f"no platform of this tenant sends a score {exam.score}; there are: {', '.join(scores)}"
    if exam.transformation and not any(platform.transformations for platform in platforms):
        yield (
            ("transformation",),
            f"no platform of this tenant sends transformations: only {senders_of('transformations')}",
        )
    compared = {exam.score} if exam.score else {platform.usual_score for platform in platforms}
    if exam.threshold is not None and (exam.threshold < 0 or (compared == {"percent"} and exam.threshold > 100)):
        yield ("threshold",), "not a possible threshold: a percentage is 0 to 100, and no score is below 0"
    for verdict, word in exam.status_words.items():
        if word in _OPPOSITE[verdict]:
            yield ("status_words", verdict), f"{verdict} cannot be written as {word}"
    for place, field in enumerate(exam.custom_fields):
        if not any(platform.sends(field.value) for platform in platforms):
            sent = dict.fromkeys(value for platform in platforms for value in platform.values())
            what = f"no platform of this tenant sends {field.value}; there are: {', '.join(sent)}"
            yield ("custom_fields", place, "value"), what
        if field.id in [earlier.id for earlier in exam.custom_fields[:place]]:
            yield ("custom_fields", place, "id"), f"{field.id} is filled twice"


def senders_of(ability: Literal["transformations", "third_party_ids"]) -> str:
    """`Drillster does`: the platforms whose results may have them, for a message."""
    titles = [platform.title for platform in map(platform_of, Source) if getattr(platform, ability)]
    return f"{' and '.join(titles)} {'does' if len(titles) == 1 else 'do'}"
