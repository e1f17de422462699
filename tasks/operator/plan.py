"""What would be written for an event, and why: the steps up to the write. Writes nothing."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from schemas.event import EventState, Reason
from schemas.outcome import ExamOutcome
from schemas.rhythm import Registration
from tasks import process, sync
from tasks.steps.batch import Run
from tasks.steps.job import Job, undecided
from tasks.steps.reading import ReadingStopped
from worker.bootstrap import Services
from worker.errors import PermanentError
from worker.ledger.queries import redis_now
from worker.ledger.work import Work
from worker.rules import changes, matching


class Candidate(NamedTuple):
    """A registration that was considered, as Rhythm has it now. `why` it was not chosen: empty of the one that was."""

    id: str
    exam_id: str | None
    exam_date: str | None
    #: When the person registered.
    date: str | None
    status: str | None
    #: The person's, only for who asks by name.
    name: str | None
    why: str


@dataclass
class Plan:
    """One event's plan. Holds no personal data, but for the values that would be written, and names if asked for."""

    id: str
    state: EventState
    #: What would become of it: `written`, `unchanged`, or the reason or state that ends it before.
    verdict: str = ""
    detail: str = ""
    registration: str | None = None
    candidates: list[Candidate] = field(default_factory=list)
    #: Field -> [what Rhythm says now, what it would say]; of a custom field and its member, `ID.MEMBER`.
    difference: dict[str, list[Any]] = field(default_factory=dict)
    operations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def says(self) -> str:
        """What would become of it, in a sentence."""
        if self.verdict == "written":
            return f"would be written to registration {self.registration}"
        if self.verdict == "unchanged":
            return f"nothing would be written: registration {self.registration} says it already"
        why = f"{self.verdict}: {self.detail}" if self.detail else self.verdict
        if self.verdict not in set(Reason):
            return f"would be {why}"
        policy = Reason(self.verdict).policy
        return f"would be tried again later: {why}" if policy.retried else f"would be {policy.ends_in} as {why}"


def plan_event(at: Services, tenant: str, id: str, by: str = "", answers: dict[str, Any] | None = None) -> Plan | None:
    """The plan for one event; None when there is no such event.

    Calls Rhythm to read, through the tenant's gate like everything else. `by`: who asks for the candidates' names too;
    that is noted in the event's history. `answers`: as if a person had given them.
    """
    if by:
        at.ledger.note_look(tenant, id, by, "plan")
    work = at.ledger.look(tenant, id)
    if work is None:
        return None
    if answers:
        accepted = [*work.answers.get("accept", ()), *answers.get("accept", ())]
        work = replace(work, answers=work.answers | answers | {"accept": accepted})
    plan = Plan(id, work.state)
    try:
        outcome = process.outcome_of(work, at.ledger.sealer)
    except PermanentError as error:
        plan.verdict, plan.detail = error.reason, error.detail
        return plan
    if outcome is None:
        plan.verdict = EventState.IGNORED
        return plan
    _plan(at, tenant, plan, work, outcome, names=bool(by))
    return plan


def _plan(at: Services, tenant: str, plan: Plan, work: Work, outcome: ExamOutcome, *, names: bool) -> None:
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
    plan.candidates = [_candidate(one, job, names=names) for one in job.candidates]


def _candidate(one: Registration, job: Job, *, names: bool) -> Candidate:
    chosen = job.registration is not None and one.id == job.registration.id
    why = matching.why_not(job.outcome, job.exam, one) or "is less likely, or as likely as another"
    name = (one.name or f"{one.first_name or ''} {one.last_name or ''}".strip() or None) if names else None
    return Candidate(one.id, one.exam_id, one.exam_date, one.date, one.status, name, "" if chosen else why)


def _fill(plan: Plan, job: Job, run: Run) -> None:
    chosen = job.registration
    plan.registration = chosen.id if chosen else None
    if chosen is not None and job.changed:
        guard = run.rules.rhythm.guard
        now, would = _flat(changes.as_now(job.changed, chosen)), _flat(job.changed)
        plan.difference = {name: [now.get(name), value] for name, value in would.items()}
        plan.operations = [operation.directive(False) for operation in changes.patch(job.changed, chosen, guard)]
    decision = job.decision
    if decision is None:
        held = run.rules.writes == "hold" and not job.accepts(Reason.WRITES_OFF)
        plan.verdict, plan.detail = ("writes_off", "writes are on hold") if held else ("written", "")
    else:
        plan.verdict = str(decision.more.get("result") or decision.reason or decision.to)
        plan.detail = decision.detail or ""


def _flat(values: changes.Values) -> dict[str, Any]:
    """Values with a row for each member of each custom field."""
    fields = values.get("custom_field_values", {}).items()
    members = {f"{id}.{name}": value for id, field in fields for name, value in (field or {}).items()}
    return {name: value for name, value in values.items() if name != "custom_field_values"} | members
