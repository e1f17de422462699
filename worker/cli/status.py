"""`examrelay status`: the whole ledger on one screen."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from schemas.event import Reason
from tasks.operator.listing import STOPPED, WAITING
from tasks.operator.overview import overview
from worker.cli.filters import AsJson
from worker.cli.output import complain, say, show_json, show_table, suggest
from worker.cli.services import open_services
from worker.ledger.processes import Process

_OPEN: Final = (*WAITING, *STOPPED)
#: How many reasons are shown: `status` must fit on one screen.
_REASONS_SHOWN: Final = 8
_GATE: Final = ("state", "reason", "closed_until", "since")
_PROCESS: Final = ("name", "pid", "version", "digest", "seen_at")
_COLUMNS: Final = ("tenant", "gate", *_OPEN, "oldest due")


def status(as_json: AsJson = False) -> None:
    now = overview(open_services()[0])
    show_json(now) if as_json else show(now)


def show(status: dict[str, Any]) -> None:
    """The screen: tenants, what stopped and why, which processes run, and what to type next."""
    tenants: dict[str, dict[str, Any]] = status["tenants"]
    show_table(_COLUMNS, [_row(name, tenant) for name, tenant in tenants.items()])
    for name, tenant in tenants.items():
        summands = (tenant["states"] | {"pruned": tenant["pruned"]}).items()
        say(f"{name}: {tenant['accepted']} accepted = {' + '.join(f'{count} {what}' for what, count in summands)}")
    reasons = [
        (name, state, reason, count)
        for name, tenant in tenants.items()
        for state in _OPEN
        for reason, count in sorted(tenant[state].items())
    ]
    _more(["tenant", "state", "reason", "events"], reasons[:_REASONS_SHOWN])
    if len(reasons) > _REASONS_SHOWN:
        say(f"… and {len(reasons) - _REASONS_SHOWN} more: examrelay status --json")
    gates = [(name, *map(tenant["gate"].get, _GATE)) for name, tenant in tenants.items()]
    _more(["tenant", *_GATE], [row for row in gates if row[1] != "open"])
    refused = [
        (name, source, len(lines), lines[0])
        for name, tenant in tenants.items()
        for source, lines in tenant["refused"].items()
        if lines
    ]
    _more(["tenant", "source", "refused", "last"], refused)
    _show_processes(status)
    for line in _next(status):
        suggest(line)


def _show_processes(status: dict[str, Any]) -> None:
    if status["warnings"]:
        _more(_PROCESS, [[process[column] for column in _PROCESS] for process in status["processes"]])
    lives = (process["name"] for process in status["processes"] if Process(**process).lives)
    swept = f"{status['sweep_at']:%Y-%m-%dT%H:%M:%SZ}" if status["sweep_at"] else "never"
    say(f"\nprocesses {' '.join(lives) or 'none'}\nlast sweep {swept} · durability {status['durability']}")
    for warning in status["warnings"]:
        complain(warning)


def _more(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        say("")
        show_table(columns, rows)


def _row(name: str, tenant: dict[str, Any]) -> list[object]:
    counts = (tenant["states"][state] for state in _OPEN)
    return [name, tenant["gate"]["state"], *counts, f"{tenant['oldest_seconds']:.0f} s"]


def _next(status: dict[str, Any]) -> Iterator[str]:
    """What to type next."""
    tenants = status["tenants"].values()
    for state, what in (("held", "wait for an answer"), ("dead", "will not go through as they are")):
        count = sum(tenant["states"][state] for tenant in tenants)
        if count:
            yield f"{count} {what}: examrelay {state} list"
    if any(tenant["gate"]["reason"] == Reason.CREDENTIALS_REFUSED for tenant in tenants):
        yield "Rhythm refuses our credentials: renew the variable or file that the tenants file names, and restart"
