"""resolve, compare, intend, write, read_answers: from an outcome to the registration in Rhythm that says it.

A batch goes through the steps together, so that Rhythm is called a few times for up to 100 events; each event leaves
at its own step with its own decision. The steps are in `tasks/steps/`: how Rhythm is read is in `reading.py`, how it is
written in `writing.py`, and what its answer means in `settlement.py`; `job.py` has the decisions.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from schemas.event import EventState, Reason, Stage
from schemas.outcome import READABLE_FORMS, Candidate, ExamOutcome, Source
from schemas.rhythm import SETTLED, Registration
from tasks.steps.batch import Run, as_far_as_it_goes, each
from tasks.steps.claiming import Tally, is_ours, reported, work
from tasks.steps.job import PUT_BACK, Job, undecided
from tasks.steps.reading import Found, Reader, ReadingStopped
from tasks.steps.settlement import read_answers, recall
from tasks.steps.writing import write
from worker import queues
from worker.bootstrap import Services, services
from worker.errors import PermanentError, TransientError
from worker.exam_map import Exam
from worker.ledger.decisions import Decision
from worker.ledger.sealed import SealUnknown
from worker.ledger.work import Claim
from worker.ledger.written import Remembered, remembered
from worker.queues import SOFT_TASK_SECONDS, TASK_SECONDS
from worker.rhythm.client import RhythmUnavailable
from worker.rules import changes, matching
from worker.rules.order import Order, Version, order
from worker.tenants import SourceRules

#: Stand in for an event's outcome and exam until they are read; an event that has only these is decided.
UNREAD: Final = ExamOutcome(source=Source.CERTIVERSE, delivery="-", exam_codes=(), candidate=Candidate())
UNMAPPED: Final = Exam(exam_id="-", codes=("-",))
#: For the look-ups of a batch, and for reads that are repeated because they were behind: they leave time to write.
LOOK_UP_SECONDS: Final = 10.0
REPEAT_SECONDS: Final = 4.0


@shared_task(name=queues.SYNC, soft_time_limit=SOFT_TASK_SECONDS, time_limit=TASK_SECONDS, throws=(Exception,))
def sync(tenant: str) -> None:
    """Sync what is due for a tenant. The hint's task: its argument is the tenant, nothing else."""
    with reported(queues.SYNC, tenant):
        sync_tenant(services(), tenant).report()


def sync_tenant(at: Services, tenant: str) -> Tally:
    """Sync what is due for a tenant, up to 100 events at a time."""
    if not is_ours(at, tenant):
        return Tally()
    rules, gate = at.tenants[tenant], at.gate(tenant)

    def handle(claim: Claim, token: str) -> Sequence[Decision]:
        run = Run(tenant, rules, token, at.ledger, Reader(at.rhythm(rules, gate), gate))
        return sync_batch(run, claim)

    return work(at, tenant, Stage.SYNC, slots=rules.rhythm.concurrency, handle=handle)


def sync_batch(run: Run, claim: Claim) -> list[Decision]:
    """Every claimed event's decision. What Rhythm's gate or the clock stops is put back without an attempt."""
    jobs = [Job(work, UNREAD, UNMAPPED, claim.now, in_doubt=bool(work.intent or work.trouble)) for work in claim.works]
    try:
        read(run, jobs)
        recall(run, undecided(jobs))
        consider(run, undecided(jobs))
        resolve(run, undecided(jobs))
        compare(undecided(jobs))
        intend(run, undecided(jobs))
        results = write(run, undecided(jobs))
        read_answers(run, undecided(jobs), results)
        confirm_failures(run, jobs)
    except ReadingStopped as stopped:
        put_back(run, jobs, stopped.error, stopped.delay)
    except SoftTimeLimitExceeded:
        put_back(run, jobs, RhythmUnavailable("the task's time was up before Rhythm had answered"), PUT_BACK)
    return [job.decision for job in jobs if job.decision is not None]


