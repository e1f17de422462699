"""When a failed attempt is tried again, if ever. Pure: (reason, attempts, since, now, jitter) -> delay or None."""

from datetime import datetime, timedelta
from typing import Final

from schemas.event import Reason

BASE: Final = timedelta(seconds=2)
CAP: Final = timedelta(minutes=15)
#: The time limit, counted from the first attempt that reached Rhythm. Only an attempt that fails after it ends the
#: event; the clock alone never does.
HORIZON: Final = timedelta(hours=72)


def retry_delay(
    reason: Reason,
    attempts: int,
    first_attempt_at: datetime | None,
    now: datetime,
    jitter: float,
    retry_after: timedelta | None = None,
) -> timedelta | None:
    """How long to wait before the next attempt, or None: no more.

    `attempts` is how many have failed, this one included; `jitter` is 0 to 1 and spreads the capped exponential fully.
    What the remote asks for is a floor.
    """
    if not reason.policy.retried:
        return None
    if first_attempt_at is not None and now - first_attempt_at >= HORIZON:
        return None
    ceiling = min(CAP, BASE * int(2 ** min(max(attempts - 1, 0), 20)))
    return max(ceiling * jitter, retry_after or timedelta(0), timedelta(milliseconds=100))
