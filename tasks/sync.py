"""resolve, compare, intend, write, read_answers: from an outcome to the registration in Rhythm that shows it.

`sync_batch` is the list of the steps. A batch goes through them together, so that a few calls to Rhythm serve up to 100
events; each event leaves at its own step with its own decision. In `tasks/steps/`: `resolving.py` finds registrations,
`reading.py` reads Rhythm, `writing.py` writes, `settlement.py` reads the answers, `job.py` has the decisions.
"""

import json
from collections.abc import Iterable
from datetime import timedelta

from schemas.event import EventState, Reason
from schemas.rhythm import SETTLED
from tasks.steps.batch import ExamSearch, Run, each
from tasks.steps.job import Job, undecided
from tasks.steps.reading import SPANS, Reader, Spans
from tasks.steps.resolving import resolve
from tasks.steps.settlement import read_answers, recall
from tasks.steps.writing import write
from worker.bootstrap import Services
from worker.errors import PermanentError, TransientError
from worker.exam_map import Exam
from worker.rules import changes
from worker.rules.order import Order, Version, order


def begin(
    at: Services, tenant: str, token: str, spans: Spans = SPANS, searches: dict[str, ExamSearch] | None = None
) -> Run:
    """What a batch works with. Its time for reading Rhythm begins now. `searches`: what the task has found before."""
    rules, gate, found = at.tenants[tenant], at.gate(tenant), {} if searches is None else searches
    reader = Reader(at.rhythm(rules, gate), gate, spans)
    return Run(tenant, rules, token, at.ledger, at.identity, reader, at.search_costs, found)


def sync_batch(run: Run, jobs: list[Job]) -> None:
    """Bring what is ready to Rhythm. Raises ReadingStopped when Rhythm may not or cannot be called."""
    recall(run, undecided(jobs))
    consider(run, undecided(jobs))
    resolve(run, undecided(jobs))
    compare(undecided(jobs))
    intend(run, undecided(jobs))
    results = write(run, undecided(jobs))
    read_answers(run, undecided(jobs), results)
    confirm_failures(run, jobs)


def confirm_failures(run: Run, jobs: Iterable[Job]) -> None:
    """Probe once more when events failed alone and Rhythm has answered nothing since: it may have gone away then.

    Raises ReadingStopped when it has.
    """
    if any(job.failure and job.failure.answers == run.rhythm.answers for job in jobs):
        run.rhythm.prove()


def put_back(run: Run, jobs: Iterable[Job], error: TransientError, delay: timedelta) -> None:
    """Put back the events that are undecided, and those that failed alone unless Rhythm has answered since."""
    for job in jobs:
        if job.decision is None or (job.failure and job.failure.answers == run.rhythm.answers):
            job.put_back(error, delay)


def consider(run: Run, jobs: list[Job]) -> None:
    """Compare each event with the other results of its delivery, then find its exam in the exam map.

    Only after `recall`: what an earlier try may have written has to be clear before an event can be superseded.
    """
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
    """Whether this version counts among those of its delivery. `intend` refuses when another came in since."""
    siblings, strangers = job.work.delivery_record.siblings, job.strangers
    arriving = Version(job.work.version or "", EventState.READY, job.work.received_at)
    others = [Version(other.version, other.state, other.received_at, other in strangers) for other in siblings]
    accepted = job.accepts(Reason.RESULT_CONFLICT) or job.accepts(Reason.RESULT_REPEATED)
    match order(arriving, others, job.applied, run.rules.rescore_order, accepted=accepted):
        case Order.SUPERSEDED:
            job.drop(EventState.SUPERSEDED, "a newer result of the delivery is known")
        case Order.CONFLICT:
            rivals = ", ".join(sibling.event for sibling in siblings)
            what = "another person has" if strangers else "differs from"
            raise PermanentError(Reason.RESULT_CONFLICT, f"{what} another result of the delivery: {rivals}")


def compare(jobs: list[Job]) -> None:
    """What has to be written, and whether anything forbids it. Where Rhythm already shows it, nothing is written."""
    each(jobs, _compare)


def _compare(job: Job) -> None:
    registration, written = job.target, job.written_to
    if job.remembered.owner not in (None, job.work.id):
        job.put_back()  # another event may be writing there: whose values the registration shows cannot be told yet
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
        job.settle("unchanged", registration.id, registration.sys_version, job.values_text(), "")
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
    """The result has no score and the registration has one: remove it in the same patch, when a person agrees.

    `ours_too`: we wrote that score. A score that somebody else wrote needs an answer of its own, and it stays where
    nothing else would change.
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
    """Take each registration for one event, and store what is about to be written there before Rhythm is called."""
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
    intent = {"registration": job.target.id, "base": job.base or None, "values": job.values_text()}
    return {
        "id": job.work.id,
        "registration": job.target.id,
        "rev": job.remembered.rev,
        "delivery_rev": job.work.delivery_record.rev,
        "intent": json.dumps(intent),
    }
