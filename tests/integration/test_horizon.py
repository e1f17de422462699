"""The horizon: 72 hours from the first attempt that reached Rhythm. The clock alone ends no event."""

from datetime import timedelta

import pytest

from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger import queries


@pytest.fixture
def old(pipeline: Pipeline) -> str:
    """An event that is ready, and whose first attempt was eighty hours ago."""
    pipeline.rhythm.seed(ORG, [registration()])
    id = pipeline.deliver(certiverse())
    pipeline.process()
    first = queries.redis_now(pipeline.services.redis) - timedelta(hours=80)
    attempted = {"attempts": 1, "first_attempt_at": int(first.timestamp() * 1000)}
    pipeline.services.redis.hset(f"er:{TENANT}:event:{id}", mapping=attempted)
    return id


def test_an_outage_longer_than_the_horizon_costs_an_event_nothing(pipeline: Pipeline, old: str) -> None:
    pipeline.rhythm.fault("status", status=503, times=None)
    pipeline.sync()
    event = pipeline.event(old)
    assert (event.state, event.reason, event.attempts) == (EventState.READY, Reason.RHYTHM_UNAVAILABLE, 1)
    pipeline.rhythm.clear_faults()
    pipeline.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 0)
    pipeline.due_now()
    pipeline.sync()
    assert pipeline.event(old).state is EventState.SYNCED


def test_an_attempt_that_fails_after_the_horizon_buries_its_event(pipeline: Pipeline, old: str) -> None:
    pipeline.rhythm.fault("status", status=500, kind="patch", times=None)
    pipeline.sync()
    event = pipeline.event(old)
    assert (event.state, event.reason) == (EventState.DEAD, Reason.RETRIES_EXPIRED)
    assert "rhythm_unavailable" in (event.detail or "")


def test_a_sweep_after_the_horizon_buries_nothing(pipeline: Pipeline, old: str) -> None:
    pipeline.ledger.sweep(TENANT, timedelta(0), 100)
    assert pipeline.event(old).state is EventState.READY
