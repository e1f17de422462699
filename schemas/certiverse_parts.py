"""The scores of a Certiverse exam result: the exam's own, those of test parts, their sections, and of topics."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

from schemas.outcome import TEST_PART_SCORING, Part, Verdict
from schemas.values import (
    DETAIL,
    DetailId,
    DetailNumber,
    Flag,
    Many,
    Number,
    PassFail,
    Payload,
    Text,
    against_the_cut,
    verdict,
    without_none,
)

#: The document numbers these; an enumeration sent as a number would be that number.
_CUT_SCORE_TYPES = {"1": "scaled", "2": "percent", "3": "raw", "4": TEST_PART_SCORING}
_KNOWN_CUT_SCORE_TYPES = frozenset(_CUT_SCORE_TYPES.values())


def _cut_score_type(value: object) -> str | None:
    """`scaled`, `percent`, `raw` or `testpartscoring`, however spelled; another word unchanged."""
    if value is None:
        return None
    raw = str(value).strip() if isinstance(value, str | int | float) else "?"
    name = re.sub(r"[\s_-]", "", raw.lower()).removesuffix("score")
    name = _CUT_SCORE_TYPES.get(name, name)
    return name if name in _KNOWN_CUT_SCORE_TYPES else raw or None


CutScoreType = Annotated[str | None, BeforeValidator(_cut_score_type)]


class Scores(Payload):
    pass_fail: PassFail = None
    reported_score: Number = None
    cut_score: Number = None
    cut_score_type: CutScoreType = None
    max_raw_score: Number = None
    raw_score: Number = None
    percent: Number = None
    scaled: Number = None
    time_on_exam: DetailNumber = None
    max_time_on_exam: DetailNumber = None
    is_rescore: Flag = False

    @property
    def verdict(self) -> Verdict | None:
        """As the platform says; from the scores only where it says nothing. None: a beta exam, or `unclear`."""
        return verdict(self.pass_fail) if self.pass_fail is not None or self.unclear else self._by_the_cut

    @property
    def _by_the_cut(self) -> Verdict | None:
        """The reported score "compared to the cut score … determines pass/fail", says the document.

        A beta exam has no cut; a cut of 0 is how .NET writes one that was never set. Under test part scoring the exam's
        own numbers do not decide.
        """
        if self.reported_score is None or self.cut_score is None or self.cut_score <= 0:
            return None
        if self.cut_score_type == TEST_PART_SCORING:
            return None
        return Verdict.PASSED if self.reported_score >= self.cut_score else Verdict.FAILED

    @property
    def contradiction(self) -> str | None:
        return against_the_cut(verdict(self.pass_fail), self._by_the_cut)

    @property
    def unknown_word(self) -> str | None:
        """The pass/fail word if we do not know it. None for a known word, so that "P" and "Pass" give one digest."""
        return None if verdict(self.pass_fail) else self.pass_fail

    @property
    def unclear(self) -> str | None:
        if self.unknown_word:
            return "passFail: not a word we know"
        if self.pass_fail is not None:
            return None
        if self.cut_score_type == TEST_PART_SCORING:
            return "passFail: absent under test part scoring"
        if self.cut_score_type and self.cut_score_type not in _KNOWN_CUT_SCORE_TYPES:
            return "passFail: absent, and cutScoreType is not a word we know"
        if self.reported_score == self.cut_score == 0:
            return "passFail: absent, and a reported score of 0 against a cut of 0 was never set"
        return None

    @property
    def scores(self) -> dict[str, Decimal]:
        return without_none(
            {
                "reported": self.reported_score,
                "scaled": self.scaled,
                "percent": self.percent,
                "raw": self.raw_score,
                "max_raw": self.max_raw_score,
                "cut": self.cut_score,
                "minutes": self.time_on_exam,
                "max_minutes": self.max_time_on_exam,
            }
        )


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
