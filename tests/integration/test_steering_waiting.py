"""Waiting events can be replayed and discarded too, but not while a worker has them or a write is in doubt."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger.audit.books import books

Act = Callable[[Pipeline, str], tuple[bool, str]]


def replay(pipeline: Pipeline, id: str) -> tuple[bool, str]:
    return pipeline.ledger.replay(TENANT, id, "ann", {}, "the map is right now")


def discard(pipeline: Pipeline, id: str) -> tuple[bool, str]:
    return pipeline.ledger.discard(TENANT, id, "ann", "sent by mistake")


BOTH = pytest.mark.parametrize("act", [replay, discard], ids=["replay", "discard"])


def balanced(pipeline: Pipeline) -> None:
    found = books(pipeline.services.redis, TENANT)
    assert (found.differences, found.accepted) == ((), found.accounted)


def lost_reply(pipeline: Pipeline) -> str:
    """An event whose write was applied, and the reply lost."""
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    (event,) = pipeline.run(certiverse())
    assert event.state is EventState.READY
    return event.id


def test_a_ready_event_is_replayed_with_an_answer_and_is_due_at_once(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration("reg-2", student_id="another", email_address="x@example.org")])
    (event,) = pipeline.run(certiverse())
    assert (event.state, event.reason, event.attempts) == (EventState.READY, Reason.REGISTRATION_NOT_FOUND, 1)
    assert pipeline.ledger.replay(TENANT, event.id, "ann", {"registration": "reg-2"}, "asked them") == (
        True,
        "received",
    )
    balanced(pipeline)
    again = pipeline.event(event.id)
    assert (again.state, again.attempts, again.reason) == (EventState.RECEIVED, 0, None)
    assert (again.history[-1].move, again.history[-1].by, again.history[-1].reason) == ("replay", "ann", "asked them")
    assert pipeline.services.redis.llen("examrelay") > 0, "hinted"
    pipeline.process()
    pipeline.sync()
    assert pipeline.event(event.id).result == "written"
    assert pipeline.registration("reg-2")["status"] == "passed"
    balanced(pipeline)


@pytest.mark.parametrize("state", [EventState.RECEIVED, EventState.READY])
def test_what_waits_can_be_discarded(pipeline: Pipeline, state: EventState) -> None:
    id = pipeline.deliver(certiverse())
    if state is EventState.READY:
        pipeline.process()
    assert discard(pipeline, id) == (True, "discarded")
    assert (pipeline.event(id).detail, pipeline.event(id).history[-1].by) == ("sent by mistake", "ann")
    pipeline.process()
    pipeline.sync()
    assert pipeline.event(id).state is EventState.DISCARDED
    balanced(pipeline)


def test_behind_a_closed_gate_a_replayed_event_waits_for_the_gate_alone(pipeline: Pipeline) -> None:
    (event,) = pipeline.run(certiverse())
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, timedelta(seconds=60))
    assert replay(pipeline, event.id)[0]
    pipeline.sync()
    waits = pipeline.event(event.id)
    assert waits.due_at is not None
    assert (waits.state, waits.attempts) == (EventState.READY, 0)
    assert waits.due_at - waits.history[-1].at <= timedelta(seconds=1)


@BOTH
@pytest.mark.parametrize("state", [EventState.RECEIVED, EventState.READY])
def test_it_is_not_taken_from_a_worker(pipeline: Pipeline, act: Act, state: EventState) -> None:
    id = pipeline.deliver(certiverse())
    if state is EventState.READY:
        pipeline.process()
    pipeline.ledger.claim(TENANT, "token", 1, 0)
    before = pipeline.event(id)
    moved, told = act(pipeline, id)
    assert (moved, told) == (False, f"{before.state}, and a worker is at it: try again in 120 s")
    assert pipeline.event(id) == before
    pipeline.due_now()  # that worker died
    assert act(pipeline, id)[0]
    balanced(pipeline)


@BOTH
def test_while_a_write_may_be_under_way_it_stays_and_the_next_try_knows_it_for_ours(
    pipeline: Pipeline, act: Act
) -> None:
    id = lost_reply(pipeline)
    moved, told = act(pipeline, id)
    assert not moved
    assert told.startswith("ready, and a write of it may have reached Rhythm: its next try, in ")
    pipeline.due_now()
    pipeline.services.redis.delete(f"er:{TENANT}:gate")
    pipeline.sync()
    assert pipeline.event(id).result == "written"
    balanced(pipeline)


def by_the_horizon(pipeline: Pipeline, id: str) -> None:
    """Its first attempt was long ago, so that the write whose reply is lost is its last."""
    pipeline.services.redis.hset(f"er:{TENANT}:event:{id}", "first_attempt_at", 1)
    pipeline.sync()


def by_its_workers(pipeline: Pipeline, id: str) -> None:
    """It ended three workers after that write."""
    pipeline.sync()
    pipeline.services.redis.hset(f"er:{TENANT}:event:{id}", mapping={"lease": "dead", "batch": 1, "alone": 2})
    pipeline.services.redis.delete(f"er:{TENANT}:gate")
    pipeline.due_now()
    pipeline.sync()


@pytest.mark.parametrize("ends", [by_the_horizon, by_its_workers])
def test_a_write_in_doubt_outlives_the_death_of_its_event(
    pipeline: Pipeline, ends: Callable[[Pipeline, str], None]
) -> None:
    """After a replay it reads first. Otherwise its own write would look like another writer's, and hold a rescore."""
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    id = pipeline.deliver(certiverse())
    pipeline.process()
    ends(pipeline, id)
    assert pipeline.event(id).state is EventState.DEAD
    balanced(pipeline)
    pipeline.services.redis.delete(f"er:{TENANT}:gate")
    assert replay(pipeline, id) == (True, "received")
    pipeline.process()
    pipeline.sync()
    assert pipeline.event(id).result == "written"
    assert pipeline.services.redis.hget(f"er:{TENANT}:event:{id}", "doubt") is None
    assert len(pipeline.rhythm.letters()) == 1
    balanced(pipeline)


@pytest.mark.parametrize("id", ["evt_nothing", ""])
@BOTH
def test_an_unknown_id_does_not_move(pipeline: Pipeline, act: Act, id: str) -> None:
    assert act(pipeline, id) == (False, "")
