"""`examrelay replay`, `examrelay discard`: act on events that stopped or wait.

Each says how many first, asks, and is recorded: who, when, why.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple

import typer

from schemas.event import Event, Reason
from schemas.outcome import VerdictAnswer
from worker.bootstrap import Services
from worker.cli.filters import STOPPED, WAITING, AtMost, Filters, KeepGoing, Why, Yes, filtered
from worker.cli.output import complain, end, progress, say
from worker.cli.services import open_services, warnings_to_stderr, who
from worker.errors import ConfigurationError
from worker.ledger import queries

#: How many of the events that cannot be moved are shown.
_UNMOVED_SHOWN: Final = 20


class Chosen(NamedTuple):
    """An event to act on. No more is kept of it: there may be 100,000 (10 MB of memory)."""

    tenant: str
    id: str
    reason: Reason | None = None


#: The states that an operator may act on. Waiting events are taken only when `--state` or `--id` asks for them.
_MOVABLE: Final = (*STOPPED, *WAITING)


def answers_of(registration: str | None, verdict: VerdictAnswer | None, accept: list[str] | None) -> dict[str, Any]:
    """An operator's answers, as the ledger keeps them. Raises ConfigurationError for a reason that takes no accept."""
    for reason in accept or ():
        if reason not in set(Reason):
            raise ConfigurationError(f"--accept {reason}: no such reason. There are: {', '.join(sorted(Reason))}.")
        if not Reason(reason).acceptable:
            needed = Reason(reason).needs
            instead = f"answer with --{needed}" if needed else "put it right (docs/operations.md), then replay"
            raise ConfigurationError(f"--accept {reason}: nothing can be written in spite of it; {instead}.")
    answers = {"registration": registration, "verdict": verdict, "accept": accept or None}
    return {name: value for name, value in answers.items() if value is not None}


@dataclass(frozen=True)
class Scope:
    """How far a command on many events goes: at most how many, without asking, past those that cannot be moved."""

    limit: int | None = None
    yes: bool = False
    keep_going: bool = False
    #: The operator's reason, which the history keeps.
    why: str = ""


@filtered()
def replay(
    filters: Filters,
    registration: Annotated[str | None, typer.Option(help="Your answer: the result is for this registration.")] = None,
    verdict: Annotated[VerdictAnswer | None, typer.Option(help="Your answer: the result counts as this.")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="Your answer: write it although it is held for this reason.")
    ] = None,
    why: Why = "",
    limit: AtMost = None,
    yes: Yes = False,
    keep_going: KeepGoing = False,
) -> None:
    answers = answers_of(registration, verdict, accept)
    end(replay_events(open_services()[0], filters, answers, Scope(limit, yes, keep_going, why)))


@filtered()
def discard(why: Why, filters: Filters, limit: AtMost = None, yes: Yes = False, keep_going: KeepGoing = False) -> None:
    end(discard_events(open_services()[0], filters, Scope(limit, yes, keep_going, why)))


def replay_events(at: Services, filters: Filters, answers: dict[str, Any], scope: Scope) -> bool:
    """Held and dead events, and waiting ones that were asked for, back to `received`, with answers.

    Returns whether all of them were moved. Raises Unchecked when Rhythm cannot be asked for the registration named.
    """
    matching, unmoved = _chosen(at, filters, "replay", scope.limit)
    chosen, last = list[Chosen](), None
    for event in matching:
        if lack := lacks(event, answers):
            unmoved.append(lack)
        else:
            chosen.append(Chosen(event.tenant, event.id, event.reason))
            last = event
    if "registration" in answers and len(chosen) + len(unmoved) > 1:
        raise ConfigurationError(
            f"--registration answers for one event, and {len(chosen) + len(unmoved)} match: say which by --id."
        )
    if not _goes_on(unmoved, scope, "replay"):
        return False
    if last and "registration" in answers and not _is_there(at, last, answers["registration"]):
        return False
    moved = act_on(
        chosen,
        "replay",
        scope,
        lambda event: at.ledger.replay(event.tenant, event.id, who(), _own(event, answers), scope.why),
    )
    return moved and not unmoved


def _own(event: Chosen, answers: dict[str, Any]) -> dict[str, Any]:
    """The answers for this event: any other accepted reason would also override a problem that is found later."""
    return {name: [event.reason] if name == "accept" else value for name, value in answers.items()}


def _is_there(at: Services, event: Event, registration: str) -> bool:
    """Say what the registration is, or why it cannot be the event's; then nothing is done."""
    from tasks.operator.answers import Refused, confirm  # brings Celery, which other replays do not need

    warnings_to_stderr()
    try:
        say(confirm(at, event, registration))
    except Refused as refused:
        complain(f"nothing was done: {refused}")
        return False
    return True


