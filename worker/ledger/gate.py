"""The gate: whether and how fast a tenant's Rhythm may be called, shared by all processes and commands."""

import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from schemas.event import Reason
from worker.errors import TransientError
from worker.ledger.client import Scripts
from worker.ledger.times import milliseconds

#: A paced tenant's task waits this long for its turn, then puts its events back.
LONGEST_TURN_WAIT: Final = timedelta(seconds=10)
#: Longer than a call may take: a probe whose process died is given up then.
PROBE_LEASE: Final = timedelta(seconds=30)
CLOSED_BASE: Final = timedelta(seconds=2)
CLOSED_CAP: Final = timedelta(seconds=60)


class GateClosed(TransientError):
    """Rhythm may not be called now. Spends no attempt."""


@dataclass(slots=True)
class Gate:
    """One tenant's gate, as one task sees it."""

    scripts: Scripts
    tenant: str
    calls_per_second: float | None
    #: The last turn was given to find out whether Rhythm answers again.
    probing: bool = False
    #: When the last turn came (monotonic), while Rhythm answers: from then on this task is busy with it.
    _busy_since: float | None = None

    def take(self) -> None:
        """Wait for a turn to call Rhythm. Raises GateClosed."""
        busy = 0.0 if self._busy_since is None else 1000 * (time.monotonic() - self._busy_since)
        longest = milliseconds(LONGEST_TURN_WAIT)
        waits, closings = self._ask("take", longest, busy)
        while waits:
            time.sleep(waits / 1_000_000)
            longest -= waits // 1000
            waits, closings = self._ask("look", longest, 0, closings)  # another's call may have closed it meanwhile
        self._busy_since = time.monotonic()

    def _ask(self, command: str, longest: int, busy: float, closings: int = 0) -> tuple[int, int]:
        """How long to wait, in microseconds, and how often the gate was closed by then. Raises GateClosed."""
        arguments = (self._interval(), longest, milliseconds(PROBE_LEASE), int(self.probing), busy, closings)
        waits, *rest = self.scripts("gate", self.tenant, command, *arguments)
        if waits != -1:
            self.probing = bool(rest[0])
            return waits, rest[1]
        closed_for, reason = rest
        name = reason.decode()
        raise GateClosed(
            Reason.RHYTHM_THROTTLED if name == "pace" else Reason(name),
            f"the gate is closed ({name})",
            timedelta(milliseconds=closed_for + 1),  # Redis cuts fractions off, and who waits must not come too early
        )

    def close(self, reason: Reason, retry_after: timedelta | None) -> None:
        """Nobody calls before `retry_after`, or before a growing pause when Rhythm does not say."""
        asked = milliseconds(retry_after or timedelta(0))
        base, cap = milliseconds(CLOSED_BASE), milliseconds(CLOSED_CAP)
        jitter = random.random()
        self.scripts("gate", self.tenant, "close", reason, asked, base, cap, jitter, self._interval())
        self.probing, self._busy_since = False, None

    def open(self) -> None:
        """A read went through: Rhythm answers."""
        self.scripts("gate", self.tenant, "open")
        self.probing = False

    def _interval(self) -> float:
        """Milliseconds between two calls, as configured; 0: no pace is."""
        return 1000 / self.calls_per_second if self.calls_per_second else 0
