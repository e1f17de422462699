"""Which events a command is about: the filter options, said once for all commands, and the options that many share."""

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from schemas.event import EventState
from schemas.outcome import Source
from tasks.operator.listing import Filters

TenantFilter = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
AtMost = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many, oldest first.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Do not stop at the first event that cannot be moved.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many, newest first.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Why = Annotated[str, typer.Option("--why", help="Why. Recorded with your name; no personal data.")]
#: The filter options by the name of their field in `Filters`, in the order of `--help`.
_OPTIONS: Final = {
    "tenant": TenantFilter,
    "source": Annotated[Source | None, typer.Option("--source", help="Only this exam platform's.")],
    "state": Annotated[EventState | None, typer.Option("--state", help="Only in this state.")],
    "reason": Annotated[str | None, typer.Option("--reason", help="Only with this reason.")],
    "since": Annotated[datetime | None, typer.Option("--since", help="Received at or after this time (UTC).")],
    "until": Annotated[datetime | None, typer.Option("--until", help="Received before this time (UTC).")],
    "ids": Annotated[list[str] | None, typer.Option("--id", help="This event; may be repeated.")],
}


def filtered(state: EventState | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that takes `filters: Filters`: on the command line the filter options stand in its place.

    `state`: the command is about this state alone and has no `--state`.
    """
    options = {name: option for name, option in _OPTIONS.items() if name != "state" or state is None}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            chosen = {name: given.pop(name) for name in options}
            chosen["ids"] = tuple(chosen["ids"] or ())
            command(filters=Filters(**{"state": state, **chosen}), **given)

        run.__dict__["__signature__"] = _signature(command, options)  # Typer makes the options from it
        return run

    return decorate


def _signature(command: Callable[..., None], options: dict[str, Any]) -> inspect.Signature:
    parameters = list[inspect.Parameter]()
    for own in inspect.signature(command).parameters.values():
        if own.name == "filters":
            parameters += [
                inspect.Parameter(name, own.KEYWORD_ONLY, default=None, annotation=option)
                for name, option in options.items()
            ]
        else:
            parameters.append(own.replace(kind=own.KEYWORD_ONLY))
    return inspect.Signature(parameters)
