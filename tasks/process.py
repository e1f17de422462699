"""validate, transform, deduplicate: from a recorded payload to an outcome that is ready for Rhythm.

`validate` checks the payload, `transform` says what it means, `deduplicate` compares that with what the ledger holds.
A version is a digest of the canonical outcome, so `transform` comes before `deduplicate`. The script that moves the
event compares it as well, so that two workers cannot both find the same version new.
"""

from collections.abc import Sequence
from typing import Final

from celery import shared_task

from schemas.event import EventState, Reason, Stage
from schemas.outcome import STORED_FORM, ExamOutcome
from schemas.platform import platform_of
from tasks.steps.claiming import Tally, is_ours, reported, work
from tasks.steps.job import failed_attempt
from worker import queues, sources
from worker.bootstrap import Services, services
from worker.errors import PermanentError, TransientError
from worker.ledger import decisions, trace
from worker.ledger.decisions import Decision
from worker.ledger.identity import Identity
from worker.ledger.sealed import PAUSE, Sealer, SealUnknown
from worker.ledger.times import IDENTITY_KEPT
from worker.ledger.work import Claim, Work
from worker.queues import SOFT_TASK_SECONDS, TASK_SECONDS
from worker.telemetry import report_bug

#: Process tasks of a tenant at once: the other children of a worker are for sync, and for other tenants.
SLOTS: Final = 2


@shared_task(name=queues.PROCESS, soft_time_limit=SOFT_TASK_SECONDS, time_limit=TASK_SECONDS, throws=(Exception,))
def process(tenant: str) -> None:
    """The task of a hint: the tenant has work. Its argument holds nothing else."""
    with reported(queues.PROCESS, tenant):
        process_tenant(services(), tenant).report()


def process_tenant(at: Services, tenant: str) -> Tally:
    """Prepare the events of a tenant that are due, up to 100 at a time."""
    if not is_ours(at, tenant):
        return Tally()
    sealer, identity = at.ledger.sealer, at.identity

    def handle(claim: Claim, _token: str) -> Sequence[Decision]:
        return [_decide(tenant, work, claim, sealer, identity) for work in claim.works]

    return work(at, tenant, Stage.PROCESS, slots=SLOTS, handle=handle)


def _decide(tenant: str, event: Work, claim: Claim, sealer: Sealer, identity: Identity) -> Decision:
    """One event's next move. A bug in reading one payload is that event's alone."""
    try:
        outcome = outcome_of(event, sealer)
        if outcome is None:
            return decisions.drop(event.id, EventState.IGNORED, "not a result")
        decision = deduplicate(event, outcome, claim, sealer, identity)
        return decisions.about(decision, trace.who(identity, tenant, _candidate(outcome)))
    except SealUnknown as error:  # waits until the key is configured again
        return decisions.defer(event.id, PAUSE, error.reason, error.detail)
    except PermanentError as error:
        return decisions.stop(event.id, error.reason, error.detail)
    except Exception as error:  # noqa: BLE001  # a bug goes to Sentry and is tried again, so that no event is lost
        report_bug(error, event_id=event.id)
        return failed_attempt(event, TransientError(Reason.INTERNAL_ERROR, type(error).__name__), claim.now)


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


def deduplicate(event: Work, outcome: ExamOutcome, claim: Claim, sealer: Sealer, identity: Identity) -> Decision:
    """Ready, unless the ledger has this version of the delivery: the `apply` script compares and moves in one step.

    Certiverse is deduplicated on `deliverableId`, Drillster on the attempt and its `eventId`. Held (`result_ancient`)
    when the exam was completed so long ago that the ledger may have pruned the identity of an earlier delivery.
    """
    old = outcome.completed_at is not None and claim.now - outcome.completed_at > IDENTITY_KEPT
    if old and Reason.RESULT_ANCIENT not in event.accepts:
        return decisions.stop(event.id, Reason.RESULT_ANCIENT, f"completed more than {IDENTITY_KEPT.days} days ago")
    return decisions.prepare(
        event.id,
        delivery=f"{outcome.source}:{_sitting(outcome, identity)}",
        version=identity.version(outcome.version),
        ref=f"{outcome.source}:{outcome.event_ref}" if outcome.event_ref else None,
        accepts=event.accepts,
        outcome=sealer.seal(STORED_FORM + outcome.model_dump_json(exclude_defaults=True).encode(), event.id),
    )


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
