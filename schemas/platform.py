"""Platform: all there is to know of a source, in one row.

The module of a platform bears the name of its source, holds its payload model, and ends with its row, `PLATFORM`.
Whatever differs between platforms is asked of the row. `docs/new-platform.md` says how to add one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Literal, NamedTuple

from schemas.outcome import Source
from schemas.values import Message, Result


class Path(NamedTuple):
    """A path below `/v1/{tenant}/{source}` that a delivery may go to, such as `{event_type}/{event_id}`."""

    method: Literal["POST", "PUT"]
    template: str
    #: For the contract (`/openapi.json`).
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """One platform. The names in it are those that the tenants file uses; upper and lower case differ."""

    source: Source
    #: As people write it.
    title: str
    #: The whole payload.
    model: type[Result]
    #: As much of a payload as tells whether it is a result; None where every documented message is one.
    kind: type[Message] | None = None
    #: Besides `POST /v1/{tenant}/{source}`, which every platform has.
    paths: tuple[Path, ...] = ()
    #: What each parameter of `paths` is, for the contract.
    parameters: dict[str, str] = field(default_factory=dict)
    #: tests/samples/{source}/{sample}.json: a test takes it through the whole pipeline.
    sample: str

    #: The ids of a result that may name the registration in Rhythm.
    registration_ids: tuple[str, ...] = ()
    #: Whether a result may hold third party ids, one of which may be Rhythm's student id (`third_party`).
    third_party_ids: bool = False
    #: The detail that holds the platform's own id of the candidate.
    candidate_id: str | None = None
    #: Whether the name of a sitting is made of candidate data: the ledger then keeps an HMAC of it instead.
    personal_sitting: bool = False

    #: The score that is written where the exam map names none.
    usual_score: str
    #: Whether the usual score is points, so that a threshold may be meant for points or for the percentage.
    points_or_percent: bool = False
    scores: tuple[str, ...]
    #: Members of the outcome that a custom field may be filled from.
    members: tuple[str, ...] = ()
    #: Kind of part -> the scores that such a part may have.
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Whether a result may carry transformations, one of which may decide.
    transformations: bool = False
    #: One that ends in a dot stands for every name that begins with it.
    details: tuple[str, ...] = ()

    def method(self, path: str) -> str:
        """The HTTP method for a delivery to `path`, the part below the source as it stands in the URL."""
        segments = path.count("/") + 1
        fitting = (one.method for one in self.paths if path and one.template.count("/") + 1 == segments)
        return next(fitting, "POST")

    def sends(self, value: str) -> bool:
        """Whether a custom field's `value` names something that this platform may send."""
        match value.split("."):
            case ["scores", score]:
                return score in self.scores
            case ["parts", kind, _, *_, score]:
                return score in self.parts.get(kind, ())
            case ["details", *name]:
                return any(_stands_for(detail, ".".join(name)) for detail in self.details)
        return value in self.members

    def values(self) -> Iterator[str]:
        """Every `value` that a custom field may have, as one would write it."""
        yield from self.members
        yield from (f"scores.{score}" for score in self.scores)
        yield from (f"details.{name}{'NAME' if name[-1] == '.' else ''}" for name in self.details)
        yield from (f"parts.{kind}.NAME.{score}" for kind, scores in self.parts.items() for score in scores)


def _stands_for(detail: str, name: str) -> bool:
    return name.startswith(detail) and name != detail if detail.endswith(".") else name == detail


@cache
def platform_of(source: Source) -> Platform:
    """The row of a source. Its module is imported at the first call: it takes some 15 ms, which few commands need."""
    row: Platform = import_module(f"schemas.{source}").PLATFORM
    return row
