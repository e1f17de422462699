"""The scored parts of a Certiverse exam result: test parts, their sections, and the topics of the blueprint."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

from schemas.outcome import Part
from schemas.values import Id, Many, Number, PassFail, Payload, known, verdict

#: The document numbers these; an enumeration sent as a number would be that number.
_CUT_SCORE_TYPES = {"1": "scaled", "2": "percent", "3": "raw", "4": "testpartscoring"}
TEST_PART_SCORING = "testpartscoring"
_KNOWN_CUT_SCORE_TYPES = frozenset(_CUT_SCORE_TYPES.values())


def _cut_score_type(value: object) -> str | None:
    """`scaled`, `percent`, `raw` or `testpartscoring`, however spelled; one that is none of these as it came."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    raw = str(value).strip()
    name = "".join(raw.split()).lower().removesuffix("score")
    name = _CUT_SCORE_TYPES.get(name, name)
    return name if name in _KNOWN_CUT_SCORE_TYPES else raw or None


CutScoreType = Annotated[str | None, BeforeValidator(_cut_score_type)]


class Scored(Payload):
    max_score: Number = None
    raw_score: Number = None
    percent: Number = None
    #: Of sections and topics.
    robust_percent: Number = None

    @property
    def scores(self) -> dict[str, Decimal | None]:
        return {
            "raw": self.raw_score,
            "max_raw": self.max_score,
            "percent": self.percent,
            "robust_percent": self.robust_percent,
        }


class Section(Scored):
    # `items` is documented and left undeclared: no item is ever written to Rhythm, and building the item objects
    # makes reading a 40 KB payload four times dearer (95 to 380 µs). The parser still checks that they are JSON.
    section_name: str
    outcome_band_name: str | None = None

    def to_part(self, test_part: str) -> Part:
        return Part(
            kind="section",
            name=self.section_name,
            within=test_part,
            scores=known(self.scores),
            band=self.outcome_band_name or None,
        )


class TestPart(Scored):
    __test__ = False  # or pytest would try to collect it
    test_part_name: str
    pass_fail: PassFail = None
    reported_score: Number = None
    cut_score: Number = None
    cut_score_type: CutScoreType = None
    root_sections: Many[Section] = None

    def to_parts(self) -> list[Part]:
        """The test part, then its sections."""
        part = Part(
            kind="test_part",
            name=self.test_part_name,
            scores=known({**self.scores, "reported": self.reported_score, "cut": self.cut_score}),
            verdict=verdict(self.pass_fail),
            cut_score_type=self.cut_score_type,
        )
        return [part, *(section.to_part(self.test_part_name) for section in self.root_sections or ())]


class Topic(Scored):
    topic_id: Id = None
    topic_name: str

    def to_part(self) -> Part:
        return Part(kind="topic", name=self.topic_name, id=self.topic_id, scores=known(self.scores))
