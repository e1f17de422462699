"""`examrelay trace` (the events of a candidate, a registration or a delivery), and `examrelay forget`."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from schemas.event import Event
from worker.bootstrap import Services
from worker.cli.filters import AsJson, TenantFilter, Yes
from worker.cli.output import complain, end, progress, say, show_fields, show_json, show_table
from worker.cli.services import open_services, warnings_to_stderr, who
from worker.cli.steer import Scope, act_on, goes_on
from worker.errors import ConfigurationError
from worker.ledger import queries, trace

_EVENT: Final = ("id", "state", "reason or result", "received", "registration", "receipts", "source", "tenant")
_REGISTRATION: Final = {
    "tenant": "tenant",
    "id": "registration",
    "event": "last written by",
    "owner": "being written by",
    "sys_version": "sys_version",
    "accepted": "override accepted",
}
_CANDIDATE: Final = typer.Option(
    help="A student id, an e-mail address, or the exam platform's candidate id; `-`: read from stdin, unseen by `ps`.",
    parser=lambda told: (sys.stdin.readline() if told == "-" else told).strip(),
    metavar="ID",
)


def follow(
    candidate: Annotated[str | None, _CANDIDATE] = None,
    registration: Annotated[str | None, typer.Option(help="A registration's id in Rhythm.")] = None,
    event: Annotated[str | None, typer.Option(help="An event's id: it and the others of its delivery.")] = None,
    tenant: TenantFilter = None,
    as_json: AsJson = False,
) -> None:
    if sum(map(bool, (candidate, registration, event))) != 1:
        raise ConfigurationError("trace needs one of --candidate, --registration and --event.")
    at, tenants = open_services(tenant)
    events: list[Event] = []
    registrations: list[dict[str, Any]] = []
    for name in tenants:
        here = trace.events(at.redis, name, _ids(at, name, candidate, registration, event))
        ids = [each.registration for each in here if each.registration] + ([registration] if registration else [])
        written = [each for each in trace.registrations(at.redis, name, ids) if each["rev"] is not None]
        events += here
        registrations += [{"tenant": name, **each} for each in written]
    results = _results(at, events) if candidate else []
    if as_json:
        shown = {"events": [each.model_dump(mode="json") for each in events], "registrations": registrations}
        show_json(shown | {"results": results})
    else:
        for result in results:
            show_fields(result)
            say("")
        _show_trace(events, registrations)
    end(bool(events))


def _results(at: Services, events: list[Event]) -> list[dict[str, Any]]:
    """What can be told to the candidate. Each look is recorded."""
    from tasks.operator.results import result_of  # brings Celery, which the rest does not need

    warnings_to_stderr()
    return [asdict(result_of(at, event, who())) for event in events]


def _ids(
    at: Services, tenant: str, candidate: str | None, registration: str | None, event: str | None
) -> Iterable[str]:
    if candidate:
        return trace.of_candidate(at.redis, tenant, trace.name_of(at.identity, tenant, candidate))
    if registration:
        return trace.of_registration(at.redis, tenant, registration)
    named = queries.event(at.redis, tenant, event or "")
    return trace.of_delivery(at.redis, tenant, named) if named else []


def _show_trace(events: list[Event], registrations: list[dict[str, Any]]) -> None:
    if not events:
        complain("the ledger has no event of it")
        return
    show_table(_EVENT, map(_row, events))
    if registrations:
        say("")
        show_table(list(_REGISTRATION.values()), [[each[name] for name in _REGISTRATION] for each in registrations])
    say("")
    moves = sorted((line.at, each.id, line.move, line.by, line.reason) for each in events for line in each.history)
    show_table(["at", "event", "move", "by", "reason"], moves)


def _row(event: Event) -> tuple[object, ...]:
    reason, at = event.reason or event.result, event.received_at
    return event.id, event.state, reason, at, event.registration, event.receipts, event.source, event.tenant


def forget(candidate: Annotated[list[str], _CANDIDATE], tenant: TenantFilter = None, yes: Yes = False) -> None:
    from tasks.operator import forgetting  # brings what `trace` does not need

    if "" in candidate:
        raise ConfigurationError("--candidate is empty: say who is to be forgotten.")
    at, tenants = open_services(tenant)
    with progress() as bars:
        bars.add_task("searching", total=None)
        named, searched, undecided = forgetting.search(at, tenants, candidate)
    for one in searched:
        say(f"{one.id} has no candidate's name; found by what it holds")
    scope = Scope(yes=yes, keep_going=True)
    moved = act_on(at, [*named, *searched], "forget", scope)
    goes_on([f"not decided, and not erased: {one.id}. {why}" for one, why in undecided.items()], scope, "forget")
    end(moved and not undecided)