def _goes_on(unmoved: list[str], scope: Scope, move: str) -> bool:
    """Say why events cannot be moved. Returns whether the others are."""
    for why in unmoved[:_UNMOVED_SHOWN]:
        complain(why)
    if len(unmoved) > _UNMOVED_SHOWN:
        complain(f"… and {len(unmoved) - _UNMOVED_SHOWN} more")
    if unmoved and not scope.keep_going:
        complain(f"nothing was done: {len(unmoved)} cannot be moved so. --keep-going {move}s the others")
    return not unmoved or scope.keep_going


def lacks(event: Event, answers: dict[str, Any]) -> str | None:
    """Why these answers do not fit the event: the one that it needs is missing, or it does not wait for one of them."""
    needed = event.reason.needs if event.reason else None
    standing = f"{event.id} is {event.state}" + (f" as {event.reason} ({event.detail})" if event.reason else "")
    accepted = answers.get("accept", ())
    if needed and not (event.reason in accepted if needed == "accept" else needed in answers):
        return f"{standing}: it needs{answer_to(event)}"
    if accepted and not (event.reason and event.reason in accepted and event.reason.acceptable):
        return f"{standing}: --accept {' '.join(accepted)} answers nothing there"
    if "verdict" in answers and needed != "verdict":
        return f"{standing}: --verdict answers nothing there"
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


def discard_events(at: Services, filters: Filters, scope: Scope) -> bool:
    """Held and dead events, and waiting ones that were asked for, set aside for good. Returns as `replay_events`."""
    matching, unmoved = _chosen(at, filters, "discard", scope.limit)
    chosen = [Chosen(event.tenant, event.id) for event in matching]
    if not _goes_on(unmoved, scope, "discard"):
        return False
    moved = act_on(chosen, "discard", scope, lambda event: at.ledger.discard(event.tenant, event.id, who(), scope.why))
    return moved and not unmoved


def _chosen(at: Services, filters: Filters, move: str, limit: int | None) -> tuple[Iterable[Event], list[str]]:
    """The events to move, the oldest first; and why those that were named and cannot be moved cannot."""
    unmoved = list[str]()
    if not filters.ids:
        return _matching(at, filters, move, limit), unmoved
    movable = []
    for id in dict.fromkeys(filters.ids):
        event = next(replace(filters, ids=(id,)).find(at), None)
        if event is not None and event.state in _MOVABLE:
            movable.append(event)
        else:
            unmoved.append(_standing(at, id, event, move))
    return sorted(movable, key=lambda event: event.received_at)[:limit], unmoved


def _standing(at: Services, id: str, event: Event | None, move: str) -> str:
    """The state of an event that was named and cannot be moved."""
    everywhere = (queries.event(at.redis, tenant, id) for tenant in queries.tenants(at.redis))
    here = event or next(filter(None, everywhere), None)
    if here is None:
        return f"there is no event {id}; `examrelay events list` shows what there is"
    why = f" ({here.reason or here.result})" if here.reason or here.result else ""
    due = f", due at {here.due_at:%Y-%m-%dT%H:%M:%SZ}" if here.due_at else ""
    standing = f"{id} of tenant {here.tenant} is {here.state}{why}{due}"
    if here.state not in _MOVABLE:
        return f"{standing}: that is final, there is nothing to {move}"
    return f"{standing}: the other filters exclude it"


def _matching(at: Services, filters: Filters, move: str, limit: int | None) -> Iterator[Event]:
    """The held and dead events that match, or those of the state asked for: the oldest first, read as they are taken.

    Raises ConfigurationError when no filter was given.
    """
    if filters.empty:
        raise ConfigurationError(
            f"{move} needs to know which events: give at least one of --tenant --source --state --reason --since "
            "--until --id."
        )
    if filters.state not in (None, *_MOVABLE):
        raise ConfigurationError(
            f"{move} is for {', '.join(_MOVABLE)} events; {filters.state} is final: there is nothing to {move}."
        )
    nothing = True
    with progress() as bars:
        events = islice(filters.find(at, among=STOPPED, oldest=True), limit)
        for event in bars.track(events, description="looking"):
            nothing = False
            yield event
    if nothing and filters.state is None:
        complain(
            f"without --state and --id only held and dead events are taken; for {' and '.join(WAITING)} ones give one"
        )


def act_on(chosen: Sequence[Chosen], move: str, scope: Scope, act: Callable[[Chosen], tuple[bool, str]]) -> bool:
    """Say how many, ask (unless `yes`), act on each, and stop at the first that does not move (unless `keep_going`).

    Returns whether all were moved. `act`: whether the event was moved, and the state that it is in now.
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
