"""Which events a command is about: the filters, and the options that all commands share."""

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import queries

TenantFilter = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
SourceFilter = Annotated[Source | None, typer.Option("--source", help="Only this exam platform's.")]
StateFilter = Annotated[EventState | None, typer.Option("--state", help="Only in this state.")]
ReasonFilter = Annotated[str | None, typer.Option("--reason", help="Only with this reason.")]
SinceFilter = Annotated[datetime | None, typer.Option("--since", help="Received then or later (UTC).")]
UntilFilter = Annotated[datetime | None, typer.Option("--until", help="Received before then (UTC).")]
IdFilter = Annotated[list[str] | None, typer.Option("--id", help="This event; may be repeated.")]
AtMost = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Do not stop at the first that does not move.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


#: Where events wait for a person.
STOPPED: Final = (EventState.HELD, EventState.DEAD)


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
            raise ConfigurationError(f"{self.reason} is no reason. There are: {', '.join(sorted(Reason))}.")

    @property
    def empty(self) -> bool:
        """Whether it would take everything."""
        return not self.ids and not any((self.tenant, self.source, self.state, self.reason, self.since, self.until))

    def find(self, at: Services, *, among: Collection[EventState] = (), oldest: bool = False) -> Iterator[Event]:
        """The events, newest or oldest first; `among` these states unless another is given.

        Raises ConfigurationError for a tenant that there is not.
        """
        tenants = queries.tenants(at.redis)
        if self.tenant is not None:
            if self.tenant not in {*tenants, *at.tenants.tenants}:
                raise ConfigurationError(
                    f"there is no tenant {self.tenant}. There are: {', '.join(at.tenants.tenants)}."
                )
            tenants = [self.tenant]
        wanted = self._wanted(among)
        found = [self._listing(at, tenant, wanted, oldest) for tenant in tenants]
        return heapq.merge(*found, key=queries.place, reverse=not oldest)

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


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
