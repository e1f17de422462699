"""Which of a delivery's results counts. Pure: (siblings, arriving) -> apply, supersede, conflict.

A rescore replaces an original whichever comes first. Two originals, or two rescores, that differ are a conflict: the
applied one stands until a person decides, unless the tenant says that the one received last counts.

Two people under one delivery are a platform's mistake (an id that was never set). No result replaces another person's:
the first person's results are applied, and a person decides about the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from schemas.event import EventState


class Order(StrEnum):
    """What to do with a result that arrives when its delivery already has others."""

    APPLY = "apply"
    SUPERSEDED = "superseded"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Version:
    """One result of a delivery, and where the event that brought it stands (None: pruned)."""

    version: str
    state: EventState | None
    received_at: datetime
    #: Whether it is of another person than the arriving one.
    stranger: bool = False

    @property
    def rescore(self) -> bool:
        """Whether it came from rescoring (Certiverse `isRescore`)."""
        return self.version.startswith("r-")

    @property
    def counts(self) -> bool:
        """Whether this version still counts: its event is not dead, discarded or replaced."""
        return self.state not in (EventState.DEAD, EventState.DISCARDED, EventState.SUPERSEDED)


def order(
    arriving: Version,
    siblings: Sequence[Version],
    applied: str | None,
    rescore_order: Literal["hold", "received"] = "hold",
    *,
    accepted: bool = False,
) -> Order:
    """Whether `arriving` counts, given the other versions of its delivery and this person's version applied last.

    `accepted`: a person has said that it does. That decides a conflict, but an original never replaces a rescore.
    """
    if applied == arriving.version:
        return Order.APPLY
    mine = [version for version in siblings if version.version != arriving.version and not version.stranger]
    others = [version for version in mine if version.counts]
    applied_rescore = applied is not None and applied.startswith("r-")
    if not arriving.rescore and (applied_rescore or any(other.rescore for other in others)):
        return Order.SUPERSEDED
    if accepted:
        return Order.APPLY
    if any(one.stranger and one.counts and one.received_at <= arriving.received_at for one in siblings):
        return Order.CONFLICT
    rivals = [other for other in others if other.rescore == arriving.rescore]
    if not rivals:
        return Order.APPLY
    if rescore_order == "received":
        newest = all(arriving.received_at >= rival.received_at for rival in rivals)
        return Order.APPLY if newest else Order.SUPERSEDED
    return Order.CONFLICT
