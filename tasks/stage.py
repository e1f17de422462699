"""What both stages share: claim a tenant's work batch by batch, tell Flower how it went."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from celery.exceptions import Retry

from schemas.event import Policy, Stage
from worker.bootstrap import Services
from worker.ledger.decisions import Decision
from worker.ledger.events import Claim

#: Events in one claim: as many as one of Rhythm's batches holds.
BATCH: Final = 100
#: A task goes on claiming for this long while no other tenant waits: what it does shares Celery's cost a message.
TASK_SECONDS: Final = 2.0

_LOG = structlog.get_logger()


class AttemptFailed(Exception):
    """What Flower shows of a task that did not get everything through: a summary, by state and reason."""


@dataclass
class Tally:
    """What a task did, by state and by reason of failure."""

    states: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)

    def add(self, decisions: Sequence[Decision], states: Sequence[str]) -> None:
        """Count a settled batch."""
        self.states.update(states)
        for decision in decisions:
            if decision.reason is not None:
                (self.retried if decision.move == "defer" else self.stopped)[decision.reason] += 1

    def report(self) -> None:
        """Raise what Flower shall show: FAILURE for what waits for a person, else RETRY for what is tried again.

        Raised like this, `Retry` publishes nothing: the ledger holds when each is due.
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


def work(
    services: Services, tenant: str, stage: Stage, slots: int, handle: Callable[[Claim, str], Sequence[Decision]]
) -> Tally:
    """Claim and handle batches until nothing is due, time is up, or another tenant waits. Returns what was done.

    `handle` gets a claim and its token. Whatever it raises leaves its batch to the lease: those events are claimed
    again when it ends.
    """
    ledger, token, tally = services.ledger, secrets.token_hex(8), Tally()
    began_at, ended = time.monotonic(), False
    try:
        while not ended:
            claim = ledger.claim(tenant, stage, token, BATCH, slots)
            if not claim.works:
                break
            began = time.monotonic()
            decisions = handle(claim, token)
            # One event alone: there is no backlog, and whatever comes next has a hint of its own.
            last = claim.others or len(claim.works) == 1 or time.monotonic() - began_at > TASK_SECONDS
            states = ledger.settle(tenant, stage, token, decisions, last=last)
            ended = last
            tally.add(decisions, states)
            _log(tenant, stage, decisions, states, time.monotonic() - began)
    finally:
        if not ended:
            ledger.release(tenant, stage, token)
    return tally


def _log(tenant: str, stage: Stage, decisions: Sequence[Decision], states: Sequence[str], seconds: float) -> None:
    """One line a batch, and one for each event that did not go through."""
    log = _LOG.bind(tenant=tenant, stage=stage)
    log.info("batch.settled", events=len(states), ms=round(seconds * 1000, 1), **Counter(states))
    for decision in decisions:
        if decision.reason is not None:
            level = log.info if decision.reason.policy is Policy.GATE else log.warning
            level("attempt.failed", event_id=decision.id, move=decision.move, reason=decision.reason)
