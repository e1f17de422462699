"""What the tasks share: claim a tenant's work batch by batch, show Flower how it went, report unexpected exceptions."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import structlog
from celery.exceptions import Retry

from schemas.event import Policy
from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.ledger.decisions import Decision
from worker.ledger.work import Claim
from worker.telemetry import report_bug

#: Events in one claim: as many as one of Rhythm's batches holds.
BATCH: Final = 100
#: A task goes on claiming for this long while no other tenant waits, so that its batches share Celery's cost of a task.
GO_ON_SECONDS: Final = 2.0
#: As much longer at most, if it took so long to search exams: the batches that follow use what was found.
SEARCHING_SECONDS: Final = 8.0

Handle = Callable[[Claim, str], Sequence[Decision]]
_LOG = structlog.get_logger()


class AttemptFailed(Exception):
    """What Flower shows of a task some of whose events did not go through: a summary, by state and reason."""


@contextmanager
def reported(task: str, tenant: str = "") -> Iterator[None]:
    """Around a task: an exception that no step expects goes to the log and to Sentry once, and to Flower by its type.

    Celery would log its message, which may quote a payload. So the tasks are declared with `throws`, which keeps Celery
    from logging it, and it is reported here.
    """
    try:
        yield
    except (AttemptFailed, Retry):
        raise
    except Exception as error:  # noqa: BLE001  # any bug; the claimed events are due again when their lease ends
        report_bug(error, task=task, tenant=tenant)
        message = f"not finished: {type(error).__name__}"
    else:
        return
    raise AttemptFailed(message) from None


def is_ours(services: Services, tenant: str) -> bool:
    """Whether the tenants file of this process has the tenant. If not, its work waits for a worker that has it."""
    ours = tenant in services.tenants.tenants
    if not ours:
        _report_unknown(tenant)
    return ours


@cache  # once a process
def _report_unknown(tenant: str) -> None:
    _LOG.error("tenant.unknown", tenant=tenant, advice="change the tenants file of every process, and restart them")
    report_bug(ConfigurationError("a tenant has work and is not in this worker's tenants file"), tenant=tenant)


@dataclass
class Tally:
    """What a task did, by state and by reason of failure."""

    states: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)

    def add(self, decisions: Sequence[Decision], states: Sequence[str]) -> None:
        """Count a batch whose decisions were applied: `states` is what each event ended up in."""
        self.states.update(states)
        for decision in decisions:
            if decision.reason is not None:
                (self.retried if decision.move == "defer" else self.stopped)[decision.reason] += 1

    def report(self) -> None:
        """Raise what Flower has to show: FAILURE when an event needs a person, else RETRY when one is tried again.

        Raising `Retry` publishes no message. When each event is due stands in the ledger.
        """
        if self.stopped:
            raise AttemptFailed(self.summary())
        if self.retried:
            raise Retry(exc=AttemptFailed(self.summary()))

    def summary(self) -> str:
        """`3 ready, 97 synced; rhythm_unavailable 3`."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted((self.retried + self.stopped).items()))
        return f"{states}; {reasons}" if reasons else states


def work(services: Services, tenant: str, slots: int, handle: Handle, searching: Callable[[], float] = float) -> Tally:
    """Claim and handle batches until nothing is due, the time is up, or another tenant waits. Returns what was done.

    `handle` gets a claim and its token. When it raises, the events of that batch are claimed again after their lease.
    `searching`: for how many seconds exams were searched.
    """
    ledger, token, tally = services.ledger, secrets.token_hex(8), Tally()
    began_at, ended = time.monotonic(), False
    try:
        while not ended:
            claim = ledger.claim(tenant, token, BATCH, slots)
            if not claim.works:
                break
            began = time.monotonic()
            decisions = handle(claim, token)
            # One event alone: there is no backlog, and the next event will bring its own hint.
            end = began_at + GO_ON_SECONDS + min(searching(), SEARCHING_SECONDS)
            last = claim.others or len(claim.works) == 1 or time.monotonic() > end
            states = ledger.apply(tenant, token, decisions, last=last)
            ended = last
            tally.add(decisions, states)
            _log(tenant, decisions, states, time.monotonic() - began)
    finally:
        if not ended:
            ledger.apply(tenant, token, [], last=True)
    return tally


def _log(tenant: str, decisions: Sequence[Decision], states: Sequence[str], seconds: float) -> None:
    """One line a batch, and one for each event that did not go through."""
    log = _LOG.bind(tenant=tenant)
    log.info("batch.applied", events=len(states), ms=round(seconds * 1000, 1), **Counter(states))
    for decision in decisions:
        if decision.reason is not None:
            level = log.info if decision.reason.policy is Policy.GATE else log.warning
            level("attempt.failed", event_id=decision.id, move=decision.move, reason=decision.reason)
