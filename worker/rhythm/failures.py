"""How a call to Rhythm can fail, and what each answer means. The one place where that is decided.

Details name the call and the status. Never a body, an id or an address: those may be personal.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import ClassVar

from schemas.event import Reason
from worker.errors import ExamrelayError, PermanentError, TransientError

#: A longer `Retry-After` counts as this: an operator looks before then. Applies to every wait that Rhythm asks for.
LONGEST_RETRY_AFTER = timedelta(hours=24)

#: Bytes of Rhythm's own words that are kept of a refusal.
_MOST_WORDS = 4000
_SECONDS = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*", re.ASCII)


class Call(Enum):
    """A kind of call: its name in messages, its HTTP method, whether it writes."""

    READ = "a read", "GET", False
    SEARCH = "a search", "POST", False
    LOOK_UP = "a look-up by student and exam", "GET", False
    PATCH = "a patch", "PATCH", True
    BATCH = "a batch", "POST", True
    #: One operation of a batch; its status stands in the batch's reply.
    BATCH_ITEM = "one of a batch", "POST", True
    TOKEN = "the token request", "POST", False

    def __init__(self, label: str, method: str, writes: bool) -> None:
        self.label = label
        self.method = method
        self.writes = writes

    def __str__(self) -> str:
        return self.label


class _Transient(TransientError):
    """A failure that waits. `status` is the HTTP status, None where no answer came."""

    _reason: ClassVar[Reason]

    def __init__(
        self,
        detail: str = "",
        retry_after: timedelta | None = None,
        maybe_applied: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(self._reason, detail, retry_after)
        self.args = (detail, retry_after, maybe_applied, status)
        #: On a write: True unless it certainly was not processed. True asks the caller to read before it writes again.
        self.maybe_applied = maybe_applied
        self.status = status


class RhythmUnavailable(_Transient):
    """No usable answer: no connection, no answer in time, 5xx, a redirect, a body that is not what was asked for."""

    _reason = Reason.RHYTHM_UNAVAILABLE


class RhythmThrottled(_Transient):
    """429: too many calls. Not processed."""

    _reason = Reason.RHYTHM_THROTTLED


class EventFailure(RhythmUnavailable):
    """A call for one event failed while Rhythm answers other calls. It spends an attempt of that event."""

    def __init__(self, error: TransientError, answers: int) -> None:
        detail = f"{error.detail}, while it answers other calls"
        super().__init__(
            detail, error.retry_after, getattr(error, "maybe_applied", False), getattr(error, "status", None)
        )
        self.args = (error, answers)
        #: How many answers the reader had counted at the failure. A higher count later: Rhythm has answered since.
        self.answers = answers


class CredentialsRefused(_Transient):
    """401 or 403, or the token endpoint refuses us. Not processed."""

    _reason = Reason.CREDENTIALS_REFUSED


class RegistrationGone(_Transient):
    """404 or 410: Rhythm has no such registration now. Not processed."""

    _reason = Reason.REGISTRATION_NOT_FOUND


class _Permanent(PermanentError):
    """A refusal. `status` is the HTTP status, None where a batch's result gives none."""

    _reason: ClassVar[Reason]

    def __init__(self, detail: str = "", status: int | None = None) -> None:
        super().__init__(self._reason, detail)
        self.args = (detail, status)
        self.status = status


class RhythmRejected(_Permanent):
    """Invalid, or its `test` failed. Not processed. Without a status no cause is known: a single patch tells it."""

    _reason = Reason.RHYTHM_REJECTED


class MissingReference(_Permanent):
    """409: the registration refers to something that does not exist; not a version clash. Not processed."""

    _reason = Reason.MISSING_REFERENCE


def refusal(call: Call, status: int, headers: Mapping[str, str], now: datetime, words: bytes = b"") -> ExamrelayError:
    """What an answer other than 2xx to `call` means. Only an error that a person decides about keeps its `words`.

    A status that is not documented counts as unavailable: then no event ends because of a fault on the way to Rhythm.
    A whole batch has no one registration that could be missing: it is rejected. A batch's item says nothing about the
    credentials: they were good for the batch. A token request that is refused always means the credentials.

    ---
    Rhythm, Exam Registrations API: Responses; Rhythm, rate limiting: "429", "Retry-After".
    """
    error = _meaning(call, status, headers, now)
    if isinstance(error, PermanentError):
        error.words = words[:_MOST_WORDS].decode(errors="replace")
    return error


def _meaning(call: Call, status: int, headers: Mapping[str, str], now: datetime) -> ExamrelayError:
    detail = f"Rhythm answered {status} to {call}"
    wait = retry_after(headers, now)
    match status:
        case 429:
            return RhythmThrottled(detail, wait, status=status)
        case 401 | 403 if call is not Call.BATCH_ITEM:
            return CredentialsRefused(detail, wait, status=status)
        case 400 | 404 | 410 | 412 | 413 | 422 if call is Call.TOKEN:
            return CredentialsRefused(detail, wait, status=status)
        case 404 | 410 if call is not Call.BATCH:
            return RegistrationGone(detail, status=status)
        case 409 if call.writes and call is not Call.BATCH:
            return MissingReference(detail, status)
        case 400 | 401 | 403 | 404 | 410 | 412 | 413 | 422:
            return RhythmRejected(detail, status)
        case 409 if call is Call.BATCH:
            return RhythmRejected(detail, status)
    hint = ", a redirect, which is not followed: is the url right?" if 300 <= status < 400 else ""
    return RhythmUnavailable(detail + hint, wait, maybe_applied=call.writes, status=status)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the answer asks us to wait: 0 to `LONGEST_RETRY_AFTER`; None without a `Retry-After` that can be read.

    A date is measured against the answer's own `Date`, so that a wrong clock does not matter; else against `now`.

    ---
    RFC 9110, 10.2.3 Retry-After.
    """
    text = headers.get("Retry-After", "")
    if match := _SECONDS.fullmatch(text):
        seconds = min(float(match[1]), LONGEST_RETRY_AFTER.total_seconds())
        return timedelta(seconds=math.ceil(max(seconds, 0)))
    moment = _http_date(text)
    if moment is None:
        return None
    wait = moment - (_http_date(headers.get("Date", "")) or now)
    return min(max(wait, timedelta(0)), LONGEST_RETRY_AFTER)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
