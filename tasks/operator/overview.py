"""All tenants at a glance: what is where, what waits and why, the gates, the processes, and whether it adds up."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from schemas.event import EventState
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import misdirected, queries
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import KINDS, Process, differences, late, processes, silent, workerless
from worker.ledger.times import instant


def overview(at: Services) -> dict[str, Any]:
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
            *misdirected.warning(at.redis),
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
        "accepted": counts.get("accepted", 0),
        "pruned": counts.get("pruned", 0),
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
