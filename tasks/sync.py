"""resolve, compare, intend, write, settle: from an outcome to the registration in Rhythm that says it.

A batch goes through the steps together, so that Rhythm is called a few times for up to 100 events; each event leaves
at its own step with its own decision (`tasks/job.py`). How Rhythm is read is in `tasks/reading.py`, how it is written
in `tasks/writing.py`, and what its answer means in `tasks/settlement.py`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.event import EventState, Reason, Stage
from schemas.outcome import STORED_FORM, Candidate, ExamOutcome, Source
from schemas.rhythm import Status
from tasks.job import Job, undecided
from tasks.reading import Reader, ReadingStopped
from tasks.run import Run, each, while_time
from tasks.settlement import recall, settle
from tasks.stage import Tally, work
from tasks.writing import write
from worker import celery, changes, registrations
from worker.bootstrap import Services, services
from worker.celery import app
from worker.errors import PermanentError, TransientError
from worker.ledger.decisions import Decision
from worker.ledger.events import Claim
from worker.ledger.registrations import Remembered, remembered
from worker.ledger.sealed import SealUnknown
from worker.order import Order, Version, order
from worker.tenants import Exam, SourceRules

_SETTLED: Final = (Status.PASSED, Status.FAILED, Status.NO_SHOW)
#: Stand in for an event's outcome and exam until they are read; an event that has only these is decided.
UNREAD: Final = ExamOutcome(source=Source.CERTIVERSE, delivery="-", exam_codes=(), candidate=Candidate())
UNMAPPED: Final = Exam(exam_id="-", codes=("-",))


@app.task(name=celery.SYNC, soft_time_limit=40, time_limit=45, throws=(Exception,))
def sync(tenant: str) -> None:
    """Sync what is due for a tenant. The hint's task: its argument is the tenant, nothing else."""
    sync_tenant(services(), tenant).report()


def sync_tenant(at: Services, tenant: str) -> Tally:
    """Sync what is due for a tenant, up to 100 events at a time."""
    rules, gate = at.tenants[tenant], at.gate(tenant)

    def handle(claim: Claim, token: str) -> Sequence[Decision]:
        run = Run(tenant, rules, token, at.ledger, Reader(at.rhythm(rules, gate), gate))
        return sync_batch(run, claim)

    return work(at, tenant, Stage.SYNC, slots=rules.rhythm.concurrency, handle=handle)


def sync_batch(run: Run, claim: Claim) -> list[Decision]:
    """Every claimed event's decision. What Rhythm's gate stops halfway is put back without an attempt."""
    jobs = [Job(work, UNREAD, UNMAPPED, claim.now, in_doubt=bool(work.intent or work.trouble)) for work in claim.works]
    try:
        read(run, jobs)
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


def read(run: Run, jobs: list[Job]) -> None:
    """Each event's outcome, as process has stored it."""
    each(jobs, lambda job: _read(run, job))


def _read(run: Run, job: Job) -> None:
    if job.work.trouble is not None:
        raise job.work.trouble
    stored = run.ledger.sealer.open(job.work.sealed, job.work.id)
    if stored[:1] != STORED_FORM:
        raise SealUnknown("the outcome is in a form that this version of examrelay does not know")
    job.outcome = ExamOutcome.model_validate_json(stored[1:])


def consider(run: Run, jobs: list[Job]) -> None:
    """The order of its delivery's results, or the exam map, may end an event here; but not before it was recalled."""
    each(jobs, lambda job: _consider(run, job))


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


def resolve(run: Run, jobs: list[Job]) -> None:
    """Each event's registration: by the id it names, else by student and exam, else by e-mail and exam."""
    rules = {job.work.id: run.rules.sources[job.work.source] for job in jobs}
    ids = {job.work.id: _named(job, rules[job.work.id]) for job in jobs}
    found = run.rhythm.by_id(id for named in ids.values() for id in named)
    for job in jobs:
        job.candidates = [found[id] for id in ids[job.work.id] if id in found]
        job.named = bool(job.candidates)
    unnamed = [job for job in jobs if not job.named]
    while_time(run, unnamed, lambda job: _look_up(run, job, rules[job.work.id]))
    candidates = (one.id for job in jobs for one in job.candidates)
    known = remembered(run.ledger.client, run.ledger.sealer, run.tenant, candidates)
    while_time(run, undecided(jobs), lambda job: _choose(run, job, rules[job.work.id], known))


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
    each(jobs, _compare)


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
        each(jobs, lambda job: _unless_accepted(job, Reason.WRITES_OFF, "would be written; writes are on hold"))
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
