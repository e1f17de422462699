"""Decisions: what a task makes of the events it has claimed, as the `apply` script takes them."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from schemas.event import EventState, Reason

Move = Literal["drop", "hold", "bury", "settle", "defer"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One event's next move. Build it with the functions below."""

    id: str
    move: Move
    to: EventState | None = None
    reason: Reason | None = None
    detail: str | None = None
    #: The fields that only this move has, as the script reads them.
    more: dict[str, Any] = field(default_factory=dict)

    def as_arguments(self) -> dict[str, Any]:
        """The decision as the script reads it; what is None is left out."""
        fields = {"id": self.id, "move": self.move, "to": self.to, "reason": self.reason, "detail": self.detail}
        return {name: value for name, value in fields.items() if value is not None} | self.more


def drop(id: str, to: EventState, detail: str, *, keep_intent: bool = False) -> Decision:
    """Ends without an effect: ignored, duplicate, superseded. `keep_intent`: its write may be applied, or may yet."""
    return Decision(id, "drop", to, detail=detail, more={"keep_intent": True} if keep_intent else {})


def stop(
    id: str, reason: Reason, detail: str, registration: str | None = None, *, keep_intent: bool = False, words: str = ""
) -> Decision:
    """Waits for a person: held or dead, as the reason's policy says. `registration`: what it was about to write to.

    `keep_intent`: it may have been applied; a replay begins by reading that. `words`: Rhythm's own.
    """
    given = {"registration": registration, "words": words, "keep_intent": keep_intent}
    more = {name: value for name, value in given.items() if value}
    to = reason.policy.ends_in
    return Decision(id, "hold" if to is EventState.HELD else "bury", to, reason, detail, more=more)


def defer(
    id: str,
    delay: timedelta,
    reason: Reason | None = None,
    detail: str | None = None,
    *,
    attempt: bool = False,
    keep_intent: bool = False,
) -> Decision:
    """Back to the index, due later. `attempt`: the try reached Rhythm. `keep_intent`: it may have been applied."""
    more = {"delay": delay // timedelta(milliseconds=1), "attempt": attempt, "keep_intent": keep_intent}
    return Decision(id, "defer", reason=reason, detail=detail, more=more)


def settle(
    id: str,
    result: Literal["written", "unchanged"],
    registration: str,
    *,
    sys_version: int | None,
    values: str,
    base: str = "",
) -> Decision:
    """Rhythm says what the result says: because we wrote it (on top of version `base`), or because it did already."""
    more: dict[str, Any] = {"result": result, "registration": registration, "values": values}
    if sys_version is not None:
        more["sys_version"] = sys_version
    if base:
        more["base"] = base
    return Decision(id, "settle", EventState.SYNCED, more=more)


def about(decision: Decision, who: str) -> Decision:
    """The same decision, about an event of a candidate with these names (`trace.py`)."""
    return replace(decision, more=decision.more | {"who": who})
