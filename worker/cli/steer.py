"""`examrelay replay`, `examrelay discard`: act on events that stopped or wait.

Each says how many first, asks, and is recorded: who, when, why.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from schemas.outcome import VerdictAnswer
from tasks.operator import steering
from tasks.operator.listing import WAITING, Filters
from tasks.operator.steering import Chosen, Move, Refused, answers_of
from worker.bootstrap import Services
from worker.cli.filters import AtMost, KeepGoing, Why, Yes, filtered
from worker.cli.output import complain, end, progress, say, suggest
from worker.cli.services import open_services, warn_of_other_files, warnings_to_stderr, who
from worker.errors import ConfigurationError

_DONE: Final = {"replay": "replayed", "discard": "discarded", "forget": "forgotten"}
#: How many of the events that cannot be moved are shown.
_UNMOVED_SHOWN: Final = 20


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
    at, _ = open_services()
    warn_of_other_files(at)
    end(move_events(at, filters, "replay", Scope(limit, yes, keep_going, why), answers))


@filtered()
def discard(why: Why, filters: Filters, limit: AtMost = None, yes: Yes = False, keep_going: KeepGoing = False) -> None:
    end(move_events(open_services()[0], filters, "discard", Scope(limit, yes, keep_going, why)))


def move_events(
    at: Services, filters: Filters, move: Move, scope: Scope, answers: dict[str, Any] | None = None
) -> bool:
    """Say what would move and what would not, ask, and move. Returns whether all of them were moved.

    Raises Unchecked when Rhythm cannot be asked for the registration named.
    """
    if answers and "registration" in answers:
        warnings_to_stderr()
    try:
        with progress() as bars:
            bars.add_task("looking", total=None)
            selection = steering.select(at, filters, move, answers, scope.limit)
    except Refused as refused:
        complain(f"nothing was done: {refused}")
        return False
    if not goes_on(selection.unmoved, scope, move):
        return False
    if selection.confirmed:
        say(selection.confirmed)
    if not selection.chosen and filters.state is None and not filters.ids:
        complain(
            f"without --state and --id only held and dead events are taken; for {' and '.join(WAITING)} ones give one"
        )
    return act_on(at, selection.chosen, move, scope, answers) and not selection.unmoved


def goes_on(unmoved: list[str], scope: Scope, move: str) -> bool:
    """Say why events cannot be moved. Returns whether the others are."""
    for why in unmoved[:_UNMOVED_SHOWN]:
        complain(why)
    if len(unmoved) > _UNMOVED_SHOWN:
        complain(f"… and {len(unmoved) - _UNMOVED_SHOWN} more")
    if unmoved and not scope.keep_going:
        complain(f"nothing was done: {len(unmoved)} cannot be moved so. --keep-going {move}s the others")
    return not unmoved or scope.keep_going


def act_on(
    at: Services, chosen: Sequence[Chosen], move: Move, scope: Scope, answers: dict[str, Any] | None = None
) -> bool:
    """Say how many, ask (unless `yes`), act on each, and stop at the first that does not move (unless `keep_going`).

    Returns whether all were moved.
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
        acts = steering.act(at, chosen, move, who(), answers, scope.why)
        for became in bars.track(acts, total=len(chosen), description=move):
            moved += became.moved
            if not became.moved:
                complain(f"{became.id} was not moved: it is {became.state}")
                if not scope.keep_going:
                    break
    left = f", {len(chosen) - moved} not" if moved < len(chosen) else ""
    say(f"{moved} {_DONE[move]}{left}")
    if moved and move == "replay":
        watch = f"show {chosen[0].id}" if len(chosen) == 1 else f"list --follow --tenant {chosen[0].tenant}"
        suggest(f"watch: examrelay events {watch}")
    return not left
