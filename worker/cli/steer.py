"""Acts on events that stopped or wait: replay, discard. Each says how many first, and is recorded: who, when, why."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, NamedTuple

import typer

from schemas.event import Event, EventState, Reason
from schemas.outcome import VerdictAnswer
from worker.bootstrap import Services
from worker.cli.filters import STOPPED, Filters
from worker.cli.output import complain, progress, say
from worker.cli.services import who
from worker.errors import ConfigurationError
from worker.ledger import queries

_LACKING_SHOWN: Final = 20


class Chosen(NamedTuple):
    """An event to act on. No more is kept of it: there may be 100,000 (10 MB of memory)."""

    tenant: str
    id: str
    reason: Reason | None = None


#: Where an event waits for a machine: taken only when it is asked for, by `--state` or `--id`.
_WAITING: Final = (EventState.RECEIVED, EventState.READY)


def answers_of(registration: str | None, verdict: VerdictAnswer | None, accept: list[str] | None) -> dict[str, Any]:
    """An operator's answers, as the ledger keeps them. Raises ConfigurationError for what is no answer to a reason."""
    for reason in accept or ():
        if reason not in set(Reason):
            raise ConfigurationError(f"--accept {reason}: no such reason. There are: {', '.join(sorted(Reason))}.")
        if not Reason(reason).acceptable:
            needed = Reason(reason).needs
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
    found, left = _chosen(at, filters, "replay", scope.limit)
    fit, named = list[Chosen](), None
    for event in found:
        if lack := lacks(event, answers):
            left.add(lack)
        else:
            fit.append(Chosen(event.tenant, event.id, event.reason))
            named = event
    if "registration" in answers and len(fit) + left.count > 1:
        raise ConfigurationError(
            f"--registration answers for one event, and {len(fit) + left.count} match: say which by --id."
        )
    if not _goes_on(left, scope, "replay"):
        return False
    if named and "registration" in answers and not _is_there(at, named, answers["registration"]):
        return False
    moved = act_on(
        fit, "replay", scope, lambda one: at.ledger.replay(one.tenant, one.id, who(), _own(one, answers), scope.why)
    )
    return moved and not left.count


def _own(one: Chosen, answers: dict[str, Any]) -> dict[str, Any]:
    """Of the answers those for this event: an accepted reason that is not its own would disarm what may come later."""
    return {name: [one.reason] if name == "accept" else value for name, value in answers.items()}


def _is_there(at: Services, event: Event, registration: str) -> bool:
    """Say what the registration is, or that it cannot be the event's; then nothing is done."""
    from tasks.operator.answers import (  # brings the Celery app, which reads the environment when imported
        Refused,
        confirm,
    )

    try:
        say(confirm(at, event, registration))
    except Refused as refused:
        complain(f"nothing was done: {refused}")
        return False
    return True


@dataclass
class Left:
    """What was named or matches and is not moved: how many, and why the first of them."""

    count: int = 0
    why: list[str] = field(default_factory=list)

    def add(self, why: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= _LACKING_SHOWN:
            self.why.append(why)


def _goes_on(left: Left, scope: Scope, move: str) -> bool:
    """Say which cannot be moved, and whether the others are."""
    for one in left.why:
        complain(one)
    if left.count > _LACKING_SHOWN:
        complain(f"… and {left.count - _LACKING_SHOWN} more")
    if left.count and not scope.keep_going:
        complain(f"nothing was done: {left.count} cannot be moved so. --keep-going {move}s the others")
    return not left.count or scope.keep_going


def lacks(event: Event, answers: dict[str, Any]) -> str | None:
    """Why these answers are not for the event: the one that it needs is missing, or one answers nothing there."""
    needed = event.reason.needs if event.reason else None
    told = f"{event.id} is {event.state}" + (f" as {event.reason} ({event.detail})" if event.reason else "")
    accepted = answers.get("accept", ())
    if needed and not (event.reason in accepted if needed == "accept" else needed in answers):
        return f"{told}: it needs{answer_to(event)}"
    if accepted and not (event.reason and event.reason in accepted and event.reason.acceptable):
        return f"{told}: --accept {' '.join(accepted)} answers nothing there"
    if "verdict" in answers and needed != "verdict":
        return f"{told}: --verdict answers nothing there"
    return None


def answer_to(event: Event) -> str:
    """The option that the event needs to go on, with a space before it; empty when it needs none."""
    needed = event.reason.needs if event.reason else None
    words = {
        "registration": " --registration REG",
        "verdict": " --verdict passed",
        "accept": f" --accept {event.reason}",
    }
    return words[needed] if needed else ""


def discard(at: Services, filters: Filters, scope: Scope) -> bool:
    """Held and dead events, and waiting ones that were asked for, set aside for good. Returns as `replay`."""
    found, left = _chosen(at, filters, "discard", scope.limit)
    chosen = [Chosen(event.tenant, event.id) for event in found]
    if not _goes_on(left, scope, "discard"):
        return False
    moved = act_on(chosen, "discard", scope, lambda one: at.ledger.discard(one.tenant, one.id, who(), scope.why))
    return moved and not left.count


def _chosen(at: Services, filters: Filters, move: str, limit: int | None) -> tuple[Iterable[Event], Left]:
    """The events to move, the oldest first; and of those that were named and cannot be, why."""
    left = Left()
    if not filters.ids:
        return _matching(at, filters, move, limit), left
    found = []
    for id in dict.fromkeys(filters.ids):
        event = next(replace(filters, ids=(id,)).find(at), None)
        if event is not None and event.state in (*STOPPED, *_WAITING):
            found.append(event)
        else:
            left.add(_standing(at, id, event, move))
    return sorted(found, key=lambda event: event.received_at)[:limit], left


def _standing(at: Services, id: str, event: Event | None, move: str) -> str:
    """Where an event stands that was named and is not moved."""
    everywhere = (queries.event(at.redis, tenant, id) for tenant in queries.tenants(at.redis))
    here = event or next(filter(None, everywhere), None)
    if here is None:
        return f"there is no event {id}; `examrelay events list` shows what there is"
    why = f" ({here.reason or here.result})" if here.reason or here.result else ""
    due = f", next looked at {here.due_at:%Y-%m-%dT%H:%M:%SZ}" if here.due_at else ""
    told = f"{id} of tenant {here.tenant} is {here.state}{why}{due}"
    if here.state not in (*STOPPED, *_WAITING):
        return f"{told}: that is final, there is nothing to {move}"
    return f"{told}: the other filters do not take it"


def _matching(at: Services, filters: Filters, move: str, limit: int | None) -> Iterator[Event]:
    """The held and dead events that match, or those of the state asked for: the oldest first, read as they are taken.

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
    nothing = True
    with progress() as bars:
        found = islice(filters.find(at, among=STOPPED, oldest=True), limit)
        for event in bars.track(found, description="looking"):
            nothing = False
            yield event
    if nothing and filters.state is None:
        complain(f"without --state or --id, held and dead events are looked for; {' and '.join(_WAITING)} ones wait")


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
                complain(f"{one.id} was not moved: it is {state}")
                if not scope.keep_going:
                    break
    left = f", {len(chosen) - moved} not" if moved < len(chosen) else ""
    say(f"{moved} done{left}")
    return not left
