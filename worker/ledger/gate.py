"""The gate: whether and how fast a tenant's Rhythm may be called, shared by all processes and commands."""

import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from schemas.event import Reason
from worker.errors import TransientError
from worker.ledger.client import Scripts
from worker.ledger.events import milliseconds

#: A paced tenant's task waits this long for its turn, then puts its events back.
LONGEST_WAIT: Final = timedelta(seconds=10)
#: Longer than a call may take: a probe whose process died is given up then.
PROBE_LEASE: Final = timedelta(seconds=30)
CLOSED_BASE: Final = timedelta(seconds=2)
CLOSED_CAP: Final = timedelta(seconds=60)
#: What `Retry-After` is honoured up to.
RETRY_AFTER_CAP: Final = timedelta(hours=24)


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

    def take(self) -> None:
        """Wait for a turn to call Rhythm. Raises GateClosed."""
        interval = 1000 / self.calls_per_second if self.calls_per_second else 0
        waits, probing = self._ask(
            "take", interval, milliseconds(LONGEST_WAIT), milliseconds(PROBE_LEASE), int(self.probing)
        )
        self.probing = bool(probing)
        if waits:
            time.sleep(waits / 1000)
            self._ask("look", int(self.probing))  # another's call may have closed it meanwhile

    def _ask(self, command: str, *args: float) -> tuple[int, int]:
        """How long to wait, and whether this is the probe. Raises GateClosed."""
        waits, *told = self.scripts("gate", self.tenant, command, *args)
        if waits != -1:
            return waits, told[0]
        closed_for, reason = told
        name = reason.decode()
        raise GateClosed(
            Reason.RHYTHM_THROTTLED if name == "pace" else Reason(name),
            f"the gate is closed ({name})",
            timedelta(milliseconds=closed_for),
        )

    def close(self, reason: Reason, retry_after: timedelta | None) -> None:
        """Nobody calls before `retry_after`, or before a growing pause when Rhythm does not say."""
        asked = milliseconds(min(retry_after or timedelta(0), RETRY_AFTER_CAP))
        base, cap = milliseconds(CLOSED_BASE), milliseconds(CLOSED_CAP)
        self.scripts("gate", self.tenant, "close", reason, asked, base, cap, random.random())  # noqa: S311  # jitter
        self.probing = False

    def open(self) -> None:
        """A read went through: Rhythm answers."""
        self.scripts("gate", self.tenant, "open")
        self.probing = False
