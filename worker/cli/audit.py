"""`examrelay audit`: whether every event is accounted for, and Rhythm still says what was written."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tasks.operator.read_back import Auditor
from tasks.steps.reading import ReadingStopped
from worker.bootstrap import Services
from worker.cli.filters import AsJson, TenantFilter
from worker.cli.output import DOES_NOT, UNCHECKED, complain, end, progress, say, show_json, show_table
from worker.cli.services import open_services, warnings_to_stderr, who
from worker.errors import ConfigurationError, Unchecked
from worker.ledger.audit.books import Books, books
from worker.ledger.audit.events import Difference
from worker.ledger.keys import key
from worker.ledger.recent import takeovers

if TYPE_CHECKING:
    from rich.progress import Progress

_SUMMED: Final = ("accepted", "accounted", "pruned")
_SHOWN: Final = ("kind", "id", "registration", "expected", "found")
#: What `--accept` says of a registration, by what became of it.
_ACCEPTED: Final = {
    "accepted": "accepted as it is now; a later result of the same sitting will wait for a person",
    "holds": "says what was written: there is nothing to accept",
    "unknown": "nothing is kept of what was written there",
    "busy": "something is being written there: run it again",
}


def audit(
    tenant: TenantFilter = None,
    ledger_only: Annotated[bool, typer.Option("--ledger-only", help="Do not read Rhythm back.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start from the beginning, even if an earlier audit was interrupted.")
    ] = False,
    accept: Annotated[
        str | None, typer.Option(metavar="REGISTRATION", help="Accept this registration as a person has changed it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    warnings_to_stderr()
    at, tenants = open_services(tenant)
    if accept is not None:
        _accept(at, tenants, accept)
        return
    differences: list[tuple[str, Difference]] = []
    unread: dict[str, str] = {}
    with progress() as bars:
        found = {name: books(at.redis, name, at.ledger.sealer, _bar(bars, at, name, "ledger")) for name in tenants}
        differences += [(name, each) for name, kept in found.items() for each in kept.differences]
        for name in () if ledger_only else tenants:
            differences += [(name, each) for each in _read_back(at, name, restart, bars, unread)]
    seen = takeovers(at.redis)
    show_audit(found, differences, as_json, seen)
    for name, why in unread.items():
        complain(f"{name}: Rhythm could not be read back: {why}")
    if differences or unread:
        raise typer.Exit(DOES_NOT if differences else UNCHECKED)


def _read_back(at: Services, tenant: str, restart: bool, bars: "Progress", unread: dict[str, str]) -> list[Difference]:
    """The differences found in Rhythm. A tenant that could not be read goes to `unread`, with the reason."""
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


def _bar(bars: "Progress", at: Services, tenant: str, what: str) -> Callable[[int], None]:
    bar = bars.add_task(f"{tenant}: {what}", total=int(at.redis.zcard(key(tenant, "events"))))
    return lambda done: bars.update(bar, completed=done)


def show_audit(
    found: dict[str, Books], differences: list[tuple[str, Difference]], as_json: bool, seen: Sequence[str] = ()
) -> None:
    """The books by tenant, what differs, and when another Redis took over."""
    rows = [(tenant, {name: getattr(each, name) for name in _SHOWN}) for tenant, each in differences]
    if as_json:
        sums = {
            name: sum(getattr(each, name) for each in found.values()) for name in ("accepted", "accounted", "pruned")
        }
        told = {"takeovers": seen} if seen else {}
        show_json({**sums, "differences": [{"tenant": tenant, **row} for tenant, row in rows], **told})
        return
    show_table(
        ["tenant", "accepted", "accounted for", "pruned", "differences"],
        [
            (name, *(getattr(each, sum_of) for sum_of in _SUMMED), sum(tenant == name for tenant, _ in rows))
            for name, each in found.items()
        ],
    )
    if rows:
        say("")
        show_table(["tenant", *_SHOWN], [(tenant, *row.values()) for tenant, row in rows])
    for sentence in seen:
        say(f"\n{sentence}")
    if any(row["kind"] == "rhythm" for _, row in rows):
        say("\na change that is right: `examrelay audit --accept REGISTRATION`")


def _accept(at: Services, tenants: list[str], registration: str) -> None:
    writers = [name for name in tenants if at.redis.hexists(key(name, "registration", registration), "event")]
    if not writers:
        raise ConfigurationError(f"nothing was ever written to registration {registration}.")
    if len(writers) > 1:
        raise ConfigurationError(f"several tenants have a registration {registration}: say which by --tenant.")
    try:
        became = Auditor(at, writers[0]).accept(registration, who())
    except ReadingStopped as stopped:
        raise Unchecked(f"Rhythm could not be read: {stopped.error}") from None
    say(f"{registration}: {_ACCEPTED[became]}")
    end(became in ("accepted", "holds"))
