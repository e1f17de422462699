"""resolve, compare, intend, write, settle: from an outcome to the registration in Rhythm that says it.

A batch goes through the steps together, so that Rhythm is called a few times for up to 100 events; each event leaves
at its own step with its own decision (`tasks/job.py`). How Rhythm is read is in `tasks/reading.py`.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from schemas.event import EventState, Reason, Stage
from schemas.outcome import Candidate, ExamOutcome, Source
from schemas.rhythm import Registration, Status
from tasks.job import Job, undecided
from tasks.reading import Reader, ReadingStopped
from tasks.stage import Tally, work
from tasks.writing import send
from worker import celery, changes, registrations
from worker.bootstrap import Services, services
from worker.celery import app
from worker.errors import ExamrelayError, PermanentError, TransientError
from worker.ledger.decisions import Decision
from worker.ledger.events import Claim, Intent, Ledger
from worker.ledger.gate import GateClosed
from worker.ledger.registrations import Remembered, remembered
from worker.ledger.sealed import PAUSE, SealUnknown
from worker.order import Order, Version, order
from worker.rhythm import (
    ItemResult,
    ItemState,
    MissingReference,
    RhythmRejected,
    RhythmThrottled,
    RhythmUnavailable,
)
from worker.telemetry import report_bug
from worker.tenants import Exam, SourceRules, Tenant

_SETTLED: Final = (Status.PASSED, Status.FAILED, Status.NO_SHOW)
#: Looking up a batch one by one, at a slow Rhythm or a slow pace, must leave time to write what was found.
LOOK_UP_SECONDS: Final = 10.0
#: Stand in for an event's outcome and exam until they are read; an event that has only these is decided.
UNREAD: Final = ExamOutcome(source=Source.CERTIVERSE, delivery="-", exam_codes=(), candidate=Candidate())
UNMAPPED: Final = Exam(exam_id="-", codes=("-",))


@app.task(name=celery.SYNC, soft_time_limit=40, time_limit=45, throws=(Exception,))
def sync(tenant: str) -> None:
    """Sync what is due for a tenant. The hint's task: its argument is the tenant, nothing else."""
    sync_tenant(services(), tenant).report()


def sync_tenant(at: Services, tenant: str) -> Tally:
    """Sync what is due for a tenant, up to 100 events at a time."""
    rules = at.tenants[tenant]

    def handle(claim: Claim, token: str) -> Sequence[Decision]:
        gate = at.gate(tenant)
        run = Run(tenant, rules, token, at.ledger, Reader(at.rhythm(rules, gate), gate))
        return sync_batch(run, claim)

    slots = 1 if rules.rhythm.calls_per_second else rules.rhythm.concurrency  # a pace needs one that waits for its turn
    return work(at, tenant, Stage.SYNC, slots=slots, handle=handle)


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


def sync_batch(run: Run, claim: Claim) -> list[Decision]:
    """Every claimed event's decision. What Rhythm's gate stops halfway is put back without an attempt."""
    jobs = [Job(work, UNREAD, UNMAPPED, claim.now, in_doubt=bool(work.intent or work.trouble)) for work in claim.works]
    try:
        _each(jobs, lambda job: _open(run, job))
        recall(run, undecided(jobs))
        consider(run, undecided(jobs))
        resolve(run, undecided(jobs))
        compare(undecided(jobs))
        intend(run, undecided(jobs))
        results = write(run, undecided(jobs))
        settle(run, undecided(jobs), results)
    except ReadingStopped as stopped:
        for job in undecided(jobs):
            job.put_back(stopped.error, stopped.delay)
    return [job.decision for job in jobs if job.decision is not None]


def _each(jobs: Iterable[Job], step: Callable[[Job], None]) -> None:
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


def _while_time(run: Run, jobs: Iterable[Job], step: Callable[[Job], None]) -> None:
    """As `_each`, for a step that may call Rhythm for each event: those it does not get to are due again at once."""
    _each(jobs, lambda job: step(job) if time.monotonic() < run.ends else job.put_back(delay=timedelta(0)))


