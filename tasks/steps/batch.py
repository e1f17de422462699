"""What the steps of a sync share: one batch's surroundings, and a failure that stays with its event."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from celery.exceptions import SoftTimeLimitExceeded

from schemas.event import Reason
from tasks.steps.job import Job
from tasks.steps.reading import OutOfTime, Reader, ReadingStopped
from worker.errors import ExamrelayError, TransientError
from worker.ledger.events import Ledger
from worker.ledger.sealed import PAUSE, SealUnknown
from worker.telemetry import report_bug
from worker.tenants import Tenant


@dataclass(frozen=True, slots=True)
class Run:
    """One batch's surroundings."""

    tenant: str
    rules: Tenant
    token: str
    ledger: Ledger
    rhythm: Reader


def each(jobs: Iterable[Job], step: Callable[[Job], None]) -> None:
    """Run a step for each event: its failure, or a bug that only it meets, is its own."""
    for job in jobs:
        try:
            step(job)
        except (ReadingStopped, SoftTimeLimitExceeded):
            raise
        except OutOfTime as late:
            job.put_back(delay=late.delay)
        except SealUnknown as error:
            job.put_back(error, PAUSE)  # as it is, until the key is back
        except ExamrelayError as error:
            job.fail(error)
        except Exception as error:  # noqa: BLE001  # to Sentry, and tried again
            report_bug(error, event_id=job.work.id)
            job.fail(TransientError(Reason.INTERNAL_ERROR, type(error).__name__))


def as_far_as_it_goes(run: Run, jobs: Sequence[Job], step: Callable[[Job], None], seconds: float) -> None:
    """As `each`, for a step that reads Rhythm for each event and takes `seconds` at most, but one event in any case.

    An event that it does not get to is put back: because its time is up, or because the gate closes halfway. What was
    found until then waits for the gate, if that opens soon. Raises ReadingStopped.
    """
    run.rhythm.allow(seconds)
    done: set[str] = set()

    def one(job: Job) -> None:
        step(job)
        done.add(job.work.id)

    try:
        each(jobs, one)
    except ReadingStopped as stopped:
        if not done:
            raise
        for job in jobs:
            if job.decision is None and job.work.id not in done:
                job.put_back(stopped.error, stopped.delay)
        run.rhythm.wait()
