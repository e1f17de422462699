"""Whether examrelay does its job, for `/readyz`."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from schemas.event import EventState
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger import misdirected, queries
from worker.ledger.client import UNAVAILABLE
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import late, processes, silent, workerless
from worker.ledger.sentinel import why_no_failover

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
        report.checks["workers"] = workerless(running)
        report.warnings = [*silent(running), *misdirected.warning(at.redis)]
        report.warnings += filter(None, [why_no_failover(at.redis)])
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
