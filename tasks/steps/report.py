"""What is told of a batch: a log line for each event, the totals, a summary for Flower, the first of a day for Sentry.

All of these get ids, states, reasons and counts only.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple

import structlog
from celery.exceptions import Retry

from schemas.event import EventState, Reason
from tasks.steps.job import Job
from worker import sentry
from worker.ledger.events import Ledger
from worker.ledger.totals import Totals

#: How an event can leave a task: the name of its log line, and from which level on that is shown.
_LINES: Final = {
    "settle": ("event.settled", logging.DEBUG),
    "drop": ("event.dropped", logging.DEBUG),
    "hold": ("event.held", logging.WARNING),
    "bury": ("event.buried", logging.WARNING),
    #: An attempt was spent, and is made again.
    "attempt": ("attempt.failed", logging.WARNING),
    #: No attempt was spent: something failed that is not the event's; or its turn had not come.
    "put back": ("event.put_back", logging.INFO),
    "wait": ("event.put_back", logging.DEBUG),
    #: The claim was no longer ours, so nothing was changed.
    "lost": ("claim.lost", logging.INFO),
}
_STOPS: Final = ("hold", "bury")
#: What this process has asked the ledger for: tenant, state, reason, day.
_told: Final = set[tuple[str, str, str, date]]()
_LOG = structlog.get_logger()


class AttemptFailed(Exception):
    """What Flower shows of a task some of whose events did not go through: a summary, by state and reason."""


class End(NamedTuple):
    """How an event left a task."""

    event_id: str
    state: str
    how: str
    source: str = ""
    reason: Reason | None = None
    stage: str = ""


@dataclass
class Tally:
    """What a task did, by state and by reason of failure."""

    states: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)

    def add(self, ends: Iterable[End], ledger: Ledger, tenant: str, now: datetime) -> None:
        """Count and log events. Sentry gets the first of each day, state and reason that waits for a person."""
        for end in ends:
            name, level = _LINES[end.how]
            about = {"event_id": end.event_id, "source": end.source, "state": end.state}
            about |= {"reason": end.reason, "stage": end.stage} if end.reason else {}
            _LOG.log(level, name, **about)
            self.states[end.state] += 1
            if end.reason is not None and end.how != "lost":
                (self.stopped if end.how in _STOPS else self.retried)[end.reason] += 1
                kind = (tenant, end.state, end.reason, now.date())
                if end.how in _STOPS and sentry.listens() and kind not in _told:
                    _told.add(kind)
                    if ledger.first_today(*kind):
                        sentry.report_stopped(about | {"tenant": tenant})

    def report(self) -> str:
        """The summary, for Flower's column of results. Raises what makes Flower show another state.

        FAILURE when an event needs a person, else RETRY when one is tried again. Raising `Retry` publishes no message:
        when each event is due stands in the ledger.
        """
        if self.stopped:
            raise AttemptFailed(self.summary())
        if self.retried:
            raise Retry(exc=AttemptFailed(self.summary()))
        return self.summary()

    def summary(self) -> str:
        """`3 ready, 97 synced; rhythm_unavailable 3`."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted((self.retried + self.stopped).items()))
        return (f"{states}; {reasons}" if reasons else states) or "nothing was due"


def end_of(job: Job, state: str) -> End:
    """Of an event whose decision was applied."""
    made = job.decision
    assert made is not None
    how = (
        made.move
        if made.move != "defer"
        else "attempt"
        if made.more["attempt"]
        else "put back"
        if made.reason
        else "wait"
    )
    return End(made.id, state, "lost" if state == "lost" else how, job.work.source, made.reason, job.stage)


def buried(ids: Iterable[str]) -> list[End]:
    """Events that a claim has buried, because they ended too many workers."""
    return [End(id, EventState.DEAD, "bury", reason=Reason.WORKER_KILLER, stage="claim") for id in ids]


def count(jobs: Iterable[Job], seconds: float, totals: Totals) -> None:
    """Add decided events to the totals. `seconds`: how long ago they were claimed."""
    for job in jobs:
        if job.decision is not None and job.decision.move == "settle":
            totals.time("synced", (job.now - job.work.received_at).total_seconds() + seconds)
        elif job.decision is not None and job.decision.more.get("attempt"):
            totals[f"attempts_failed:{job.decision.reason}"] += 1
