"""Job: one event on its way through the steps, and the decisions it can leave with."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from schemas.event import EventState, Reason
from schemas.outcome import Candidate, ExamOutcome, Source
from schemas.rhythm import Registration
from worker.errors import ExamrelayError, TransientError
from worker.exam_map import Exam
from worker.ledger import decisions
from worker.ledger.decisions import Decision
from worker.ledger.work import Intent, Prepared, Sibling, Work
from worker.ledger.written import Remembered
from worker.rhythm.failures import EventFailure
from worker.rules import changes, retries
from worker.rules.changes import Values

#: When another event is writing to the same registration, or the registration has changed since it was read.
PUT_BACK: Final = timedelta(seconds=1)
#: An event's outcome and exam until they are read. An event that still has these has been decided.
_UNREAD: Final = ExamOutcome(source=Source.CERTIVERSE, delivery="-", exam_codes=(), candidate=Candidate())
_UNMAPPED: Final = Exam(exam_id="-", codes=("-",))
#: As `json.dumps`, which makes an encoder for each call. Redis keeps what it makes: no spaces.
_in_json: Final = json.JSONEncoder(default=str, separators=(",", ":")).encode


@dataclass(slots=True)
class Job:
    """One event, what the steps have found out about it, and what was decided."""

    work: Work
    now: datetime
    outcome: ExamOutcome = _UNREAD
    exam: Exam = _UNMAPPED
    #: The registrations that may be meant; whether the outcome or a person named them by id, or an exam's search did.
    candidates: list[Registration] = field(default_factory=list)
    named: bool = False
    searched: bool = False
    registration: Registration | None = None
    remembered: Remembered = field(default_factory=Remembered)
    #: What the registration must say, and the part that it does not say yet.
    values: Values = field(default_factory=dict)
    changed: Values = field(default_factory=dict)
    decision: Decision | None = None
    #: The step that it went through last.
    stage: str = ""
    #: How Rhythm failed for this event alone. At the end of the batch it is confirmed that Rhythm answers others.
    failure: EventFailure | None = None
    #: A write of this event may be under way or applied, so the next try begins by reading.
    in_doubt: bool = field(init=False)

    def __post_init__(self) -> None:
        self.in_doubt = bool(self.work.intent or self.work.trouble)

    @property
    def target(self) -> Registration:
        """The registration, once resolved."""
        assert self.registration is not None
        return self.registration

    @property
    def strangers(self) -> list[Sibling]:
        """Results of other people under the same delivery."""
        return [sibling for sibling in self.work.delivery_record.siblings if sibling.stranger]

    @property
    def applied(self) -> str | None:
        """The version of its delivery applied last, unless that is another person's."""
        applied = self.work.delivery_record.applied
        return None if any(stranger.version == applied for stranger in self.strangers) else applied

    @property
    def written_to(self) -> str | None:
        """The registration to which this person's version was applied last."""
        return self.work.delivery_record.registration if self.applied else None

    def accepts(self, reason: Reason) -> bool:
        return reason in self.work.accepts

    def may_have_written(self, registration: Registration) -> bool:
        """Whether a write of an earlier try may have reached it, or still may."""
        return self.work.intent is not None and self.work.intent.registration == registration.id

    def has_not_written(self) -> None:
        """No write of an earlier try was applied, and none can be applied any more."""
        self.work, self.in_doubt = replace(self.work, intent=None), False

    def landed(self, registration: Registration) -> bool:
        """Whether a write of an earlier try was applied: the registration shows its values, on a later version."""
        return _stands(self.work.intent, registration)

    def left_by_sibling(self, registration: Registration) -> Values | None:
        """What another event of this delivery was about to write when it left, if the registration shows that now."""
        doubts = (sibling.doubt for sibling in self.work.delivery_record.siblings if sibling not in self.strangers)
        return next((json.loads(doubt.values) for doubt in doubts if doubt and _stands(doubt, registration)), None)

    def settle_landed(self, registration: Registration) -> None:
        """Settle as written, by an earlier try of this event."""
        assert self.work.intent is not None
        intent = self.work.intent
        self.settle("written", registration.id, registration.sys_version, intent.values, intent.base or "")

    def prepared(self, told: Prepared) -> None:
        """It is ready: its delivery and version, and what the ledger holds of the delivery."""
        self.work = replace(
            self.work, delivery=told.delivery, version=told.version, delivery_record=told.delivery_record
        )

    def values_text(self) -> str:
        """`values` as JSON, scores as decimal text."""
        return _in_json(self.values)

    def drop(self, to: EventState, detail: str) -> None:
        """End without an effect on Rhythm."""
        self.decision = decisions.drop(self.work.id, to, detail, keep_intent=self.work.intent is not None)

    def put_back(self, error: ExamrelayError | None = None, delay: timedelta = PUT_BACK) -> None:
        """Try again later. The event did nothing wrong, so no attempt is spent."""
        reason, detail = (error.reason, error.detail) if error else (None, None)
        self.decision = decisions.defer(self.work.id, delay, reason, detail, keep_intent=self.in_doubt)

    def fail(self, error: ExamrelayError) -> None:
        """Decide what follows from a failure: hold, bury, or try again."""
        if not isinstance(error, TransientError):
            about = self.registration.id if self.registration else None
            doubt = self.work.intent is not None  # what an earlier try was about to write may still be applied
            id, words = self.work.id, getattr(error, "words", "")
            self.decision = decisions.stop(id, error.reason, error.detail, about, keep_intent=doubt, words=words)
            return
        self.failure = error if isinstance(error, EventFailure) else None
        self.decision = failed_attempt(self.work, error, self.now, in_doubt=self.in_doubt)

    def settle(
        self,
        result: Literal["written", "unchanged"],
        registration: str,
        sys_version: int | None,
        values: str,
        base: str,
    ) -> None:
        """End as synced: Rhythm shows the result. `base`: the version on top of which it was written."""
        id = self.work.id
        self.decision = decisions.settle(id, result, registration, sys_version=sys_version, values=values, base=base)

    @property
    def base(self) -> str:
        """The version of the registration that this try plans on; empty where Rhythm gives none."""
        version = self.target.sys_version
        return "" if version is None else str(version)


def versions_since(base: str, registration: Registration) -> int:
    """How many versions newer a registration is than `base`, the `sys_version` that an intent was planned on."""
    return (registration.sys_version or 0) - int(base)


def _stands(intent: Intent | None, registration: Registration) -> bool:
    """Whether an intent was carried out: the registration shows its values, on a later version than its base."""
    if intent is None or intent.registration != registration.id:
        return False
    moved = intent.base is None or versions_since(intent.base, registration) > 0
    return moved and changes.stand(json.loads(intent.values), registration)


def failed_attempt(work: Work, error: TransientError, now: datetime, *, in_doubt: bool = False) -> Decision:
    """What follows from an attempt that failed: another one later, or the end when the horizon has passed.

    At the end a reason of the event's own stays; one of Rhythm's, or a bug, becomes `retries_expired`.
    """
    attempts, jitter = work.attempts + 1, random.random()
    delay = retries.retry_delay(error.reason, attempts, work.first_attempt_at, now, jitter, error.retry_after)
    if delay is not None:
        return decisions.defer(work.id, delay, error.reason, error.detail, attempt=True, keep_intent=in_doubt)
    reason = error.reason.after_horizon
    detail = error.detail if reason is error.reason else f"last: {error}"
    return decisions.stop(work.id, reason, detail, keep_intent=in_doubt)


def undecided(jobs: Iterable[Job]) -> list[Job]:
    """Those that have no decision yet."""
    return [job for job in jobs if job.decision is None]
