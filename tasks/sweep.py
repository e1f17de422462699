"""The scheduled pass: hints what is due and unhinted, prunes what is final and old. Harmless however often it runs.

Leases need no sweep: a claim's due time is its lease's end. What Celery lost is found here within seconds.
"""

from datetime import timedelta
from typing import Final

import structlog

from worker import celery
from worker.bootstrap import Services, services
from worker.celery import app
from worker.ledger import index

#: A hint not answered by a claim within this is taken for lost.
PATIENCE: Final = timedelta(seconds=5)
#: Events pruned a pass and tenant at most, so that a pass is short.
PRUNED_AT_MOST: Final = 500

_LOG = structlog.get_logger()


@app.task(name=celery.SWEEP, time_limit=60)
def sweep() -> None:
    """One pass over all tenants."""
    sweep_tenants(services())


def sweep_tenants(at: Services) -> dict[str, int]:
    """One pass. Returns hints sent and events pruned; says so in the log when there were any."""
    done = {"hinted": 0, "pruned": 0}
    for tenant in index.tenants(at.redis) or [""]:
        hinted, pruned = at.ledger.sweep(tenant, PATIENCE, PRUNED_AT_MOST, known=tenant in at.tenants.tenants)
        done["hinted"] += hinted
        done["pruned"] += pruned
    if any(done.values()):
        _LOG.info("sweep.finished", **done)
    return done
