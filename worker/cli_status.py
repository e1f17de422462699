"""`examrelay status`: the whole ledger on one screen."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console

from schemas.event import EventState
from worker.bootstrap import Services
from worker.cli_output import complain, show_table
from worker.ledger import index
from worker.ledger.client import check_redis
from worker.ledger.events import instant
from worker.ledger.processes import differences, processes


def gather(at: Services) -> dict[str, Any]:
    """What `status --json` prints. Raises what Redis raises, and ConfigurationError when it is not durable."""
    now = index.redis_now(at.redis)
    names = sorted({*at.tenants.tenants, *index.tenants(at.redis)})
    found = processes(at.redis)
    return {
        "tenants": {name: _tenant(at, name, now) for name in names},
        "sweep_at": index.swept_at(at.redis),
        "workers": [one.name for one in found if one.kind in ("worker", "sweeper")],
        "processes": [asdict(one) for one in found],
        "warnings": differences(found, at.tenants.digest),
        "durability": check_redis(at.redis, at.settings),
    }


def _tenant(at: Services, name: str, now: datetime) -> dict[str, Any]:
    counts = index.counts(at.redis, name)
    rules = at.tenants.tenants.get(name)
    waiting = [index.oldest_due(at.redis, name, state) for state in (EventState.RECEIVED, EventState.READY)]
    overdue = [(now - due).total_seconds() for due in waiting if due is not None]
    return {
        "states": index.state_counts(counts),
        "oldest_seconds": round(max(0.0, *overdue, 0.0), 3),
        "gate": _gate(index.gate(at.redis, name), now),
        "held": _by_reason(counts, EventState.HELD),
        "dead": _by_reason(counts, EventState.DEAD),
        "refused": {source: index.refusals(at.redis, name, source) for source in (rules.sources if rules else ())},
    }


def _gate(kept: dict[str, str], now: datetime) -> dict[str, Any]:
    until, since = (instant(kept[name]) if name in kept else None for name in ("closed_until", "since"))
    state = "open" if until is None else "closed" if until > now else "probing"
    return {"state": state, "reason": kept.get("reason"), "closed_until": until, "since": since}


def _by_reason(counts: dict[str, int], state: EventState) -> dict[str, int]:
    prefix = f"{state}:"
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix) and count}


def show(status: dict[str, Any]) -> None:
    """The screen."""
    states = [state.value for state in EventState]
    rows = [
        [name, *(one["states"][state] for state in states), f"{one['oldest_seconds']:.0f} s", _gate_words(one["gate"])]
        for name, one in status["tenants"].items()
    ]
    show_table(["tenant", *states, "oldest due", "gate"], rows)
    stopped = [
        [name, state, reason, count]
        for name, one in status["tenants"].items()
        for state in ("held", "dead")
        for reason, count in one[state].items()
    ]
    refused = [
        [name, source, len(lines), lines[0]]
        for name, one in status["tenants"].items()
        for source, lines in one["refused"].items()
        if lines
    ]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if stopped:
        console.print()
        show_table(["tenant", "state", "reason", "events"], stopped)
    if refused:
        console.print()
        show_table(["tenant", "source", "refused", "last"], refused)
    _show_processes(status["processes"], console)
    swept = status["sweep_at"].isoformat(timespec="seconds") if status["sweep_at"] else "never"
    running = "" if status["workers"] else " · no workers"
    console.print(f"\nlast sweep {swept} · durability {status['durability']}{running}")
    for warning in status["warnings"]:
        complain(warning)


def _show_processes(found: list[dict[str, Any]], console: Console) -> None:
    rows = [
        [one["name"], one["pid"], one["version"], one["digest"], one["seen_at"].isoformat(timespec="seconds")]
        for one in found
    ]
    if rows:
        console.print()
        show_table(["process", "pid", "version", "tenants file", "seen"], rows)


def _gate_words(gate: dict[str, Any]) -> str:
    if gate["state"] == "open":
        return "open"
    return f"{gate['state']}: {gate['reason']} until {gate['closed_until'].isoformat(timespec='seconds')}"
