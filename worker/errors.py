"""What can go wrong, sorted by who must act next.

`TransientError`: the machine waits. `PermanentError`: a person decides. Anything else is a bug: it goes to Sentry at
once and is then treated as transient, so that no event is lost. Each carries a `Reason` and never a payload, and
survives pickling.
"""

from datetime import timedelta

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
    """May go through later, without anyone's doing."""

    def __init__(self, reason: Reason, detail: str = "", retry_after: timedelta | None = None) -> None:
        super().__init__(reason, detail)
        self.args = (reason, detail, retry_after)
        #: How long the remote asks us to wait; None when it does not say.
        self.retry_after = retry_after


class PermanentError(ExamrelayError):
    """Will not go through as it is: dead or held, as the reason's policy says."""


class ConfigurationError(Exception):
    """An operator's mistake. The message says where it is and what to do."""


class Unchecked(Exception):
    """Rhythm, the receiver or Redis did not answer, so nothing was done. The message says why and what to do."""


class LedgerUnavailable(Exception):
    """Redis did not take a record in time."""


class Unacceptable(ValueError):
    """An argument of `enqueue` that cannot be put on the books. The message never quotes it: it may be personal."""
