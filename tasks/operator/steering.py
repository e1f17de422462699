"""Acting on events that stopped or wait: which ones, with which answers, and what comes next for one of them.

`select` is the preview: it moves nothing. `act` moves, and each move is recorded: who, when, why.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

from schemas.event import Answer, Event, EventState, Reason
from tasks.operator.listing import STOPPED, WAITING, Filters, find_event
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import queries, strays

Move = Literal["replay", "discard", "forget"]
#: The states that an operator may act on. Waiting events are taken only when a state or an id asks for them.
_MOVABLE: Final = (*STOPPED, *WAITING)
_OPTIONS: Final = {Answer.REGISTRATION: " --registration REG", Answer.VERDICT: " --verdict passed"}


class Chosen(NamedTuple):
    """An event to act on; to be forgotten also a stray, of no tenant. There may be 100,000 (10 MB of memory)."""

    tenant: str
    id: str
    reason: Reason | None = None


class Moved(NamedTuple):
    """What became of one: whether it was moved, and the state that it is in now."""

    tenant: str
    id: str
    moved: bool
    state: str


class Refused(Exception):
    """The registration that a person named cannot be the event's. The message says why."""


@dataclass
class Selection:
    """What a move would take, and why it would not take the others that were meant."""

    chosen: list[Chosen] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)
    #: What the registration that was named is.
    confirmed: str = ""


def answers_of(registration: str | None, verdict: str | None, accept: list[str] | None) -> dict[str, Any]:
    """An operator's answers, as the ledger keeps them. Raises ConfigurationError for a reason that takes no accept."""
    for reason in accept or ():
        if reason not in set(Reason):
            raise ConfigurationError(f"--accept {reason}: no such reason. There are: {', '.join(sorted(Reason))}.")
        if not Reason(reason).acceptable:
            wanted = Reason(reason).needs
            instead = f"answer with --{wanted}" if wanted else "put it right (docs/operations.md), then replay"
            raise ConfigurationError(f"--accept {reason}: nothing can be written in spite of it; {instead}.")
    answers = {"registration": registration, "verdict": verdict, "accept": accept or None}
    return {name: value for name, value in answers.items() if value is not None}


def needed(event: Event) -> Answer | None:
    """The answer that the event needs to go on."""
    return event.reason.needs if event.reason else None


def lacks(event: Event, answers: dict[str, Any]) -> str | None:
    """Why these answers do not fit the event: the one that it needs is missing, or it does not wait for one of them."""
    wanted = needed(event)
    standing = f"{event.id} is {event.state}" + (f" as {event.reason} ({event.detail})" if event.reason else "")
    accepted = answers.get("accept", ())
    if wanted and not (event.reason in accepted if wanted == "accept" else wanted in answers):
        return f"{standing}: it needs{option(event)}"
    if accepted and not (event.reason and event.reason in accepted and event.reason.acceptable):
        return f"{standing}: --accept {' '.join(accepted)} answers nothing there"
    if "verdict" in answers and wanted != "verdict":
        return f"{standing}: --verdict answers nothing there"
    return None


def option(event: Event) -> str:
    """That answer as an option of the command, with a space before it; empty when it needs none."""
    answer = needed(event)
    return _OPTIONS.get(answer, f" --accept {event.reason}") if answer else ""


def select(
    at: Services, filters: Filters, move: Move, answers: dict[str, Any] | None = None, limit: int | None = None
) -> Selection:
    """The held and dead events that match, and waiting ones that were asked for; the oldest first.

    A registration that is named is read in Rhythm first. Raises ConfigurationError: an empty filter, a final state, a
    registration for several events; Refused; Unchecked when Rhythm cannot be asked.
    """
    given, selection, last = answers or {}, Selection(), None
    for event in _matching(at, filters, move, limit, selection.unmoved):
        if move == "replay" and (lack := lacks(event, given)):
            selection.unmoved.append(lack)
        else:
            selection.chosen.append(Chosen(event.tenant, event.id, event.reason))
            last = event
    if "registration" in given:
        found = len(selection.chosen) + len(selection.unmoved)
        if found > 1:
            raise ConfigurationError(f"--registration answers for one event, and {found} match: say which by --id.")
        if last:
            from tasks.operator.answers import confirm  # brings Celery, which other replays do not need

            selection.confirmed = confirm(at, last, given["registration"])
    return selection


