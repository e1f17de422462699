"""The scheduled pass: hints due work that has no hint, deletes what is old, probes Rhythm behind a closed gate.

It may run as often as one likes. A hint that Celery lost is repeated within seconds. Leases need no sweep: a claimed
event is due again when its lease ends.
"""

import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import structlog
from celery import shared_task
from celery.worker.request import Request

from schemas.event import EventState
from tasks.steps.claiming import reported
from tasks.steps.reading import Reader, ReadingStopped
from worker import queues, sentry
from worker.bootstrap import Services, services
from worker.ledger import queries, strays
from worker.ledger.client import FULL
from worker.ledger.times import instant
from worker.sentry import report_bug

#: A hint that no claim has answered within this time counts as lost.
PATIENCE: Final = timedelta(seconds=5)
#: Events pruned a pass and tenant at most, so that a pass is short.
PRUNED_AT_MOST: Final = 500
#: A probe takes no longer than this, and none begins so long after the first; the next pass does the rest.
PROBE_SECONDS: Final = 5.0
PROBING_SECONDS: Final = 10.0

_LOG = structlog.get_logger()


class QuietRequest(Request):
    """The request of a sweep: Celery's events, and so Flower's rows, only for one that did something or failed."""

    def send_event(self, type: str, **fields: Any) -> None:
        """The task has `send_events=False`, so that Celery sends none; `task-received` comes late, with the end."""
        failed, did = type in ("task-failed", "task-retried"), fields.get("result") not in (None, repr(None))
        if self._eventer and self._eventer.enabled and (failed or did):
            self._eventer.send("task-received", uuid=self.id, name=self.name, args="", kwargs="")
            self._eventer.send(type, uuid=self.id, **fields)


@shared_task(
    name=queues.SWEEP,
    Request=QuietRequest,
    send_events=False,
    time_limit=queues.OTHER_TASK_SECONDS,
    throws=(Exception,),
)
def sweep() -> str | None:
    """One pass over all tenants. Returns what it did, for Flower."""
    with reported(queues.SWEEP):
        done = sweep_tenants(services())
    sentry.check_in()
    return ", ".join(f"{count} {name}" for name, count in done.items() if count) or None


def sweep_tenants(at: Services) -> dict[str, int]:
    """One pass. Returns the hints sent and the events pruned, and logs them when there were any."""
    done = {"hinted": 0, "pruned": 0}
    for tenant in queries.tenants(at.redis) or [""]:
        hinted, pruned = at.ledger.sweep(tenant, PATIENCE, PRUNED_AT_MOST, is_todays=tenant in at.tenants.tenants)
        done["hinted"] += hinted
        done["pruned"] += pruned
    if any(done.values()):
        _LOG.info("sweep.finished", **done)
    probe_gates(at)
    at.save_totals()
    with suppress(FULL):  # the next pass does it
        kept = timedelta(days=at.settings.stray_days)
        strays.prune(at.redis, kept, {*queries.tenants(at.redis), *at.tenants.tenants})
    return done


def probe_gates(at: Services) -> None:
    """Probe each Rhythm whose gate's pause is over. For a tenant without work nothing else would open its gate."""
    ends = time.monotonic() + PROBING_SECONDS
    for tenant in at.tenants.tenants:
        if time.monotonic() < ends and _is_left_to_us(at, tenant):
            try:
                answered = _answers(at, tenant)
                _LOG.info("gate.probed", tenant=tenant, answered=answered)
            except Exception as error:  # noqa: BLE001  # a bug; the gates of other tenants are probed all the same
                report_bug(error, task=queues.SWEEP, tenant=tenant)


def _is_left_to_us(at: Services, tenant: str) -> bool:
    """Whether the gate's pause is over, and no due work probes it, or none has for `PATIENCE`."""
    kept, now = queries.gate(at.redis, tenant), queries.redis_now(at.redis)
    over = now - instant(kept.get("closed_until", 0))
    if "reason" not in kept or over < timedelta(0):
        return False
    due = queries.oldest_due(at.redis, tenant, EventState.READY)
    return due is None or due > now or over > PATIENCE


def _answers(at: Services, tenant: str) -> bool:
    """Probe. Whether Rhythm answers: then the gate opens, else it closes for longer."""
    rules, gate = at.tenants[tenant], at.gate(tenant)
    seconds = min(PROBE_SECONDS, rules.rhythm.timeout_seconds)
    brief = rules.model_copy(update={"rhythm": rules.rhythm.model_copy(update={"timeout_seconds": seconds})})
    try:
        Reader(at.rhythm(brief, gate), gate).prove()
    except ReadingStopped:
        return False
    return True
