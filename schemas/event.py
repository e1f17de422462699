"""Event: one delivery of a payload, and the words for where it stands. What the ledger keeps."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from schemas.outcome import Source


class EventState(StrEnum):
    """Where an event stands. Each accepted event is in exactly one. A lease and an intent are not states."""

    #: On disk; nothing is known of it yet.
    RECEIVED = "received"
    #: Valid, new, and means something: waits for its turn in Rhythm.
    READY = "ready"
    #: A person must decide.
    HELD = "held"
    #: Will not go through as it is. A dead letter.
    DEAD = "dead"
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


class Stage(StrEnum):
    """A task that claims work, and the state it claims from."""

    PROCESS = "process"
    SYNC = "sync"


class Policy(StrEnum):
    """What becomes of an event that failed for a reason."""

    #: Waits for a person: will not go through as it is.
    DEAD = "dead"
    #: Waits for a person's answer.
    HELD = "held"
    #: Tried again; `dead` once an attempt fails after the horizon.
    RETRY = "retry"
    #: Tried again; `held` once an attempt fails after the horizon.
    RETRY_THEN_HELD = "retry, then held"
    #: Not this event's failure: the tenant's gate closes and no attempt is spent.
    GATE = "gate"
    #: Set by a command.
    DISCARDED = "discarded"


class Reason(StrEnum):
    """Why an event is where it is. The value is what operators filter on; `policy` is what follows from it."""

    policy: Policy

    def __new__(cls, value: str, policy: Policy = Policy.DEAD) -> "Reason":  # looked up by value alone
        member = str.__new__(cls, value)
        member._value_ = value
        member.policy = policy
        return member

    #: The body is not JSON.
    INVALID_JSON = "invalid_json", Policy.DEAD
    #: JSON, but not this source's shape.
    INVALID_PAYLOAD = "invalid_payload", Policy.DEAD
    #: Over the size limit: only its beginning, length and digest were kept.
    BODY_TOO_LARGE = "body_too_large", Policy.DEAD
    #: The exam map does not know the exam.
    UNKNOWN_EXAM = "unknown_exam", Policy.HELD
    #: Neither passed nor failed, and no rule to tell.
    RESULT_UNSCORED = "result_unscored", Policy.HELD
    #: Ended by a proctor or terminated: reviewed before it counts.
    INTEGRITY_REVIEW = "integrity_review", Policy.HELD
    #: The tenant's `writes` is `hold`.
    WRITES_OFF = "writes_off", Policy.HELD
    #: Two results of one delivery differ, and neither says that it replaces the other.
    RESULT_CONFLICT = "result_conflict", Policy.HELD
    #: A version that a rescore has replaced came again.
    RESULT_REPEATED = "result_repeated", Policy.HELD
    #: Completed longer ago than identities are kept.
    RESULT_ANCIENT = "result_ancient", Policy.HELD
    #: The payload says two things: a verdict against its own scores, a member twice, an impossible time.
    RESULT_CONTRADICTORY = "result_contradictory", Policy.HELD
    #: The exam map wants a score that the result does not have.
    SCORE_MISSING = "score_missing", Policy.HELD
    #: Nothing in the result says who sat the exam.
    NOBODY_NAMED = "nobody_named", Policy.HELD
    #: No registration matches (yet).
    REGISTRATION_NOT_FOUND = "registration_not_found", Policy.RETRY
    #: Several registrations match equally well.
    REGISTRATION_AMBIGUOUS = "registration_ambiguous", Policy.HELD
    #: The registration named is not this candidate's or this exam's.
    REGISTRATION_MISMATCH = "registration_mismatch", Policy.HELD
    #: The registration already has another result.
    REGISTRATION_SETTLED = "registration_settled", Policy.HELD
    #: A person changed what we wrote.
    REGISTRATION_EDITED = "registration_edited", Policy.HELD
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
    RHYTHM_ALTERED = "rhythm_altered", Policy.HELD
    #: An attempt failed after the horizon.
    RETRIES_EXPIRED = "retries_expired", Policy.DEAD
    #: Alone in its batch, it ended three workers.
    WORKER_KILLER = "worker_killer", Policy.DEAD
    #: A bug of ours.
    INTERNAL_ERROR = "internal_error", Policy.RETRY
    #: Erased on request.
    FORGOTTEN = "forgotten", Policy.DISCARDED


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
    #: When it is next looked at; None once it waits for a person or is final.
    due_at: datetime | None = None
    #: Tries that reached Rhythm.
    attempts: int = 0
    #: How often it was delivered.
    receipts: int = 1
    history: list[HistoryEntry] = []
