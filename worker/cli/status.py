"""`examrelay status`: the whole ledger on one screen."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from schemas.event import EventState, Reason
from worker.bootstrap import Services
from worker.cli.output import complain, say, show_table, suggest
from worker.errors import ConfigurationError
from worker.health import late
from worker.ledger import queries
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import KINDS, SILENT_AFTER, Process, differences, processes, silent, workerless
from worker.ledger.times import instant

_WAITING: Final = (EventState.RECEIVED, EventState.READY, EventState.HELD, EventState.DEAD)
_OVER: Final = tuple(state for state in EventState if state not in _WAITING)
#: Of the reasons: the screen is one.
_REASONS_SHOWN: Final = 8
_SILENT: Final = SILENT_AFTER.total_seconds()
_GATE: Final = ("state", "reason", "closed_until", "since")
_PROCESS: Final = ("name", "pid", "version", "digest", "seen_at")
#: In the order in which a narrow terminal needs them.
_COLUMNS: Final = ("tenant", "gate", *_WAITING, "oldest due", *_OVER)


def gather(at: Services) -> dict[str, Any]:
    """What `status --json` prints. Raises what Redis raises."""
    now = queries.redis_now(at.redis)
    names = sorted({*at.tenants.tenants, *queries.tenants(at.redis)})
    found = processes(at.redis)
    durability, doubts = _durability(at)
    return {
        "tenants": {name: _tenant(at, name, now) for name in names},
        "sweep_at": queries.swept_at(at.redis),
        "workers": [one.name for one in found if one.kind in ("worker", "sweeper") and one.lives],
        "processes": [asdict(one) for one in found],
        "warnings": [
            *doubts,
            *_missing(at, found, now),
            *differences([one for one in found if one.lives], at.tenants.digest),
            *_unknown(at, names),
        ],
        "durability": durability,
    }


def _durability(at: Services) -> tuple[str, list[str]]:
    """In words, and what is wrong with it or keeps the receiver from taking what comes."""
    refuses = why_refused(at.redis, at.settings.replicas)
    try:
        return check_redis(at.redis, at.settings), [refuses] if refuses else []
    except ConfigurationError as error:
        return "not as configured: nothing is accepted", [str(error), *([refuses] if refuses else [])]


def _missing(at: Services, found: list[Process], now: datetime) -> Iterator[str]:
    """Which processes fell silent, and what does not run at all. A cron may do what beat and the sweeper do."""
    yield from silent(found)
    absent = workerless(found)
    if absent:
        yield absent
    running = {one.kind for one in found if one.lives}
    if "web" not in running:
        yield "no receiver is running: nothing comes in by HTTP"
    if late(queries.swept_at(at.redis), now):
        yield from (
            f"no {KINDS[kind]} is running, and no cron sweeps" for kind in ("sweeper", "beat") if kind not in running
        )


def _unknown(at: Services, names: list[str]) -> Iterator[str]:
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
    """The screen: tenants, what stopped and why, who works, and what to type next."""
    tenants = status["tenants"].items()
    show_table(_COLUMNS, [_row(name, one) for name, one in tenants])
    told = [(name, state, one[state]) for name, one in tenants for state in _WAITING]
    rows = [(name, state, reason, count) for name, state, by in told for reason, count in sorted(by.items())]
    _more(["tenant", "state", "reason", "events"], rows[:_REASONS_SHOWN])
    if len(rows) > _REASONS_SHOWN:
        say(f"… and {len(rows) - _REASONS_SHOWN} more: examrelay status --json")
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
    names = " ".join(one["name"] for one in status["processes"] if one["silent_seconds"] <= _SILENT) or "none"
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
