"""`examrelay status`: the whole ledger on one screen."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from schemas.event import EventState, Reason
from worker.bootstrap import Services
from worker.cli_output import complain, say, show_table, suggest
from worker.errors import ConfigurationError
from worker.ledger import index
from worker.ledger.client import check_redis
from worker.ledger.events import instant
from worker.ledger.processes import differences, processes

_WAITING: Final = (EventState.RECEIVED, EventState.READY, EventState.HELD, EventState.DEAD)
_OVER: Final = tuple(state for state in EventState if state not in _WAITING)
_GATE: Final = ("state", "reason", "closed_until", "since")
_PROCESS: Final = ("name", "pid", "version", "digest", "seen_at")
#: In the order in which a narrow terminal needs them.
_COLUMNS: Final = ("tenant", "gate", *_WAITING, "oldest due", *_OVER)


def gather(at: Services) -> dict[str, Any]:
    """What `status --json` prints. Raises what Redis raises."""
    now = index.redis_now(at.redis)
    names = sorted({*at.tenants.tenants, *index.tenants(at.redis)})
    found = processes(at.redis)
    return {
        "tenants": {name: _tenant(at, name, now) for name in names},
        "sweep_at": index.swept_at(at.redis),
        "workers": [one.name for one in found if one.kind in ("worker", "sweeper")],
        "processes": [asdict(one) for one in found],
        "warnings": differences(found, at.tenants.digest),
        "durability": _durability(at),
    }


def _durability(at: Services) -> str:
    try:
        return check_redis(at.redis, at.settings)
    except ConfigurationError as error:
        return f"REFUSED, nothing is accepted: {error}"


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
    """The screen: tenants, what stopped and why, who works, and what to type next."""
    tenants = status["tenants"].items()
    show_table(_COLUMNS, [_row(name, one) for name, one in tenants])
    stopped = [(name, state, one[state]) for name, one in tenants for state in ("held", "dead")]
    _more(
        ["tenant", "state", "reason", "events"],
        [(name, state, reason, count) for name, state, by in stopped for reason, count in sorted(by.items())],
    )
    gates = [(name, one["gate"]) for name, one in tenants if one["gate"]["state"] != "open"]
    _more(["tenant", *_GATE], [(name, *(gate[column] for column in _GATE)) for name, gate in gates])
    refused = [(name, source, lines) for name, one in tenants for source, lines in one["refused"].items() if lines]
    _more(
        ["tenant", "source", "refused", "last"], [(name, where, len(lines), lines[0]) for name, where, lines in refused]
    )
    _show_processes(status)
    for line in _next(status):
        suggest(line)


def _show_processes(status: dict[str, Any]) -> None:
    if status["warnings"]:
        _more(_PROCESS, [[one[column] for column in _PROCESS] for one in status["processes"]])
    names = " ".join(one["name"] for one in status["processes"]) or "none"
    swept = f"{status['sweep_at']:%Y-%m-%dT%H:%M:%SZ}" if status["sweep_at"] else "never"
    say(f"\nprocesses {names}\nlast sweep {swept} · durability {status['durability']}")
    for warning in status["warnings"]:
        complain(warning)


def _more(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        say("")
        show_table(columns, rows)


def _row(name: str, one: dict[str, Any]) -> list[object]:
    return [name, one["gate"]["state"], *(one["states"][state] for state in _WAITING), f"{one['oldest_seconds']:.0f} s",
            *(one["states"][state] for state in _OVER)]  # fmt: skip


def _next(status: dict[str, Any]) -> Iterator[str]:
    """What to type next."""
    tenants = status["tenants"].values()
    for state, what in (("held", "wait for an answer"), ("dead", "will not go through as they are")):
        count = sum(one["states"][state] for one in tenants)
        if count:
            yield f"{count} {what}: examrelay {state} list"
    if any(one["gate"]["reason"] == Reason.CREDENTIALS_REFUSED for one in tenants):
        yield "Rhythm refuses our credentials: give the new ones and restart; nothing is lost meanwhile"
    if not status["workers"]:
        yield "no worker is running: examrelay up, or what the Procfile says"