def _open(run: Run, job: Job) -> None:
    if job.work.trouble is not None:
        raise job.work.trouble
    job.outcome = ExamOutcome.model_validate_json(run.ledger.sealer.open(job.work.sealed, job.work.id))


def consider(run: Run, jobs: list[Job]) -> None:
    """The order of its delivery's results, or the exam map, may end an event here; but not before it was recalled."""
    _each(jobs, lambda job: _consider(run, job))


def _consider(run: Run, job: Job) -> None:
    _in_order(run, job)
    if job.decision is None:
        job.exam = _exam(run, job)


def _exam(run: Run, job: Job) -> Exam:
    exam = run.rules.exam_for(job.outcome.exam_codes)
    if exam is None:
        raise PermanentError(Reason.UNKNOWN_EXAM, f"not in the exam map: {', '.join(job.outcome.exam_codes)}")
    if job.work.source not in run.rules.sources:
        raise PermanentError(Reason.UNKNOWN_EXAM, f"source {job.work.source} is not in the tenants file any more")
    return exam


def _in_order(run: Run, job: Job) -> None:
    """Whether this version counts among its delivery's; `intend` makes sure that none came in between."""
    known = job.work.known
    arriving = Version(job.work.version or "", EventState.READY, job.work.received_at)
    others = [Version(one.version, one.state, one.received_at) for one in known.siblings]
    accepted = job.accepts(Reason.RESULT_CONFLICT) or job.accepts(Reason.RESULT_REPEATED)
    match order(arriving, others, known.applied, run.rules.rescore_order, accepted=accepted):
        case Order.SUPERSEDED:
            job.drop(EventState.SUPERSEDED, "a newer result of the delivery is known")
        case Order.CONFLICT:
            rivals = ", ".join(one.event for one in known.siblings)
            raise PermanentError(Reason.RESULT_CONFLICT, f"differs from another result of the delivery: {rivals}")


def recall(run: Run, jobs: list[Job]) -> None:
    """Settle by reading what an earlier try may have written: a lost reply, a worker that died."""
    intended = {job.work.id: job.work.intent for job in jobs if job.work.intent is not None}
    found = run.rhythm.by_id(intent.registration for intent in intended.values())
    doubted = [job for job in jobs if job.work.id in intended]
    _while_time(run, doubted, lambda job: _recall(run, job, intended[job.work.id], found))


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


def resolve(run: Run, jobs: list[Job]) -> None:
    """Each event's registration: by the id it names, else by student and exam, else by e-mail and exam."""
    rules = {job.work.id: run.rules.sources[job.work.source] for job in jobs}
    ids = {job.work.id: _named(job, rules[job.work.id]) for job in jobs}
    found = run.rhythm.by_id(id for named in ids.values() for id in named)
    for job in jobs:
        job.candidates = [found[id] for id in ids[job.work.id] if id in found]
        job.named = bool(job.candidates)
    unnamed = [job for job in jobs if not job.named]
    _while_time(run, unnamed, lambda job: _look_up(run, job, rules[job.work.id]))
    candidates = (one.id for job in jobs for one in job.candidates)
    known = remembered(run.ledger.client, run.ledger.sealer, run.tenant, candidates)
    _while_time(run, undecided(jobs), lambda job: _choose(run, job, rules[job.work.id], known))


def _named(job: Job, rules: SourceRules) -> list[str]:
    answer = job.work.answers.get("registration")
    return [answer] if answer else registrations.named_ids(job.outcome, rules)


def _look_up(run: Run, job: Job, rules: SourceRules) -> None:
    candidate, exam_id, answers = job.outcome.candidate, job.exam.exam_id, job.work.answers
    if "registration" in answers:
        raise TransientError(Reason.REGISTRATION_NOT_FOUND, f"there is no registration {answers['registration']}")
    student = registrations.student_of(candidate, rules)
    if student:
        job.candidates = run.rhythm.of_student(student, exam_id)
    if not job.candidates and candidate.email:
        job.candidates = run.rhythm.of_email(candidate.email, exam_id)


