"""Which events a command is about: the filter options, said once for all commands, and the options that many share."""

import heapq
import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import queries

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

#: Where events wait for a person.
STOPPED: Final = tuple(state for state in EventState if state.for_a_person)
#: Where events wait for a task.
WAITING: Final = tuple(state for state in EventState if state.waiting)


@dataclass(frozen=True)
class Filters:
    """Which events a command is about. None takes any."""

    tenant: str | None = None
    source: Source | None = None
    state: EventState | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reason is not None and self.reason not in set(Reason):
            raise ConfigurationError(f"{self.reason} is not a reason. The reasons are: {', '.join(sorted(Reason))}.")

    @property
    def empty(self) -> bool:
        """Whether it would take everything."""
        return self == Filters()

    def find(self, at: Services, *, among: Collection[EventState] = (), oldest: bool = False) -> Iterator[Event]:
        """The events, newest or oldest first; `among` these states unless another is given.

        Raises ConfigurationError for a tenant that does not exist.
        """
        tenants = queries.tenants(at.redis)
        if self.tenant is not None:
            if self.tenant not in {*tenants, *at.tenants.tenants}:
                raise ConfigurationError(
                    f"there is no tenant {self.tenant}. There are: {', '.join(at.tenants.tenants)}."
                )
            tenants = [self.tenant]
        wanted = self._wanted(among)
        listings = [self._listing(at, tenant, wanted, oldest) for tenant in tenants]
        return heapq.merge(*listings, key=queries.place, reverse=not oldest)

    def _wanted(self, among: Collection[EventState]) -> queries.Wanted:
        states = frozenset([self.state] if self.state else among)
        reason = Reason(self.reason) if self.reason else None
        return queries.Wanted(states or None, self.source, reason, _utc(self.since), _utc(self.until))

    def _listing(self, at: Services, tenant: str, wanted: queries.Wanted, oldest: bool) -> Iterator[Event]:
        if not self.ids:
            return queries.listing(at.redis, tenant, wanted, oldest=oldest)
        named = (queries.event(at.redis, tenant, id) for id in dict.fromkeys(self.ids))
        chosen = [event for event in named if event is not None and wanted.takes(event)]
        return iter(sorted(chosen, key=queries.place, reverse=not oldest))


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


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