def confirm_failures(run: Run, jobs: Iterable[Job]) -> None:
    """The last probe: events that have failed alone, but nothing was answered since, may have met an outage's start.

    Raises ReadingStopped when it is one.
    """
    if any(job.failure and job.failure.answers == run.rhythm.answers for job in jobs):
        run.rhythm.prove()


def put_back(run: Run, jobs: Iterable[Job], error: TransientError, delay: timedelta) -> None:
    """What is undecided; and what failed alone, unless Rhythm has answered since."""
    for job in jobs:
        if job.decision is None or (job.failure and job.failure.answers == run.rhythm.answers):
            job.put_back(error, delay)


def read(run: Run, jobs: list[Job]) -> None:
    """Each event's outcome, as process has stored it."""
    each(jobs, lambda job: _read(run, job))


def _read(run: Run, job: Job) -> None:
    if job.work.trouble is not None:
        raise job.work.trouble
    stored = run.ledger.sealer.open(job.work.sealed, job.work.id)
    if stored[:1] not in READABLE_FORMS:
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
    siblings, strangers = job.work.delivery_record.siblings, job.strangers
    arriving = Version(job.work.version or "", EventState.READY, job.work.received_at)
    others = [Version(one.version, one.state, one.received_at, one in strangers) for one in siblings]
    accepted = job.accepts(Reason.RESULT_CONFLICT) or job.accepts(Reason.RESULT_REPEATED)
    match order(arriving, others, job.applied, run.rules.rescore_order, accepted=accepted):
        case Order.SUPERSEDED:
            job.drop(EventState.SUPERSEDED, "a newer result of the delivery is known")
        case Order.CONFLICT:
            rivals = ", ".join(one.event for one in siblings)
            what = "another person has" if strangers else "differs from"
            raise PermanentError(Reason.RESULT_CONFLICT, f"{what} another result of the delivery: {rivals}")


def resolve(run: Run, jobs: list[Job]) -> None:
    """Each event's registration: by the id it names, else by student and exam, else by e-mail and exam."""
    rules = {job.work.id: run.rules.sources[job.work.source] for job in jobs}
    ids = {job.work.id: _named(job, rules[job.work.id]) for job in jobs}
    apart = [id for job in jobs if job.work.failed and not job.work.intent for id in ids[job.work.id]]
    run.rhythm.allow(LOOK_UP_SECONDS)
    found = run.rhythm.by_id((id for named in ids.values() for id in named), apart)
    each(jobs, lambda job: _by_name(job, ids[job.work.id], found))
    named_first = sorted(undecided(jobs), key=lambda job: not job.named)
    as_far_as_it_goes(run, named_first, lambda job: _look_up(run, job, rules[job.work.id]), LOOK_UP_SECONDS)
    candidates = (one.id for job in jobs for one in job.candidates)
    known = remembered(run.ledger.client, run.ledger.sealer, run.tenant, candidates)
    as_far_as_it_goes(run, undecided(jobs), lambda job: _choose(run, job, rules[job.work.id], known), REPEAT_SECONDS)


def _named(job: Job, rules: SourceRules) -> list[str]:
    answer = job.work.answers.get("registration")
    return [answer] if answer else matching.named_ids(job.outcome, rules)


def _by_name(job: Job, ids: Sequence[str], found: Found) -> None:
    job.candidates = [registration for id in ids if (registration := found.get(id))]
    job.named = bool(job.candidates)


def _look_up(run: Run, job: Job, rules: SourceRules) -> None:
    if job.named:
        return
    candidate, exam_id, answers = job.outcome.candidate, job.exam.exam_id, job.work.answers
    if "registration" in answers:
        _look_up_answer(run, job, answers["registration"])
        return
    if nobody := matching.why_nobody(job.outcome, rules):
        raise PermanentError(Reason.NOBODY_NAMED, nobody)
    run.rhythm.in_time()
    student = matching.student_of(candidate, rules)
    if student:
        job.candidates = run.rhythm.of_student(student, exam_id)
    if not job.candidates and candidate.email:
        job.candidates = run.rhythm.of_email(candidate.email_sent or candidate.email, exam_id)


