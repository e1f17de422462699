"""Whether a registration that a person names can be that of an event's result, as Rhythm has it. Writes nothing."""

from schemas.event import Event
from schemas.outcome import ExamOutcome
from schemas.rhythm import REGISTRATION_ID, Registration
from tasks import process
from tasks.operator.steering import Refused
from tasks.steps.reading import Reader, ReadingStopped
from worker.bootstrap import Services
from worker.errors import ExamrelayError, PermanentError, Unchecked
from worker.rules import matching


def confirm(at: Services, event: Event, id: str) -> str:
    """What the registration is, for the person who named it. Reads Rhythm consistently, through the tenant's gate.

    Raises Refused; Unchecked when Rhythm cannot be asked; SealUnknown, SealBroken.
    """
    if event.tenant not in at.tenants.tenants:
        raise Unchecked(f"tenant {event.tenant} is not in the tenants file, so its Rhythm cannot be asked for {id}")
    if not REGISTRATION_ID.fullmatch(id):
        raise Refused("that cannot be the id of a registration")
    registration = _read(at, event.tenant, id)
    if registration is None:
        raise Refused(f"Rhythm has no registration {id}")
    exam = at.tenants[event.tenant].exam_for(_outcome(at, event).exam_codes)
    unfit = matching.cannot_be(registration, exam) if exam else None
    if unfit:
        raise Refused(f"registration {id} {unfit}")
    return f"registration {id} is {registration.status or 'without a status'}, for exam {registration.exam_id}"


def _read(at: Services, tenant: str, id: str) -> Registration | None:
    gate = at.gate(tenant)
    try:
        return Reader(at.rhythm(at.tenants[tenant], gate), gate).truth(id)
    except ReadingStopped as stopped:
        why = stopped.error.detail or str(stopped.error.reason)
        raise Unchecked(f"Rhythm cannot be asked for registration {id} now: {why}; `examrelay status`") from None
    except ExamrelayError as error:
        raise Refused(f"registration {id}: {error.detail}") from None


def _outcome(at: Services, event: Event) -> ExamOutcome:
    work = at.ledger.look(event.tenant, event.id)
    try:
        outcome = process.outcome_of(work, at.ledger.sealer) if work else None
    except PermanentError as error:
        raise Refused(f"the payload of {event.id} cannot be used ({error}), whatever it is about") from None
    if outcome is None:
        raise Refused(f"{event.id} is no result")
    return outcome
