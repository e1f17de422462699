"""What Rhythm's answer means for each event; and, before anything else, what an earlier try's may have been."""

import json
from collections.abc import Mapping

from schemas.event import Reason
from schemas.rhythm import Registration
from tasks.job import Job
from tasks.run import Run, each, while_time
from tasks.writing import write
from worker import changes
from worker.errors import ExamrelayError, PermanentError
from worker.ledger.events import Intent
from worker.ledger.gate import GateClosed
from worker.rhythm import (
    ItemResult,
    ItemState,
    MissingReference,
    RhythmRejected,
    RhythmThrottled,
    RhythmUnavailable,
)


def recall(run: Run, jobs: list[Job]) -> None:
    """Settle by reading what an earlier try may have written: a lost reply, a worker that died."""
    intended = {job.work.id: job.work.intent for job in jobs if job.work.intent is not None}
    found = run.rhythm.by_id(intent.registration for intent in intended.values())
    doubted = [job for job in jobs if job.work.id in intended]
    while_time(run, doubted, lambda job: _recall(run, job, intended[job.work.id], found))


def _recall(run: Run, job: Job, intent: Intent, found: Mapping[str, Registration]) -> None:
    registration = found.get(intent.registration)
    if registration is None or not _landed(registration, intent):
        registration = run.rhythm.truth(intent.registration)
    if registration is None:
        return
    if _landed(registration, intent):
        job.settle("written", registration.id, registration.sys_version, intent.values)
        return
    moved_by = 0 if intent.base is None else (registration.sys_version or 0) - intent.base
    if moved_by > 1 and not job.accepts(Reason.REGISTRATION_EDITED):
        # One of these versions may be ours, and the next one a person's, who took it back.
        raise PermanentError(
            Reason.REGISTRATION_EDITED, f"registration {registration.id} was changed after a write that may be ours"
        )
    job.in_doubt = moved_by == 0  # on top of another version it cannot be applied any more


def _landed(registration: Registration, intent: Intent) -> bool:
    moved = intent.base is None or (registration.sys_version or 0) > intent.base
    return moved and changes.stand(json.loads(intent.values), registration)


def settle(run: Run, jobs: list[Job], results: dict[str, ItemResult]) -> None:
    """What Rhythm's answer means for each event."""
    throttled = next((one.error for one in results.values() if isinstance(one.error, RhythmThrottled)), None)
    if throttled:
        run.rhythm.gate.close(throttled.reason, throttled.retry_after)
    # First those that need no reading, which may stop.
    jobs = sorted(jobs, key=lambda job: (one := results.get(job.target.id)) is None or one.state != ItemState.APPLIED)
    each(jobs, lambda job: _settle(run, job, results.get(job.target.id)))


def _settle(run: Run, job: Job, result: ItemResult | None) -> None:
    if result is None:
        job.in_doubt = False
        job.put_back()
        return
    after = result.registration
    match result.state:
        case ItemState.UNKNOWN:
            job.put_back()
        case ItemState.FAILED:
            _settle_failure(run, job, result.error)
        case ItemState.APPLIED if after is not None and not changes.stand(job.values, after):
            raise PermanentError(Reason.RHYTHM_ALTERED, f"registration {after.id} reads back different")
        case ItemState.APPLIED:
            sys_version = after.sys_version if after else (job.target.sys_version or 0) + 1
            job.settle("written", job.target.id, sys_version, job.values_text())


def _settle_failure(run: Run, job: Job, error: ExamrelayError | None) -> None:
    """A write that failed. One that may have been applied keeps its intent: the next try begins by reading."""
    assert error is not None
    if isinstance(error, RhythmRejected | MissingReference):
        _settle_rejection(run, job, error)
        return
    maybe_applied = getattr(error, "maybe_applied", False)
    job.in_doubt = maybe_applied or job.work.intent is not None
    if isinstance(error, RhythmUnavailable) and not maybe_applied:
        run.rhythm.gate.close(error.reason, error.retry_after)
        job.put_back(error)
    elif isinstance(error, GateClosed | RhythmThrottled):
        job.put_back(error)
    else:
        job.fail(error)


def _settle_rejection(run: Run, job: Job, error: RhythmRejected | MissingReference) -> None:
    """Refused: because the record moved (then plan anew), or for what it says (then it never will)."""
    now = run.rhythm.truth(job.target.id)
    if now is None or not _moved(job.target, now):
        if error.status is not None:
            raise error
        _settle(run, job, write(run, [job])[job.target.id])  # one of a batch, and no reason given: alone it gets one
        return
    job.in_doubt = False
    if changes.stand(job.values, now) and (job.work.intent is not None):
        job.settle("written", now.id, now.sys_version, job.values_text())
    else:
        job.put_back()


def _moved(before: Registration, now: Registration) -> bool:
    """Whether the registration was changed; where Rhythm gives no version, by what it says."""
    return now != before if now.sys_version is None else now.sys_version != before.sys_version
