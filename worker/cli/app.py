"""The command `examrelay`: the operator's receiver. What a command does is in its own module; here is how it is called.

Exit codes: 0 holds, 1 does not, 2 usage or configuration, 3 could not be checked (Redis or the receiver is away).
"""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer

from schemas.event import EventState
from schemas.outcome import Source, VerdictAnswer
from worker.cli import audit as cli_audit
from worker.cli import check as cli_check
from worker.cli import events as cli_events
from worker.cli import plan as cli_plan
from worker.cli import send as cli_send
from worker.cli import settings as cli_settings
from worker.cli import status as cli_status
from worker.cli import steer as cli_steer
from worker.cli import strays as cli_strays
from worker.cli import trace as cli_trace
from worker.cli.filters import (
    AsJson,
    AtMost,
    Filters,
    IdFilter,
    KeepGoing,
    Limit,
    ReasonFilter,
    SinceFilter,
    SourceFilter,
    StateFilter,
    TenantFilter,
    UntilFilter,
    Yes,
)
from worker.cli.output import DOES_NOT, HOLDS, UNCHECKED, USAGE, complain, say, show_json
from worker.cli.services import join, open_services
from worker.cli.steer import Scope
from worker.errors import ConfigurationError, Unchecked
from worker.ledger.client import LOADING, REFUSED, UNAVAILABLE
from worker.ledger.processes import running_version
from worker.ledger.sealed import SealBroken, SealUnknown
from worker.settings import load_settings

#: How Redis' errors begin when its disk or memory is full, replicas are missing, or it is one itself.
_REFUSES_WRITES = ("MISCONF", "OOM", "NOREPLICAS", "READONLY")

