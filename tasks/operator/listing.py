"""Finding events: by filter, page by page, or by what a person knows of them. Changes nothing."""

import heapq
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import queries, trace

#: Where events wait for a person.
STOPPED: Final = tuple(state for state in EventState if state.for_a_person)
#: Where events wait for a task.
WAITING: Final = tuple(state for state in EventState if state.waiting)
#: How many events are read to count causes.
COUNTED: Final = 10_000
#: The ids and places in a detail: they differ between events that stopped for the same cause.
_ONE_EVENTS_OWN: Final = re.compile(
    r"evt_\w+|(?<=registration )\S+|(?<=written to )\S+|(?<=likely: ).*|(?<=registrations: ).*"
    r"|(?<=at line )\d+ column \d+"
)


@dataclass(frozen=True)
class Filters:
    """Which events an operator means. None takes any; times are aware."""

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
        wanted = self.wanted(among)
        listings = [self._listing(at, tenant, wanted, oldest) for tenant in tenants]
        return heapq.merge(*listings, key=queries.place, reverse=not oldest)

    def wanted(self, among: Collection[EventState] = ()) -> queries.Wanted:
        """What the ledger is asked for."""
        states = frozenset([self.state] if self.state else among)
        reason = Reason(self.reason) if self.reason else None
        return queries.Wanted(states or None, self.source, reason, self.since, self.until)

    def _listing(self, at: Services, tenant: str, wanted: queries.Wanted, oldest: bool) -> Iterator[Event]:
        if not self.ids:
            return queries.listing(at.redis, tenant, wanted, oldest=oldest)
        named = (queries.event(at.redis, tenant, id) for id in dict.fromkeys(self.ids))
        chosen = [event for event in named if event is not None and wanted.takes(event)]
        return iter(sorted(chosen, key=queries.place, reverse=not oldest))


def find_event(at: Services, id: str, tenant: str | None = None) -> Event | None:
    """One event with its history, of a tenant or of any."""
    tenants = [tenant] if tenant else queries.tenants(at.redis)
    return next(filter(None, (queries.event(at.redis, name, id) for name in tenants)), None)


def search(at: Services, tenants: Iterable[str], words: str) -> list[Event]:
    """The events with an id, of a candidate, at a registration, or of a platform's sitting or `eventId`; oldest first.

    A candidate goes by student id, e-mail, or the platform's candidate id. Prov's sittings have no id of their own.
    """
    found = list[Event]()
    for tenant in tenants:
        ids = [
            words,
            *trace.of_candidate(at.redis, tenant, trace.name_of(at.identity, tenant, words)),
            *trace.of_registration(at.redis, tenant, words),
            *trace.of_sitting(at.redis, tenant, words),
        ]
        found += trace.events(at.redis, tenant, dict.fromkeys(ids))
    return sorted(found, key=queries.place)


def cause(event: Event) -> str:
    """The part of an event's detail that is the same for all events that stopped for the same cause."""
    return _ONE_EVENTS_OWN.sub("…", event.detail or "")


def causes(events: Sequence[Event]) -> list[tuple[str, str, int]]:
    """Reason, cause, and how many events have both; the largest group first."""
    counted = Counter((str(event.reason), cause(event)) for event in events).most_common()
    return [(reason, why, count) for (reason, why), count in counted]
