"""Commands that answer for the ledger: whether it holds, what became of whom, and that it forgets."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.progress import Progress

from worker.bootstrap import Services
from worker.cli.filters import AsJson, TenantFilter
from worker.cli.output import DOES_NOT, UNCHECKED, complain, progress, say, show_json, show_table
from worker.cli.services import open_services, who
from worker.errors import ConfigurationError
from worker.ledger.audit.books import Books, books
from worker.ledger.audit.events import Difference
from worker.ledger.keys import key

_SHOWN = ("kind", "id", "registration", "expected", "found")


def audit(
    tenant: TenantFilter = None,
    ledger_only: Annotated[bool, typer.Option("--ledger-only", help="Do not read Rhythm back.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Not where an interrupted audit left off.")] = False,
    accept: Annotated[
        str | None, typer.Option(metavar="REGISTRATION", help="What a person made of this one is right: remember it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whether every event is accounted for, and Rhythm still says what was written.

    Reading Rhythm back takes a fifth of the allowed pace at most; interrupted, it goes on when run again.
    Exit code 0: it holds. 1: it does not. 3: it could not be checked.
    """
    at, tenants = open_services(tenant)
    if accept is not None:
        _accept(at, tenants, accept)
        return
    with progress() as bars:
        found = {name: books(at.redis, name, at.ledger.sealer, _bar(bars, at, name, "ledger")) for name in tenants}
        differences = [(name, one) for name, kept in found.items() for one in kept.differences]
        unread: dict[str, str] = {}
        for name in () if ledger_only else tenants:
            differences += [(name, one) for one in _read_back(at, name, restart, bars, unread)]
    tell(found, differences, as_json)
    for name, why in unread.items():
        complain(f"{name}: Rhythm could not be read back: {why}")
    if differences or unread:
        raise typer.Exit(DOES_NOT if differences else UNCHECKED)


def _read_back(at: Services, tenant: str, restart: bool, bars: Progress, unread: dict[str, str]) -> list[Difference]:
    from tasks.operator.read_back import (
        Auditor,  # tasks bring the Celery app, which reads the environment when imported
    )
    from tasks.steps.reading import ReadingStopped

    if tenant not in at.tenants.tenants:
        unread[tenant] = "it is not in the tenants file"
        return []
    try:
        done = Auditor(at, tenant).read_back(restart, _bar(bars, at, tenant, "Rhythm"))
    except ReadingStopped as stopped:
        unread[tenant] = f"{stopped.error}. Run it again: it goes on where it was"
        return []
    if done.busy:
        complain(f"{tenant}: {len(done.busy)} registrations were being written each time: {', '.join(done.busy[:10])}")
    return done.differences


def _bar(bars: Progress, at: Services, tenant: str, what: str) -> Callable[[int], None]:
    bar = bars.add_task(f"{tenant}: {what}", total=int(at.redis.zcard(key(tenant, "events"))))
    return lambda done: bars.update(bar, completed=done)


def tell(found: dict[str, Books], differences: list[tuple[str, Difference]], as_json: bool) -> None:
    """What an audit has found."""
    if as_json:
        told = [{"tenant": name, **_plain(one)} for name, one in differences]
        sums = {
            field: sum(getattr(kept, field) for kept in found.values()) for field in ("accepted", "accounted", "pruned")
        }
        show_json({**sums, "differences": told})
        return
    show_table(
        ["tenant", "accepted", "accounted for", "pruned", "differences"],
        [
            (name, kept.accepted, kept.accounted, kept.pruned, sum(one == name for one, _ in differences))
            for name, kept in found.items()
        ],
    )
    if differences:
        say("")
        show_table(["tenant", *_SHOWN], [(name, *_plain(one).values()) for name, one in differences])
        if any(one.kind == "rhythm" for _, one in differences):
            say("\na change that is right: `examrelay audit --accept REGISTRATION`")


def _plain(difference: Difference) -> dict[str, Any]:
    return {name: value for name, value in asdict(difference).items() if name in _SHOWN}


def _accept(at: Services, tenants: list[str], registration: str) -> None:
    from tasks.operator.read_back import Auditor  # as above
    from tasks.steps.reading import ReadingStopped

    known = [name for name in tenants if at.redis.hexists(key(name, "registration", registration), "event")]
    if len(known) != 1:
        raise ConfigurationError(
            f"nothing was ever written to registration {registration}." if not known
            else f"{registration} is known to several tenants: say which by --tenant."
        )  # fmt: skip
    try:
        became = Auditor(at, known[0]).accept(registration, who())
    except ReadingStopped as stopped:
        complain(f"Rhythm could not be read: {stopped.error}")
        raise typer.Exit(UNCHECKED) from None
    words = {
        "accepted": "accepted as it is now; a later result of the same sitting will wait for a person",
        "holds": "says what was written: there is nothing to accept",
        "unknown": "nothing is kept of what was written there",
        "busy": "something is being written there: run it again",
    }
    say(f"{registration}: {words[became]}")
    if became not in ("accepted", "holds"):
        raise typer.Exit(DOES_NOT)
