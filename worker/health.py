"""Whether examrelay does its job, for `/readyz`; and the ledger's figures for Prometheus."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from schemas.event import EventState
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import queries
from worker.ledger.client import UNAVAILABLE
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import KINDS, late, processes, silent, workerless

#: Work is due for this long, and no event has moved for as long: nobody is working.
STALLED: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Finding:
    """The result of one check. `holds` is None when it could not be made."""

    check: str
    holds: bool | None
    detail: str
    tenant: str | None = None


@dataclass
class Readiness:
    """Each check by name: None when it holds, else what is wrong."""

    durability: str = ""
    checks: dict[str, str | None] = field(default_factory=dict)
    #: What a person should look at, although the service is ready.
    warnings: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether every check holds."""
        return not any(self.checks.values())

    def as_json(self) -> dict[str, Any]:
        """For `/readyz`."""
        return {"ready": self.ready, "durability": self.durability, "checks": self.checks, "warnings": self.warnings}


def readiness(at: Services) -> Readiness:
    """Look at Redis, the last sweep, the processes, and the oldest work that is due."""
    report = Readiness()
    try:
        report.durability = check_redis(at.redis, at.settings)
        report.checks["redis"] = None
        report.checks["receiver"] = why_refused(at.redis, at.settings.replicas)
        running = processes(at.redis)
        report.checks["workers"], report.warnings = workerless(running), silent(running)
        now = queries.redis_now(at.redis)
        report.checks["sweep"] = late(queries.swept_at(at.redis), now)
        report.checks["work"] = next(filter(None, (stuck(at, tenant, now) for tenant in at.tenants.tenants)), None)
    except ConfigurationError as error:
        report.checks["redis"] = str(error)
    except UNAVAILABLE as error:
        report.checks["redis"] = type(error).__name__
    return report


def stuck(at: Services, tenant: str, now: datetime) -> str | None:
    """A sentence when work is due, Rhythm may be called, and nothing moves; else None. A moving backlog is healthy."""
    since = [queries.moved_at(at.redis, tenant), queries.closed_until(at.redis, tenant)]
    for state in (EventState.RECEIVED, EventState.READY):
        due = queries.oldest_due(at.redis, tenant, state)
        if due is not None and now - max(filter(None, [due, *since])) > STALLED:
            return f"tenant {tenant}: {state} work is due since {due:%Y-%m-%d %H:%M:%SZ}, and nothing moves"
    return None


class _LedgerCollector:
    """The ledger's counts, read at each scrape: each receiver process shows the same."""

    def __init__(self, at: Services) -> None:
        self._at = at

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Families for Prometheus; only `examrelay_up` when Redis does not answer."""
        up = GaugeMetricFamily("examrelay_up", "Whether the ledger answers.")
        events = GaugeMetricFamily("examrelay_events", "Events by state.", labels=["tenant", "state"])
        stopped = GaugeMetricFamily(
            "examrelay_events_stopped", "Held and dead events by reason.", labels=["tenant", "state", "reason"]
        )
        closed = GaugeMetricFamily(
            "examrelay_gate_closed", "Whether Rhythm may not be called, and why.", labels=["tenant", "reason"]
        )
        stalled = GaugeMetricFamily("examrelay_stalled", "Whether work is due and nothing moves.", labels=["tenant"])
        sweep = GaugeMetricFamily("examrelay_sweep_age_seconds", "Seconds since the last sweep.")
        try:
            self._fill(events, stopped, closed, stalled, sweep)
            more = self._of_processes()
            up.add_metric([], 1)
        except UNAVAILABLE:
            up.add_metric([], 0)
            return [up]
        return [up, events, stopped, closed, stalled, sweep, *more]

    def _of_processes(self) -> Iterable[GaugeMetricFamily]:
        """Whether the receiver takes deliveries, and which processes live."""
        refuses = GaugeMetricFamily("examrelay_receiver_refuses", "Whether Redis cannot take deliveries.")
        living = GaugeMetricFamily("examrelay_processes", "Processes heard from in the last 30 s.", labels=["kind"])
        still = GaugeMetricFamily("examrelay_processes_silent", "Processes that fell silent.", labels=["kind"])
        refuses.add_metric([], why_refused(self._at.redis, self._at.settings.replicas) is not None)
        running = processes(self._at.redis)
        for kind in KINDS:
            lives = [process.lives for process in running if process.kind == kind]
            living.add_metric([kind], lives.count(True))
            still.add_metric([kind], lives.count(False))
        return refuses, living, still

    def _fill(self, events: Any, stopped: Any, closed: Any, stalled: Any, sweep: Any) -> None:
        client = self._at.redis
        now = queries.redis_now(client)
        for tenant in queries.tenants(client):
            counts = queries.counts(client, tenant)
            for state, count in queries.state_counts(counts).items():
                events.add_metric([tenant, state], count)
            for name, count in counts.items():
                state, colon, reason = name.partition(":")
                if colon and state in (EventState.HELD, EventState.DEAD):
                    stopped.add_metric([tenant, state, reason], count)
            reason = queries.gate(client, tenant).get("reason", "")
            closed.add_metric([tenant, reason], bool(reason))
            stalled.add_metric([tenant], stuck(self._at, tenant, now) is not None)
        swept = queries.swept_at(client)
        if swept is not None:
            sweep.add_metric([], (now - swept).total_seconds())


def metrics(at: Services) -> str:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_LedgerCollector(at))
    return generate_latest(registry).decode()
