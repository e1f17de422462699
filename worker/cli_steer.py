"""Acts on events that stopped or wait: replay, discard. Each says how many first, and is recorded: who, when, why."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import typer

from schemas.event import Event, EventState, Reason
from schemas.outcome import VerdictAnswer
from worker.bootstrap import Services
from worker.cli_filters import STOPPED, Filters
from worker.cli_output import complain, progress, say
from worker.errors import ConfigurationError
from worker.ledger import index

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


#: Put right elsewhere, but may be written in spite of it.
_ACCEPTABLE: Final = {Reason.WRITES_OFF, *(reason for reason, needed in _ANSWERS.items() if needed == "accept")}
#: Where an event waits for a machine: taken only when it is asked for, by `--state` or `--id`.
_WAITING: Final = (EventState.RECEIVED, EventState.READY)


def answers_of(registration: str | None, verdict: VerdictAnswer | None, accept: list[str] | None) -> dict[str, Any]:
    """An operator's answers, as the ledger keeps them. Raises ConfigurationError for what is no answer to a reason."""
    for reason in accept or ():
        if reason not in set(Reason):
            raise ConfigurationError(f"--accept {reason}: no such reason. There are: {', '.join(sorted(Reason))}.")
        if reason not in _ACCEPTABLE:
            needed = _ANSWERS.get(Reason(reason))
            instead = f"answer with --{needed}" if needed else "put it right (docs/operations.md), then replay"
            raise ConfigurationError(f"--accept {reason}: nothing can be written in spite of it; {instead}.")
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
    """Held and dead events, and waiting ones that were asked for, back to `received`, with answers.

    Returns whether all of them were moved. Raises Unchecked when Rhythm cannot be asked for the registration named.
    """
    chosen, left = _chosen(at, filters, "replay", scope.limit)
    if "registration" in answers and len(chosen) > 1:
        raise ConfigurationError(f"--registration answers for one event, and {len(chosen)} match: say which by --id.")
    left += [lack for event in chosen if (lack := lacks(event, answers))]
    if not _goes_on(left, scope, "replay"):
        return False
    fit = [event for event in chosen if not lacks(event, answers)]
    if fit and "registration" in answers and not _is_there(at, fit[0], answers["registration"]):
        return False
    moved = act_on(
        fit, "replay", scope,
        lambda event: at.ledger.replay(event.tenant, event.id, who(), _own(event, answers), scope.why),
    )  # fmt: skip
    return moved and not left


def _own(event: Event, answers: dict[str, Any]) -> dict[str, Any]:
    """Of the answers those for this event: an accepted reason that is not its own would disarm what may come later."""
    return {name: [event.reason] if name == "accept" else value for name, value in answers.items()}


def _is_there(at: Services, event: Event, registration: str) -> bool:
    """Say what the registration is, or that it cannot be the event's; then nothing is done."""
    from tasks.answers import Refused, confirm  # brings the Celery app, which reads the environment when imported

    try:
        say(confirm(at, event, registration))
    except Refused as refused:
        complain(f"nothing was done: {refused}")
        return False
    return True


def _goes_on(left: list[str], scope: Scope, move: str) -> bool:
    """Say which cannot be moved, and whether the others are."""
    for one in left[:_LACKING_SHOWN]:
        complain(one)
    if len(left) > _LACKING_SHOWN:
        complain(f"… and {len(left) - _LACKING_SHOWN} more")
    if left and not scope.keep_going:
        complain(f"nothing was done: {len(left)} cannot be moved so. --keep-going {move}s the others")
    return not left or scope.keep_going


def lacks(event: Event, answers: dict[str, Any]) -> str | None:
    """Why these answers are not for the event: the one that it needs is missing, or one answers nothing there."""
    needed = _ANSWERS.get(event.reason) if event.reason else None
    told = f"{event.id} is {event.state}" + (f" as {event.reason} ({event.detail})" if event.reason else "")
    accepted = answers.get("accept", ())
    if needed and not (event.reason in accepted if needed == "accept" else needed in answers):
        return f"{told}: it needs{answer_to(event)}"
    if accepted and event.reason not in _ACCEPTABLE.intersection(accepted):
        return f"{told}: --accept {' '.join(accepted)} answers nothing there"
    if "verdict" in answers and needed != "verdict":
        return f"{told}: --verdict answers nothing there"
    return None


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
    """Held and dead events, and waiting ones that were asked for, set aside for good. Returns as `replay`."""
    chosen, left = _chosen(at, filters, "discard", scope.limit)
    if not _goes_on(left, scope, "discard"):
        return False
    act = act_on(chosen, "discard", scope, lambda event: at.ledger.discard(event.tenant, event.id, who(), scope.why))
    return act and not left


def who() -> str:
    """The operator, as acts are recorded."""
    return os.environ.get("USER") or f"uid {os.getuid()}"


def _chosen(at: Services, filters: Filters, move: str, limit: int | None) -> tuple[list[Event], list[str]]:
    """The events to move, the oldest first; and of each that was named and cannot be, why."""
    if filters.ids:
        named = {id: next(replace(filters, ids=(id,)).find(at), None) for id in dict.fromkeys(filters.ids)}
        found = [event for event in named.values() if event is not None and event.state in (*STOPPED, *_WAITING)]
        fit = {event.id for event in found}
        left = [_standing(at, id, event, move) for id, event in named.items() if id not in fit]
        return sorted(found, key=lambda event: event.received_at)[:limit], left
    found = _stopped(at, filters, move, limit)
    if not found and filters.state is None:
        complain(f"without --state or --id, held and dead events are looked for; {' and '.join(_WAITING)} ones wait")
    return found, []


def _standing(at: Services, id: str, event: Event | None, move: str) -> str:
    """Where an event stands that was named and is not moved."""
    here = event or next(filter(None, (index.event(at.redis, tenant, id) for tenant in index.tenants(at.redis))), None)
    if here is None:
        return f"there is no event {id}; `examrelay events list` shows what there is"
    why = f" ({here.reason or here.result})" if here.reason or here.result else ""
    due = f", next looked at {here.due_at:%Y-%m-%dT%H:%M:%SZ}" if here.due_at else ""
    told = f"{id} of tenant {here.tenant} is {here.state}{why}{due}"
    if here.state not in (*STOPPED, *_WAITING):
        return f"{told}: that is final, there is nothing to {move}"
    return f"{told}: the other filters do not take it"


def _stopped(at: Services, filters: Filters, move: str, limit: int | None) -> list[Event]:
    """The held and dead events that match, or those of the state that is asked for, the oldest first.

    Raises ConfigurationError when no filter was given.
    """
    if filters.empty:
        raise ConfigurationError(
            f"{move} needs to know which events: give at least one of --tenant --source --state --reason --since "
            "--until --id."
        )
    if filters.state not in (None, *STOPPED, *_WAITING):
        raise ConfigurationError(
            f"{move} is for {', '.join((*STOPPED, *_WAITING))} events; {filters.state} is final: nothing is left to do."
        )
    states = [filters.state] if filters.state else STOPPED
    found = [event for state in states for event in replace(filters, state=state).find(at)]
    return sorted(found, key=lambda event: event.received_at)[:limit]


def act_on(chosen: list[Event], move: str, scope: Scope, act: Callable[[Event], tuple[bool, str]]) -> bool:
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
        for event in bars.track(chosen, description=move):
            done, state = act(event)
            moved += done
            if not done:
                complain(f"{event.id} was not moved: it is {state}")
                if not scope.keep_going:
                    break
    left = f", {len(chosen) - moved} not" if moved < len(chosen) else ""
    say(f"{moved} done{left}")
    return not left
