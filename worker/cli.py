"""The command `examrelay`: the operator's door. What a command does is in its own module; here is how it is called.

Exit codes: 0 holds, 1 does not, 2 usage or configuration, 3 could not be checked (Redis or the door is away).
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from schemas.event import EventState
from schemas.outcome import Source, VerdictAnswer
from worker import cli_audit, cli_events, cli_plan, cli_send, cli_settings, cli_status, running
from worker.bootstrap import Services, build
from worker.cli_events import (
    AsJson,
    Filters,
    IdFilter,
    Limit,
    ReasonFilter,
    SinceFilter,
    SourceFilter,
    StateFilter,
    TenantFilter,
    UntilFilter,
)
from worker.cli_output import complain, say, show_json
from worker.errors import ConfigurationError
from worker.ledger.client import UNAVAILABLE, check_redis
from worker.ledger.sealed import SealBroken, SealUnknown
from worker.settings import load_settings

HOLDS, DOES_NOT, USAGE, UNCHECKED = 0, 1, 2, 3

app = typer.Typer(
    help="Takes exam results to the exam registration in Rhythm: once, in order, with a trace.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
events = typer.Typer(help="Find and show events.", no_args_is_help=True)
held = typer.Typer(help="Events that wait for a person's answer.", no_args_is_help=True)
dead = typer.Typer(help="Events that will not go through as they are.", no_args_is_help=True)
app.add_typer(events, name="events")
app.add_typer(held, name="held")
app.add_typer(dead, name="dead")

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def main() -> None:
    """Run the command. A mistake is one sentence that says what to do, never a traceback."""
    try:
        app()
    except ConfigurationError as error:
        complain(str(error))
        sys.exit(USAGE)
    except cli_send.DoorAway as error:
        complain(str(error))
        sys.exit(UNCHECKED)
    except (SealUnknown, SealBroken) as error:
        complain(f"what is stored cannot be opened: {error.args[0]}")
        sys.exit(UNCHECKED)
    except UNAVAILABLE as error:
        complain(f"Redis does not answer ({error}). Check REDIS_URL and that it runs, or start `examrelay up`.")
        sys.exit(UNCHECKED)


def _services() -> Services:
    """The ledger of REDIS_URL, or else of the `examrelay up` beside us. Raises ConfigurationError."""
    running.join()
    return build(load_settings(), patient=False)


def _end(holds: bool) -> None:
    raise typer.Exit(HOLDS if holds else DOES_NOT)


@app.command()
def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With a stand-in Rhythm and a tenant, acme.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The door's port; 0: a free one.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="What processes say goes to their log files only.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C."""
    from worker.up import up as run  # what only this command needs

    raise typer.Exit(run(sandbox=sandbox, port=port, quiet=quiet))


@app.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="Payloads, one a file; - is standard input.")],
    tenant: Annotated[str, typer.Option(help="Whose results these are.")],
    source: Annotated[Source, typer.Option(help="Which exam platform's.")],
    url: Annotated[str | None, typer.Option(help="The door; else the running `examrelay up`, else PORT here.")] = None,
    path: Annotated[str, typer.Option(help="Below the source, as Drillster has it: eventType/eventId.")] = "",
    direct: Annotated[bool, typer.Option("--direct", help="Into the ledger, past the door.")] = False,
    as_json: AsJson = False,
) -> None:
    """Post payloads to the door, with the tenant's credentials."""
    beside = running.join()
    _end(cli_send.send(load_settings(), files, tenant, source, path, cli_send.Way(url, beside, direct), as_json))


@app.command()
def status(as_json: AsJson = False) -> None:
    """All tenants on one screen."""
    found = cli_status.gather(_services())
    if as_json:
        show_json(found)
    else:
        cli_status.show(found)


@events.command("list")
def events_list(
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Events, the newest first."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    cli_events.list_events(_services(), filters, limit, as_json)


@events.command("show")
def events_show(id: Annotated[str, typer.Argument()], tenant: TenantFilter = None, as_json: AsJson = False) -> None:
    """One event with its history."""
    _end(cli_events.show_event(_services(), id, tenant, as_json))


@held.command("list")
def held_list(
    tenant: TenantFilter = None, source: SourceFilter = None, reason: ReasonFilter = None, since: SinceFilter = None,
    until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Held events: how many by reason, then the newest."""
    filters = Filters(tenant, source, EventState.HELD, reason, since, until, tuple(id or ()))
    cli_events.list_stopped(_services(), filters, limit, as_json)


@dead.command("list")
def dead_list(
    tenant: TenantFilter = None, source: SourceFilter = None, reason: ReasonFilter = None, since: SinceFilter = None,
    until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Dead events: how many by reason, then the newest; and queue entries that were no messages."""
    filters = Filters(tenant, source, EventState.DEAD, reason, since, until, tuple(id or ()))
    cli_events.list_stopped(_services(), filters, limit, as_json)


@app.command()
def replay(
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None,
    registration: Annotated[str | None, typer.Option(help="Answer: it is this registration.")] = None,
    verdict: Annotated[VerdictAnswer | None, typer.Option(help="Answer: it counts as this.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Answer: write it in spite of this reason.")] = None,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Try held and dead events again, with your answers."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    answers = cli_events.answers_of(registration, verdict, accept)
    _end(cli_events.replay(_services(), filters, answers, yes))


@app.command()
def discard(
    why: Annotated[str, typer.Option(help="Why. Recorded with your name; no personal data.")],
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None, yes: Yes = False,
) -> None:  # fmt: skip
    """Set held and dead events aside for good."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    _end(cli_events.discard(_services(), filters, why, yes))


@app.command()
def plan(
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """What would be written for events, and why: the registration, the difference, the operations. Writes nothing."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    _end(cli_plan.plan(_services(), filters, limit, as_json))


@app.command()
def sweep() -> None:
    """Do now what the scheduled pass does: hint what is due, prune what is old."""
    at = _services()
    from tasks.sweep import sweep_tenants  # brings the Celery app, which reads the environment when imported

    done = sweep_tenants(at)
    say(f"{done['hinted']} hinted, {done['pruned']} pruned")


@app.command()
def check() -> None:
    """Whether the configuration is whole, and Redis keeps what it acknowledges."""
    at = _services()
    at.redis.ping()
    say(f"configuration: {at.settings.config}, tenants {', '.join(at.tenants.tenants)}")
    try:
        say(f"Redis: {check_redis(at.redis, at.settings)}")
        assert at.identity  # read now, so that a mistake shows here
    except ConfigurationError as error:
        complain(str(error))
        _end(False)


@app.command()
def settings(as_json: AsJson = False) -> None:
    """Every variable of the environment, what it is, and what it means. Secrets are masked."""
    running.join()
    cli_settings.show(as_json)


app.command()(cli_audit.audit)
app.command("trace")(cli_audit.follow)
app.command()(cli_audit.forget)
