"""The scored parts of a Certiverse exam result: test parts, their sections, and the topics of the blueprint."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

from schemas.outcome import Part
from schemas.values import DETAIL, DetailId, DetailNumber, Many, PassFail, Payload, Text, verdict, without_none

#: The document numbers these; an enumeration sent as a number would be that number.
_CUT_SCORE_TYPES = {"1": "scaled", "2": "percent", "3": "raw", "4": "testpartscoring"}
TEST_PART_SCORING = "testpartscoring"
KNOWN_CUT_SCORE_TYPES = frozenset(_CUT_SCORE_TYPES.values())


def _cut_score_type(value: object) -> str | None:
    """`scaled`, `percent`, `raw` or `testpartscoring`, however spelled; another word unchanged."""
    if value is None:
        return None
    raw = str(value).strip() if isinstance(value, str | int | float) else "?"
    name = re.sub(r"[\s_-]", "", raw.lower()).removesuffix("score")
    name = _CUT_SCORE_TYPES.get(name, name)
    return name if name in KNOWN_CUT_SCORE_TYPES else raw or None


CutScoreType = Annotated[str | None, BeforeValidator(_cut_score_type)]


class Scored(Payload):
    max_score: DetailNumber = None
    raw_score: DetailNumber = None
    percent: DetailNumber = None
    #: Of sections and topics.
    robust_percent: DetailNumber = None

    @property
    def scores(self) -> dict[str, Decimal | None]:
        return {
            "raw": self.raw_score,
            "max_raw": self.max_score,
            "percent": self.percent,
            "robust_percent": self.robust_percent,
        }


class Section(Scored):
    # `items` is documented but not declared: no item is ever written to Rhythm, and to build the item objects makes
    # reading a 40 KB payload four times slower (95 to 380 µs). The parser still checks that they are JSON.
    section_name: str
    outcome_band_name: Text = None

    def to_part(self, test_part: str) -> Part:
        return Part(
            kind="section",
            name=self.section_name,
            within=test_part,
            scores=without_none(self.scores),
            band=self.outcome_band_name or None,
        )


class TestPart(Scored):
    __test__ = False  # or pytest would try to collect it
    test_part_name: str
    pass_fail: Annotated[PassFail, DETAIL] = None
    reported_score: DetailNumber = None
    cut_score: DetailNumber = None
    cut_score_type: CutScoreType = None
    root_sections: Annotated[Many[Section], DETAIL] = None

    def to_parts(self) -> list[Part]:
        """The test part, then its sections."""
        part = Part(
            kind="test_part",
            name=self.test_part_name,
            scores=without_none({**self.scores, "reported": self.reported_score, "cut": self.cut_score}),
            verdict=verdict(self.pass_fail),
            cut_score_type=self.cut_score_type,
        )
        return [part, *(section.to_part(self.test_part_name) for section in self.root_sections or ())]


class Topic(Scored):
    topic_id: DetailId = None
    topic_name: str

    def to_part(self) -> Part:
        return Part(kind="topic", name=self.topic_name, id=self.topic_id, scores=without_none(self.scores))