def _look_up_answer(run: Run, job: Job, id: str) -> None:
    """It was there when a person named it, so a search that is behind is not believed; gone, a person must look."""
    found = run.rhythm.truth(id)
    if found is None:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"Rhythm has no registration {id}, the answer given")
    job.candidates, job.named = [found], True


def _choose(run: Run, job: Job, rules: SourceRules, known: Mapping[str, Remembered]) -> None:
    candidates = [run.rhythm.not_before(one, known[one.id].sys_version) for one in job.candidates]
    if job.named and "registration" in job.work.answers:
        job.registration = matching.answered(job.exam, candidates[0])
    elif job.named:
        job.registration = matching.confirm(job.outcome, job.exam, rules, candidates)
    else:
        ours = {one.id for one in candidates if _is_ours(job, one, known[one.id])}
        chosen = matching.choose(job.outcome, job.exam, candidates, ours)
        job.registration = matching.confirm(job.outcome, job.exam, rules, [chosen])
    job.remembered = known[job.registration.id]


def _is_ours(job: Job, registration: Registration, remembered: Remembered) -> bool:
    """Whether this delivery wrote it last, or may have."""
    left = job.left_by_sibling(registration) is not None
    return left or remembered.delivery == job.work.delivery or job.may_have_written(registration)


def compare(jobs: list[Job]) -> None:
    """What is to be written, and whether anything forbids it. A registration that says it already is not written."""
    each(jobs, _compare)


def _compare(job: Job) -> None:
    registration, written = job.target, job.written_to
    if job.remembered.owner not in (None, job.work.id):
        job.put_back()  # another event's write is not settled yet: whose the registration's values are is not known
        return
    if job.landed(registration):
        job.settle_landed(registration)
        return
    job.values = changes.values_of(job.outcome, job.exam, job.work.answers.get("verdict"), job.work.accepts)
    left = job.left_by_sibling(registration)
    ours = left is not None or job.remembered.delivery == job.work.delivery
    wrote = left if left is not None else (job.remembered.values or {}) if ours else {}
    job.values = changes.cleared(job.values, wrote, job.exam)
    if changes.leaves_score(job.values, registration):
        _take_score(job, ours, wrote.get("score") is not None)
    job.changed = changes.difference(job.values, registration)
    as_altered = job.accepts(Reason.RHYTHM_ALTERED) and registration.status in SETTLED
    if not job.changed or as_altered:
        job.settle("unchanged", registration.id, registration.sys_version, job.values_text())
        return
    if written and written != registration.id and "registration" not in job.work.answers:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"this delivery was written to {written} before")
    if not changes.stand(wrote, registration):
        _unless_accepted(job, Reason.REGISTRATION_EDITED, "is not as we left it")
    if not ours and registration.status in SETTLED:
        _unless_accepted(job, Reason.REGISTRATION_SETTLED, "has another result already")
    if registration.sys_locked:
        raise TransientError(Reason.REGISTRATION_LOCKED, f"registration {registration.id} is locked in Rhythm")


def _take_score(job: Job, ours: bool, ours_too: bool) -> None:
    """The result has no score and the registration has one: ours is removed in the same patch, when a person agrees.

    `ours_too`: the score that stands there is ours. Another hand's is taken away only with an answer about that; and
    where nothing else would change, it is theirs and stays.
    """
    if not ours_too and not changes.difference(job.values, job.target):
        return
    _unless_accepted(job, Reason.SCORE_MISSING, "has a score and the result has none: it would be removed")
    if not ours_too:
        reason = Reason.REGISTRATION_EDITED if ours else Reason.REGISTRATION_SETTLED
        _unless_accepted(job, reason, "has a score that is not ours")
    job.values["score"] = None


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
        "delivery_rev": job.work.delivery_record.rev,
        "intent": json.dumps(intent),
    }
