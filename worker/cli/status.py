"""`examrelay status`: the whole ledger on one screen."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from schemas.event import EventState, Reason
from worker.bootstrap import Services
from worker.cli.filters import STOPPED, WAITING, AsJson
from worker.cli.output import complain, say, show_json, show_table, suggest
from worker.cli.services import open_services
from worker.errors import ConfigurationError
from worker.ledger import queries
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import KINDS, Process, differences, late, processes, silent, workerless
from worker.ledger.times import instant

_OPEN: Final = (*WAITING, *STOPPED)
_FINAL: Final = tuple(state for state in EventState if state not in _OPEN)
#: How many reasons are shown: `status` must fit on one screen.
_REASONS_SHOWN: Final = 8
_GATE: Final = ("state", "reason", "closed_until", "since")
_PROCESS: Final = ("name", "pid", "version", "digest", "seen_at")
#: In the order in which a narrow terminal needs them.
_COLUMNS: Final = ("tenant", "gate", *_OPEN, "oldest due", *_FINAL)


def status(as_json: AsJson = False) -> None:
    now = gather(open_services()[0])
    show_json(now) if as_json else show(now)


def gather(at: Services) -> dict[str, Any]:
    """What `status --json` prints. Raises what Redis raises."""
    now = queries.redis_now(at.redis)
    names = sorted({*at.tenants.tenants, *queries.tenants(at.redis)})
    present = processes(at.redis)
    lives = [process for process in present if process.lives]
    durability, doubts = _durability(at)
    return {
        "tenants": {name: _tenant(at, name, now) for name in names},
        "sweep_at": queries.swept_at(at.redis),
        "workers": [process.name for process in lives if process.kind in ("worker", "sweeper")],
        "processes": [asdict(process) for process in present],
        "warnings": [
            *doubts,
            *silent(present),
            *_missing(at, lives, now),
            *differences(lives, at.tenants.digest),
            *_not_in_the_file(at, names),
        ],
        "durability": durability,
    }


def _durability(at: Services) -> tuple[str, list[str]]:
    """The durability in words, and why it is not as configured or why the receiver refuses deliveries."""
    refuses = why_refused(at.redis, at.settings.replicas)
    try:
        return check_redis(at.redis, at.settings), [refuses] if refuses else []
    except ConfigurationError as error:
        return "weaker than configured: the receiver refuses deliveries", [str(error), *([refuses] if refuses else [])]


def _missing(at: Services, lives: list[Process], now: datetime) -> Iterator[str]:
    """A sentence for each process that should run and does not. A cron may do the work of beat and the sweeper."""
    absent = workerless(lives)
    if absent:
        yield absent
    running = {process.kind for process in lives}
    if "web" not in running:
        yield "no receiver is running: nothing comes in by HTTP"
    if late(queries.swept_at(at.redis), now):
        yield from (
            f"no {KINDS[kind]} is running, and no cron sweeps" for kind in ("sweeper", "beat") if kind not in running
        )


def _not_in_the_file(at: Services, names: list[str]) -> Iterator[str]:
    for name in names:
        if name not in at.tenants.tenants:
            yield f"tenant {name} has events here and is not in the tenants file: they wait"


def _tenant(at: Services, name: str, now: datetime) -> dict[str, Any]:
    counts = queries.counts(at.redis, name)
    rules = at.tenants.tenants.get(name)
    waiting = [queries.oldest_due(at.redis, name, state) for state in (EventState.RECEIVED, EventState.READY)]
    overdue = [(now - due).total_seconds() for due in waiting if due is not None]
    return {
        "states": queries.state_counts(counts),
        "oldest_seconds": round(max(0.0, *overdue, 0.0), 3),
        "gate": _gate(queries.gate(at.redis, name), now),
        "received": queries.waiting_reasons(at.redis, name, EventState.RECEIVED),
        "ready": queries.waiting_reasons(at.redis, name, EventState.READY),
        "held": _by_reason(counts, EventState.HELD),
        "dead": _by_reason(counts, EventState.DEAD),
        "refused": {source: queries.refusals(at.redis, name, source) for source in (rules.sources if rules else ())},
    }


def _gate(kept: dict[str, str], now: datetime) -> dict[str, Any]:
    until, since = (instant(kept[name]) if name in kept else None for name in ("closed_until", "since"))
    state = "open" if until is None else "closed" if until > now else "probing"
    return {"state": state, "reason": kept.get("reason"), "closed_until": until, "since": since}


def _by_reason(counts: dict[str, int], state: EventState) -> dict[str, int]:
    prefix = f"{state}:"
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix) and count}


def show(status: dict[str, Any]) -> None:
    """The screen: tenants, what stopped and why, which processes run, and what to type next."""
    tenants: dict[str, dict[str, Any]] = status["tenants"]
    show_table(_COLUMNS, [_row(name, tenant) for name, tenant in tenants.items()])
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
    def counts(states: Iterable[EventState]) -> list[int]:
        return [tenant["states"][state] for state in states]

    return [name, tenant["gate"]["state"], *counts(_OPEN), f"{tenant['oldest_seconds']:.0f} s", *counts(_FINAL)]


def _next(status: dict[str, Any]) -> Iterator[str]:
    """What to type next."""
    tenants = status["tenants"].values()
    for state, what in (("held", "wait for an answer"), ("dead", "will not go through as they are")):
        count = sum(tenant["states"][state] for tenant in tenants)
        if count:
            yield f"{count} {what}: examrelay {state} list"
    if any(tenant["gate"]["reason"] == Reason.CREDENTIALS_REFUSED for tenant in tenants):
        yield "Rhythm refuses our credentials: put the new ones into the tenants file and restart; nothing is lost"
