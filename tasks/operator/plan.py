"""What would be written for an event, and why: the steps up to the write. Writes nothing."""

from dataclasses import dataclass, field
from typing import Any

from schemas.event import EventState
from schemas.outcome import ExamOutcome
from tasks import process, sync
from tasks.steps.batch import Run
from tasks.steps.job import Job, undecided
from tasks.steps.reading import ReadingStopped
from worker.bootstrap import Services
from worker.errors import PermanentError
from worker.ledger.queries import redis_now
from worker.ledger.work import Work
from worker.rules import changes, matching


@dataclass
class Plan:
    """One event's plan. Holds no personal data, but for the values that would be written."""

    id: str
    state: EventState
    #: What would become of it: `written`, `unchanged`, or the reason or state that ends it before.
    verdict: str = ""
    detail: str = ""
    registration: str | None = None
    #: Why each other candidate was not chosen.
    not_chosen: dict[str, str] = field(default_factory=dict)
    #: Field -> [what Rhythm says now, what it would say].
    difference: dict[str, list[Any]] = field(default_factory=dict)
    operations: list[dict[str, Any]] = field(default_factory=list)


def plan_event(at: Services, tenant: str, id: str) -> Plan | None:
    """The plan for one event; None when there is no such event.

    Calls Rhythm to read, through the tenant's gate like everything else.
    """
    work = at.ledger.look(tenant, id)
    if work is None:
        return None
    plan = Plan(id, work.state)
    try:
        outcome = process.outcome_of(work, at.ledger.sealer)
    except PermanentError as error:
        plan.verdict, plan.detail = error.reason, error.detail
        return plan
    if outcome is None:
        plan.verdict = EventState.IGNORED
        return plan
    _plan(at, tenant, plan, work, outcome)
    return plan


def _plan(at: Services, tenant: str, plan: Plan, work: Work, outcome: ExamOutcome) -> None:
    run = sync.begin(at, tenant, "plan")
    job = Job(work, redis_now(at.redis), outcome)
    try:
        sync.consider(run, [job])
        sync.resolve(run, undecided([job]))
        sync.compare(undecided([job]))
    except ReadingStopped as stopped:
        plan.verdict, plan.detail = stopped.error.reason, stopped.error.detail
        return
    _fill(plan, job, run)


def _fill(plan: Plan, job: Job, run: Run) -> None:
    chosen = job.registration
    plan.registration = chosen.id if chosen else None
    plan.not_chosen = {
        other.id: matching.why_not(job.outcome, job.exam, other) or "is less likely, or as likely as another"
        for other in job.candidates
        if chosen is None or other.id != chosen.id
    }
    if chosen is not None and job.changed:
        guard = run.rules.rhythm.guard
        plan.difference = {name: [getattr(chosen, name), value] for name, value in job.changed.items()}
        plan.operations = [operation.directive(False) for operation in changes.patch(job.changed, chosen, guard)]
    decision = job.decision
    if decision is None:
        held = run.rules.writes == "hold"
        plan.verdict, plan.detail = ("writes_off", "writes are on hold") if held else ("written", "")
    else:
        plan.verdict = str(decision.more.get("result") or decision.reason or decision.to)
        plan.detail = decision.detail or ""
