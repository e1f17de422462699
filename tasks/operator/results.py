"""One event as an answer on the telephone: exam, sitting, verdict, score, written where and when, or why not."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.event import Event, EventState
from schemas.outcome import ExamOutcome
from tasks import process
from tasks.operator.contents import Written, written
from tasks.operator.steering import next_step
from worker.bootstrap import Services
from worker.errors import PermanentError
from worker.exam_map import Exam
from worker.ledger.sealed import SealBroken, SealUnknown
from worker.rules import changes


@dataclass(frozen=True)
class Result:
    """What can be said of an event to the person whose result it is. Personal."""

    event: str
    tenant: str
    state: EventState
    #: Rhythm's exam and the platform's code, as far as they are known.
    exam: str | None
    #: The platform's id of the sitting, and when it was completed.
    sitting: str | None
    completed_at: datetime | None
    #: What Rhythm says by our doing; else what would be written; else what the platform says.
    verdict: str | None
    score: str | None
    registration: str | None
    written_at: datetime | None
    #: What became of it, and what comes next: a sentence each.
    says: str
    next: str


def result_of(at: Services, event: Event, by: str) -> Result:
    """The result of an event, as far as it is kept and can be opened; the look is noted in its history."""
    at.ledger.note_look(event.tenant, event.id, by, "trace")
    outcome, exam, values = _read(at, event)
    kept = None
    with suppress(SealUnknown, SealBroken):
        kept = written(at, event.tenant, event.id)
    if kept and kept.values:
        values = kept.values
    said = outcome.scores.get(exam.score) if outcome and exam and exam.score else None
    score, verdict = values.get("score", said), values.get("status") or (outcome and outcome.verdict)
    codes = ", ".join(outcome.exam_codes) if outcome else ""
    return Result(
        event.id,
        event.tenant,
        event.state,
        f"{exam.exam_id} ({codes})" if exam else f"{codes}, not in the exam map" if codes else None,
        outcome.delivery if outcome else None,
        outcome.completed_at if outcome else None,
        str(verdict) if verdict else None,
        None if score is None else str(score),
        event.registration,
        kept.at if kept else None,
        _says(event, kept),
        next_step(at, event),
    )


def _read(at: Services, event: Event) -> tuple[ExamOutcome | None, Exam | None, dict[str, Any]]:
    """What the payload says, its exam, and what would be written; as far as it is kept and can be read."""
    work = at.ledger.look(event.tenant, event.id)
    outcome, exam, values = None, None, dict[str, Any]()
    with suppress(PermanentError, SealUnknown, SealBroken):
        outcome = process.outcome_of(work, at.ledger.sealer) if work and work.sealed else None
        if work and outcome and event.tenant in at.tenants.tenants:
            exam = at.tenants[event.tenant].exam_for(outcome.exam_codes)
            values = changes.values_of(outcome, exam, work.answers.get("verdict"), work.accepts) if exam else {}
    return outcome, exam, values


def _says(event: Event, kept: Written | None) -> str:
    why = f"{event.reason}: {event.detail}" if event.reason else ""
    last = event.history[-1] if event.history else None
    match event.state:
        case EventState.SYNCED if kept and kept.result == "unchanged":
            return f"registration {event.registration} said so already"
        case EventState.SYNCED:
            newer = f"; {kept.event} has written there since" if kept and kept.event not in (None, event.id) else ""
            return f"written to registration {event.registration}{newer}"
        case EventState.HELD | EventState.DEAD:
            return f"not written. It is {event.state} as {why}"
        case EventState.RECEIVED | EventState.READY:
            return f"not written yet. {why or 'It waits for its turn'}"
        case EventState.DISCARDED:
            return f"not written. It was set aside{f' by {last.by}' if last else ''}: {event.detail or event.reason}"
    return f"not written, and needs not be. It is {event.state}: {event.detail or 'another event has this result'}"
