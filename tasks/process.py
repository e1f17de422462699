"""The task, and the steps from a recorded payload to an outcome: validate, transform, deduplicate.

`validate` checks the payload, `transform` says what it means, `deduplicate` compares that with what the ledger holds,
and the steps of `tasks/sync.py` bring it to Rhythm, all under one claim. An event that had to wait (a closed gate, a
failed try, an operator's answer) goes through the same steps again, and each step finds what was done before.
"""

from typing import Any, Final

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from structlog.contextvars import bound_contextvars

from schemas.event import EventState, Reason
from schemas.outcome import ExamOutcome
from schemas.platform import platform_of
from tasks.steps.batch import ExamSearch, Run, each
from tasks.steps.claiming import is_ours, reported, work
from tasks.steps.job import PUT_BACK, Job, undecided
from tasks.steps.reading import SPANS, ReadingStopped, Spans
from tasks.steps.report import Tally
from tasks.sync import begin, put_back, sync_batch
from worker import queues, sentry, sources
from worker.bootstrap import Services, services
from worker.errors import PermanentError
from worker.ledger import decisions, trace
from worker.ledger.identity import Identity
from worker.ledger.sealed import Sealer
from worker.ledger.times import IDENTITY_KEPT
from worker.ledger.work import Claim, Prepared, Work
from worker.rhythm.failures import RhythmUnavailable

_LIMITS: Final = {
    "soft_time_limit": queues.SOFT_TASK_SECONDS,
    "time_limit": queues.TASK_SECONDS,
    "throws": (Exception,),
}


@shared_task(name=queues.PROCESS, **_LIMITS)
def process(tenant: str) -> str:
    """The task of a hint: the tenant has work. Its argument holds nothing else. Returns a summary, for Flower."""
    with reported(queues.PROCESS, tenant):
        return process_tenant(services(), tenant).report()


@shared_task(name=queues.SYNC, **_LIMITS)
def sync(tenant: str) -> str:
    """The same, for hints that an earlier release sent."""
    with reported(queues.SYNC, tenant):
        return process_tenant(services(), tenant).report()


def process_tenant(at: Services, tenant: str, spans: Spans = SPANS) -> Tally:
    """Bring the events of a tenant that are due to Rhythm, up to 100 at a time."""
    if not is_ours(at, tenant):
        return Tally()

    searches: dict[str, ExamSearch] = {}

    def handle(claim: Claim, token: str) -> list[Job]:
        with sentry.traced(work.id for work in claim.works):
            return process_batch(begin(at, tenant, token, spans, searches), claim)

    slots = at.tenants[tenant].rhythm.concurrency
    with bound_contextvars(tenant=tenant):  # in every log line, and a tag at Sentry
        return work(at, tenant, slots, handle, lambda: sum(search.seconds for search in searches.values()))


def process_batch(run: Run, claim: Claim) -> list[Job]:
    """Decide every claimed event. Those that the gate or the clock stops are put back without an attempt."""
    jobs = [Job(work, claim.now) for work in claim.works]
    try:
        read(run, jobs)
        deduplicate(run, undecided(jobs))
        sync_batch(run, jobs)
    except ReadingStopped as stopped:
        put_back(run, jobs, stopped.error, stopped.delay)
    except SoftTimeLimitExceeded:
        put_back(run, jobs, RhythmUnavailable("the task's time was up before Rhythm had answered"), PUT_BACK)
    return jobs


def read(run: Run, jobs: list[Job]) -> None:
    """Each event's outcome, from its payload."""
    each(jobs, lambda job: _read(run, job))


def _read(run: Run, job: Job) -> None:
    outcome = outcome_of(job.work, run.ledger.sealer)
    if outcome is None:
        job.drop(EventState.IGNORED, "not a result")
    else:
        job.outcome = outcome


def outcome_of(event: Work, sealer: Sealer) -> ExamOutcome | None:
    """What an event's payload means; None when it is not a result. Raises as `validate`."""
    payload = validate(event, sealer)
    return transform(payload, event) if payload else None


