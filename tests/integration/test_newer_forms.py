"""An older worker beside newer ones, as in an upgrade or a rollback: it leaves alone what it cannot read."""

from collections.abc import Callable

import pytest

from schemas.event import EventState
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger.work import Intent

Undo = Callable[[], object]


def newer_source(pipeline: Pipeline, id: str) -> Undo:
    event = f"er:{TENANT}:event:{id}"
    pipeline.services.redis.hset(event, "source", "a platform of next year")
    return lambda: pipeline.services.redis.hset(event, "source", "certiverse")


def newer_payload(pipeline: Pipeline, id: str) -> Undo:
    payload = f"er:{TENANT}:payload:{id}"
    stored: bytes = pipeline.services.redis.get(payload)  # type: ignore[assignment,unused-ignore]
    pipeline.services.redis.set(payload, b"\x7f" + stored[1:])
    return lambda: pipeline.services.redis.set(payload, stored)


def newer_intent(pipeline: Pipeline, id: str) -> Undo:
    event = f"er:{TENANT}:event:{id}"
    pipeline.services.redis.hset(event, "intent", '{"registration": "reg-1", "base": "1", "values": "{}", "more": 1}')
    return lambda: pipeline.services.redis.hdel(event, "intent")


@pytest.mark.parametrize(
    ("newer", "stage"),
    [(newer_source, "process"), (newer_payload, "process"), (newer_payload, "sync"), (newer_intent, "sync")],
)
def test_it_waits_spends_nothing_and_goes_through_after_the_upgrade(
    pipeline: Pipeline, newer: Callable[[Pipeline, str], Undo], stage: str
) -> None:
    pipeline.rhythm.seed(ORG, [registration("reg-1"), registration("reg-2")])
    strange, other = (pipeline.deliver(certiverse(f"dlv-{number}", f"reg-{number}")) for number in (1, 2))
    if stage == "sync":
        pipeline.process()
    undo = newer(pipeline, strange)
    for _ in range(5):
        pipeline.due_now()
        pipeline.sync()
    assert pipeline.event(other).state is EventState.SYNCED, "the others of the batch go through"
    fields = pipeline.services.redis.hgetall(f"er:{TENANT}:event:{strange}")
    assert fields[b"state"] == (b"received" if stage == "process" else b"ready")
    assert b"attempts" not in fields
    assert b"expiries" not in fields, "no lease of it has expired: it is no poison"
    due = pipeline.services.redis.zscore(f"er:{TENANT}:due:{stage}", strange)
    assert due is not None
    assert due / 1000 - pipeline.services.redis.time()[0] > 50, "looked at again in a minute"
    undo()
    pipeline.due_now()
    pipeline.sync()
    assert pipeline.event(strange).state is EventState.SYNCED


def test_an_intent_of_0_1_0_whose_base_is_a_number_reads_the_same() -> None:
    stored = '{"registration": "reg-1", "base": %s, "values": "{}"}'
    assert Intent.from_json(stored % "7") == Intent.from_json(stored % '"7"') == Intent("reg-1", "7", "{}")
    assert Intent.from_json(stored % "null").base is None
