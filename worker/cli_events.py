"""Commands on events: find, show, replay, discard."""

import heapq
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final

import typer

from schemas.event import Event, EventState, Reason, Stage
from schemas.outcome import Source, VerdictAnswer
from worker.bootstrap import Services
from worker.cli_output import complain, say, show_json, show_table
from worker.errors import ConfigurationError
from worker.ledger import index

TenantFilter = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
SourceFilter = Annotated[Source | None, typer.Option("--source", help="Only this exam platform's.")]
StateFilter = Annotated[EventState | None, typer.Option("--state", help="Only in this state.")]
ReasonFilter = Annotated[str | None, typer.Option("--reason", help="Only with this reason.")]
SinceFilter = Annotated[datetime | None, typer.Option("--since", help="Received then or later (UTC).")]
UntilFilter = Annotated[datetime | None, typer.Option("--until", help="Received before then (UTC).")]
IdFilter = Annotated[list[str] | None, typer.Option("--id", help="This event; may be repeated.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

_COLUMNS: Final = ("id", "tenant", "source", "state", "reason or result", "registration", "received", "detail")
_STOPPED: Final = (EventState.HELD, EventState.DEAD)
#: The answer without which an event held for a reason would only be held again. `accept`: `--accept REASON`.
_ANSWERS: Final = {
    Reason.REGISTRATION_AMBIGUOUS: "registration",
    Reason.REGISTRATION_MISMATCH: "registration",
    Reason.RESULT_UNSCORED: "verdict",
    Reason.INTEGRITY_REVIEW: "accept",
    Reason.RESULT_CONFLICT: "accept",
    Reason.RESULT_REPEATED: "accept",
    Reason.RESULT_ANCIENT: "accept",
    Reason.REGISTRATION_SETTLED: "accept",
    Reason.REGISTRATION_EDITED: "accept",
    Reason.RHYTHM_ALTERED: "accept",
}


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

    def find(self, at: Services) -> Iterator[Event]:
        """The events, newest first. Raises ConfigurationError for a tenant that there is not."""
        tenants = index.tenants(at.redis)
        if self.tenant is not None:
            if self.tenant not in {*tenants, *at.tenants.tenants}:
                raise ConfigurationError(
                    f"there is no tenant {self.tenant}. There are: {', '.join(at.tenants.tenants)}."
                )
            tenants = [self.tenant]
        found = [self._listing(at, tenant) for tenant in tenants]
        return heapq.merge(*found, key=lambda event: event.received_at, reverse=True)

    def _listing(self, at: Services, tenant: str) -> Iterator[Event]:
        if self.ids:
            named = (index.event(at.redis, tenant, id) for id in dict.fromkeys(self.ids))
            chosen = [event for event in named if event is not None and self._takes(event)]
            return iter(sorted(chosen, key=lambda event: event.received_at, reverse=True))
        return index.listing(
            at.redis, tenant, state=self.state, source=self.source, since=_utc(self.since), until=_utc(self.until),
            reason=Reason(self.reason) if self.reason else None,
        )  # fmt: skip

    def _takes(self, event: Event) -> bool:
        since, until = _utc(self.since), _utc(self.until)
        return (
            self.state in (None, event.state)
            and self.source in (None, event.source)
            and self.reason in (None, event.reason)
            and (since is None or event.received_at >= since)
            and (until is None or event.received_at < until)
        )


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def list_events(at: Services, filters: Filters, limit: int, as_json: bool) -> None:
    """`events list`: the newest first."""
    found = list(islice(filters.find(at), limit))
    if as_json:
        show_json([_plain(event) for event in found])
    else:
        _show_events(found)


def list_stopped(at: Services, filters: Filters, limit: int, as_json: bool) -> None:
    """`held list`, `dead list`: how many by reason, then the events."""
    tenants = [filters.tenant] if filters.tenant else sorted({*index.tenants(at.redis), *at.tenants.tenants})
    reasons: dict[str, int] = {}
    for tenant in tenants:
        for name, count in index.counts(at.redis, tenant).items():
            state, _, reason = name.partition(":")
            if state == filters.state and reason and count and filters.reason in (None, reason):
                reasons[reason] = reasons.get(reason, 0) + count
    found = list(islice(filters.find(at), limit))
    malformed = index.malformed(at.redis) if filters.state is EventState.DEAD else 0
    strays = index.strays(at.redis) if filters.state is EventState.DEAD else []
    if as_json:
        listed = [asdict(stray) for stray in strays]
        more = {"malformed": malformed, "strays": listed} if filters.state is EventState.DEAD else {}
        show_json({"reasons": reasons, "events": [_plain(event) for event in found], **more})
        return
    show_table(["reason", "events"], sorted(reasons.items()))
    if found:
        say("")
        _show_events(found)
    if strays:
        say("\nmessages on nobody's books, kept in er:strays")
        rows = [(one.id, _short(one.at), one.why, one.task, one.bytes) for one in strays]
        show_table(["stray", "at", "why", "task", "bytes"], rows)
    if malformed:
        say(f"\n{malformed} queue entries were no messages; they are parked in er:malformed")


def _plain(event: Event) -> dict[str, Any]:
    """An event of a listing, which is read without its history."""
    return event.model_dump(mode="json", exclude={"history", "due_at"})


def _show_events(found: list[Event]) -> None:
    show_table(_COLUMNS, [_row(event) for event in found])


def _row(event: Event) -> tuple[object, ...]:
    received, reason = _short(event.received_at), event.reason or event.result
    return event.id, event.tenant, event.source, event.state, reason, event.registration, received, event.detail


def _short(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def show_event(at: Services, id: str, tenant: str | None, as_json: bool) -> bool:
    """`events show`: everything known of one event but its payload. Returns whether there is one."""
    tenants = [tenant] if tenant else index.tenants(at.redis)
    event = next(filter(None, (index.event(at.redis, name, id) for name in tenants)), None)
    if event is None:
        complain(f"there is no event {id}; `examrelay events list` shows what there is")
        return False
    if as_json:
        show_json(event.model_dump(mode="json"))
        return True
    fields = event.model_dump(exclude={"history"})
    show_table(["field", "value"], [(name, value) for name, value in fields.items() if value is not None])
    say("")
    show_table(
        ["at", "move", "by", "reason"], [(_short(one.at), one.move, one.by, one.reason) for one in event.history]
    )
    return True


def answers_of(registration: str | None, verdict: VerdictAnswer | None, accept: list[str] | None) -> dict[str, Any]:
    """An operator's answers, as the ledger keeps them. Raises ConfigurationError for what is no reason."""
    for reason in accept or ():
        if reason not in set(Reason):
            raise ConfigurationError(f"--accept {reason}: no such reason. There are: {', '.join(sorted(Reason))}.")
    told = {"registration": registration, "verdict": verdict, "accept": accept or None}
    return {name: value for name, value in told.items() if value is not None}


def replay(at: Services, filters: Filters, answers: dict[str, Any], yes: bool) -> bool:
    """Held and dead events back to `received`, with answers. Returns whether all of them were moved."""
    from worker.celery import hint  # reads the environment when imported

    chosen = _stopped(at, filters, "replay")
    if "registration" in answers and len(chosen) > 1:
        raise ConfigurationError(f"--registration answers for one event, and {len(chosen)} match: say which by --id.")
    lacking = {event.id: lack for event in chosen if (lack := lacks(event, answers))}
    for lack in lacking.values():
        complain(lack)
    ready = [event for event in chosen if event.id not in lacking]
    moved = act_on(ready, "replay", yes, lambda event: at.ledger.replay(event.tenant, event.id, who(), answers))
    for tenant in {event.tenant for event in ready if event.tenant in at.tenants.tenants}:
        hint(Stage.PROCESS, tenant)
    return moved and not lacking


def lacks(event: Event, answers: dict[str, Any]) -> str | None:
    """What is missing without which the event would only be held again."""
    needed = _ANSWERS.get(event.reason) if event.reason else None
    if needed is None or event.reason in answers.get("accept", ()) or (needed != "accept" and needed in answers):
        return None
    option = f"--accept {event.reason}" if needed == "accept" else f"--{needed}"
    return f"{event.id} is held as {event.reason} ({event.detail}): it needs {option}"


def discard(at: Services, filters: Filters, why: str, yes: bool) -> bool:
    """Held and dead events set aside for good. Returns whether all of them were moved."""
    chosen = _stopped(at, filters, "discard")
    return act_on(chosen, "discard", yes, lambda event: at.ledger.discard(event.tenant, event.id, who(), why))


def who() -> str:
    """The operator, as acts are recorded."""
    return os.environ.get("USER") or f"uid {os.getuid()}"


def _stopped(at: Services, filters: Filters, move: str) -> list[Event]:
    """The held and dead events that match. Raises ConfigurationError when no filter was given."""
    if filters.empty:
        raise ConfigurationError(
            f"{move} needs to know which events: give at least one of --tenant --source --state --reason --since "
            "--until --id."
        )
    if filters.state not in (None, *_STOPPED):
        raise ConfigurationError(f"{move} is for held and dead events; {filters.state} ones go on by themselves.")
    return [event for event in filters.find(at) if event.state in _STOPPED]


def act_on(chosen: list[Event], move: str, yes: bool, act: Callable[[Event], tuple[bool, str]]) -> bool:
    """Say how many, ask unless told `--yes`, act on each, say what did not move."""
    say(f"{len(chosen)} {'event' if len(chosen) == 1 else 'events'} to {move}")
    if not chosen:
        return True
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(f"nothing was done: add --yes to {move} them.")
        if not typer.confirm(f"{move} them?"):
            return False
    moved = 0
    for event in chosen:
        done, state = act(event)
        moved += done
        if not done:
            complain(f"{event.id} was not moved: it is {state} by now")
    say(f"{moved} done")
    return moved == len(chosen)