def validate(event: Work, sealer: Sealer) -> sources.Checked | None:
    """The payload, checked against its source's model; None when it is not a result.

    Raises PermanentError: `body_too_large`, `invalid_json`, `invalid_payload`; SealUnknown, SealBroken.
    """
    if event.trouble is not None:
        raise event.trouble
    if event.problem is not None:
        raise PermanentError(event.problem, "only its beginning, length and digest were kept")
    return sources.validate(event.source, sealer.open(event.sealed, event.id), event.path)


def transform(payload: sources.Checked, event: Work) -> ExamOutcome:
    """What the payload means, in the canonical form that every source shares, with what contradicts itself in it.

    Whether a completion lies in the future is judged by the time of receipt, so that a replay judges alike.
    """
    return payload.to_outcome().contradicting(event.received_at)


def deduplicate(run: Run, jobs: list[Job]) -> None:
    """Make ready what is new. The `prepare` script compares and moves in one step, for a whole batch.

    Certiverse is deduplicated on `deliverableId`, Drillster on the attempt and its `eventId`. A version is a digest of
    the outcome, so `transform` comes before.
    """
    plans: dict[str, dict[str, Any]] = {}
    each(jobs, lambda job: plans.update(_plan(run, job)))
    prepared = run.ledger.prepare(run.tenant, run.token, list(plans.values()))
    answers = dict(zip(plans, prepared, strict=True))
    each(undecided(jobs), lambda job: _take(job, answers[job.work.id]))


def _plan(run: Run, job: Job) -> dict[str, dict[str, Any]]:
    """What `prepare` needs to know of an event, under its id.

    Nothing when the event is held (`result_ancient`): the exam was completed so long ago that the ledger may have
    pruned the identity of an earlier delivery.
    """
    event, outcome = job.work, job.outcome
    who = trace.who(run.identity, run.tenant, _candidate(outcome))
    old = outcome.completed_at is not None and job.now - outcome.completed_at > IDENTITY_KEPT
    if old and event.state is EventState.RECEIVED and Reason.RESULT_ANCIENT not in event.accepts:
        detail = f"completed more than {IDENTITY_KEPT.days} days ago"
        job.decision = decisions.about(decisions.stop(event.id, Reason.RESULT_ANCIENT, detail), who)
        return {}
    plan: dict[str, Any] = {
        "id": event.id,
        "delivery": f"{outcome.source}:{_sitting(outcome, run.identity)}",
        "version": run.identity.version(outcome.version),
        "who": who,
        "accepts": dict.fromkeys(event.accepts, True),
    }
    return {event.id: plan | ({"ref": f"{outcome.source}:{outcome.event_ref}"} if outcome.event_ref else {})}


def _take(job: Job, prepared: Prepared) -> None:
    match prepared.answer:
        case EventState.READY:
            job.prepared(prepared)
        case EventState.DUPLICATE:
            job.drop(EventState.DUPLICATE, prepared.detail)
        case "lost":
            job.put_back()
        case reason:
            raise PermanentError(Reason(reason), prepared.detail)


def _candidate(outcome: ExamOutcome) -> list[str | None]:
    """What an operator may know the candidate by, the most reliable first.

    An e-mail address comes last: two people may share one, and a person may change it.
    """
    candidate, own_id = outcome.candidate, outcome.details.get(platform_of(outcome.source).candidate_id or "")
    others = (candidate.third_party_ids[name] for name in sorted(candidate.third_party_ids))
    return [candidate.student_id, str(own_id) if own_id else None, *others, candidate.email]


def _sitting(outcome: ExamOutcome, identity: Identity) -> str:
    """The sitting's name in the ledger: an HMAC where the platform's own is made of candidate data."""
    return identity.of(outcome.delivery) if platform_of(outcome.source).personal_sitting else outcome.delivery
