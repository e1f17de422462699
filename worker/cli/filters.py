"""Which events a command is about: the filter options, said once for all commands, and the options that many share."""

import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Final

import typer

from schemas.event import EventState
from schemas.outcome import Source
from tasks.operator.listing import Filters
from worker.cli.output import remark

TenantFilter = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
AtMost = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many, oldest first.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Do not stop at the first event that cannot be moved.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many, newest first.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Why = Annotated[str, typer.Option("--why", help="Why. Recorded with your name; no personal data.")]
_AGO: Final = re.compile(r"(\d{1,5})\s*([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS: Final = {"today": 0, "yesterday": 1}
_TIMES: Final = (
    "2026-11-01, 2026-11-01T10:00, yesterday, today, or 24h ago as 24h; this machine's time, unless Z or +01:00"
)


def moment(words: str) -> datetime:
    """An instant that a person names: `24h` (ago; m, h, d, w), `yesterday`, `today`, ISO 8601. Without a zone: ours."""
    now = datetime.now().astimezone()
    if ago := _AGO.fullmatch(words.strip()):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    if words in _DAYS:
        return datetime.combine(now.date() - timedelta(days=_DAYS[words]), time.min).astimezone()
    try:
        return datetime.fromisoformat(words).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{words} is no time: {_TIMES}.") from None


#: The filter options by the name of their field in `Filters`, in the order of `--help`.
_OPTIONS: Final = {
    "tenant": TenantFilter,
    "source": Annotated[Source | None, typer.Option("--source", help="Only this exam platform's.")],
    "state": Annotated[EventState | None, typer.Option("--state", help="Only in this state.")],
    "reason": Annotated[str | None, typer.Option("--reason", help="Only with this reason.")],
    "since": Annotated[
        datetime | None,
        typer.Option("--since", parser=moment, metavar="TIME", help=f"Received then or later: {_TIMES}."),
    ],
    "until": Annotated[
        datetime | None, typer.Option("--until", parser=moment, metavar="TIME", help="Received before then.")
    ],
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
            for name in ("since", "until"):
                if at := chosen[name]:
                    remark(f"{name} {at:%Y-%m-%d %H:%M:%S %Z}, that is {at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
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
