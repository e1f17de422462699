"""How a call to Rhythm can fail, and what each answer means. The one place where that is decided.

Details name the call and the status. Never a body, an id or an address: those may be personal.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import ClassVar

from schemas.event import Reason
from worker.errors import ExamrelayError, PermanentError, TransientError

#: A longer `Retry-After` is taken as this: an operator looks before then.
LONGEST_WAIT = timedelta(hours=24)

_SECONDS = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*", re.ASCII)


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
    """A failure of one event's call, while Rhythm answers others: an attempt of that event's own."""

    def __init__(self, error: TransientError, answers: int) -> None:
        detail = f"{error.detail}, while it answers other calls"
        super().__init__(
            detail, error.retry_after, getattr(error, "maybe_applied", False), getattr(error, "status", None)
        )
        self.args = (error, answers)
        #: How many answers its reader had when it failed: with one more, Rhythm is known to have answered since.
        self.answers = answers


class CredentialsRefused(_Transient):
    """401 or 403, or no token to be had. Not processed."""

    _reason = Reason.CREDENTIALS_REFUSED


class RegistrationGone(_Transient):
    """404 to a patch: Rhythm has no such registration (now). Not processed."""

    _reason = Reason.REGISTRATION_NOT_FOUND


class _Permanent(PermanentError):
    """A refusal. `status` is the HTTP status, None where a batch's result gives none."""

    _reason: ClassVar[Reason]

    def __init__(self, detail: str = "", status: int | None = None) -> None:
        super().__init__(self._reason, detail)
        self.args = (detail, status)
        self.status = status


class RhythmRejected(_Permanent):
    """400, 412, 413 or 422: invalid, or its `test` failed. Not processed. No status: sent alone it says why."""

    _reason = Reason.RHYTHM_REJECTED


class MissingReference(_Permanent):
    """409: the registration refers to something that does not exist; not a version clash. Not processed."""

    _reason = Reason.MISSING_REFERENCE


def refusal(call: str, status: int, headers: Mapping[str, str], *, write: bool, now: datetime) -> ExamrelayError:
    """What an answer other than 2xx to `call` means.

    A status that is not documented counts as unavailable: then nothing is buried for a mistake on the way to Rhythm.

    ---
    Rhythm, Exam Registrations API: Responses; Rhythm, rate limiting: "429", "Retry-After".
    """
    detail = f"Rhythm answered {status} to {call}"
    match status:
        case 429:
            return RhythmThrottled(detail, retry_after(headers, now), status=status)
        case 401 | 403:
            return CredentialsRefused(detail, retry_after(headers, now), status=status)
        case 404 | 410:
            return RegistrationGone(detail, status=status)
        case 409 if write:
            return MissingReference(detail, status)
        case 400 | 412 | 413 | 422:
            return RhythmRejected(detail, status)
        case _:
            hint = ", a redirect, which is not followed: is the url right?" if 300 <= status < 400 else ""
            return RhythmUnavailable(detail + hint, retry_after(headers, now), maybe_applied=write, status=status)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the answer asks us to wait: never negative, at most `LONGEST_WAIT`; None when it does not say.

    A date is measured against the answer's own `Date`, so that a clock that is off does not matter; else against `now`.

    ---
    RFC 9110, 10.2.3 Retry-After.
    """
    text = headers.get("Retry-After", "")
    if match := _SECONDS.fullmatch(text):
        seconds = min(float(match[1]), LONGEST_WAIT.total_seconds())
        return timedelta(seconds=math.ceil(max(seconds, 0)))
    moment = _http_date(text)
    if moment is None:
        return None
    wait = moment - (_http_date(headers.get("Date", "")) or now)
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
