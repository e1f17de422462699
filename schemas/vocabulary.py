"""What each platform can send of a result, by the names that the tenants file uses.

A name in the exam map that no platform of the tenant ever sends is a mistake, and is refused at start. The payload
models are the truth: tests/unit/test_vocabulary.py compares these lists with what the models make of whole payloads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.outcome import Source

_COUNTED: Final = ("raw", "max_raw", "percent", "robust_percent")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names of one platform. `usual`: the score that is written where the exam map names none."""

    usual: str
    scores: tuple[str, ...]
    registration_ids: tuple[str, ...]
    #: Of the outcome's own members, those that a custom field may be filled from.
    members: tuple[str, ...]
    #: Kind of part -> the scores that such a part may have.
    parts: dict[str, tuple[str, ...]]
    #: Whether its results may carry transformations, one of which may decide.
    transformations: bool
    #: One that ends in a dot stands for every name that begins so.
    details: tuple[str, ...]

    def has(self, source: str) -> bool:
        """Whether a custom field's `value` names something that this platform may send."""
        match source.split("."):
            case ["scores", score]:
                return score in self.scores
            case ["parts", kind, _, *_, score]:
                return score in self.parts.get(kind, ())
            case ["details", *name]:
                named = ".".join(name)
                return any(
                    named == one if one[-1] != "." else named.startswith(one) and named != one for one in self.details
                )
        return source in self.members

    def sources(self) -> Iterable[str]:
        """Every `value` that a custom field may have, as one would write it."""
        yield from self.members
        yield from (f"scores.{score}" for score in self.scores)
        yield from (f"details.{name}{'NAME' if name[-1] == '.' else ''}" for name in self.details)
        yield from (f"parts.{kind}.NAME.{score}" for kind, scores in self.parts.items() for score in scores)


VOCABULARIES: Final = {
    Source.CERTIVERSE: Vocabulary(
        usual="reported",
        scores=("reported", "scaled", "percent", "raw", "max_raw", "cut", "minutes", "max_minutes"),
        registration_ids=("eligibilityId", "bookingId"),
        members=(
            "delivery", "started_at", "completed_at", "complete_reason", "termination_reason", "cut_score_type",
        ),
        parts={"test_part": (*_COUNTED, "reported", "cut"), "section": _COUNTED, "topic": _COUNTED},
        transformations=False,
        details=(
            "passFail", "deliveryType", "timeExtension", "secureBrowser", "deliveryCountry", "storeExamSku",
            "reservationDateTime", "candidateReservationDateTime", "paymentType", "voucherId", "promoCode",
            "candidateId", "examName", "examCode", "examFormName", "examFormId", "languageCode", "languageName",
            "customData.",
        ),
    ),
    Source.DRILLSTER: Vocabulary(
        usual="percent",
        scores=("percent",),
        registration_ids=("ticket.reference",),
        members=("delivery", "event_ref", "started_at", "completed_at"),
        parts={},
        transformations=True,
        details=("test.id", "user.id", "ticket.id"),
    ),
    Source.PROV: Vocabulary(
        usual="reported",
        scores=("reported", "percent", "max_raw"),
        registration_ids=("eligibilityId", "bookingId"),
        members=("delivery", "event_ref", "completed_at"),
        parts=dict.fromkeys(("domain", "topic", "section"), ("reported", "percent")),
        transformations=False,
        details=("result", "examName", "examCode"),
    ),
}  # fmt: skip
