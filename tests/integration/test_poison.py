"""An event that ends every worker that claims it hurts only itself."""

import pytest

from schemas.event import EventState, Reason, Stage
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger import decisions
from worker.ledger.audit.books import books


@pytest.mark.parametrize("count", [1, 7, 100])
def test_a_poison_event_is_buried_alone_and_the_others_go_through(pipeline: Pipeline, count: int) -> None:
    ids = [pipeline.deliver(certiverse(f"dlv-{number}")) for number in range(count)]
    poison, crashes, claims = ids[count // 2], 0, 0
    while pipeline.event(poison).state is EventState.RECEIVED:
        claims += 1
        claim = pipeline.ledger.claim(TENANT, Stage.PROCESS, f"token-{claims}", 100, 0)
        claimed = [work.id for work in claim.works]
        if poison in claimed:
            crashes += 1  # the worker dies with the batch: nothing is settled, the lease runs out
        else:
            drops = [decisions.drop(id, EventState.IGNORED, "done") for id in claimed]
            pipeline.ledger.apply(TENANT, Stage.PROCESS, f"token-{claims}", drops)
        pipeline.due_now()
        assert claims < 60
    assert pipeline.event(poison).reason is Reason.WORKER_KILLER
    assert crashes <= {1: 3, 7: 5, 100: 9}[count]
    for _ in range(20):  # each ends at once: a hint that nobody takes here is waiting
        pipeline.process()
    states = {pipeline.event(id).state for id in ids if id != poison}
    assert states <= {EventState.IGNORED, EventState.READY}
    assert books(pipeline.services.redis, TENANT).differences == ()


def test_workers_that_are_restarted_again_and_again_bury_nothing(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    id = pipeline.deliver(certiverse())
    for restart in range(2):
        pipeline.ledger.claim(TENANT, Stage.PROCESS, f"process-{restart}", 100, 0)
        pipeline.due_now()
    pipeline.process()
    for restart in range(2):
        pipeline.ledger.claim(TENANT, Stage.SYNC, f"sync-{restart}", 100, 0)
        pipeline.due_now()
    pipeline.sync()
    assert pipeline.event(id).state is EventState.SYNCED


def test_a_poison_event_is_not_replayed_by_its_sender(pipeline: Pipeline) -> None:
    id = pipeline.deliver(certiverse())
    while pipeline.event(id).state is EventState.RECEIVED:
        pipeline.ledger.claim(TENANT, Stage.PROCESS, "token", 100, 0)
        pipeline.due_now()
    assert pipeline.deliver(certiverse()) == id
    assert pipeline.event(id).state is EventState.DEAD
    assert pipeline.event(id).receipts == 2
