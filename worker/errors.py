"""Errors, sorted by who must act next.

`TransientError`: the machine waits. `PermanentError`: a person decides. Both carry a `Reason`, never a payload, and
survive pickling. Any other exception is a bug: it goes to Sentry at once and then counts as transient, so that no event
is lost.
"""

from datetime import timedelta
from typing import Any

from schemas.event import Reason


class ExamrelayError(Exception):
    """A failure with a reason. `detail` is a sentence for operators, free of personal data."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class TransientError(ExamrelayError):
    """May succeed later without anybody's action."""

    def __init__(self, reason: Reason, detail: str = "", retry_after: timedelta | None = None) -> None:
        super().__init__(reason, detail)
        self.args = (reason, detail, retry_after)
        #: How long the remote asks us to wait; None when it does not say.
        self.retry_after = retry_after


class PermanentError(ExamrelayError):
    """Cannot succeed unchanged: the event is dead or held, by the policy of the reason."""

    #: What Rhythm said to it, which may quote personal data: for the event in the ledger alone. No text form has it.
    words: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Without `words`: a pickle goes where logs go."""
        return type(self), self.args


class ConfigurationError(Exception):
    """A mistake in the configuration. The message names the place and what to do."""


class Unchecked(Exception):
    """Rhythm, the receiver or Redis did not answer, so nothing was done. The message says why and what to do."""


class LedgerUnavailable(Exception):
    """Redis did not record a delivery in time."""


class Unacceptable(ValueError):
    """An argument of `enqueue` or `tasks.receive` that cannot be recorded. The message never quotes it."""
