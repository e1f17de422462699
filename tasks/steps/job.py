"""Job: one event on its way through sync's steps, and the decisions it can leave with."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from schemas.event import EventState, Reason
from schemas.outcome import ExamOutcome
from schemas.rhythm import Registration
from worker.errors import ExamrelayError, TransientError
from worker.exam_map import Exam
from worker.ledger import decisions, trace
from worker.ledger.decisions import Decision
from worker.ledger.work import Intent, Sibling, Work
from worker.ledger.written import Remembered
from worker.rhythm.failures import EventFailure
from worker.rules import changes, retries
from worker.rules.changes import Values

#: When another event is writing to the same registration, or the plan was overtaken.
PUT_BACK: Final = timedelta(seconds=1)


@dataclass(slots=True)
class Job:
    """One event, what is known of it so far, and what was decided."""

    work: Work
    outcome: ExamOutcome
    exam: Exam
    now: datetime
    #: By id, or this person's for this exam.
    candidates: list[Registration] = field(default_factory=list)
    #: Whether `candidates` were named by the outcome itself.
    named: bool = False
    registration: Registration | None = None
    remembered: Remembered = field(default_factory=Remembered)
    #: What the registration must say, and what of it it does not say yet.
    values: Values = field(default_factory=dict)
    changed: Values = field(default_factory=dict)
    decision: Decision | None = None
    #: What Rhythm failed with for this event alone; whether it answered others is looked at again at the end.
    failure: EventFailure | None = None
    #: A write of this event's may be under way or applied: whatever comes, the next try begins by reading.
    in_doubt: bool = False

    @property
    def target(self) -> Registration:
        """The registration, once resolved."""
        assert self.registration is not None
        return self.registration

    @property
    def strangers(self) -> list[Sibling]:
        """Results of other people under the same delivery."""
        return [one for one in self.work.delivery_record.siblings if trace.strangers(self.work.who, one.who)]

    @property
    def applied(self) -> str | None:
        """The version of its delivery applied last, unless that is another person's."""
        applied = self.work.delivery_record.applied
        return None if any(one.version == applied for one in self.strangers) else applied

    @property
    def written_to(self) -> str | None:
        """The registration that this person's version applied last was written to."""
        return self.work.delivery_record.registration if self.applied else None

    def accepts(self, reason: Reason) -> bool:
        """Whether an operator's answer disarms this reason."""
        return reason in self.work.accepts

    def may_have_written(self, registration: Registration) -> bool:
        """Whether an earlier try of this event may have written to it, or may yet."""
        return self.work.intent is not None and self.work.intent.registration == registration.id

    def has_not_written(self) -> None:
        """What an earlier try was about to write is not there and cannot come any more."""
        self.work, self.in_doubt = replace(self.work, intent=None), False

    def landed(self, registration: Registration) -> bool:
        """Whether what an earlier try was about to write stands there, on a later version: then it is ours."""
        return _stands(self.work.intent, registration)

    def left_by_sibling(self, registration: Registration) -> Values | None:
        """What another event of this delivery was about to write when it left, where that stands there now."""
        doubts = (one.doubt for one in self.work.delivery_record.siblings if one not in self.strangers)
        return next((json.loads(doubt.values) for doubt in doubts if doubt and _stands(doubt, registration)), None)

    def settle_landed(self, registration: Registration) -> None:
        """Ends as written: by an earlier try of this event."""
        assert self.work.intent is not None
        self.settle("written", registration.id, registration.sys_version, self.work.intent.values)

    def values_text(self) -> str:
        """`values` as the ledger keeps them: scores as decimal text."""
        return json.dumps(self.values, default=str)

    def drop(self, to: EventState, detail: str) -> None:
        """Ends without an effect."""
        self.decision = decisions.drop(self.work.id, to, detail, keep_intent=self.work.intent is not None)

    def put_back(self, error: ExamrelayError | None = None, delay: timedelta = PUT_BACK) -> None:
        """Not this event's doing: later, without an attempt."""
        reason, detail = (error.reason, error.detail) if error else (None, None)
        self.decision = decisions.defer(self.work.id, delay, reason, detail, keep_intent=self.in_doubt)

    def fail(self, error: ExamrelayError) -> None:
        """An attempt failed: what follows is the reason's policy and the horizon."""
        if not isinstance(error, TransientError):
            about = self.registration.id if self.registration else None
            doubt = self.work.intent is not None  # what an earlier try was about to write may still be applied
            self.decision = decisions.stop(self.work.id, error.reason, error.detail, about, keep_intent=doubt)
            return
        self.failure = error if isinstance(error, EventFailure) else None
        attempts, first = self.work.attempts + 1, self.work.first_attempt_at
        delay = retries.retry_delay(error.reason, attempts, first, self.now, random.random(), error.retry_after)  # noqa: S311
        if delay is None:
            self.decision = _expired(self.work.id, error, self.in_doubt)
            return
        self.decision = decisions.defer(
            self.work.id, delay, error.reason, error.detail, attempt=True, keep_intent=self.in_doubt
        )

    def settle(
        self, result: Literal["written", "unchanged"], registration: str, sys_version: int | None, values: str
    ) -> None:
        """Rhythm says it."""
        self.decision = decisions.settle(self.work.id, result, registration, sys_version=sys_version, values=values)


def _stands(intent: Intent | None, registration: Registration) -> bool:
    """Whether an intent was carried out: its values stand on a later version than it was for."""
    if intent is None or intent.registration != registration.id:
        return False
    moved = intent.base is None or (registration.sys_version or 0) > intent.base
    return moved and changes.stand(json.loads(intent.values), registration)


def _expired(id: str, error: TransientError, in_doubt: bool) -> Decision:
    """After the horizon: a reason of the event's own stays; one of Rhythm's becomes `retries_expired`."""
    reason = error.reason.after_horizon
    detail = error.detail if reason is error.reason else f"last: {error}"
    return decisions.stop(id, reason, detail, keep_intent=in_doubt)


def undecided(jobs: Iterable[Job]) -> list[Job]:
    """Those still on their way."""
    return [job for job in jobs if job.decision is None]
