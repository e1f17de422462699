"""What became of whom, and that the ledger forgets: examrelay trace, examrelay forget."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from schemas.event import Event
from worker.bootstrap import Services
from worker.cli.filters import AsJson, TenantFilter, Yes
from worker.cli.output import DOES_NOT, complain, say, show_json, show_table
from worker.cli.services import open_services, who
from worker.cli.steer import Chosen, Scope, act_on
from worker.errors import ConfigurationError
from worker.ledger import queries, trace

_EVENT = ("id", "state", "reason or result", "received", "registration", "receipts", "source", "tenant")


def follow(
    candidate: Annotated[
        str | None, typer.Option(help="A student id, an e-mail address, or the exam platform's candidate id.")
    ] = None,
    registration: Annotated[str | None, typer.Option(help="Rhythm's id of it.")] = None,
    event: Annotated[str | None, typer.Option(help="An event's id: it and the others of its delivery.")] = None,
    tenant: TenantFilter = None,
    as_json: AsJson = False,
) -> None:
    """What became of whom: a candidate's, a registration's or a delivery's events, and where they led."""
    given = [one for one in (candidate, registration, event) if one]
    if len(given) != 1:
        raise ConfigurationError("trace needs one of --candidate, --registration and --event.")
    at, tenants = open_services(tenant)
    events: list[Event] = []
    registrations: list[dict[str, Any]] = []
    for name in tenants:
        found = trace.events(at.redis, name, _ids(at, name, candidate, registration, event))
        about = [one.registration for one in found if one.registration] + ([registration] if registration else [])
        events += found
        registrations += [{"tenant": name, **one} for one in trace.registrations(at.redis, name, about)]
    known = [one for one in registrations if one["rev"] is not None]
    if as_json:
        show_json({"events": [one.model_dump(mode="json") for one in events], "registrations": known})
    else:
        _show_trace(events, known)
    if not events:
        raise typer.Exit(DOES_NOT)


def _ids(
    at: Services, tenant: str, candidate: str | None, registration: str | None, event: str | None
) -> Iterable[str]:
    if candidate:
        return trace.of_candidate(at.redis, tenant, trace.name_of(at.identity, tenant, candidate))
    if registration:
        return trace.of_registration(at.redis, tenant, registration)
    found = queries.event(at.redis, tenant, event or "")
    return trace.of_delivery(at.redis, tenant, found) if found else []


def _show_trace(events: list[Event], registrations: list[dict[str, Any]]) -> None:
    if not events:
        complain("nothing of it is on the books")
        return
    show_table(_EVENT, map(_row, events))
    if registrations:
        say("")
        columns = ("tenant", "id", "event", "owner", "sys_version", "accepted")
        titles = ("tenant", "registration", "last written by", "being written by", "sys_version", "override accepted")
        show_table(titles, [[one[name] for name in columns] for one in registrations])
    say("")
    moves = sorted((entry.at, one.id, entry.move, entry.by, entry.reason) for one in events for entry in one.history)
    show_table(["at", "event", "move", "by", "reason"], moves)


def _row(event: Event) -> tuple[object, ...]:
    reason, at = event.reason or event.result, event.received_at
    return event.id, event.state, reason, at, event.registration, event.receipts, event.source, event.tenant


def forget(
    candidate: Annotated[str, typer.Option(help="A student id, an e-mail address, or the platform's candidate id.")],
    tenant: TenantFilter = None,
    yes: Yes = False,
) -> None:
    """Erase one person from the ledger: payloads, results, and the way to them. Rhythm is not touched.

    Events that were still on their way are discarded. A person who goes by several ids is forgotten by each in turn;
    a body that could not be read has no candidate, and goes when it is discarded.
    """
    at, tenants = open_services(tenant)
    found = [one for name in tenants for one in trace.events(at.redis, name, _ids(at, name, candidate, None, None))]
    chosen = [Chosen(one.tenant, one.id) for one in found]
    scope = Scope(yes=yes, keep_going=True)
    if not act_on(chosen, "forget", scope, lambda one: at.ledger.forget(one.tenant, one.id, who())):
        raise typer.Exit(DOES_NOT)
