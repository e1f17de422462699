"""Events on their way through the stages: delivered, replayed, left by a dead worker; and where each stands."""

import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from schemas.event import Event, EventState
from tasks import sync
from tasks.steps.batch import Run
from tasks.steps.job import Job, undecided
from tasks.steps.reading import SPANS, Spans
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.running import wait_until
from worker.errors import LedgerUnavailable
from worker.ledger import queries

#: As `stands` says it.
Standing = tuple[EventState, str | None]
WRITTEN, UNCHANGED = (EventState.SYNCED, "written"), (EventState.SYNCED, "unchanged")
DUPLICATE, SUPERSEDED = (EventState.DUPLICATE, None), (EventState.SUPERSEDED, None)

#: Results of one sitting.
ORIGINAL = certiverse(passed=False, score=60)
RESCORE = certiverse(passed=True, score=82.5, rescore=True)
SECOND_RESCORE = certiverse(passed=False, score=61, rescore=True)

#: Sync's steps that may be the last one a worker does.
STEPS: list[Callable[[Run, list[Job]], object]] = [
    sync.recall,
    sync.consider,
    sync.resolve,
    lambda _, jobs: sync.compare(jobs),
    sync.intend,
    sync.write,
]
INTENDED, SENT = 5, 6


def again(body: bytes, indent: int = 1) -> bytes:
    """The same result in other bytes."""
    return json.dumps(json.loads(body), indent=indent).encode()


def a_moment_later(pipeline: Pipeline, id: str) -> None:
    """Wait until Redis' clock is past the millisecond in which an event was received."""
    at = pipeline.event(id).received_at
    wait_until(lambda: queries.redis_now(pipeline.services.redis) > at, 5, "the next millisecond")


def stands(event: Event) -> Standing:
    """An event's state, and its reason or result."""
    return event.state, event.reason or event.result


def states(pipeline: Pipeline, ids: Iterable[str]) -> list[str]:
    """The states of many events, in one round trip."""
    with pipeline.services.redis.pipeline() as commands:
        for id in ids:
            commands.hget(f"er:{TENANT}:event:{id}", "state")
        return [state.decode() for state in commands.execute()]


def accepted(pipeline: Pipeline, body: bytes) -> str:
    """Deliver as a platform does: again until it is accepted. On a busy machine Redis may not answer in time."""

    def deliver() -> str | None:
        with contextlib.suppress(LedgerUnavailable):
            return pipeline.deliver(body)
        return None

    return str(wait_until(deliver, 60, "a receipt"))


def held(reason: str) -> Standing:
    """How an event stands that waits for a person."""
    return EventState.HELD, reason


def go_on(pipeline: Pipeline) -> None:
    """Whatever waits is due, leases and slots end, and everything is processed and synced."""
    pipeline.due_now()
    pipeline.sync()


def on(pipeline: Pipeline, id: str) -> Event:
    """As `go_on`. Returns one event."""
    go_on(pipeline)
    return pipeline.event(id)


def standing(pipeline: Pipeline, *ids: str) -> list[Standing]:
    """How each event stands."""
    return [stands(pipeline.event(id)) for id in ids]


def gate(pipeline: Pipeline) -> dict[str, str]:
    """What the ledger holds of the tenant's gate."""
    return queries.gate(pipeline.services.redis, TENANT)


def replay(pipeline: Pipeline, id: str, **answers: object) -> Event:
    """An operator replays an event, and it goes on."""
    assert pipeline.ledger.replay(TENANT, id, "op", answers)[0]
    return on(pipeline, id)


def waits(pipeline: Pipeline) -> bool:
    """Whether any event is received or ready."""
    return bool(pipeline.services.redis.exists(*(f"er:{TENANT}:due:{name}" for name in ("process", "sync"))))


def drain(pipeline: Pipeline, rounds: int = 12) -> None:
    """Go on until nothing waits."""
    for _ in range(rounds):
        if not waits(pipeline):
            return
        go_on(pipeline)
    assert not waits(pipeline), "events still wait"


def seed(pipeline: Pipeline, count: int = 1, **more: Any) -> list[bytes]:
    """Registrations reg-1 ..., each of a student of its own; and a result for each."""
    numbers = range(1, count + 1)
    pipeline.rhythm.seed(ORG, [registration(f"reg-{number}", student_id=f"stu-{number}") | more for number in numbers])
    return [certiverse(f"dlv-{number}", f"reg-{number}", student=f"stu-{number}") for number in numbers]


def kinds(pipeline: Pipeline) -> list[str]:
    """The calls that Rhythm got, in order."""
    return [call["kind"] for call in pipeline.rhythm.requests()]


def calls(pipeline: Pipeline, *wanted: str) -> int:
    """How many calls of these kinds Rhythm got."""
    return sum(kind in wanted for kind in kinds(pipeline))


def writes(pipeline: Pipeline, id: str = "reg-1") -> list[dict[str, Any]]:
    """What each write of ours changed at a registration, oldest first."""
    return [write["changes"] for write in pipeline.rhythm.history(ORG, id) if write["by"] == "api"]


def scores(pipeline: Pipeline, id: str = "reg-1") -> list[float]:
    """Every score that the registration ever had written, oldest first."""
    changes = (write["changes"] for write in pipeline.rhythm.history(ORG, id))
    return [change["score"][1] for change in changes if "score" in change]


def said(pipeline: Pipeline, id: str) -> list[tuple[str, float]]:
    """A registration's status and score after each write. Each sent a letter, and the last one is what it says now."""
    record, now = pipeline.rhythm.record(ORG, id), dict[str, Any]()
    values = []
    for write in record["history"]:
        now |= {name: new for name, (_, new) in write["changes"].items()}
        values.append((now["status"], now["score"]))
    assert [letter["status"] for letter in record["letters"]] == [status for status, _ in values], values
    says = record["registration"]
    assert not values or (says["status"], says["score"]) == values[-1], values
    return values


def begun(pipeline: Pipeline, steps: int, token: str = "slow", spans: Spans = SPANS) -> tuple[Run, list[Job]]:
    """A worker that has claimed what is due, read it, done the first `steps` of sync, and does nothing more."""
    run, jobs = pipeline.read(token, pipeline.ledger.claim(TENANT, token, 100, 0), spans)
    for step in STEPS[:steps]:
        step(run, undecided(jobs))
    return run, jobs


def finish(run: Run, jobs: list[Job]) -> list[str]:
    """What the ledger says to the worker that goes on after all."""
    decisions = [job.decision for job in jobs if job.decision is not None]
    return run.ledger.apply(TENANT, run.token, decisions)
