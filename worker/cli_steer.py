"""Acts on held and dead events: replay, discard. Each says how many first, and is recorded: who, when, why."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

import typer

from schemas.event import Event, Reason
from schemas.outcome import VerdictAnswer
from worker.bootstrap import Services
from worker.cli_filters import STOPPED, Filters
from worker.cli_output import complain, progress, say
from worker.errors import ConfigurationError

_LACKING_SHOWN: Final = 20
#: The answer without which an event held for a reason would only be held again. `accept`: `--accept REASON`.
_ANSWERS: Final = {
    Reason.REGISTRATION_AMBIGUOUS: "registration",
    Reason.REGISTRATION_MISMATCH: "registration",
    Reason.NOBODY_NAMED: "registration",
    Reason.RESULT_UNSCORED: "verdict",
    Reason.RESULT_CONTRADICTORY: "accept",
    Reason.SCORE_MISSING: "accept",
    Reason.INTEGRITY_REVIEW: "accept",
    Reason.RESULT_CONFLICT: "accept",
    Reason.RESULT_REPEATED: "accept",
    Reason.RESULT_ANCIENT: "accept",
    Reason.REGISTRATION_SETTLED: "accept",
    Reason.REGISTRATION_EDITED: "accept",
    Reason.RHYTHM_ALTERED: "accept",
}


class Chosen(NamedTuple):
    """An event to act on. No more is kept of it: there may be 100,000 (10 MB of memory)."""

    tenant: str
    id: str


def answers_of(registration: str | None, verdict: VerdictAnswer | None, accept: list[str] | None) -> dict[str, Any]:
    """An operator's answers, as the ledger keeps them. Raises ConfigurationError for what is no reason."""
    for reason in accept or ():
        if reason not in set(Reason):
            raise ConfigurationError(f"--accept {reason}: no such reason. There are: {', '.join(sorted(Reason))}.")
    told = {"registration": registration, "verdict": verdict, "accept": accept or None}
    return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class Scope:
    """How far a command on many events goes: at most so many, without asking, past what does not move."""

    limit: int | None = None
    yes: bool = False
    keep_going: bool = False
    #: The operator's reason, which the history keeps.
    why: str = ""


def replay(at: Services, filters: Filters, answers: dict[str, Any], scope: Scope) -> bool:
    """Held and dead events back to `received`, with answers. Returns whether all of them were moved."""
    chosen, lacking = list[Chosen](), 0
    for event in _stopped(at, filters, "replay", scope.limit):
        lack = lacks(event, answers)
        if lack is None:
            chosen.append(Chosen(event.tenant, event.id))
        elif (lacking := lacking + 1) <= _LACKING_SHOWN:
            complain(lack)
    matching = len(chosen) + lacking
    if "registration" in answers and matching > 1:
        raise ConfigurationError(f"--registration answers for one event, and {matching} match: say which by --id.")
    if lacking > _LACKING_SHOWN:
        complain(f"… and {lacking - _LACKING_SHOWN} more")
    if lacking and not scope.keep_going:
        complain(f"nothing was done: {lacking} of {matching} need an answer. --keep-going replays the others")
        return False
    moved = act_on(chosen, "replay", scope, lambda one: at.ledger.replay(*one, who(), answers, scope.why))
    return moved and not lacking


def lacks(event: Event, answers: dict[str, Any]) -> str | None:
    """What is missing without which the event would only be held again."""
    needed = _ANSWERS.get(event.reason) if event.reason else None
    if needed is None or event.reason in answers.get("accept", ()) or (needed != "accept" and needed in answers):
        return None
    return f"{event.id} is held as {event.reason} ({event.detail}): it needs{answer_to(event)}"


def answer_to(event: Event) -> str:
    """The option that the event needs to go on, with a space before it; empty when it needs none."""
    needed = _ANSWERS.get(event.reason) if event.reason else None
    words = {
        "registration": " --registration REG",
        "verdict": " --verdict passed",
        "accept": f" --accept {event.reason}",
    }
    return words[needed] if needed else ""


def discard(at: Services, filters: Filters, scope: Scope) -> bool:
    """Held and dead events set aside for good. Returns whether all of them were moved."""
    chosen = [Chosen(event.tenant, event.id) for event in _stopped(at, filters, "discard", scope.limit)]
    return act_on(chosen, "discard", scope, lambda one: at.ledger.discard(*one, who(), scope.why))


def who() -> str:
    """The operator, as acts are recorded."""
    return os.environ.get("USER") or f"uid {os.getuid()}"


def _stopped(at: Services, filters: Filters, move: str, limit: int | None) -> Iterator[Event]:
    """The held and dead events that match, the oldest first, read as they are asked for.

    Raises ConfigurationError when no filter was given.
    """
    if filters.empty:
        raise ConfigurationError(
            f"{move} needs to know which events: give at least one of --tenant --source --state --reason --since "
            "--until --id."
        )
    if filters.state not in (None, *STOPPED):
        raise ConfigurationError(f"{move} is for held and dead events; {filters.state} ones go on by themselves.")
    with progress() as bars:
        found = islice(filters.find(at, among=STOPPED, oldest=True), limit)
        yield from bars.track(found, description="looking")


def act_on(chosen: Sequence[Chosen], move: str, scope: Scope, act: Callable[[Chosen], tuple[bool, str]]) -> bool:
    """Say how many, ask unless told not to, act on each, and stop at the first that does not move unless told to go on.

    Returns whether all were moved. On a terminal a bar shows how far it is.
    """
    say(f"{len(chosen)} {'event' if len(chosen) == 1 else 'events'} to {move}")
    if not chosen:
        return True
    if not scope.yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(f"nothing was done: add --yes to {move} them.")
        if not typer.confirm(f"{move} them?"):
            return False
    moved = 0
    with progress() as bars:
        for one in bars.track(chosen, description=move):
            done, state = act(one)
            moved += done
            if not done:
                complain(f"{one.id} was not moved: it is {state} by now")
                if not scope.keep_going:
                    break
    left = f", {len(chosen) - moved} not" if moved < len(chosen) else ""
    say(f"{moved} done{left}")
    return not left
