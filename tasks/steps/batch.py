"""What the steps share: what a batch works with, and that a failure stays with its own event."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps

from celery.exceptions import SoftTimeLimitExceeded

from schemas.event import Reason
from schemas.rhythm import Registration
from tasks.steps.job import Job
from tasks.steps.reading import OutOfTime, Reader, ReadingStopped
from worker.errors import ExamrelayError, TransientError
from worker.ledger.events import Ledger
from worker.ledger.identity import Identity
from worker.ledger.sealed import PAUSE, SealUnknown
from worker.sentry import report_bug
from worker.tenants import Tenant


@dataclass(slots=True)
class ExamSearch:
    """What one search for an exam found, by student and by e-mail address; what it took and has saved."""

    seconds: float = 0.0
    calls: int = 0
    saved: int = 0
    students: dict[str, list[Registration]] = field(default_factory=dict, repr=False)
    addresses: dict[str, list[Registration]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Run:
    """What one batch works with."""

    tenant: str
    rules: Tenant
    token: str
    ledger: Ledger
    identity: Identity
    rhythm: Reader
    #: By tenant and exam, how many look-ups make a search worth it, and until when this is believed.
    search_costs: dict[tuple[str, str], tuple[float, float]]
    #: What the task has found so, by exam.
    searches: dict[str, ExamSearch]


def each(jobs: Iterable[Job], step: Callable[[Job], None]) -> None:
    """Run a step for each event. A failure, or a bug that one event meets, decides that event alone.

    The stage, for logs and Sentry, is the function that the step is in.
    """
    stage = step.__qualname__.partition(".")[0].strip("_")
    for job in jobs:
        job.stage = stage
        try:
            step(job)
        except (ReadingStopped, SoftTimeLimitExceeded):
            raise
        except OutOfTime as late:
            job.put_back(delay=late.delay)
        except SealUnknown as error:
            job.put_back(error, PAUSE)  # waits until the key is configured again
        except ExamrelayError as error:
            job.fail(error)
        except Exception as error:  # noqa: BLE001  # a bug goes to Sentry and is tried again
            report_bug(error, event_id=job.work.id, source=job.work.source, stage=stage, reason=Reason.INTERNAL_ERROR)
            job.fail(TransientError(Reason.INTERNAL_ERROR, type(error).__name__))


def as_far_as_it_goes(run: Run, jobs: Sequence[Job], step: Callable[[Job], None], seconds: float) -> None:
    """As `each`, for a step that reads Rhythm for each event: for so many seconds, and for one event in any case.

    Events that it does not reach are put back, when the time is up and when the gate closes midway. In the second case
    the others wait for the gate, if it opens soon. Raises ReadingStopped.
    """
    run.rhythm.allow(seconds)
    done: set[str] = set()

    @wraps(step)
    def note_done(job: Job) -> None:
        step(job)
        done.add(job.work.id)

    try:
        each(jobs, note_done)
    except ReadingStopped as stopped:
        if not done:
            raise
        for job in jobs:
            if job.decision is None and job.work.id not in done:
                job.put_back(stopped.error, stopped.delay)
        run.rhythm.wait()
