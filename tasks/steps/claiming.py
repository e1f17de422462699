"""What the tasks share: claim a tenant's work batch by batch, and report unexpected exceptions."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final

import structlog
from celery.exceptions import Retry

from tasks.steps.job import Job
from tasks.steps.report import AttemptFailed, Tally, buried, count, end_of
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger.totals import Totals
from worker.ledger.work import Claim
from worker.sentry import report_bug

#: Events in one claim: as many as one of Rhythm's batches holds.
BATCH: Final = 100
#: A task goes on claiming for this long while no other tenant waits, so that its batches share Celery's cost of a task.
GO_ON_SECONDS: Final = 2.0
#: As much longer at most, if it took so long to search exams: the batches that follow use what was found.
SEARCHING_SECONDS: Final = 8.0

Handle = Callable[[Claim, str], Sequence[Job]]
_LOG = structlog.get_logger()


@contextmanager
def reported(task: str, tenant: str = "") -> Iterator[None]:
    """Around a task: an exception that no step expects goes to the log and to Sentry once, and to Flower by its type.

    Celery would log its message, which may quote a payload. So the tasks are declared with `throws`, which keeps Celery
    from logging it, and it is reported here.
    """
    try:
        yield
    except (AttemptFailed, Retry):
        raise
    except Exception as error:  # noqa: BLE001  # any bug; the claimed events are due again when their lease ends
        report_bug(error, task=task, tenant=tenant)
        message = f"not finished: {type(error).__name__}"
    else:
        return
    raise AttemptFailed(message) from None


def is_ours(services: Services, tenant: str) -> bool:
    """Whether the tenants file of this process has the tenant. If not, its work waits for a worker that has it."""
    ours = tenant in services.tenants.tenants
    if not ours:
        _report_unknown(tenant)
    return ours


@cache  # once a process
def _report_unknown(tenant: str) -> None:
    _LOG.error("tenant.unknown", tenant=tenant, advice="change the tenants file of every process, and restart them")
    report_bug(ConfigurationError("a tenant has work and is not in this worker's tenants file"), tenant=tenant)


def work(services: Services, tenant: str, slots: int, handle: Handle, searching: Callable[[], float] = float) -> Tally:
    """Claim and handle batches until nothing is due, the time is up, or another tenant waits. Returns what was done.

    `handle` gets a claim and its token, and decides each event. When it raises, the events of that batch are claimed
    again after their lease. `searching`: for how many seconds exams were searched.
    """
    ledger, token, tally = services.ledger, secrets.token_hex(8), Tally()
    began_at, ended = time.monotonic(), False
    try:
        while not ended:
            claim = ledger.claim(tenant, token, BATCH, slots)
            ends, claimed_at = buried(claim.buried), time.monotonic()
            if claim.works:
                jobs = [job for job in handle(claim, token) if job.decision]
                # One event alone: there is no backlog, and the next event will bring its own hint.
                end = began_at + GO_ON_SECONDS + min(searching(), SEARCHING_SECONDS)
                last = claim.others or len(claim.works) == 1 or time.monotonic() > end
                totals = services.totals.pop(tenant, Totals())
                count(jobs, time.monotonic() - claimed_at, totals)
                decisions = [job.decision for job in jobs if job.decision]
                states = ledger.apply(tenant, token, decisions, last=last, totals=totals)
                ended = last
                ms = round(1000 * (time.monotonic() - claimed_at), 1)
                _LOG.info("batch.applied", events=len(states), ms=ms, **Counter(states))
                ends += map(end_of, jobs, states)
            tally.add(ends, ledger, tenant, claim.now)
            if not claim.works:
                break
    finally:
        if not ended:
            ledger.apply(tenant, token, [], last=True, totals=services.totals.pop(tenant, None))
    return tally