app = typer.Typer(
    help="Takes exam results to the exam registration in Rhythm: once, in order, with a trace.",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
events = typer.Typer(help="Find and show events.", no_args_is_help=True)
held = typer.Typer(help="Events that wait for a person's answer.", no_args_is_help=True)
dead = typer.Typer(help="Events that will not go through as they are.", no_args_is_help=True)
strays = typer.Typer(help="Messages that could be put on nobody's books.", no_args_is_help=True)
app.add_typer(events, name="events")
app.add_typer(held, name="held")
app.add_typer(dead, name="dead")
app.add_typer(strays, name="strays")


def main() -> None:
    """Run the command. A mistake is one sentence that says what to do, never a traceback."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # what is printed is the answer's
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    try:
        app()
    except ConfigurationError as error:
        complain(str(error))
        sys.exit(USAGE)
    except (cli_send.ReceiverAway, Unchecked) as error:
        complain(str(error))
        sys.exit(UNCHECKED)
    except (SealUnknown, SealBroken) as error:
        complain(f"what is stored cannot be opened: {error.args[0]}")
        sys.exit(UNCHECKED)
    except LOADING:
        complain("Redis has just started and reads its data back: nothing is lost; try again in a moment.")
        sys.exit(UNCHECKED)
    except REFUSED as error:
        if str(error).startswith(_REFUSES_WRITES):
            complain(f"Redis takes no writes now ({error}); `examrelay status` says what else is wrong.")
            sys.exit(UNCHECKED)
        complain(f"Redis refuses what the ledger asks ({error}): was a key of er: changed by hand? `examrelay audit`.")
        sys.exit(UNCHECKED)
    except UNAVAILABLE as error:
        complain(f"Redis does not answer ({error}). Check REDIS_URL and that it runs, or start `examrelay up`.")
        sys.exit(UNCHECKED)


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Which release this is, and no more.")
    ] = False,
) -> None:
    if version:
        say(running_version())
        raise typer.Exit(HOLDS)


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *(f"examrelay {line}" for line in lines)])


def _end(holds: bool) -> None:
    raise typer.Exit(HOLDS if holds else DOES_NOT)


@app.command(epilog=_examples("up --sandbox", "up --port 8000"))
def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With a stand-in Rhythm and a tenant, acme.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The receiver's port; 0: a free one.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="What processes say goes to their log files only.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C."""
    from worker.local.up import up as run  # what only this command needs

    raise typer.Exit(run(sandbox=sandbox, port=port, quiet=quiet))


@app.command(
    epilog=_examples(
        "send result.json --tenant acme --source certiverse",
        "send - --tenant acme --source drillster --path TEST_COMPLETED/42 < result.json",
    )
)
def send(
    files: Annotated[list[Path], typer.Argument(help="Payloads, one a file; - is standard input.")],
    tenant: Annotated[str, typer.Option(help="Whose results these are.")],
    source: Annotated[Source, typer.Option(help="Which exam platform's.")],
    url: Annotated[str | None, typer.Option(help="The receiver; else that of `examrelay up`, else PORT here.")] = None,
    path: Annotated[str, typer.Option(help="Below the source, as Drillster has it: eventType/eventId.")] = "",
    direct: Annotated[bool, typer.Option("--direct", help="Into the ledger, past the receiver.")] = False,
    as_json: AsJson = False,
) -> None:
    """Post payloads to the receiver, with the tenant's credentials."""
    beside = join()
    _end(cli_send.send(load_settings(), files, tenant, source, path, cli_send.Way(url, beside, direct), as_json))


@app.command(epilog=_examples("status", "status --json | jq .tenants.acme.gate"))
def status(as_json: AsJson = False) -> None:
    """All tenants on one screen."""
    found = cli_status.gather(open_services()[0])
    if as_json:
        show_json(found)
    else:
        cli_status.show(found)


@events.command(
    "list",
    epilog=_examples(
        "events list --state ready",
        "events list --since 2026-11-01 --reason unknown_exam --json",
        "events list --tenant acme --follow",
    ),
)
def events_list(
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C: each event when it moves.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Events, the newest first."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    at, _ = open_services()
    if not follow:
        cli_events.list_events(at, filters, limit, as_json)
        return
    with suppress(KeyboardInterrupt):
        cli_events.follow_events(at, filters, limit, as_json)


@events.command("show", epilog=_examples("events show evt_fu5syyryallntqui5a5ofbo4g7"))
def events_show(id: Annotated[str, typer.Argument()], tenant: TenantFilter = None, as_json: AsJson = False) -> None:
    """One event with its history."""
    _end(cli_events.show_event(open_services()[0], id, tenant, as_json))


@held.command("list", epilog=_examples("held list", "held list --reason registration_ambiguous --limit 200"))
def held_list(
    tenant: TenantFilter = None, source: SourceFilter = None, reason: ReasonFilter = None, since: SinceFilter = None,
    until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Held events: how many by reason, then the newest."""
    filters = Filters(tenant, source, EventState.HELD, reason, since, until, tuple(id or ()))
    cli_events.list_stopped(open_services()[0], filters, limit, as_json)


@dead.command("list", epilog=_examples("dead list", "dead list --tenant acme --since 2026-11-01 --json"))
def dead_list(
    tenant: TenantFilter = None, source: SourceFilter = None, reason: ReasonFilter = None, since: SinceFilter = None,
    until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Dead events: how many by reason, then the newest; and queue entries that were no messages."""
    filters = Filters(tenant, source, EventState.DEAD, reason, since, until, tuple(id or ()))
    cli_events.list_stopped(open_services()[0], filters, limit, as_json)


@app.command(
    epilog=_examples(
        "replay --reason unknown_exam --limit 10",
        "replay --id evt_fu5syyryallntqui5a5ofbo4g7 --registration 5f1c-22",
        'replay --state dead --since 2026-11-01 --yes --keep-going --why "the exam map is right now"',
    )
)
def replay(
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None,
    registration: Annotated[str | None, typer.Option(help="Answer: it is this registration.")] = None,
    verdict: Annotated[VerdictAnswer | None, typer.Option(help="Answer: it counts as this.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Answer: write it in spite of this reason.")] = None,
    why: Annotated[str, typer.Option(help="Why. Recorded with your name; no personal data.")] = "",
    limit: AtMost = None, yes: Yes = False, keep_going: KeepGoing = False,
) -> None:  # fmt: skip
    """Try held and dead events again, with your answers; waiting ones too, if --state or --id asks for them."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    answers = cli_steer.answers_of(registration, verdict, accept)
    _end(cli_steer.replay(open_services()[0], filters, answers, Scope(limit, yes, keep_going, why)))


@app.command(
    epilog=_examples(
        'discard --id evt_fu5syyryallntqui5a5ofbo4g7 --why "sent by mistake"',
        'discard --reason invalid_json --until 2026-11-01 --why "the platform was told"',
    )
)
def discard(
    why: Annotated[str, typer.Option(help="Why. Recorded with your name; no personal data.")],
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None, limit: AtMost = None, yes: Yes = False,
    keep_going: KeepGoing = False,
) -> None:  # fmt: skip
    """Set held and dead events aside for good; waiting ones too, if --state or --id asks for them."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    _end(cli_steer.discard(open_services()[0], filters, Scope(limit, yes, keep_going, why)))


@app.command(
    epilog=_examples("plan --state held --reason writes_off", "plan --id evt_fu5syyryallntqui5a5ofbo4g7 --json")
)
def plan(
    tenant: TenantFilter = None, source: SourceFilter = None, state: StateFilter = None, reason: ReasonFilter = None,
    since: SinceFilter = None, until: UntilFilter = None, id: IdFilter = None, limit: Limit = 50,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """What would be written for events, and why: the registration, the difference, the operations. Writes nothing."""
    filters = Filters(tenant, source, state, reason, since, until, tuple(id or ()))
    _end(cli_plan.plan(open_services()[0], filters, limit, as_json))


@app.command(epilog=_examples("sweep"))
def sweep() -> None:
    """Do now what the scheduled pass does: hint what is due, prune what is old. Says nothing when there was nothing."""
    at, _ = open_services()
    from tasks.sweep import sweep_tenants  # brings the Celery app, which reads the environment when imported

    done = sweep_tenants(at)
    if any(done.values()):
        say(f"{done['hinted']} hinted, {done['pruned']} pruned")


app.command(epilog=_examples("check", "check --live", "check --live --tenant acme --json"))(cli_check.check)


@app.command(epilog=_examples("settings", "settings --json"))
def settings(as_json: AsJson = False) -> None:
    """Every variable of the environment, what it is, and what it means. Secrets are masked."""
    join()
    cli_settings.show(as_json)


app.command(epilog=_examples("audit", "audit --tenant acme --json", "audit --ledger-only", "audit --accept 5f1c-22"))(
    cli_audit.audit
)
app.command(
    "trace",
    epilog=_examples(
        "trace --candidate 12345", "trace --registration 5f1c-22", "trace --event evt_fu5syyryallntqui5a5ofbo4g7"
    ),
)(cli_trace.follow)
app.command(epilog=_examples("forget --candidate ana@example.org"))(cli_trace.forget)
_STRAY = "stray_fu5syyryallntqui5a5ofbo4g7"
strays.command("list", epilog=_examples("strays list", "strays list --json"))(cli_strays.list_strays)
strays.command(epilog=_examples(f"strays show {_STRAY}", "strays show malformed"))(cli_strays.show)
strays.command(epilog=_examples(f"strays receive {_STRAY} --tenant acme --source prov"))(cli_strays.receive)
strays.command(epilog=_examples(f'strays discard {_STRAY} --why "a test of ours"'))(cli_strays.discard)