def act(
    at: Services, chosen: Iterable[Chosen], move: Move, by: str, answers: dict[str, Any] | None = None, why: str = ""
) -> Iterator[Moved]:
    """Move one event after the other, as the caller takes what became of it. `by` and `why` go into their history."""
    for event in chosen:
        tenant, id, _ = event
        if move == "replay":
            done = at.ledger.replay(tenant, id, by, _own(event, answers or {}), why)
        elif move == "discard":
            done = at.ledger.discard(tenant, id, by, why)
        elif tenant:
            done = at.ledger.forget(tenant, id, by)
        else:
            done = strays.remove(at.redis, id, by, "forget"), "gone"
        yield Moved(tenant, id, *done)


def _own(event: Chosen, answers: dict[str, Any]) -> dict[str, Any]:
    """The answers for this event: any other accepted reason would also override a problem that is found later."""
    return {name: [event.reason] if name == "accept" else value for name, value in answers.items()}


def _matching(at: Services, filters: Filters, move: Move, limit: int | None, unmoved: list[str]) -> Iterable[Event]:
    """The events to move; those that were named and cannot be moved go to `unmoved`, with the reason."""
    if filters.empty:
        raise ConfigurationError(
            f"{move} needs to know which events: give at least one of --tenant --source --state --reason --since "
            "--until --id."
        )
    if filters.state not in (None, *_MOVABLE):
        raise ConfigurationError(
            f"{move} is for {', '.join(_MOVABLE)} events; {filters.state} is final: there is nothing to {move}."
        )
    if not filters.ids:
        return islice(filters.find(at, among=STOPPED, oldest=True), limit)
    movable = []
    for id in dict.fromkeys(filters.ids):
        event = next(replace(filters, ids=(id,)).find(at), None)
        if event is not None and event.state in _MOVABLE:
            movable.append(event)
        else:
            unmoved.append(_standing(id, event or find_event(at, id), move))
    return sorted(movable, key=lambda event: event.received_at)[:limit]


def _standing(id: str, event: Event | None, move: Move) -> str:
    """The state of an event that was named and cannot be moved."""
    if event is None:
        return f"there is no event {id}; `examrelay events list` shows what there is"
    why = f" ({event.reason or event.result})" if event.reason or event.result else ""
    due = f", due at {event.due_at:%Y-%m-%dT%H:%M:%SZ}" if event.due_at else ""
    standing = f"{id} of tenant {event.tenant} is {event.state}{why}{due}"
    if event.state not in _MOVABLE:
        return f"{standing}: that is final, there is nothing to {move}"
    return f"{standing}: the other filters exclude it"


def next_try(at: Services, event: Event) -> datetime | None:
    """When a waiting event is tried again: when it is due, and Rhythm may be called. None for another event."""
    gate = queries.closed_until(at.redis, event.tenant) if event.state is EventState.READY else None
    return max(filter(None, (event.due_at, gate)), default=None)


def next_step(at: Services, event: Event) -> str:
    """What comes next for an event, in a sentence: what a person types, or when it is tried again."""
    replay = f"examrelay replay --id {event.id}"
    match event.state, event.reason:
        case EventState.HELD, Reason.UNKNOWN_EXAM:
            code = (event.detail or "").removeprefix("not in the exam map: ").partition(",")[0]
            return f"add {code} to the exam map, restart every process, then: {replay}"
        case EventState.HELD, Reason.WRITES_OFF:
            return f"look at it with `examrelay plan --id {event.id}`, then: {replay} --accept writes_off"
        case EventState.HELD, _:
            return f"decide, then: {replay}{option(event)}"
        case EventState.DEAD, _:
            return f"put right what the detail says, then: {replay}"
        case state, _ if state.waiting:
            when = next_try(at, event)
            if when is None or when <= queries.redis_now(at.redis):
                return "nothing to do: it is tried again as soon as a worker is free"
            return f"nothing to do: it is tried again at {when:%Y-%m-%d %H:%M:%SZ}"
    return "nothing to do: that is final"
