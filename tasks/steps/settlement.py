"""What Rhythm's answer to a write means for each event; and what became of an earlier try whose answer was lost."""

import json

from schemas.event import Reason
from schemas.rhythm import Registration
from tasks.steps.batch import Run, as_far_as_it_goes, each
from tasks.steps.job import Job, versions_since
from tasks.steps.reading import Found
from tasks.steps.writing import write
from worker.errors import PermanentError
from worker.ledger.work import Intent
from worker.rhythm.batch import ItemResult, ItemState
from worker.rhythm.failures import CredentialsRefused, MissingReference, RhythmRejected, RhythmThrottled
from worker.rules import changes


def recall(run: Run, jobs: list[Job]) -> None:
    """Find out by reading whether an earlier try has written: its reply was lost, or its worker died."""
    doubted, seconds = [job for job in jobs if job.work.intent is not None], run.rhythm.spans.recall
    run.rhythm.allow(seconds)
    found = run.rhythm.by_id(job.work.intent.registration for job in doubted if job.work.intent)
    as_far_as_it_goes(run, doubted, lambda job: _recall(run, job, job.work.intent, found), seconds)


def _recall(run: Run, job: Job, intent: Intent | None, found: Found) -> None:
    if intent is None:
        return
    registration = found.get(intent.registration)
    if registration is None or not job.landed(registration):
        registration = run.rhythm.truth(intent.registration)
    if registration is None:
        return
    if job.landed(registration):
        job.settle_landed(registration)
        return
    moved_by = 0 if intent.base is None else versions_since(intent.base, registration)
    if moved_by > 1 and not job.accepts(Reason.REGISTRATION_EDITED):
        # One of these versions may be ours, and a later one may be a person's, who took our write back.
        raise PermanentError(
            Reason.REGISTRATION_EDITED, f"registration {registration.id} was changed after a write that may be ours"
        )
    if moved_by and run.rules.rhythm.guard != "none":  # the guard refuses it on any other version
        job.has_not_written()


def read_answers(run: Run, jobs: list[Job], results: dict[str, ItemResult]) -> None:
    """What Rhythm's answer means for each event. Those that need no read come first, since reading may stop midway."""
    result_of = {job.work.id: results.get(job.target.id) for job in jobs}
    for job in jobs:
        job.in_doubt = _in_doubt(job, result_of[job.work.id])
    jobs = sorted(jobs, key=lambda job: _rank(result_of[job.work.id]))
    answers = run.rhythm.answers
    run.rhythm.allow(run.rhythm.spans.settle)
    each(jobs, lambda job: _read_answer(run, job, result_of[job.work.id], answers))


def _rank(result: ItemResult | None) -> int:
    """First the applied ones, which need no read; then a 429, which closes the gate before anything else is read."""
    if result is not None and result.state is ItemState.APPLIED:
        return 0
    return 1 if result is not None and isinstance(result.error, RhythmThrottled) else 2


def _in_doubt(job: Job, result: ItemResult | None) -> bool:
    """Whether a write of this event, now or in an earlier try, may have been applied without our knowing."""
    if result is None:
        return job.work.intent is not None
    if isinstance(result.error, RhythmRejected | MissingReference):
        return True  # until a read shows it
    maybe_applied = result.error is None or getattr(result.error, "maybe_applied", False)
    return maybe_applied or job.work.intent is not None


def _read_answer(run: Run, job: Job, result: ItemResult | None, answers: int) -> None:
    """`answers`: the count when the write ended; if there are more by now, Rhythm is known to answer others."""
    if result is None or result.state is ItemState.UNKNOWN:
        job.put_back()
        return
    error, after = result.error, result.registration
    match result.state:
        case ItemState.FAILED if isinstance(error, RhythmRejected | MissingReference):
            _read_rejection(run, job, error)
        case ItemState.FAILED:
            assert error is not None
            raise run.rhythm.judged(error, answers, writing=isinstance(error, CredentialsRefused))
        case ItemState.APPLIED if after is not None and not changes.stand(job.values, after):
            job.has_not_written()  # no older write can be applied any more
            raise _altered(job, after)
        case ItemState.APPLIED:
            sys_version = after.sys_version if after else (job.target.sys_version or 0) + 1
            job.settle("written", job.target.id, sys_version, job.values_text(), job.base)


def _altered(job: Job, after: Registration) -> PermanentError:
    """Rhythm took the write and shows something else: what, is told to the event alone."""
    error = PermanentError(Reason.RHYTHM_ALTERED, f"registration {after.id} reads back different")
    wanted = changes.difference(job.values, after)
    shows = {name: {"written": wanted[name], "shown": now} for name, now in changes.as_now(wanted, after).items()}
    error.words = json.dumps(shows, default=str)
    return error


def _read_rejection(run: Run, job: Job, error: RhythmRejected | MissingReference) -> None:
    """Refused: because the registration has changed (then plan again), or for the patch itself (then dead)."""
    now = run.rhythm.truth(job.target.id)
    if now is None or not _moved(job.target, now):
        if error.status is not None:
            raise error
        result = write(run, [job])[job.target.id]  # the batch gave no status for it; sent alone it gets one
        _read_answer(run, job, result, run.rhythm.answers)
        return
    job.in_doubt = False
    if job.work.intent is not None and changes.stand(job.values, now):
        job.settle("written", now.id, now.sys_version, job.values_text(), job.work.intent.base or "")
    else:
        job.put_back()


def _moved(before: Registration, now: Registration) -> bool:
    """Whether the registration was changed: by its version, or by its fields where Rhythm gives no version."""
    return now != before if now.sys_version is None else now.sys_version != before.sys_version
