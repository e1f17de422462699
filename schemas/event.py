"""Event: one delivery of a payload, and the words for where it stands. What the ledger keeps."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from schemas.outcome import Source


class EventState(StrEnum):
    """Where an event stands. Each accepted event is in exactly one. A lease and an intent are not states.

    `index_name`: the ledger's index that holds the events of the state; final events are in none.
    """

    index_name: str | None

    def __new__(cls, value: str, index_name: str | None = None) -> "EventState":
        member = str.__new__(cls, value)
        member._value_, member.index_name = value, index_name
        return member

    #: Recorded; not yet read.
    RECEIVED = "received", "due:process"
    #: Valid, new, and a result: waits for its turn in Rhythm.
    READY = "ready", "due:sync"
    #: Waits for a person's decision.
    HELD = "held", "held"
    #: A dead letter: cannot succeed until a person changes something.
    DEAD = "dead", "dead"
    #: Rhythm says what the result says. Final, like all below.
    SYNCED = "synced"
    #: Another event brought the same version of the delivery.
    DUPLICATE = "duplicate"
    #: A newer version of the delivery is known.
    SUPERSEDED = "superseded"
    #: Not a result.
    IGNORED = "ignored"
    #: Set aside by an operator.
    DISCARDED = "discarded"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self.index_name is None

    @property
    def waiting(self) -> bool:
        """Whether it waits for a machine: it is in an index by due time."""
        return self in (EventState.RECEIVED, EventState.READY)

    @property
    def for_a_person(self) -> bool:
        """Whether it waits for a person."""
        return self in (EventState.HELD, EventState.DEAD)


class Policy(StrEnum):
    """What happens to an event when it fails with a reason."""

    #: A dead letter.
    DEAD = "dead"
    #: Waits for a person's answer.
    HELD = "held"
    #: Tried again; `dead` once an attempt fails after the horizon.
    RETRY = "retry"
    #: Tried again; `held` once an attempt fails after the horizon.
    RETRY_THEN_HELD = "retry, then held"
    #: Not this event's failure: the tenant's gate closes, no attempt is spent, and it is tried again.
    GATE = "gate"
    #: Set by a command.
    DISCARDED = "discarded"

    @property
    def retried(self) -> bool:
        """Whether an event is tried again, until the horizon."""
        return self in (Policy.RETRY, Policy.RETRY_THEN_HELD, Policy.GATE)

    @property
    def ends_in(self) -> EventState:
        """The state of an event that is not tried again."""
        return EventState.HELD if self in (Policy.HELD, Policy.RETRY_THEN_HELD) else EventState.DEAD


class Answer(StrEnum):
    """What a person says to let a held event go on: an option of `examrelay replay`."""

    #: `--registration ID`: the registration that is meant.
    REGISTRATION = "registration"
    #: `--verdict passed`, `failed` or `none`.
    VERDICT = "verdict"
    #: `--accept REASON`: write in spite of the reason.
    ACCEPT = "accept"


class Reason(StrEnum):
    """Why an event is where it is, and all that follows from it.

    The value is what operators filter on. `policy` says what happens to the event. `needs` is the answer without which
    a replay would only stop it again; None where something else is put right first, such as the exam map.
    """

    policy: Policy
    needs: Answer | None

    def __new__(cls, value: str, policy: Policy = Policy.DEAD, needs: Answer | None = None) -> "Reason":
        member = str.__new__(cls, value)  # the defaults: a member is also looked up by its value alone
        member._value_, member.policy, member.needs = value, policy, needs
        return member

    #: The body is not JSON.
    INVALID_JSON = "invalid_json", Policy.DEAD
    #: JSON, but not this source's shape.
    INVALID_PAYLOAD = "invalid_payload", Policy.DEAD
    #: Over the size limit: only its beginning, length and digest were kept.
    BODY_TOO_LARGE = "body_too_large", Policy.DEAD
    #: The exam map does not have the exam.
    UNKNOWN_EXAM = "unknown_exam", Policy.HELD
    #: Neither passed nor failed, and no rule decides.
    RESULT_UNSCORED = "result_unscored", Policy.HELD, Answer.VERDICT
    #: Ended by a proctor or terminated: reviewed before it counts.
    INTEGRITY_REVIEW = "integrity_review", Policy.HELD, Answer.ACCEPT
    #: The tenant's `writes` is `hold`.
    WRITES_OFF = "writes_off", Policy.HELD
    #: Two results of one delivery differ, and neither says that it replaces the other.
    RESULT_CONFLICT = "result_conflict", Policy.HELD, Answer.ACCEPT
    #: A version that a rescore has replaced came again.
    RESULT_REPEATED = "result_repeated", Policy.HELD, Answer.ACCEPT
    #: Completed longer ago than identities are kept.
    RESULT_ANCIENT = "result_ancient", Policy.HELD, Answer.ACCEPT
    #: The payload says two things: a verdict against its own scores, a member twice, an impossible time.
    RESULT_CONTRADICTORY = "result_contradictory", Policy.HELD, Answer.ACCEPT
    #: The exam map wants a score that the result does not have.
    SCORE_MISSING = "score_missing", Policy.HELD, Answer.ACCEPT
    #: Nothing in the result says who sat the exam.
    NOBODY_NAMED = "nobody_named", Policy.HELD, Answer.REGISTRATION
    #: No registration matches (yet).
    REGISTRATION_NOT_FOUND = "registration_not_found", Policy.RETRY
    #: Several registrations match equally well.
    REGISTRATION_AMBIGUOUS = "registration_ambiguous", Policy.HELD, Answer.REGISTRATION
    #: The registration named is not this candidate's or this exam's.
    REGISTRATION_MISMATCH = "registration_mismatch", Policy.HELD, Answer.REGISTRATION
    #: The registration already has another result.
    REGISTRATION_SETTLED = "registration_settled", Policy.HELD, Answer.ACCEPT
    #: A person changed what we wrote.
    REGISTRATION_EDITED = "registration_edited", Policy.HELD, Answer.ACCEPT
    #: Rhythm has locked the registration (`sys_locked`).
    REGISTRATION_LOCKED = "registration_locked", Policy.RETRY_THEN_HELD
    #: Rhythm does not answer, or answers 5xx.
    RHYTHM_UNAVAILABLE = "rhythm_unavailable", Policy.GATE
    #: Rhythm answered 429.
    RHYTHM_THROTTLED = "rhythm_throttled", Policy.GATE
    #: Rhythm answered 401 or 403.
    CREDENTIALS_REFUSED = "credentials_refused", Policy.GATE
    #: Rhythm refuses the write as invalid.
    RHYTHM_REJECTED = "rhythm_rejected", Policy.DEAD
    #: Rhythm says that the registration refers to something that does not exist (409).
    MISSING_REFERENCE = "missing_reference", Policy.DEAD
    #: Rhythm accepted the write but reads back different.
    RHYTHM_ALTERED = "rhythm_altered", Policy.HELD, Answer.ACCEPT
    #: An attempt failed after the horizon.
    RETRIES_EXPIRED = "retries_expired", Policy.DEAD
    #: Three workers died while they processed this event alone.
    WORKER_KILLER = "worker_killer", Policy.DEAD
    #: A bug of ours.
    INTERNAL_ERROR = "internal_error", Policy.RETRY
    #: Erased on request.
    FORGOTTEN = "forgotten", Policy.DISCARDED

    @property
    def acceptable(self) -> bool:
        """Whether `--accept` of it writes in spite of it."""
        return self.needs is Answer.ACCEPT or self is Reason.WRITES_OFF

    @property
    def after_horizon(self) -> "Reason":
        """Why an event ends that still fails with this after the horizon: an event's own reason stays."""
        ours = self.policy is Policy.GATE or self is Reason.INTERNAL_ERROR
        return Reason.RETRIES_EXPIRED if ours else self


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Receipt(_Frozen):
    """The answer to a delivery: the event it is, where that stands now, and whether it was known before."""

    id: str
    state: EventState
    duplicate: bool


class HistoryEntry(_Frozen):
    """One move of an event: when, which, by whom, why."""

    at: datetime
    move: str
    by: str
    reason: str | None = None


class Event(_Frozen):
    """What operators see of an event: everything but its payload and outcome."""

    id: str
    tenant: str
    source: Source
    state: EventState
    reason: Reason | None = None
    #: A sentence for people. Never personal data.
    detail: str | None = None
    #: `written` or `unchanged`, once synced.
    result: str | None = None
    registration: str | None = None
    delivery: str | None = None
    version: str | None = None
    received_at: datetime
    #: When it is next due; None once it waits for a person or is final.
    due_at: datetime | None = None
    #: Tries that reached Rhythm.
    attempts: int = 0
    #: How often it was delivered.
    receipts: int = 1
    history: list[HistoryEntry] = []