def _choose(run: Run, job: Job, rules: SourceRules, known: Mapping[str, Remembered]) -> None:
    candidates = [run.rhythm.not_before(one, known[one.id].sys_version) for one in job.candidates]
    if job.named and "registration" in job.work.answers:
        job.registration = candidates[0]
    elif job.named:
        job.registration = registrations.confirm(job.outcome, job.exam, rules, candidates)
    else:
        ours = {one.id for one in candidates if known[one.id].delivery == job.work.delivery}
        chosen = registrations.choose(job.outcome, job.exam, candidates, ours)
        job.registration = registrations.confirm(job.outcome, job.exam, rules, [chosen])
    job.remembered = known[job.registration.id]


def compare(jobs: list[Job]) -> None:
    """What is to be written, and whether anything forbids it. A registration that says it already is not written."""
    _each(jobs, _compare)


def _compare(job: Job) -> None:
    registration, written = job.target, job.work.known.registration
    if job.remembered.owner not in (None, job.work.id):
        job.put_back()  # another event's write is not settled yet: whose the registration's values are is not known
        return
    job.values = changes.values_of(job.outcome, job.exam, job.work.answers.get("verdict"), job.work.accepts)
    job.changed = changes.difference(job.values, registration)
    as_altered = job.accepts(Reason.RHYTHM_ALTERED) and registration.status in _SETTLED
    if not job.changed or as_altered:
        job.settle("unchanged", registration.id, registration.sys_version, job.values_text())
        return
    if written and written != registration.id and "registration" not in job.work.answers:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"this delivery was written to {written} before")
    ours = job.remembered.delivery == job.work.delivery
    if ours and not changes.stand(job.remembered.values or {}, registration):
        _unless_accepted(job, Reason.REGISTRATION_EDITED, "is not as we left it")
    if not ours and registration.status in _SETTLED:
        _unless_accepted(job, Reason.REGISTRATION_SETTLED, "has another result already")
    if registration.sys_locked:
        raise TransientError(Reason.REGISTRATION_LOCKED, f"registration {registration.id} is locked in Rhythm")


def _unless_accepted(job: Job, reason: Reason, what: str) -> None:
    if not job.accepts(reason):
        raise PermanentError(reason, f"registration {job.target.id} {what}")


def intend(run: Run, jobs: list[Job]) -> None:
    """The row before the act: take each registration for one event, and store what is about to be written there."""
    if run.rules.writes == "hold":
        _each(jobs, lambda job: _unless_accepted(job, Reason.WRITES_OFF, "would be written; writes are on hold"))
    first: dict[str, Job] = {}
    for job in undecided(jobs):
        if first.setdefault(job.target.id, job) is not job:
            job.put_back()
    chosen = list(first.values())
    answers = run.ledger.intend(run.tenant, run.token, [_plan(job) for job in chosen])
    for job, answer in zip(chosen, answers, strict=True):
        if answer == "ok":
            job.in_doubt = True
        else:
            job.put_back()  # taken by another event, overtaken by a newer version, or no longer our claim


def _plan(job: Job) -> dict[str, str]:
    intent = {"registration": job.target.id, "base": job.target.sys_version, "values": job.values_text()}
    return {
        "id": job.work.id,
        "registration": job.target.id,
        "rev": job.remembered.rev,
        "delivery_rev": job.work.known.rev,
        "intent": json.dumps(intent),
    }


def write(run: Run, jobs: list[Job]) -> dict[str, ItemResult]:
    """Call Rhythm: one patch, or one batch. Only now is anything changed there."""
    guard = run.rules.rhythm.guard
    return send(run.rhythm.rhythm, {job.target.id: changes.patch(job.changed, job.target, guard) for job in jobs})


def settle(run: Run, jobs: list[Job], results: dict[str, ItemResult]) -> None:
    """What Rhythm's answer means for each event."""
    throttled = next((one.error for one in results.values() if isinstance(one.error, RhythmThrottled)), None)
    if throttled:
        run.rhythm.gate.close(throttled.reason, throttled.retry_after)
    # First those that need no reading, which may stop.
    jobs = sorted(jobs, key=lambda job: (one := results.get(job.target.id)) is None or one.state != ItemState.APPLIED)
    _each(jobs, lambda job: _settle(run, job, results.get(job.target.id)))


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
