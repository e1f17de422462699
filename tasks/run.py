"""What the steps of a sync share: one batch's surroundings, and a failure that stays with its event."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from schemas.event import Reason
from tasks.job import Job
from tasks.reading import Reader, ReadingStopped
from worker.errors import ExamrelayError, TransientError
from worker.ledger.events import Ledger
from worker.ledger.sealed import PAUSE, SealUnknown
from worker.telemetry import report_bug
from worker.tenants import Tenant

#: Looking up a batch one by one, at a slow Rhythm or a slow pace, must leave time to write what was found.
LOOK_UP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Run:
    """One batch's surroundings."""

    tenant: str
    rules: Tenant
    token: str
    ledger: Ledger
    rhythm: Reader
    #: Until when (monotonic) events are looked up one by one.
    ends: float = field(default_factory=lambda: time.monotonic() + LOOK_UP_SECONDS)


def each(jobs: Iterable[Job], step: Callable[[Job], None]) -> None:
    """Run a step for each event: its failure, or a bug that only it meets, is its own."""
    for job in jobs:
        try:
            step(job)
        except (ReadingStopped, SoftTimeLimitExceeded):
            raise
        except SealUnknown as error:
            job.put_back(error, PAUSE)  # as it is, until the key is back
        except ExamrelayError as error:
            job.fail(error)
        except Exception as error:  # noqa: BLE001  # to Sentry, and tried again
            report_bug(error, event_id=job.work.id)
            job.fail(TransientError(Reason.INTERNAL_ERROR, type(error).__name__))


def while_time(run: Run, jobs: Iterable[Job], step: Callable[[Job], None]) -> None:
    """As `each`, for a step that may call Rhythm for each event: those it does not get to are due again at once."""
    each(jobs, lambda job: step(job) if time.monotonic() < run.ends else job.put_back(delay=timedelta(0)))
